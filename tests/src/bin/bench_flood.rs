//! What `cargo xtask bench flood` runs inside a sandbox: measures, and prints JSON. `--show`: makes tables of that JSON.

use std::process::ExitCode;

use portcullis_tests::bench::command::{self, milliseconds, number, numbers, processors, wrong};
use portcullis_tests::bench::flood::plan::{Asked, run};
use portcullis_tests::bench::flood::report;

fn main() -> ExitCode {
    command::main("flood", |words| match *words {
        ["--show"] => command::show(report::tables),
        [token, object, rates, rounds, time, places] => {
            let asked = Asked {
                token: token.into(),
                object: object.into(),
                rates: numbers(rates)?,
                rounds: number(rounds)?,
                time: milliseconds(time)?,
                processors: processors(places)?,
            };
            println!("{:#}", report::json(&asked, &run(&asked)?));
            Ok(())
        }
        _ => Err(wrong("run it by `cargo xtask bench flood`")),
    })
}
