//! The run as JSON, and tables made from that JSON: Markdown, so that they read in a terminal and in docs/ alike.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::plan::{Asked, Cell, From, Size};
use super::rows::Row;
use crate::bench::report::machine;
use crate::traffic::watch::Stretch;

/// As one JSON object. Costs in nanoseconds; ratios to the bare XDP_DROP of the same round, as the median.
#[must_use]
pub fn json(asked: &Asked, sizes: &[Size]) -> Value {
    json!({
        "bench": "filter",
        "family": if asked.six { "IPv6 /64" } else { "IPv4" },
        "machine": machine(),
        "rounds": asked.rounds,
        "seconds": asked.time.as_secs_f64(),
        "sizes": sizes.iter().map(size).collect::<Vec<Value>>(),
    })
}

fn size(size: &Size) -> Value {
    let cell = |cell: &Cell| {
        let costs: Vec<f64> = cell.stretches.iter().map(Stretch::cost).collect();
        let base = size.cells.iter().find(|other| (other.row, other.from) == (Row::Bare, cell.from));
        let ratios = base.map_or_else(Vec::new, |base| {
            cell.stretches.iter().zip(&base.stretches).map(|(own, base)| own.cost() / base.cost()).collect()
        });
        let rates = cell.stretches.iter().map(|stretch| stretch.rate()).collect();
        let leak = cell.stretches.iter().map(|stretch| stretch.leak()).fold(0.0, f64::max);
        json!({
            "row": cell.row.name(),
            "from": cell.from.name(),
            "ns": rounded(median(costs.clone()), 1.0),
            "ns_least": rounded(costs.iter().copied().fold(f64::INFINITY, f64::min), 1.0),
            "ns_most": rounded(costs.iter().copied().fold(0.0, f64::max), 1.0),
            "ratio": rounded(median(ratios), 100.0),
            "million_packets_a_second": rounded(median(rates), 100.0),
            // Of a miss the rest is dropped behind the list: nothing can get through.
            "through": if cell.from == From::Clean { Value::Null } else { json!(rounded(leak, 1e6)) },
        })
    };
    let filled = size.filled.iter().map(|filled| {
        json!({
            "row": filled.row.name(),
            "entries": filled.entries,
            "seconds": rounded(filled.seconds, 1000.0),
            "bytes_an_entry": filled.bytes.map(|bytes| rounded(bytes as f64 / f64::from(filled.entries), 10.0)),
        })
    });
    let tested = size.tested.iter().map(
        |tested| json!({ "row": tested.row.name(), "from": tested.from.name(), "ns": tested.nanoseconds }),
    );
    json!({
        "entries": size.entries,
        "filter_map_bytes": size.bytes,
        "cells": size.cells.iter().map(cell).collect::<Vec<Value>>(),
        "filled": filled.collect::<Vec<Value>>(),
        "tested": tested.collect::<Vec<Value>>(),
    })
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_unstable_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}

fn rounded(number: f64, by: f64) -> f64 {
    (number * by).round() / by
}

/// With commas.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn text(value: Option<&Value>) -> String {
    value.and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn array(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn number(value: &Value, key: &str) -> Option<f64> {
    value.get(key).and_then(Value::as_f64)
}

/// The tables.
#[must_use]
pub fn tables(run: &Value) -> String {
    let mut out = format!(
        "{}, {}: {} rounds of {} s a row; ns a packet (ratio to bare XDP_DROP in the same round), medians\n",
        text(run.pointer("/machine/text")),
        text(run.get("family")),
        run.get("rounds").unwrap_or(&Value::Null),
        run.get("seconds").unwrap_or(&Value::Null),
    );
    let sizes = array(run.get("sizes"));
    for (title, kinds) in [
        ("sources on the list", [From::All, From::Few].as_slice()),
        ("sources not on it, dropped behind it", [From::Clean].as_slice()),
    ] {
        let mut columns: Vec<(u64, From)> = Vec::new();
        for size in sizes {
            let entries = size.get("entries").and_then(Value::as_u64).unwrap_or(0);
            for from in kinds {
                if find(size, Row::Bare.name(), *from).is_some() {
                    columns.push((entries, *from));
                }
            }
        }
        let _ = write!(out, "\n| {title} |");
        for (entries, from) in &columns {
            let of = if *from == From::Few { "1,000 of " } else { "" };
            let _ = write!(out, " {of}{} |", grouped(*entries));
        }
        let last = if kinds.contains(&From::All) { " got through, at most |" } else { "" };
        let _ = writeln!(out, "{last}");
        let _ = writeln!(
            out,
            "|---|{}{}",
            "---|".repeat(columns.len()),
            if last.is_empty() { "" } else { "---|" }
        );
        for row in Row::ALL {
            let cells: Vec<Option<&Value>> = columns
                .iter()
                .map(|(entries, from)| {
                    let size = sizes.iter().find(|size| size.get("entries") == Some(&json!(entries)))?;
                    find(size, row.name(), *from)
                })
                .collect();
            if cells.iter().all(Option::is_none) {
                continue;
            }
            let _ = write!(out, "| {} |", row.name());
            let mut through = 0.0_f64;
            for cell in &cells {
                let Some(cell) = cell else {
                    out += " – |";
                    continue;
                };
                through = through.max(number(cell, "through").unwrap_or(0.0));
                let (ns, ratio) = (number(cell, "ns").unwrap_or(0.0), number(cell, "ratio").unwrap_or(0.0));
                let _ = write!(out, " {} ({ratio:.2}) |", grouped(ns as u64));
            }
            if !last.is_empty() {
                let _ = write!(out, " {:.2} % |", through * 100.0);
            }
            out.push('\n');
        }
    }
    out + &programs(sizes) + &lists(sizes)
}

fn find<'a>(size: &'a Value, row: &str, from: From) -> Option<&'a Value> {
    let is = |cell: &&Value, key: &str, word: &str| cell.get(key).is_some_and(|value| value == word);
    array(size.get("cells")).iter().find(|cell| is(cell, "row", row) && is(cell, "from", from.name()))
}

