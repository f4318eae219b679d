//! The run as JSON, and tables made from that JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::plan::{Asked, Case, Row, Stretch};
use crate::bench::report::machine;

/// As one JSON object. Times in milliseconds, rates a second; medians of the rounds, percentiles of all rounds together.
#[must_use]
pub fn json(asked: &Asked, cases: &[Case]) -> Value {
    json!({
        "bench": "flood",
        "machine": machine(),
        "rounds": asked.rounds,
        "seconds": asked.time.as_secs_f64(),
        "cases": cases.iter().map(case).collect::<Vec<Value>>(),
    })
}

fn case(case: &Case) -> Value {
    let quiet = case.rows.iter().find(|row| row.defence.is_none());
    json!({
        "flood": case.kind.name(),
        "packets_a_second": case.rate,
        "request": case.kind.request().name(),
        "rows": case.rows.iter().map(|row| self::row(row, quiet)).collect::<Vec<Value>>(),
    })
}

fn row(row: &Row, quiet: Option<&Row>) -> Value {
    let name = row.defence.map_or("(the flood does not arrive)", super::scene::Defence::name);
    let Some(answer) = row.answer else { return json!({ "defence": name, "answer": Value::Null }) };
    let rates: Vec<f64> = row.stretches.iter().map(answered).collect();
    // Round by round: what else the machine does falls on both.
    let relative = quiet.map_or_else(Vec::new, |quiet| {
        row.stretches
            .iter()
            .zip(&quiet.stretches)
            .map(|(own, quiet)| answered(own) / answered(quiet))
            .collect()
    });
    let mut times: Vec<u32> =
        row.stretches.iter().flat_map(|stretch| stretch.answers.times.iter().copied()).collect();
    times.sort_unstable();
    let percentile = |part: usize| {
        let place = (times.len() * part / 100).min(times.len().saturating_sub(1));
        times.get(place).map(|micros| f64::from(*micros) / 1000.0)
    };
    json!({
        "defence": name,
        "answer": answer,
        "sent_a_second": median(row.stretches.iter().map(|stretch| stretch.sent).collect()).map(f64::round),
        "requests_a_second": median(rates).map(f64::round),
        "relative": median(relative).map(|ratio| (ratio * 100.0).round() / 100.0),
        "p50_ms": percentile(50),
        "p99_ms": percentile(99),
        "failed": row.stretches.iter().map(|stretch| stretch.answers.failed).sum::<u64>(),
        "answered": times.len(),
    })
}

fn answered(stretch: &Stretch) -> f64 {
    stretch.answers.times.len() as f64 / stretch.answers.seconds.max(1e-9)
}

fn median(mut all: Vec<f64>) -> Option<f64> {
    all.retain(|number| number.is_finite());
    all.sort_unstable_by(f64::total_cmp);
    all.get(all.len() / 2).copied()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn array<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The tables.
#[must_use]
pub fn tables(run: &Value) -> String {
    let machine = run.pointer("/machine/text").and_then(Value::as_str).unwrap_or_default();
    let mut out = format!(
        "{machine}: {} rounds of {} s a row; medians of the rounds, p50 and p99 of all of them\n",
        run.get("rounds").unwrap_or(&Value::Null),
        run.get("seconds").unwrap_or(&Value::Null),
    );
    for case in array(run, "cases") {
        let rate = case.get("packets_a_second").and_then(Value::as_f64);
        let rate = rate.map_or_else(String::new, |rate| format!(", {rate} a second"));
        let _ = writeln!(out, "\n{}{rate}; innocents ask: {}\n", text(case, "flood"), text(case, "request"));
        out += "| defence | what it does | sent/s | requests/s | of none | p50 ms | p99 ms | failed |\n";
        out += "|---|---|---|---|---|---|---|---|\n";
        for row in array(case, "rows") {
            let name = text(row, "defence");
            if row.get("answer").is_none_or(Value::is_null) {
                let _ = writeln!(out, "| {name} | no answer yet; not measured | | | | | | |");
                continue;
            }
            let number = |key: &str, digits: usize| {
                let number = row.get(key).and_then(Value::as_f64);
                number.map_or_else(|| "–".to_owned(), |number| format!("{number:.digits$}"))
            };
            let _ = writeln!(
                out,
                "| {name} | {} | {} | {} | {} | {} | {} | {} |",
                text(row, "answer"),
                number("sent_a_second", 0),
                number("requests_a_second", 0),
                number("relative", 2),
                number("p50_ms", 2),
                number("p99_ms", 2),
                number("failed", 0),
            );
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::floods::Kind;
    use super::super::innocents::Answers;
    use super::super::scene::Defence;
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_row_without_an_answer_has_no_figure_and_others_stand_beside_the_quiet_one() {
        let stretch = |count: usize, failed| Stretch {
            sent: 100_000.0,
            answers: Answers { seconds: 1.0, times: vec![2_000; count], failed },
        };
        let row = |defence, answer, stretches| Row { defence, answer, stretches };
        let case = Case {
            kind: Kind::SynForged,
            rate: Some(100_000),
            rows: vec![
                row(None, Some("the flood does not arrive"), vec![stretch(100, 0), stretch(200, 0)]),
                row(Some(Defence::Input), Some("a limit"), vec![stretch(50, 1), stretch(20, 2)]),
                row(Some(Defence::Xdp), None, Vec::new()),
            ],
        };
        let asked = Asked {
            token: String::new(),
            object: "x".into(),
            rates: vec![100_000],
            rounds: 2,
            time: Duration::from_secs(1),
            processors: (0, 1),
        };
        let run = json(&asked, &[case]);
        assert_eq!(run.pointer("/cases/0/rows/1/relative"), Some(&json!(0.5)));
        let text = tables(&run);
        assert!(
            text.contains("| nftables input | a limit | 100000 | 50 | 0.50 | 2.00 | 2.00 | 3 |"),
            "{text}"
        );
        assert!(text.contains("| Portcullis, XDP | no answer yet; not measured |"), "{text}");
    }
}
