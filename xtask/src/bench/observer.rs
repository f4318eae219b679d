//! `cargo xtask bench observer`: what the observer costs a program that nobody watches. Runs the program
//! `portcullis-bench-observer` in a sandbox.

use crate::error::Result;
use crate::sandbox::{self, Bind, Options};
use crate::workspace::Workspace;
use crate::{apt, build};

const PROGRAM: &str = "portcullis-bench-observer";
const INSIDE: &str = "/opt/portcullis-bench-observer";

/// How to measure it.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Observer {
    /// Pairs of turns, with and without the observer
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pairs: u32,
    /// Programs started in each turn
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    execs: u32,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// Builds and measures; the status of the program inside.
pub fn bench(workspace: &Workspace, options: &Observer) -> Result<u8> {
    apt::ensure(&build::PACKAGES, "build tools")?;
    build::refresh(workspace)?;
    let mut command = vec![INSIDE.into(), options.pairs.to_string().into(), options.execs.to_string().into()];
    command.extend(options.json.then(|| "--json".into()));
    sandbox::run(
        workspace,
        &Options {
            config: Some(workspace.root.join("tests/bench.toml")),
            bind: vec![Bind { from: super::program(workspace, PROGRAM)?, to: INSIDE.into() }],
            quiet: true,
            command,
            ..Options::default()
        },
    )
}
