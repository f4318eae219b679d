//! What a guest says over its serial line, and what that counts for.
//!
//! A result is a line `vm: NAME WORD TEXT`; the last line is `vm: end`. Without it the guest did not come to its end.

use crate::count::Count;
use std::fmt::Write as _;

const MARK: &str = "vm: ";
const END: &str = "end";

/// What is tried on each kernel, in this order: the story counts trips, so nothing may trip before it.
pub const CHECKS: [&str; 9] = ["loads", "story", "calls", "exit", FILTER, VLAN, OBSERVER, TAMPER, REBOOT];
/// The check of the filter.
pub const FILTER: &str = "filter";
/// The check of the filter behind VLAN devices.
pub const VLAN: &str = "vlan";
/// The check of the observer.
pub const OBSERVER: &str = "observer";
/// The check of tamper evidence.
pub const TAMPER: &str = "tamper";
/// The check that two boots make up.
pub const REBOOT: &str = "reboot";

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it must be.
    Passed,
    /// Not so.
    Failed,
    /// Could not be tried.
    Skipped,
}

impl Outcome {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Passed, "passed"), (Self::Failed, "FAILED"), (Self::Skipped, "skipped")];

    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(outcome, _)| *outcome == self).map_or("", |(_, word)| word)
    }

    fn read(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == word).map(|(outcome, _)| *outcome)
    }
}

/// The line of one result.
#[must_use]
pub fn line(check: &str, outcome: Outcome, text: &str) -> String {
    format!("{MARK}{check} {} {}", outcome.word(), text.replace(['\n', '\r'], " "))
}

/// The last line.
#[must_use]
pub fn end() -> String {
    format!("{MARK}{END}")
}

/// What was read of one guest.
#[derive(Debug, Default)]
pub struct Report {
    /// The kernel's own name for itself.
    pub kernel: Option<String>,
    results: Vec<(String, Outcome, String)>,
    ended: bool,
}

impl Report {
    /// Reads everything the guest said.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let mut report = Self::default();
        for line in text.lines() {
            let Some(rest) = line.trim_end().strip_prefix(MARK) else { continue };
            if rest == END {
                report.ended = true;
            } else if let Some(name) = rest.strip_prefix("kernel ") {
                report.kernel = Some(name.to_owned());
            } else if let Some((check, rest)) = rest.split_once(' ') {
                let (word, text) = rest.split_once(' ').unwrap_or((rest, ""));
                if let Some(outcome) = Outcome::read(word) {
                    report.results.push((check.to_owned(), outcome, text.to_owned()));
                }
            }
        }
        report
    }

    /// Each check once: one without a result has failed.
    #[must_use]
    pub fn count(&self) -> Count {
        let mut count = Count::default();
        for check in CHECKS {
            match self.of(check) {
                Some((Outcome::Passed, _)) => count.passed += 1,
                Some((Outcome::Skipped, _)) => count.skipped += 1,
                Some((Outcome::Failed, _)) | None => count.failed += 1,
            }
        }
        if !self.ended && count.failed == 0 {
            count.failed = 1;
        }
        count
    }

    /// One line for people.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = String::new();
        for check in CHECKS {
            let separator = if text.is_empty() { "" } else { "; " };
            let (word, detail) = match self.of(check) {
                Some((outcome, detail)) => (outcome.word(), detail),
                None => ("FAILED", "no result"),
            };
            // Writing to a string cannot fail.
            let _ = write!(text, "{separator}{check} {word}");
            if !detail.is_empty() {
                let _ = write!(text, " ({detail})");
            }
        }
        if !self.ended {
            text.push_str("; the guest did not come to its end");
        }
        text
    }

    fn of(&self, check: &str) -> Option<(Outcome, &str)> {
        let mut results = self.results.iter();
        results.find(|(name, ..)| name == check).map(|(_, outcome, text)| (*outcome, text.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut text = String::from("noise\nvm: kernel 6.1.0\n");
        for check in CHECKS {
            text += &(line(check, Outcome::Passed, "a\nb") + "\r\n");
        }
        text += &end();
        let report = Report::read(&text);
        assert_eq!(report.kernel.as_deref(), Some("6.1.0"));
        assert_eq!(report.count(), Count { passed: CHECKS.len() as u32, failed: 0, skipped: 0 });
        assert!(report.summary().starts_with("loads passed (a b); story passed"));
    }

    #[test]
    fn a_guest_that_falls_silent_has_failed() {
        let report = Report::read(&line("loads", Outcome::Passed, ""));
        assert_eq!(report.count(), Count { passed: 1, failed: CHECKS.len() as u32 - 1, skipped: 0 });
        let whole: Vec<_> = CHECKS.iter().map(|check| line(check, Outcome::Passed, "")).collect();
        assert_eq!(Report::read(&whole.join("\n")).count().failed, 1, "the last line is missing");
    }
}
