//! `cargo xtask bench pam`: what the module adds to one authentication, beside pam_faillock and beside no module at all.
//! Builds, opens a sandbox and runs the program `portcullis-bench-pam` of the tests in it.

use crate::error::{Error, Result};
use crate::sandbox::{self, Bind, Options};
use crate::workspace::Workspace;
use crate::{apt, build, run};
use std::path::PathBuf;

const PAM: &str = "portcullis-bench-pam";
const INSIDE: &str = "/opt/portcullis-bench-pam";

/// What to measure.
#[derive(Clone, Copy, Debug, clap::Subcommand)]
pub enum Bench {
    /// Latency that the PAM module adds, beside pam_faillock
    Pam(Pam),
}

/// How to measure it.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Pam {
    /// Every stack has one wrong and one right attempt a round
    #[arg(long, value_name = "N", default_value_t = 3000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rounds: u32,
    /// For programs; times in nanoseconds
    #[arg(long)]
    json: bool,
}

/// Builds and measures; the status of the program inside.
pub fn bench(workspace: &Workspace, bench: Bench) -> Result<u8> {
    let Bench::Pam(options) = bench;
    apt::ensure(&build::PACKAGES, "build tools")?;
    build::refresh(workspace)?;
    let mut command = vec![INSIDE.into(), "--rounds".into(), options.rounds.to_string().into()];
    command.extend(options.json.then(|| "--json".into()));
    // No shadow lock: it is not part of an authentication.
    let config = workspace.root.join("tests/bench.toml");
    sandbox::run(
        workspace,
        &Options {
            config: Some(config),
            bind: vec![Bind { from: program(workspace)?, to: INSIDE.into() }],
            quiet: true,
            command,
            ..Options::default()
        },
    )
}

/// The program, in release like the module it measures; built.
fn program(workspace: &Workspace) -> Result<PathBuf> {
    let mut cargo = run::cargo();
    cargo.args(["build", "--quiet", "--release", "--package", "portcullis-tests", "--bin", PAM]);
    cargo.current_dir(&workspace.root).env("PORTCULLIS_BPF_OBJECT", workspace.bpf_object());
    run::run(&mut cargo, "see the compiler's messages above")?;
    let program = workspace.program(PAM);
    if program.is_file() {
        return Ok(program);
    }
    Err(Error::Missing { what: program.display().to_string(), advice: "build it by hand".into() })
}
