//! What the observer costs a program that nobody watches: `cargo xtask bench observer`.
//!
//! * [`report`]: the run, as a table and as JSON.
//!
//! Invariants: the same program is started with the observer's programs attached and with them taken off, in turns, in
//! another order each time; the same loaded programs are attached again, not others; the kernel's own statistics are on
//! only while they are read, and not while rates are measured.

pub mod report;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use portcullis_common::observer::PIN_LINKS;

use crate::agent;
use crate::bpf::{self, Runs};
use crate::system::{portcullis, wait_for};
use crate::{Result, tiny};

/// The program that nobody watches.
const PROGRAM: &str = "/run/portcullis-tiny";
/// Turns before the first that counts.
const WARM_UP: u32 = 10;

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Pairs of turns, with and without.
    pub pairs: u32,
    /// Programs started in each turn.
    pub execs: u32,
}

/// One pair.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// With the observer.
    pub with: Duration,
    /// Without.
    pub without: Duration,
}

/// What was measured.
#[derive(Debug)]
pub struct Measured {
    /// What was asked for.
    pub asked: Asked,
    /// Every pair.
    pub pairs: Vec<Pair>,
    /// Nanoseconds of one run of the program at exec and of that at exit, in the order of [`PIN_LINKS`].
    pub runs: [Runs; 2],
}

/// Measures.
///
/// # Errors
/// The observer is not there, or a program cannot be started.
pub fn run(asked: Asked) -> Result<Measured> {
    wait_for("the observer", 30, || {
        Ok(portcullis(&["status"])?.pointer("/observer/loaded").is_some_and(|loaded| *loaded == true))
    })?;
    let path = Path::new(PROGRAM);
    tiny::write(path)?;
    let [exec, exit] = PIN_LINKS;
    let programs = [bpf::program_of_link(exec)?, bpf::program_of_link(exit)?];
    let runs = statistics(&programs, path, asked)?;
    // It holds the links open, and would put them back.
    agent::kill_9()?;
    for link in PIN_LINKS {
        std::fs::remove_file(link).map_err(|source| crate::Error::File { path: link.into(), source })?;
    }
    let mut pairs = Vec::new();
    for turn in 0..asked.pairs + WARM_UP {
        let pair = if turn % 2 == 0 {
            let with = attached(&programs, path, asked)?;
            Pair { with, without: timed(path, asked)? }
        } else {
            let without = timed(path, asked)?;
            Pair { with: attached(&programs, path, asked)?, without }
        };
        if turn >= WARM_UP {
            pairs.push(pair);
        }
    }
    Ok(Measured { asked, pairs, runs })
}

fn timed(path: &Path, asked: Asked) -> Result<Duration> {
    let started = Instant::now();
    tiny::run(path, asked.execs)?;
    Ok(started.elapsed())
}

fn attached(programs: &[OwnedFd; 2], path: &Path, asked: Asked) -> Result<Duration> {
    let [exec, exit] = programs;
    let _links = [bpf::attach(exec)?, bpf::attach(exit)?];
    timed(path, asked)
}

/// What a run takes by the kernel's own statistics, over as many programs as all pairs start.
fn statistics(programs: &[OwnedFd; 2], path: &Path, asked: Asked) -> Result<[Runs; 2]> {
    let _counting = bpf::count_runs()?;
    let [exec, exit] = programs;
    tiny::run(path, asked.execs)?;
    let before = [bpf::runs(exec)?, bpf::runs(exit)?];
    tiny::run(path, asked.execs.saturating_mul(asked.pairs))?;
    let after = [bpf::runs(exec)?, bpf::runs(exit)?];
    let [first, second] = [0, 1].map(|place: usize| {
        let (before, after) = (before.get(place).copied(), after.get(place).copied());
        before.zip(after).map(|(before, after)| after.since(before)).unwrap_or_default()
    });
    Ok([first, second])
}
