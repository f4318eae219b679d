//! The same sources in every list: the first N places ([`crate::traffic::scene`]).

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use super::rows::{Row, Rows};
use crate::Result;
use crate::system::write;
use crate::traffic::must;
use crate::traffic::programs::map_bytes;
use crate::traffic::scene::{source_4, source_6};

/// Entries of one transaction of nftables, at most.
const TRANSACTION: usize = 100_000;
/// Elements of one statement in it.
const STATEMENT: usize = 1_000;
const LIST: &str = "/run/bench.list";

/// A list that grew.
#[derive(Clone, Copy, Debug)]
pub struct Filled {
    /// Whose.
    pub row: Row,
    /// By how many entries.
    pub entries: u32,
    /// How long that took, in seconds.
    pub seconds: f64,
    /// Bytes more than before, as the kernel charges maps; none: not known.
    pub bytes: Option<u64>,
}

/// A source as people write it.
#[must_use]
pub fn word(six: bool, place: u32) -> String {
    if six {
        let net = Ipv6Addr::from(u128::from(source_6(place)) << 64);
        format!("{net}/64")
    } else {
        Ipv4Addr::from(source_4(place)).to_string()
    }
}

/// Adds `places` to every list that takes so many.
///
/// # Errors
/// What the programs say that fill them.
pub fn fill(rows: &mut Rows, places: &Range<u32>) -> Result<Vec<Filled>> {
    let entries = places.end - places.start;
    let six = rows.six;
    let mut filled = Vec::new();
    for place in 0..rows.ready.len() {
        let Some(ready) = rows.ready.get(place) else { continue };
        let row = ready.row;
        // One and the same list.
        let shared = matches!(row, Row::FilterTcx | Row::FilterClsact);
        if !row.lists() || shared || entries == 0 || places.end > row.most() {
            continue;
        }
        eprint!("\r\x1b[Kfilling: {} up to {}", row.name(), places.end);
        let (seconds, bytes) = match row {
            Row::Filter => {
                let mut text = String::new();
                for place in places.clone() {
                    let _ = writeln!(text, "{}", word(six, place));
                }
                write(Path::new(LIST), &text)?;
                let before = map_bytes(&rows.filter)?;
                let begun = Instant::now();
                must("portcullis", &["drop", "--file", LIST])?;
                let seconds = begun.elapsed().as_secs_f64();
                (seconds, Some(map_bytes(&rows.filter)?.saturating_sub(before)))
            }
            Row::Hash => {
                let before = rows.programs.hash_bytes(six)?;
                let begun = Instant::now();
                rows.programs.list(six, places.clone())?;
                let seconds = begun.elapsed().as_secs_f64();
                (seconds, Some(rows.programs.hash_bytes(six)?.saturating_sub(before)))
            }
            Row::Iptables => {
                let mut text = String::from("*filter\n");
                for place in places.clone() {
                    let _ = writeln!(text, "-I INPUT 1 -s {} -j DROP", word(six, place));
                }
                text += "COMMIT\n";
                write(Path::new(LIST), &text)?;
                let program = if six { "ip6tables-restore" } else { "iptables-restore" };
                let begun = Instant::now();
                ready.inside(program, &["--noflush", LIST])?;
                (begun.elapsed().as_secs_f64(), None)
            }
            _ => {
                let table = if row == Row::NftInput { "inet" } else { "netdev" };
                let all: Vec<String> =
                    places.clone().map(|place| word(six, place).trim_end_matches("/64").to_owned()).collect();
                let mut seconds = 0.0;
                for part in all.chunks(TRANSACTION) {
                    let mut text = String::new();
                    for elements in part.chunks(STATEMENT) {
                        let _ = writeln!(text, "add element {table} bench bad {{ {} }}", elements.join(", "));
                    }
                    let begun = Instant::now();
                    ready.nft(&text)?;
                    seconds += begun.elapsed().as_secs_f64();
                }
                (seconds, None)
            }
        };
        filled.push(Filled { row, entries, seconds, bytes });
    }
    eprint!("\r\x1b[K");
    Ok(filled)
}
