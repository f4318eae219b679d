//! The observer's cost, as a table and as JSON.

use serde_json::{Value, json};

use super::Measured;

/// The names of the programs.
const NAMES: [&str; 2] = ["exec", "exit"];

/// How much slower a pair was with the observer, in percent: the value that this part of all pairs does not exceed.
fn slower(measured: &Measured, percent: usize) -> f64 {
    let mut all: Vec<f64> = measured
        .pairs
        .iter()
        .map(|pair| (pair.with.as_secs_f64() / pair.without.as_secs_f64() - 1.0) * 100.0)
        .collect();
    all.sort_unstable_by(f64::total_cmp);
    let place = (all.len() * percent).div_ceil(100).saturating_sub(1);
    all.get(place).copied().unwrap_or_default()
}

/// Programs a second, by the median of the turns.
fn rate(measured: &Measured, with: bool) -> f64 {
    let mut all: Vec<f64> = measured
        .pairs
        .iter()
        .map(|pair| {
            f64::from(measured.asked.execs) / if with { pair.with } else { pair.without }.as_secs_f64()
        })
        .collect();
    all.sort_unstable_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or_default()
}

/// Nanoseconds of all programs together that one exec and exit pays.
fn both(measured: &Measured) -> f64 {
    measured.runs.iter().map(|runs| runs.each()).sum()
}

fn round(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// For programs.
#[must_use]
pub fn json(measured: &Measured) -> Value {
    let runs: Vec<Value> = NAMES
        .into_iter()
        .zip(measured.runs)
        .map(|(name, runs)| json!({"program": name, "runs": runs.count, "ns": round(runs.each())}))
        .collect();
    json!({
        "pairs": measured.asked.pairs,
        "execs": measured.asked.execs,
        "rate": {"without": round(rate(measured, false)), "with": round(rate(measured, true))},
        "slower_percent": {
            "p25": round(slower(measured, 25)),
            "p50": round(slower(measured, 50)),
            "p75": round(slower(measured, 75)),
        },
        "programs": runs,
        "ns": round(both(measured)),
    })
}

/// For people.
#[must_use]
pub fn table(measured: &Measured) -> String {
    let asked = measured.asked;
    let mut text = format!(
        "An unwatched program, started {} times with and without the observer in turns, {} pairs\n\n\
         {:<10} {:>12}\n{:<10} {:>12.0}\n{:<10} {:>12.0}\n\n\
         slower with it: {:.2} % (median of the pairs; a quarter below {:.2}, a quarter above {:.2})\n\n\
         {:<10} {:>12} {:>8}\n",
        asked.execs,
        asked.pairs,
        "observer",
        "programs/s",
        "without",
        rate(measured, false),
        "with",
        rate(measured, true),
        slower(measured, 50),
        slower(measured, 25),
        slower(measured, 75),
        "program",
        "runs",
        "ns each",
    );
    for (name, runs) in NAMES.into_iter().zip(measured.runs) {
        text += &format!("{name:<10} {:>12} {:>8.0}\n", runs.count, runs.each());
    }
    text + &format!("{:<10} {:>12} {:>8.0}\n", "together", "", both(measured))
}
