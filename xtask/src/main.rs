//! `cargo xtask <verb>`: reads the command line and calls the library.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use xtask::error::Result;
use xtask::workspace::Workspace;
use xtask::ebpf;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developer verbs of Portcullis")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Build and check the eBPF object
    BuildEbpf(BuildEbpf),
}

#[derive(Args)]
struct BuildEbpf {
    /// Features of the eBPF crate, separated by commas
    #[arg(long)]
    features: Option<String>,
    /// Where the object goes (default: ebpf/portcullis.bpf.o in the target folder)
    #[arg(long)]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    match dispatch(Cli::parse().verb) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(verb: Verb) -> Result<u8> {
    let workspace = Workspace::find()?;
    match verb {
        Verb::BuildEbpf(args) => {
            ebpf::build(&workspace, &ebpf::Options { features: args.features, out: args.out })?;
            Ok(0)
        }
    }
}
