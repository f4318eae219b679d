//! Signals of a process that waits for one child: SIGINT and SIGTERM are passed on, the child's end ends the wait.

use crate::error::{Error, Result};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

/// Signals that are read instead of delivered.
pub struct Signals(SignalFd);

impl Signals {
    /// Starts to watch, before the child is started: no signal is lost.
    pub fn watch() -> Result<Self> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGCHLD, Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            set.add(signal);
        }
        set.thread_block().map_err(refused)?;
        SignalFd::new(&set).map(Self).map_err(refused)
    }

    /// Starts `command` with the signals delivered as usual.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        unmask(command).spawn().map_err(|source| Error::Start {
            program: command.get_program().to_string_lossy().into_owned(),
            source,
        })
    }

    /// Waits for `child`, reaping whatever else ends. Returns its status, 128 + signal when it was killed.
    pub fn follow(&self, child: &mut Child) -> Result<u8> {
        let main = Pid::from_raw(i32::try_from(child.id()).unwrap_or(-1));
        loop {
            if let Some(status) = reap(main) {
                return Ok(status);
            }
            let Some(info) = self.0.read_signal().map_err(refused)? else { continue };
            let Ok(Ok(signal)) = i32::try_from(info.ssi_signo).map(Signal::try_from) else { continue };
            // What the terminal sends, the child's process group gets by itself.
            if signal != Signal::SIGCHLD && info.ssi_code != libc::SI_KERNEL {
                // The child may be gone already: then its status is read next.
                let _ = kill(main, signal);
            }
        }
    }
}

/// Lets `command` start with no signal blocked: children inherit the mask.
pub fn unmask(command: &mut Command) -> &mut Command {
    // SAFETY: the closure runs between fork and exec; pthread_sigmask, all it calls, is async-signal-safe.
    unsafe { command.pre_exec(|| SigSet::empty().thread_set_mask().map_err(std::io::Error::from)) }
}

/// Collects every process that ended; the status of `main` if it is among them.
fn reap(main: Pid) -> Option<u8> {
    let mut found = None;
    loop {
        let (pid, status) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => (pid, u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
            Ok(WaitStatus::Signaled(pid, signal, _)) => {
                (pid, 128_u8.saturating_add(u8::try_from(signal as i32).unwrap_or(0)))
            }
            Ok(WaitStatus::StillAlive) | Err(_) => return found,
            Ok(_) => continue,
        };
        if pid == main {
            found = Some(status);
        }
    }
}

fn refused(source: nix::Error) -> Error {
    Error::Kernel { action: "watch signals".into(), source, advice: "try again" }
}
