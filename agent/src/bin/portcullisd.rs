//! The agent: everything is in [`portcullis_agent::daemon`].

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    portcullis_agent::daemon::run(&portcullis_agent::daemon::Arguments::parse()).into()
}
