//! The command line of a benchmark's program, which `cargo xtask bench` starts inside a sandbox.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use crate::{Error, Result};

/// Runs `bench` with the words of the command line; `name`: as in `cargo xtask bench NAME`.
pub fn main(name: &str, bench: impl FnOnce(&[&str]) -> Result<()>) -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match bench(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench {name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What is wrong with the command line.
#[must_use]
pub fn wrong(output: &str) -> Error {
    Error::Answer { program: "the command line".into(), output: output.into() }
}

/// Prints `tables` of a result that comes as JSON from the standard input.
///
/// # Errors
/// It is no JSON.
pub fn show(tables: fn(&Value) -> String) -> Result<()> {
    let run = serde_json::from_reader(std::io::stdin()).map_err(|error| wrong(&error.to_string()))?;
    print!("{}", tables(&run));
    Ok(())
}

/// Numbers, separated by commas.
///
/// # Errors
/// A word is none.
pub fn numbers(text: &str) -> Result<Vec<u32>> {
    let parse = |word: &str| word.parse().map_err(|_| wrong(&format!("{word} is no number")));
    text.split(',').map(parse).collect()
}

/// One number.
///
/// # Errors
/// There is none.
pub fn number(text: &str) -> Result<u32> {
    numbers(text)?.first().copied().ok_or_else(|| wrong("a number is missing"))
}

/// A time in milliseconds.
///
/// # Errors
/// It is no number.
pub fn milliseconds(text: &str) -> Result<Duration> {
    Ok(Duration::from_millis(number(text)?.into()))
}

/// The processors of the flood and of who receives it.
///
/// # Errors
/// There are not two.
pub fn processors(text: &str) -> Result<(usize, usize)> {
    match numbers(text)?[..] {
        [flood, receiver] => Ok((flood as usize, receiver as usize)),
        _ => Err(wrong("two processors")),
    }
}
