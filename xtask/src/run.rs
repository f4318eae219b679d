//! Starts other programs. Arguments are never parsed by a shell.

use crate::error::{Error, Result};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output, Stdio};

/// The command line, for messages.
pub fn line(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

/// Runs `command` with our own output; an error with `advice` when it fails.
pub fn run(command: &mut Command, advice: &str) -> Result<()> {
    let status = command.status().map_err(|source| start(command, source))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Failed { command: line(command), status, advice: advice.into() })
}

/// Runs `command` and keeps what it says; shows that only when it fails.
pub fn quietly(command: &mut Command, advice: &str) -> Result<String> {
    let output = output(command)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    eprint!("{text}{}", String::from_utf8_lossy(&output.stderr));
    Err(Error::Failed { command: line(command), status: output.status, advice: advice.into() })
}

/// Runs `command` without input and keeps everything.
pub fn output(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null()).output().map_err(|source| start(command, source))
}

/// Lets `command` be killed when the thread that starts it ends, however it ends.
pub fn tied(command: &mut Command) -> &mut Command {
    // SAFETY: the closure runs between fork and exec; prctl, all it calls, is async-signal-safe.
    unsafe { command.pre_exec(|| set_pdeathsig(Signal::SIGKILL).map_err(std::io::Error::from)) }
}

/// Whether `program` can be started with `argument` and succeeds.
pub fn works(program: &str, argument: &str) -> bool {
    let mut command = Command::new(program);
    command.arg(argument).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// A clean cargo: without the variables that the cargo above us set for this program.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

fn start(command: &Command, source: std::io::Error) -> Error {
    Error::Start { program: command.get_program().to_string_lossy().into_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;

    #[test]
    fn what_is_tied_ends_with_who_started_it() {
        let starter = std::thread::spawn(|| tied(Command::new("sleep").arg("1000")).spawn().unwrap());
        let mut child = starter.join().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    }
}
