//! Tables and times for people.

use jiff::{Timestamp, tz::TimeZone};

use crate::api::view::Until;

/// Columns of text, aligned by their longest cell.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    #[must_use]
    pub fn new<const N: usize>(headings: [&str; N]) -> Self {
        Self { rows: vec![headings.iter().map(|heading| (*heading).to_owned()).collect()] }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// The table as text, without trailing blanks.
    #[must_use]
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut widths = vec![0; columns];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (width, cell) in widths.iter().zip(row) {
                line.push_str(&format!("{cell:<width$}  "));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Local wall time.
#[must_use]
pub fn local(time: Timestamp) -> String {
    time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// The end of a lock: wall time and what is left.
#[must_use]
pub fn until(end: Until, now: Timestamp) -> String {
    match end {
        Until::Never => "until released".to_owned(),
        Until::At(time) => {
            let left = time.as_second() - now.as_second();
            if left <= 0 {
                "over".to_owned()
            } else {
                format!("{} (in {})", local(time), span(left.unsigned_abs()))
            }
        }
    }
}

/// How long ago.
#[must_use]
pub fn ago(time: Timestamp, now: Timestamp) -> String {
    let passed = now.as_second() - time.as_second();
    format!("{} ({} ago)", local(time), span(passed.max(0).unsigned_abs()))
}

/// Seconds as `4m 12s`; the two largest units.
#[must_use]
pub fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let seconds = seconds % 60;
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {seconds}s"),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(["NAME", "N"]);
        table.row(["jon".to_owned(), "3".to_owned()]);
        table.row(["jürgen".to_owned(), "10".to_owned()]);
        assert_eq!(table.render(), "NAME    N\njon     3\njürgen  10\n");
    }

    #[test]
    fn spans_show_two_units() {
        assert_eq!(span(0), "0s");
        assert_eq!(span(252), "4m 12s");
        assert_eq!(span(3_600), "1h 0m");
        assert_eq!(span(90_000), "1d 1h");
    }

    #[test]
    fn ends_say_what_is_left() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let end = Timestamp::from_second(1_000_252).unwrap();
        assert!(until(Until::At(end), now).ends_with("(in 4m 12s)"));
        assert_eq!(until(Until::At(now), now), "over");
        assert_eq!(until(Until::Never, now), "until released");
    }
}
