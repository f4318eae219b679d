//! A watched program as the observer saw it, in words.
//!
//! Invariants: any bytes give a record or none; everything that came from outside is escaped here; the target of an
//! argument list is a claim and decides nothing.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use bytes::Buf;
use jiff::Timestamp;
use portcullis_common::observer::{ANCESTORS, Ancestor, File, NO_LOGIN, Process, flag, kind};
use portcullis_policy::observer::{Ended, Program};
use serde::{Deserialize, Serialize};

use crate::names::Names;
use crate::rows::Now;
use crate::text;

/// A watched program, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessView {
    /// When it was started.
    pub started: Timestamp,
    /// When it ended; absent: it runs.
    pub ended: Option<Timestamp>,
    /// Milliseconds it ran.
    pub duration_ms: Option<u64>,
    /// How it ended: `exit 1`, `signal 2`, `became another program`.
    pub result: Option<String>,
    /// Its name on the list of watched programs.
    pub program: String,
    /// Path as it was called.
    pub path: String,
    /// Process.
    pub pid: u32,
    /// Real uid of who started it.
    pub uid: u32,
    /// Name of that user.
    pub user: Option<String>,
    /// Login uid, kept through su and sudo; absent: not set.
    pub login_uid: Option<u32>,
    /// Name of that user.
    pub login: Option<String>,
    /// Session of the audit system.
    pub session: Option<u32>,
    /// Controlling terminal.
    pub tty: Option<String>,
    /// Id of its cgroup.
    pub cgroup: u64,
    /// User that its arguments name: a claim.
    pub target: Option<String>,
    /// Parent process.
    pub parent: u32,
    /// Its command name.
    pub parent_comm: Option<String>,
    /// Who started it, in one line: `kon on pts/0 → bash → su`.
    pub chain: String,
}

/// Decodes a record of the ring buffer.
#[must_use]
pub fn decode(record: &[u8]) -> Option<Process> {
    if record.len() == size_of::<Process>() { read(record).ok() } else { None }
}

fn array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], bytes::TryGetError> {
    let mut field = [0; N];
    bytes.try_copy_to_slice(&mut field)?;
    Ok(field)
}

fn read(mut bytes: &[u8]) -> Result<Process, bytes::TryGetError> {
    let bytes = &mut bytes;
    let mut found = Process {
        started: bytes.try_get_u64_ne()?,
        ended: bytes.try_get_u64_ne()?,
        born: bytes.try_get_u64_ne()?,
        ran: bytes.try_get_u64_ne()?,
        waited: bytes.try_get_u64_ne()?,
        cgroup: bytes.try_get_u64_ne()?,
        file: File {
            inode: bytes.try_get_u64_ne()?,
            device: bytes.try_get_u32_ne()?,
            pad: bytes.try_get_u32_ne()?,
        },
        kind: bytes.try_get_u32_ne()?,
        flags: bytes.try_get_u32_ne()?,
        program: bytes.try_get_u32_ne()?,
        pid: bytes.try_get_u32_ne()?,
        uid: bytes.try_get_u32_ne()?,
        login: bytes.try_get_u32_ne()?,
        session: bytes.try_get_u32_ne()?,
        status: bytes.try_get_u32_ne()?,
        children: bytes.try_get_u64_ne()?,
        argument_bytes: bytes.try_get_u32_ne()?,
        reserved: bytes.try_get_u32_ne()?,
        comm: array(bytes)?,
        tty: array(bytes)?,
        path: array(bytes)?,
        arguments: array(bytes)?,
        ancestors: [Ancestor::default(); ANCESTORS],
    };
    for ancestor in &mut found.ancestors {
        *ancestor =
            Ancestor { pid: bytes.try_get_u32_ne()?, uid: bytes.try_get_u32_ne()?, comm: array(bytes)? };
    }
    Ok(found)
}

