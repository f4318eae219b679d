//! The run, as a table for people and as JSON for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::run::{Measured, Row};
use super::stacks::{Path, Stack};

/// As one JSON object; times in nanoseconds.
#[must_use]
pub fn json(measured: &Measured) -> Value {
    let rows: Vec<Value> = measured
        .rows
        .iter()
        .map(|row| {
            json!({
                "stack": row.stack.name(),
                "path": row.path.name(),
                "p50_ns": row.calls.median(),
                "p99_ns": row.calls.high(),
                "added_p50_ns": added(measured, row),
                "added_of_faillock": of_faillock(measured, row),
                "handle_p50_ns": row.handle.median(),
                "cold_p50_ns": row.cold.median(),
                "cold_p99_ns": row.cold.high(),
            })
        })
        .collect();
    let (before, after) = &measured.gate;
    let calls = &measured.calls;
    json!({
        "rounds": measured.rounds,
        "machine": machine(),
        "load_before": measured.load.0,
        "load_after": measured.load.1,
        "attempts": rows,
        "gate": {
            "right_p50_ns": calls.right.median(),
            "right_p99_ns": calls.right.high(),
            "wrong_p50_ns": calls.wrong.median(),
            "wrong_p99_ns": calls.wrong.high(),
            "one_call_kept_open_p50_ns": calls.open.median(),
            "one_call_kept_open_p99_ns": calls.open.high(),
            "share_right": share(measured, Path::Right),
            "share_wrong": share(measured, Path::Wrong),
            "in_kernel_calls": after.calls_since(before),
            "in_kernel_mean_ns": after.mean_since(before),
            "in_kernel_p50_at_most_ns": after.percentile_since(before, 50),
            "in_kernel_p99_at_most_ns": after.percentile_since(before, 99),
        },
    })
}

/// The machine: kernel, processor, how many, and all of it in one line.
#[must_use]
pub fn machine() -> Value {
    let (kernel, processor) = (first_line("/proc/sys/kernel/osrelease"), processor());
    // Of the machine, not of this thread, which may keep to one.
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processors = text.lines().filter(|line| line.starts_with("processor")).count();
    json!({
        "text": format!("Linux {kernel}, {processors} processors, {processor}"),
        "kernel": kernel,
        "processor": processor,
        "processors": processors,
    })
}

/// For people; times in microseconds.
#[must_use]
pub fn table(measured: &Measured) -> String {
    let mut text = format!(
        "{} rounds on {}, {} processors, Linux {}; load {} before, {} after\n\n",
        measured.rounds,
        processor(),
        std::thread::available_parallelism().map_or(0, usize::from),
        first_line("/proc/sys/kernel/osrelease"),
        measured.load.0,
        measured.load.1,
    );
    line(&mut text, ["", "stack", "p50 µs", "p99 µs", "adds µs", "of faillock", "handle µs", "cold µs"]);
    for path in [Path::Right, Path::Wrong] {
        for row in measured.rows.iter().filter(|row| row.path == path) {
            let ratio = of_faillock(measured, row);
            let (adds, ratio) = match row.stack {
                Stack::None => (String::new(), String::new()),
                _ => (micro_signed(added(measured, row)), format!("{ratio:.2}")),
            };
            line(
                &mut text,
                [
                    path.name(),
                    row.stack.name(),
                    &micro(row.calls.median()),
                    &micro(row.calls.high()),
                    &adds,
                    &ratio,
                    &micro(row.handle.median()),
                    &micro(row.cold.median()),
                ],
            );
        }
    }
    let (before, after) = &measured.gate;
    let calls = &measured.calls;
    let _ = write!(
        text,
        "\nright: pam_authenticate and pam_setcred; wrong: pam_authenticate. adds: over no module, same round, median.\n\
         handle: pam_start and pam_end. cold: all of it, the first in a new process. The line of pam_portcullis also\n\
         prompts for the password, which nothing else does here; with charge=begin it does not.\n\n\
         the gate by itself, as the module calls it (pin opened for each call), p50 and p99:\n\
         \u{20} right: admit, resolve, confirm  {:>6} {:>6} µs, {:.0} % of what the line adds\n\
         \u{20} wrong: admit, resolve           {:>6} {:>6} µs, {:.0} %\n\
         \u{20} one call, gate kept open        {:>6} {:>6} µs\n\
         in the kernel, by the gate's own histogram: {} calls, mean {} µs, p50 at most {}, p99 at most {} µs\n",
        micro(calls.right.median()),
        micro(calls.right.high()),
        share(measured, Path::Right) * 100.0,
        micro(calls.wrong.median()),
        micro(calls.wrong.high()),
        share(measured, Path::Wrong) * 100.0,
        micro(calls.open.median()),
        micro(calls.open.high()),
        after.calls_since(before),
        micro(after.mean_since(before)),
        micro(after.percentile_since(before, 50)),
        micro(after.percentile_since(before, 99)),
    );
    text
}

fn line(text: &mut String, columns: [&str; 8]) {
    let [path, stack, rest @ ..] = columns;
    let _ = write!(text, "{path:<6} {stack:<28}");
    for column in rest {
        let _ = write!(text, " {column:>11}");
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
}

/// Median of what the row's stack adds, round by round, in nanoseconds.
fn added(measured: &Measured, row: &Row) -> i64 {
    find(measured, Stack::None, row.path).map_or(0, |base| row.calls.over(&base.calls))
}

/// What the row's stack adds, as a part of what pam_faillock adds.
fn of_faillock(measured: &Measured, row: &Row) -> f64 {
    let faillock = find(measured, Stack::Faillock, row.path).map_or(0, |row| added(measured, row));
    ratio(added(measured, row) as f64, faillock as f64)
}

/// The gate's calls, as a part of what our line adds.
fn share(measured: &Measured, path: Path) -> f64 {
    let calls = match path {
        Path::Right => measured.calls.right.median(),
        Path::Wrong => measured.calls.wrong.median(),
    };
    let adds = find(measured, Stack::Portcullis, path).map_or(0, |row| added(measured, row));
    ratio(calls as f64, adds as f64)
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { (part / whole * 1000.0).round() / 1000.0 } else { 0.0 }
}

fn find(measured: &Measured, stack: Stack, path: Path) -> Option<&Row> {
    measured.rows.iter().find(|row| row.stack == stack && row.path == path)
}

fn micro(nanoseconds: u64) -> String {
    format!("{:.1}", nanoseconds as f64 / 1000.0)
}

fn micro_signed(nanoseconds: i64) -> String {
    format!("{:+.1}", nanoseconds as f64 / 1000.0)
}

fn first_line(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().lines().next().unwrap_or("unknown").to_owned()
}

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(|| "unknown processor".into(), |(_, name)| name.to_owned())
}
