//! `cargo xtask bench flood`: what an innocent client gets while a flood runs. Runs `portcullis-bench-flood` in a sandbox
//! whose agent filters two of its interfaces, one in XDP and one on tcx.

use super::inside::Inside;
use crate::error::{Error, Result};
use crate::workspace::Workspace;
use std::path::PathBuf;

/// How to measure it.
#[derive(Clone, Debug, clap::Args)]
pub struct Flood {
    /// Packets a second of the floods that are made of packets; at most 10,000,000
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', default_value = "100000,1000000")]
    rates: Vec<u32>,
    /// How often each row is measured
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long each time, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(50..=60_000))]
    time: u32,
    /// JSON instead of tables
    #[arg(long)]
    json: bool,
    /// Make tables of a result that was saved, and measure nothing
    #[arg(long, value_name = "FILE")]
    show: Option<PathBuf>,
}

/// Builds and measures; the status of the program inside.
pub fn bench(workspace: &Workspace, options: &Flood) -> Result<u8> {
    let rates: Vec<String> = options.rates.iter().map(u32::to_string).collect();
    let inside = Inside {
        program: "portcullis-bench-flood",
        saved: "flood",
        configuration,
        arguments: vec![rates.join(","), options.rounds.to_string(), options.time.to_string()],
        json: options.json,
    };
    if let Some(file) = &options.show {
        return inside.show(workspace, file);
    }
    if options.rates.is_empty() || options.rates.iter().any(|rate| !(1..=10_000_000).contains(rate)) {
        return Err(Error::Refused {
            what: "--rates takes packets a second, from 1 to 10,000,000".into(),
            advice: "write them with commas between, as in 100000,1000000".into(),
        });
    }
    inside.measure(workspace)
}

/// Both of the filter's hooks, on interfaces that the program inside makes, with an allow-list, as every host has one.
fn configuration(token: &str) -> String {
    format!(
        "break_glass = \"admin\"\n[filter]\nenabled = true\ninterfaces = [\"{token}x\", \"{token}t\"]\n\
         xdp = [\"{token}x\"]\nallow = [\"192.0.2.0/24\", \"198.51.100.7/32\"]\n"
    )
}
