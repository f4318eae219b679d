//! What `cargo xtask bench pam` runs inside a sandbox. `--rounds N`, `--json`; `--once STACK PATH` is its own: one
//! attempt in a new process.

use std::process::ExitCode;

use portcullis_tests::bench::command::{self, wrong};
use portcullis_tests::bench::{report, run};

fn main() -> ExitCode {
    command::main("pam", |words| {
        let (rounds, json) = match *words {
            ["--once", stack, path] => {
                println!("{}", run::once(stack, path)?);
                return Ok(());
            }
            ["--rounds", rounds] => (rounds, false),
            ["--rounds", rounds, "--json"] => (rounds, true),
            _ => return Err(wrong("run it by `cargo xtask bench pam`")),
        };
        let rounds = rounds.parse().map_err(|_| wrong("--rounds takes a number"))?;
        let measured = run::run(rounds)?;
        if json {
            println!("{:#}", report::json(&measured));
        } else {
            print!("{}", report::table(&measured));
        }
        Ok(())
    })
}
