//! The command for administrators: everything is in [`portcullis_agent::cli`].

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    portcullis_agent::cli::run(&portcullis_agent::cli::Arguments::parse()).into()
}