fn programs(sizes: &[Value]) -> String {
    let mut out = "\nThe programs alone (BPF_PROG_TEST_RUN, random sources; less a program that only drops), ns a packet:\n\n\
                   | entries | row | sources | ns |\n|---|---|---|---|\n"
        .to_owned();
    for size in sizes {
        for tested in array(size.get("tested")) {
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} |",
                grouped(size.get("entries").and_then(Value::as_u64).unwrap_or(0)),
                text(tested.get("row")),
                text(tested.get("from")),
                tested.get("ns").unwrap_or(&Value::Null)
            );
        }
    }
    out
}

fn lists(sizes: &[Value]) -> String {
    let mut out = "\nFilling the lists:\n\n| list of | row | entries added | seconds | bytes an entry |\n|---|---|---|---|---|\n"
        .to_owned();
    for size in sizes {
        for filled in array(size.get("filled")) {
            let bytes = filled.get("bytes_an_entry").and_then(Value::as_f64);
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} |",
                grouped(size.get("entries").and_then(Value::as_u64).unwrap_or(0)),
                text(filled.get("row")),
                grouped(filled.get("entries").and_then(Value::as_u64).unwrap_or(0)),
                filled.get("seconds").unwrap_or(&Value::Null),
                bytes.map_or_else(|| "–".to_owned(), |bytes| bytes.to_string()),
            );
        }
    }
    for size in sizes {
        let bytes = size.get("filter_map_bytes").and_then(Value::as_u64).unwrap_or(0);
        let entries = size.get("entries").and_then(Value::as_u64).unwrap_or(0);
        let _ =
            writeln!(out, "\nAll maps of the filter with {}: {} bytes.", grouped(entries), grouped(bytes));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::filter::plan::Tested;
    use std::time::Duration;

    fn stretch(busy: u64, through: u64) -> Stretch {
        Stretch { seconds: 1.0, busy, received: 1_000_000, through }
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let cell = |row, costs: [u64; 3]| Cell {
            row,
            from: From::All,
            stretches: costs.map(|cost| stretch(cost * 1_000_000, 1000)).to_vec(),
        };
        let size = Size {
            entries: 1000,
            filled: Vec::new(),
            bytes: 1_234_567,
            cells: vec![cell(Row::Bare, [100, 200, 100]), cell(Row::Filter, [150, 300, 900])],
            tested: vec![Tested { row: Row::Filter, from: From::All, nanoseconds: 7 }],
        };
        let asked = Asked {
            token: String::new(),
            object: "x".into(),
            six: false,
            sizes: vec![1000],
            rounds: 3,
            time: Duration::from_secs(1),
            processors: (0, 1),
        };
        let run = json(&asked, &[size]);
        assert_eq!(run.pointer("/sizes/0/cells/1/ratio"), Some(&json!(1.5)));
        let text = tables(&run);
        assert!(text.contains("| Portcullis, XDP | 300 (1.50) | 0.10 % |"), "{text}");
        assert!(text.contains("All maps of the filter with 1,000: 1,234,567 bytes."), "{text}");
    }
}
