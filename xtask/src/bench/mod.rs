//! `cargo xtask bench`: measures in a sandbox, with a program of the tests that was built for it.
//!
//! * [`pam`]: what the module adds to one authentication.
//! * [`filter`]: what a dropped packet costs.
//! * [`flood`]: what is left to others while a flood runs.
//! * [`inside`]: what those two have in common.
//! * [`observer`]: what the observer costs a program that nobody watches.
//! * [`threads`]: the kernel's own threads, put on a processor from outside.

mod filter;
mod flood;
mod inside;
mod observer;
mod pam;
mod threads;

use crate::error::{Error, Result};
use crate::run;
use crate::workspace::Workspace;
use std::path::PathBuf;

/// What to measure.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Bench {
    /// Latency that the PAM module adds, beside pam_faillock
    Pam(pam::Pam),
    /// Cost of a packet that is dropped or judged, beside nftables, iptables and a bare XDP_DROP
    Filter(filter::Filter),
    /// What an innocent client gets while a flood runs, beside nftables and without any defence
    Flood(flood::Flood),
    /// What the observer costs a program that nobody watches
    Observer(observer::Observer),
}

/// Builds and measures; the status of the program inside.
pub fn bench(workspace: &Workspace, bench: &Bench) -> Result<u8> {
    match bench {
        Bench::Pam(options) => pam::bench(workspace, options),
        Bench::Filter(options) => filter::bench(workspace, options),
        Bench::Flood(options) => flood::bench(workspace, options),
        Bench::Observer(options) => observer::bench(workspace, options),
    }
}

/// A program of the tests, in release like what it measures; built.
fn program(workspace: &Workspace, name: &str) -> Result<PathBuf> {
    let mut cargo = run::cargo();
    cargo.args(["build", "--quiet", "--release", "--package", "portcullis-tests", "--bin", name]);
    cargo.current_dir(&workspace.root).env("PORTCULLIS_BPF_OBJECT", workspace.bpf_object());
    run::run(&mut cargo, "see the compiler's messages above")?;
    let program = workspace.program(name);
    if program.is_file() {
        return Ok(program);
    }
    Err(Error::Missing { what: program.display().to_string(), advice: "build it by hand".into() })
}
