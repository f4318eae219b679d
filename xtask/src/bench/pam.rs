//! `cargo xtask bench pam`: what the module adds to one authentication, beside pam_faillock and beside no module at all.
//! Runs the program `portcullis-bench-pam` in a sandbox.

use crate::error::Result;
use crate::sandbox::{self, Bind, Options};
use crate::workspace::Workspace;
use crate::{apt, build};

const PROGRAM: &str = "portcullis-bench-pam";
const INSIDE: &str = "/opt/portcullis-bench-pam";

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
pub fn bench(workspace: &Workspace, options: &Pam) -> Result<u8> {
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
            bind: vec![Bind { from: super::program(workspace, PROGRAM)?, to: INSIDE.into() }],
            quiet: true,
            command,
            ..Options::default()
        },
    )
}
