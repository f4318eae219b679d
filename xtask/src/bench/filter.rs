//! `cargo xtask bench filter`: what a packet costs that is dropped, and what the list costs one that is not on it. Runs
//! `portcullis-bench-filter` in a sandbox whose agent filters two of its interfaces, one in XDP and one on tcx.

use super::inside::Inside;
use crate::error::{Error, Result};
use crate::workspace::Workspace;
use std::path::PathBuf;

/// How to measure it.
#[derive(Clone, Debug, clap::Args)]
pub struct Filter {
    /// Lengths of the list, from short to long; at most 1,048,576
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', default_value = "1,1000,10000,100000,1000000")]
    sizes: Vec<u32>,
    /// 4, or 6 for IPv6 /64
    #[arg(long, value_name = "4|6", default_value_t = 4, value_parser = clap::value_parser!(u8).range(4..=6))]
    family: u8,
    /// How often each row is measured
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long each time, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(50..=60_000))]
    time: u32,
    /// JSON instead of tables
    #[arg(long)]
    json: bool,
    /// Make tables of a result that was saved, and measure nothing
    #[arg(long, value_name = "FILE")]
    show: Option<PathBuf>,
}

/// Builds and measures; the status of the program inside.
pub fn bench(workspace: &Workspace, options: &Filter) -> Result<u8> {
    let sizes: Vec<String> = options.sizes.iter().map(u32::to_string).collect();
    let inside = Inside {
        program: "portcullis-bench-filter",
        saved: &format!("filter-ipv{}", options.family),
        configuration,
        arguments: vec![
            options.family.to_string(),
            sizes.join(","),
            options.rounds.to_string(),
            options.time.to_string(),
        ],
        json: options.json,
    };
    if let Some(file) = &options.show {
        return inside.show(workspace, file);
    }
    let longest = options.sizes.iter().max().copied().unwrap_or(0);
    if longest > 1 << 20 || longest == 0 || !options.sizes.is_sorted() || options.sizes.contains(&0) {
        return Err(Error::Refused {
            what: "--sizes takes lengths from 1 to 1,048,576".into(),
            advice: "write them from short to long".into(),
        });
    }
    inside.measure(workspace)
}

/// Both of the filter's hooks, on interfaces that the program inside makes.
fn configuration(token: &str) -> String {
    // Not on the closed end of the XDP row: there a program of the benchmark asks the filter.
    // With an allow-list, as every host has one.
    format!(
        "break_glass = \"admin\"\n[filter]\nenabled = true\ninterfaces = [\"{token}xo\", \"{token}to\", \"{token}tc\"]\n\
         xdp = [\"{token}xo\"]\nallow = [\"192.0.2.0/24\", \"198.51.100.7/32\", \"2001:db8::/48\", \"2001:db8:1::7/128\"]\n"
    )
}
