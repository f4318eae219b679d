//! The agent of the throw-away system: killed as `kill -9` does it, and started again.

use std::fs;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::system::wait_for;
use crate::{Error, Result};

const PROGRAM: &str = "portcullisd";
const SOCKET: &str = "/run/portcullis/agent.sock";
/// Seconds to wait for its end or its start.
const PATIENCE: u64 = 20;

/// Its process; None: there is none.
///
/// # Errors
/// When /proc cannot be read.
pub fn pid() -> Result<Option<Pid>> {
    let trouble = |source| Error::File { path: "/proc".into(), source };
    for entry in fs::read_dir("/proc").map_err(trouble)? {
        let entry = entry.map_err(trouble)?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // Processes end while they are listed.
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.trim_end() == PROGRAM {
            return Ok(Some(Pid::from_raw(pid)));
        }
    }
    Ok(None)
}

/// Sends SIGKILL and waits until the process is gone and its socket answers nobody.
///
/// # Errors
/// When there is no agent, or it does not end.
pub fn kill_9() -> Result<()> {
    kill_9_and(|| {
        let gone = || Ok(pid()?.is_none() && UnixStream::connect(SOCKET).is_err());
        wait_for("the agent's end", PATIENCE, gone)
    })
}

/// Sends SIGKILL and waits as `wait` does.
///
/// # Errors
/// When there is no agent, or what was waited for does not come.
pub fn kill_9_and(wait: impl FnOnce() -> Result<()>) -> Result<()> {
    let trouble = |source| Error::Program { program: PROGRAM.into(), source };
    let Some(agent) = pid()? else {
        return Err(trouble(std::io::ErrorKind::NotFound.into()));
    };
    kill(agent, Signal::SIGKILL).map_err(|errno| trouble(errno.into()))?;
    wait()
}

/// Starts it and waits until it serves. It ends with the sandbox.
///
/// # Errors
/// When it cannot be started, or does not serve.
pub fn start() -> Result<Child> {
    start_program(PROGRAM)
}

/// Starts the agent `program`, another build of it, in the same way.
///
/// # Errors
/// When it cannot be started, or does not serve.
pub fn start_program(program: &str) -> Result<Child> {
    let mut agent = Command::new(program);
    agent.arg("run").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let agent = agent.spawn().map_err(|source| Error::Program { program: PROGRAM.into(), source })?;
    wait_for("the agent's socket", PATIENCE, || Ok(UnixStream::connect(SOCKET).is_ok()))?;
    Ok(agent)
}
