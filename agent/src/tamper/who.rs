//! Who touched a file: the process that the kernel named, as /proc has it at that moment.
//!
//! Invariants: what is told is of the very process the kernel named (its pidfd says that it lives when /proc was read),
//! or it is said that it is not known; names are escaped.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The kernel's word for a login uid that was never set.
const UNSET: u32 = u32::MAX;

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// Its number in the agent's pid namespace; 0: it is outside of it.
    pub pid: u32,
    /// What /proc had of it; none: it had ended by then.
    pub process: Option<Process>,
}

/// What /proc says of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its command name.
    pub comm: String,
    /// Its program.
    pub exe: Option<String>,
    /// Its real uid.
    pub uid: u32,
    /// The uid it logged in with, kept through su and sudo.
    pub login: Option<u32>,
}

impl Who {
    /// The process, looked up now. With a pidfd: only if that very process was still there after the look.
    #[must_use]
    pub fn look(pid: u32, pidfd: Option<&OwnedFd>) -> Self {
        let process = (pid != 0).then(|| Process::read(pid)).flatten();
        // Readable: it has ended. A zombie is still itself, but it has no program any more: its number is not reused yet.
        let same = pidfd.is_none_or(|fd| lives(fd) || has_number(fd, pid));
        Self { pid, process: process.filter(|_| same) }
    }

    /// The uid that answers for it: the login's, or its own.
    #[must_use]
    pub fn uid(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.login.unwrap_or(process.uid))
    }
}

fn lives(pidfd: &OwnedFd) -> bool {
    let mut wait = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    poll(&mut wait, PollTimeout::ZERO).is_ok_and(|ended| ended == 0)
}

/// Whether the process has its number still: not waited for, so that nobody else has it (proc_pid_fdinfo(5)).
fn has_number(pidfd: &OwnedFd, pid: u32) -> bool {
    let info =
        std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).unwrap_or_default();
    let number = info.lines().find_map(|line| line.strip_prefix("Pid:"));
    number.is_some_and(|number| number.trim().parse() == Ok(pid))
}

impl Process {
    fn read(pid: u32) -> Option<Self> {
        let folder = format!("/proc/{pid}");
        let status = std::fs::read(format!("{folder}/status")).ok()?;
        let status = String::from_utf8_lossy(&status);
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        let uid = field("Uid:")?.split_whitespace().next()?.parse().ok()?;
        let comm = std::fs::read(format!("{folder}/comm")).ok()?;
        let login = std::fs::read_to_string(format!("{folder}/loginuid")).ok();
        let login = login.and_then(|text| text.trim().parse().ok()).filter(|uid| *uid != UNSET);
        let exe = std::fs::read_link(format!("{folder}/exe")).ok();
        Some(Self {
            comm: crate::text::escape(comm.strip_suffix(b"\n").unwrap_or(&comm)),
            exe: exe.map(|path| crate::text::escape(path.as_os_str().as_bytes())),
            uid,
            login,
        })
    }
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.process, self.pid) {
            (_, 0) => f.write_str("a process outside this pid namespace"),
            (None, pid) => write!(f, "process {pid}, which had ended before it could be looked at"),
            (Some(process), pid) => {
                let exe = process.exe.as_deref().unwrap_or("ended since");
                write!(f, "process {pid} ({}, {exe}), uid {}", process.comm, process.uid)?;
                match process.login {
                    Some(login) => write!(f, ", logged in as uid {login}"),
                    None => f.write_str(", no login"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_somebody_else_has_by_now_names_nobody() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        let fd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        while lives(&fd) {
            std::thread::yield_now();
        }
        let zombie = Who::look(child.id(), Some(&fd));
        assert!(zombie.process.is_some(), "not waited for: its number is its own still");
        child.wait().unwrap();
        // The kernel's word is about the child; the number stands for another process by now, this one.
        let other = Who::look(std::process::id(), Some(&fd));
        assert_eq!(other, Who { pid: std::process::id(), process: None });
    }

    #[test]
    fn this_process_is_named_and_one_that_ended_is_not() {
        let own = Who::look(std::process::id(), None);
        assert_eq!(own.process.as_ref().unwrap().uid, nix::unistd::getuid().as_raw());
        assert!(own.to_string().contains("/"), "{own}");
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        let gone = Who::look(pid, None);
        assert_eq!(gone, Who { pid, process: None });
        assert!(gone.to_string().contains("had ended"), "{gone}");
    }
}
