//! What `cargo xtask bench flood` runs inside a sandbox: measures, and prints JSON. `--show`: makes tables of that JSON.

use std::process::ExitCode;
use std::time::Duration;

use portcullis_tests::bench::flood::plan::{Asked, run};
use portcullis_tests::bench::flood::report;
use portcullis_tests::{Error, Result};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["--show"] => show(),
        [token, object, rates, rounds, milliseconds, processors] => {
            measure(token, object, [rates, rounds, milliseconds, processors])
        }
        _ => Err(wrong("run it by `cargo xtask bench flood`")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench flood: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(token: &str, object: &str, rest: [&str; 4]) -> Result<()> {
    let [rates, rounds, milliseconds, processors] = rest.map(numbers);
    let one =
        |numbers: Result<Vec<u32>>| numbers?.first().copied().ok_or_else(|| wrong("a number is missing"));
    let (flood, victims) = match processors?[..] {
        [flood, victims] => (flood as usize, victims as usize),
        _ => return Err(wrong("two processors")),
    };
    let asked = Asked {
        token: token.into(),
        object: object.into(),
        rates: rates?,
        rounds: one(rounds)?,
        time: Duration::from_millis(one(milliseconds)?.into()),
        processors: (flood, victims),
    };
    let cases = run(&asked)?;
    println!("{:#}", report::json(&asked, &cases));
    Ok(())
}

fn show() -> Result<()> {
    let run = serde_json::from_reader(std::io::stdin()).map_err(|error| wrong(&error.to_string()))?;
    print!("{}", report::tables(&run));
    Ok(())
}

fn numbers(text: &str) -> Result<Vec<u32>> {
    let parse = |word: &str| word.parse().map_err(|_| wrong(&format!("{word} is no number")));
    text.split(',').map(parse).collect()
}

fn wrong(output: &str) -> Error {
    Error::Answer { program: "the command line".into(), output: output.into() }
}
