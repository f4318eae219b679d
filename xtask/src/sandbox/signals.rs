//! Signals of a process that waits for one child: SIGINT and SIGTERM are passed on, the child's end ends the wait.

use crate::error::{Error, Result};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::process::Child;

/// Signals that are read instead of delivered.
pub struct Signals(SignalFd);

impl Signals {
    /// Starts to watch, before the child is started: none of its signals is lost. Rust clears the mask in children.
    pub fn watch() -> Result<Self> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGCHLD, Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            set.add(signal);
        }
        set.thread_block().map_err(refused)?;
        SignalFd::new(&set).map(Self).map_err(refused)
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
