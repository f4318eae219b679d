//! What `cargo xtask bench observer` runs inside a sandbox: `PAIRS EXECS`, and `--json` for programs.

use std::process::ExitCode;

use portcullis_tests::bench::observer::{self, Asked, report};
use portcullis_tests::{Error, Result};

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench observer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (pairs, execs, json) = match words[..] {
        [pairs, execs] => (pairs, execs, false),
        [pairs, execs, "--json"] => (pairs, execs, true),
        _ => return Err(wrong("run it by `cargo xtask bench observer`")),
    };
    let number = |word: &str| word.parse().map_err(|_| wrong("two numbers"));
    let measured = observer::run(Asked { pairs: number(pairs)?, execs: number(execs)? })?;
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