/// The program of a watched file's name.
#[must_use]
pub fn program_of(name: &str) -> Program {
    match name {
        "su" => Program::Su,
        "sudo" => Program::Sudo,
        "login" => Program::Login,
        "unix_chkpwd" => Program::Chkpwd,
        "sshd" | "sshd-session" | "sshd-auth" => Program::Sshd,
        _ => Program::Other,
    }
}

/// The program that a PAM service belongs to.
#[must_use]
pub fn program_of_service(service: &str) -> Option<Program> {
    match service {
        "su" | "su-l" => Some(Program::Su),
        "sudo" | "sudo-i" => Some(Program::Sudo),
        "login" => Some(Program::Login),
        "sshd" => Some(Program::Sshd),
        _ => None,
    }
}

/// The arguments, one by one; the last may be cut.
fn arguments(process: &Process) -> Vec<&[u8]> {
    let used = usize::try_from(process.argument_bytes).unwrap_or(0);
    let bytes = process.arguments.get(..used).unwrap_or_default();
    bytes.split(|byte| *byte == 0).collect()
}

/// The user that the arguments name.
fn target(program: Program, process: &Process) -> Option<String> {
    let arguments = arguments(process);
    let mut words = arguments.iter().skip(1).copied();
    let found = match program {
        Program::Su | Program::Login => {
            let mut found = None;
            while let Some(word) = words.next() {
                match word {
                    b"-c" | b"-s" | b"-g" | b"-G" | b"-w" | b"-h" | b"-r" => {
                        words.next();
                    }
                    _ if word.is_empty() || word.starts_with(b"-") => {}
                    _ => {
                        found = Some(word);
                        break;
                    }
                }
            }
            found
        }
        Program::Sudo => loop {
            match words.next() {
                Some(b"-u") => break words.next(),
                Some(word) if word.starts_with(b"--user=") => break word.get(7..),
                Some(word) if word.starts_with(b"-") => {}
                _ => break None,
            }
        },
        Program::Chkpwd => words.next(),
        Program::Sshd | Program::Other => None,
    };
    found.filter(|word| !word.is_empty()).map(text::escape)
}

/// Whether a `unix_chkpwd` was asked for the password of the user who runs it.
fn own_password(process: &Process) -> bool {
    let words = arguments(process);
    let (Some(name), mode) = (words.get(1), words.get(2)) else { return false };
    let own = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(process.uid));
    mode.is_none_or(|mode| *mode != b"chkexpiry")
        && matches!(own, Ok(Some(user)) if user.name.as_bytes() == *name)
}

/// What the policy is told of an end.
#[must_use]
pub fn end_of(process: &Process, name: &str) -> Ended {
    let program = program_of(name);
    let alive = process.ended.saturating_sub(process.started);
    Ended {
        pid: process.pid,
        parent: process.ancestors.first().map_or(0, |parent| parent.pid),
        program,
        uid: process.uid,
        started: process.started,
        ended: process.ended,
        status: process.status,
        served: process.flags & flag::SERVED != 0 || process.children != 0 || process.kind == kind::BECAME,
        slept: alive.saturating_sub(process.ran).saturating_sub(process.waited),
        own_password: program == Program::Chkpwd && own_password(process),
    }
}

/// The terminal by its path below /dev; the kernel calls `pts/0` `pts0`.
fn terminal(process: &Process) -> String {
    let name = text::field(&process.tty);
    match name.strip_prefix("pts") {
        Some(number) if number.starts_with(|first: char| first.is_ascii_digit()) => format!("pts/{number}"),
        _ => name,
    }
}

/// Who started it: the user on his terminal, then the programs from his session's down to it.
fn chain(process: &Process, name: &str, login: &str) -> String {
    let mut names: Vec<String> = Vec::new();
    for ancestor in &process.ancestors {
        // The daemon that let him in is not his.
        if ancestor.pid == 0
            || (ancestor.uid != process.uid && ancestor.uid == 0 && process.login == NO_LOGIN)
        {
            break;
        }
        let comm = text::field(&ancestor.comm);
        if matches!(comm.as_str(), "sshd" | "sshd-session" | "login" | "systemd" | "init") {
            break;
        }
        names.push(comm);
    }
    names.reverse();
    names.push(name.to_owned());
    let tty = terminal(process);
    let at = if tty.is_empty() { String::new() } else { format!(" on {tty}") };
    format!("{login}{at} → {}", names.join(" → "))
}

