//! The highest rung: the end of an account's sessions.
//!
//! Invariants
//! * Whose a process is, its login uid says (/proc/PID/loginuid); where none was set, its real uid.
//! * Only processes of the agent's own pid namespace; never one that runs as root, as an exempt account, or the agent.
//! * A process is held by a pidfd and looked at again before a signal: a number that was given anew hits nobody.
//! * SIGTERM, a pause, SIGKILL; what is said to have ended was looked for afterwards.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::program;

/// Where logind's files are while it runs.
const LOGIND: &str = "/run/systemd/seats";
const LOGINCTL: &str = "/usr/bin/loginctl";
/// No login uid was set.
const UNSET: u32 = u32::MAX;
/// How long a process may take to end by itself.
const GRACE: Duration = Duration::from_secs(5);
/// How long the kernel may take to end it.
const KILLED: Duration = Duration::from_secs(5);
/// How often it is looked for processes that were begun meanwhile.
const ROUNDS: usize = 5;

/// Why sessions did not end.
#[derive(Debug, thiserror::Error)]
pub enum LogoutError {
    /// /proc.
    #[error("cannot read {path}: {source}; is /proc mounted in the agent's namespace?")]
    Proc {
        /// What.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Some are left.
    #[error("{left} processes of uid {uid} are left, the first is {first}: see ps -o pid,user,args {first}")]
    Left {
        /// Whose.
        uid: u32,
        /// How many.
        left: usize,
        /// The first.
        first: i32,
    },
}

/// A process of the account.
struct Process {
    pid: i32,
    handle: OwnedFd,
}

/// Ends the sessions of the user `name` with this uid; how many processes were ended by signals. `spared`: uids whose
/// processes stay, whoever logged in.
///
/// # Errors
/// Some are left, or that cannot be found out.
pub async fn end(uid: u32, name: &str, spared: BTreeSet<u32>, limit: Duration) -> Result<usize, LogoutError> {
    if Path::new(LOGIND).is_dir() {
        // What logind could not do is done below, and the truth is what is left.
        match program::run(Path::new(LOGINCTL), ["terminate-user", name], Vec::new(), limit).await {
            Ok(ended) if !ended.success => {
                log::debug!("loginctl terminate-user ended with {}: {}", ended.status, ended.said);
            }
            Ok(_) => {}
            Err(error) => log::warn!("logind could not be asked to end sessions: {error}"),
        }
    }
    let ended = tokio::task::spawn_blocking(move || signal(uid, &spared)).await;
    // A panic ends the agent before it gets here.
    ended.unwrap_or_else(|error| {
        Err(LogoutError::Proc { path: "/proc".to_owned(), source: std::io::Error::other(error) })
    })
}

/// Signals until none is left.
fn signal(uid: u32, spared: &BTreeSet<u32>) -> Result<usize, LogoutError> {
    let mut ended = 0;
    for _ in 0..ROUNDS {
        let found = find(uid, spared)?;
        if found.is_empty() {
            return Ok(ended);
        }
        ended += found.len();
        send(&found, Signal::TERM);
        let stubborn = wait(found, GRACE);
        send(&stubborn, Signal::KILL);
        wait(stubborn, KILLED);
    }
    let left = find(uid, spared)?;
    let Some(first) = left.first() else { return Ok(ended) };
    Err(LogoutError::Left { uid, left: left.len(), first: first.pid })
}

/// The processes of an account.
fn find(uid: u32, spared: &BTreeSet<u32>) -> Result<Vec<Process>, LogoutError> {
    let trouble = |path: &str| {
        let path = path.to_owned();
        move |source| LogoutError::Proc { path, source }
    };
    if uid == 0 || spared.contains(&uid) {
        return Ok(Vec::new());
    }
    let own = fs::read_link("/proc/self/ns/pid").map_err(trouble("/proc/self/ns/pid"))?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").map_err(trouble("/proc"))? {
        let entry = entry.map_err(trouble("/proc"))?;
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // Processes end while they are looked at.
        let Some(pid) = Pid::from_raw(number) else { continue };
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        let path = entry.path();
        let theirs = whose(&path).is_some_and(|(owner, real)| ends(uid, owner, real, spared));
        let here = fs::read_link(path.join("ns/pid")).is_ok_and(|namespace| namespace == own);
        if theirs && here && number != std::process::id().cast_signed() {
            found.push(Process { pid: number, handle });
        }
    }
    Ok(found)
}

/// Whether a process is to end with the sessions of `uid`: `owner` logged in, `real` is whom it runs as.
fn ends(uid: u32, owner: u32, real: u32, spared: &BTreeSet<u32>) -> bool {
    let spares = real == 0 || spared.contains(&real);
    owner == uid && (!spares || cfg!(feature = "mutation-end-roots"))
}

/// Whose a process is, and as whom it runs; none for one that is dead already.
fn whose(path: &Path) -> Option<(u32, u32)> {
    let status = fs::read_to_string(path.join("status")).ok()?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    if field("State:")?.starts_with(['Z', 'X']) {
        return None;
    }
    let real: u32 = field("Uid:")?.split_whitespace().next()?.parse().ok()?;
    // A kernel without audit has no such file.
    let login = fs::read_to_string(path.join("loginuid")).ok();
    let login = login.and_then(|text| text.trim().parse::<u32>().ok()).filter(|login| *login != UNSET);
    Some((login.unwrap_or(real), real))
}

fn send(processes: &[Process], signal: Signal) {
    for process in processes {
        // It may have ended: that is what is wanted.
        let _ = pidfd_send_signal(&process.handle, signal);
    }
}

/// Waits for their end; those that have not ended in time.
fn wait(mut processes: Vec<Process>, limit: Duration) -> Vec<Process> {
    let end = Instant::now() + limit;
    while !processes.is_empty() {
        let left = end.saturating_duration_since(Instant::now());
        let Ok(timeout) = Timespec::try_from(left) else { break };
        let mut handles: Vec<PollFd<'_>> =
            processes.iter().map(|process| PollFd::new(&process.handle, PollFlags::IN)).collect();
        match poll(&mut handles, Some(&timeout)) {
            Ok(0) => break,
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => break,
        }
        let ended: Vec<bool> = handles.iter().map(|handle| !handle.revents().is_empty()).collect();
        let mut ended = ended.into_iter();
        processes.retain(|_| !ended.next().unwrap_or(false));
    }
    processes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_roots_or_of_exempt_accounts_ends() {
        let spared = BTreeSet::from([0, 1000]);
        assert!(ends(2002, 2002, 2002, &spared));
        assert!(ends(2002, 2002, 2001, &spared), "his session as somebody else");
        for (owner, real) in [(2001, 2002), (0, 2002), (2002, 0), (2002, 1000)] {
            assert!(!ends(2002, owner, real, &spared), "login uid {owner}, real uid {real}");
        }
        for uid in [0, 1000] {
            assert!(find(uid, &spared).unwrap().is_empty(), "{uid} is never ended");
        }
    }

    #[test]
    fn a_dead_process_is_nobodys() {
        let own = Path::new("/proc/self");
        assert!(whose(own).is_some());
        assert_eq!(whose(Path::new("/proc/0")), None);
    }
}
