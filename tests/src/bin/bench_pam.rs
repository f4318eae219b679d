//! What `cargo xtask bench pam` runs inside a sandbox. `--rounds N`, `--json`; `--once STACK PATH` is its own: one
//! attempt in a new process.

use std::process::ExitCode;

use portcullis_tests::bench::{report, run};
use portcullis_tests::{Error, Result};

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench pam: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (rounds, json) = match words[..] {
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
}

fn wrong(output: &str) -> Error {
    Error::Answer { program: "the command line".into(), output: output.into() }
}
