//! What `cargo xtask bench observer` runs inside a sandbox: `PAIRS EXECS`, and `--json` for programs.

use std::process::ExitCode;

use portcullis_tests::bench::command::{self, wrong};
use portcullis_tests::bench::observer::{self, Asked, report};

fn main() -> ExitCode {
    command::main("observer", |words| {
        let (pairs, execs, json) = match *words {
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
    })
}