/// How it ended.
fn result(process: &Process) -> Option<String> {
    if process.kind == kind::BECAME {
        return Some("became another program".to_owned());
    }
    if process.kind == kind::DENIED || process.flags & flag::DENIED != 0 {
        return Some("denied".to_owned());
    }
    if process.kind != kind::END {
        return None;
    }
    let status = ExitStatus::from_raw(i32::try_from(process.status).unwrap_or(0));
    Some(match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => format!("status {}", process.status),
    })
}

/// For people and programs.
#[must_use]
pub fn view(process: &Process, name: &str, now: &Now, names: &mut Names) -> ProcessView {
    let login_uid = (process.login != NO_LOGIN).then_some(process.login);
    let user = names.of(process.uid);
    let login = login_uid.and_then(|uid| names.of(uid));
    let who = login_uid.unwrap_or(process.uid);
    let shown = login.clone().or_else(|| user.clone()).unwrap_or_else(|| format!("uid {who}"));
    let ended = (process.ended != 0).then(|| now.wall_of(process.ended));
    let tty = terminal(process);
    let parent = process.ancestors.first().filter(|parent| parent.pid != 0);
    ProcessView {
        started: now.wall_of(process.started),
        ended,
        duration_ms: ended.map(|_| process.ended.saturating_sub(process.started) / 1_000_000),
        result: result(process),
        program: name.to_owned(),
        path: text::field(&process.path),
        pid: process.pid,
        uid: process.uid,
        user,
        login_uid,
        login,
        session: (process.session != NO_LOGIN).then_some(process.session),
        tty: (!tty.is_empty()).then_some(tty),
        cgroup: process.cgroup,
        target: target(program_of(name), process),
        parent: parent.map_or(0, |parent| parent.pid),
        parent_comm: parent.map(|parent| text::field(&parent.comm)),
        chain: chain(process, name, &shown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(arguments: &[u8]) -> Process {
        let mut one = decode(&vec![0; size_of::<Process>()]).unwrap();
        one.arguments[..arguments.len()].copy_from_slice(arguments);
        one.argument_bytes = u32::try_from(arguments.len()).unwrap();
        one
    }

    #[test]
    fn targets_are_found_and_escaped() {
        let of = |program, arguments: &[u8]| target(program, &process(arguments));
        assert_eq!(of(Program::Su, b"su\0-\0jon\0").as_deref(), Some("jon"));
        assert_eq!(of(Program::Su, b"su\0-c\0id\0jon\0").as_deref(), Some("jon"));
        assert_eq!(of(Program::Su, b"su\0"), None);
        assert_eq!(of(Program::Sudo, b"sudo\0-u\0jon\0id\0").as_deref(), Some("jon"));
        assert_eq!(of(Program::Sudo, b"sudo\0id\0-u\0jon\0"), None);
        assert_eq!(of(Program::Su, b"su\0j\x1b[2J\0").as_deref(), Some("j\\x1b[2J"));
    }

    #[test]
    fn other_sizes_are_none() {
        assert!(decode(&[]).is_none());
        assert!(decode(&vec![0; size_of::<Process>() + 8]).is_none());
    }

    #[test]
    fn chains_end_where_the_user_came_in() {
        let mut one = process(b"su\0jon\0");
        one.login = 1001;
        one.uid = 1001;
        one.tty[..4].copy_from_slice(b"pts0");
        for (ancestor, name) in one.ancestors.iter_mut().zip(["bash", "sshd", "sshd"]) {
            ancestor.pid = 7;
            ancestor.uid = 1001;
            ancestor.comm[..name.len()].copy_from_slice(name.as_bytes());
        }
        assert_eq!(chain(&one, "su", "kon"), "kon on pts/0 → bash → su");
    }
}
