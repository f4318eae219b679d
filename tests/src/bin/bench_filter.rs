//! What `cargo xtask bench filter` runs inside a sandbox: measures, and prints JSON. `--show`: makes tables of that JSON.

use std::process::ExitCode;

use portcullis_tests::bench::command::{self, milliseconds, number, numbers, processors, wrong};
use portcullis_tests::bench::filter::plan::{Asked, run};
use portcullis_tests::bench::filter::report;

fn main() -> ExitCode {
    command::main("filter", |words| match *words {
        ["--show"] => command::show(report::tables),
        [token, object, family, sizes, rounds, time, places] => {
            let asked = Asked {
                token: token.into(),
                object: object.into(),
                six: family == "6",
                sizes: numbers(sizes)?,
                rounds: number(rounds)?,
                time: milliseconds(time)?,
                processors: processors(places)?,
            };
            println!("{:#}", report::json(&asked, &run(&asked)?));
            Ok(())
        }
        _ => Err(wrong("run it by `cargo xtask bench filter`")),
    })
}
