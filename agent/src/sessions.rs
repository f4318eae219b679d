//! Where administrators are logged in from: utmp(5), and logind's list where there is none.
//!
//! Invariants: what is found only ever exempts an address; names of hosts are never resolved; a record that makes no
//! sense is passed over; nothing is waited for: logind's folder has pipes in it, too.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use bytes::Buf;

use crate::accounts::Directory;
use crate::config::Config;

/// Bytes of a record of utmp(5) on Linux.
const RECORD: usize = 384;
/// More records than any host has sessions.
const MOST: usize = 4_096;
/// USER_PROCESS.
const USER: u16 = 7;
/// Groups whose members administer.
const GROUPS: [&str; 3] = ["sudo", "wheel", "admin"];

/// A user who is logged in from an address.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Session {
    user: Vec<u8>,
    address: IpAddr,
}

/// The addresses from which root, break-glass accounts and members of sudo, wheel and admin are logged in now.
pub fn administrators(root: &Path, config: &Config, directory: &dyn Directory) -> Vec<IpAddr> {
    let mut sessions = utmp(&std::fs::read(root.join("run/utmp")).unwrap_or_default());
    sessions.extend(logind(&root.join("run/systemd/sessions")));
    let mut found = BTreeSet::new();
    for session in sessions {
        let user = String::from_utf8_lossy(&session.user);
        if is_administrator(&user, config, directory) {
            found.insert(session.address);
        }
    }
    found.into_iter().collect()
}

fn is_administrator(user: &str, config: &Config, directory: &dyn Directory) -> bool {
    if config.break_glass.holds(user) {
        return true;
    }
    let Ok(Some(user)) = directory.user(user) else { return false };
    user.uid == 0
        || GROUPS.iter().any(|group| {
            directory
                .group(group)
                .ok()
                .flatten()
                .is_some_and(|group| group.gid == user.gid || group.members.contains(&user.name))
        })
}

/// The sessions with an address in a utmp file.
fn utmp(bytes: &[u8]) -> Vec<Session> {
    bytes.chunks_exact(RECORD).take(MOST).filter_map(record).collect()
}

fn record(mut bytes: &[u8]) -> Option<Session> {
    let kind = bytes.try_get_u16_ne().ok()?;
    // Padding, pid, line, id.
    bytes = bytes.get(2 + 4 + 32 + 4..)?;
    let (user, rest) = bytes.split_at_checked(32)?;
    // Host, exit status, session, time.
    bytes = rest.get(256 + 4 + 4 + 8..)?;
    let mut address = [0; 16];
    bytes.try_copy_to_slice(&mut address).ok()?;
    let user = user.split(|byte| *byte == 0).next()?.to_vec();
    let [a, b, c, d, rest @ ..] = address;
    let address = if rest == [0; 12] {
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    } else {
        IpAddr::V6(Ipv6Addr::from(address)).to_canonical()
    };
    (kind == USER && !user.is_empty() && !address.is_unspecified()).then_some(Session { user, address })
}

/// The sessions with an address that logind knows.
fn logind(folder: &Path) -> Vec<Session> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let files = entries.take(MOST).filter_map(|entry| text_of(&entry.ok()?.path()));
    files.filter_map(|text| session(&text)).collect()
}

/// The text of a plain file. Beside each session's file lies `ID.ref`, a pipe that is open as long as the session: to
/// read from it is to wait for the logout.
fn text_of(path: &Path) -> Option<String> {
    let mut file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
        .open(path)
        .ok()?;
    let plain = file.metadata().ok()?.is_file();
    let mut text = String::new();
    (plain && file.read_to_string(&mut text).is_ok()).then_some(text)
}

fn session(text: &str) -> Option<Session> {
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let address: IpAddr = value("REMOTE_HOST")?.split('%').next()?.parse().ok()?;
    let gone = value("STATE") == Some("closing");
    let user = value("USER")?.as_bytes().to_vec();
    (!gone).then_some(Session { user, address: address.to_canonical() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(kind: u16, user: &str, address: &[u8]) -> Vec<u8> {
        let mut record = vec![0; RECORD];
        record[..2].copy_from_slice(&kind.to_ne_bytes());
        record[44..44 + user.len()].copy_from_slice(user.as_bytes());
        record[348..348 + address.len()].copy_from_slice(address);
        record
    }

    #[test]
    fn sessions_with_an_address_are_read_from_utmp() {
        let mut file = written(USER, "admin", &[192, 0, 2, 7]);
        file.extend(written(8, "gone", &[192, 0, 2, 8]));
        file.extend(written(USER, "console", &[]));
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 51, 100, 1];
        file.extend(written(USER, "six", &mapped));
        file.extend([1; 100]);
        let found = utmp(&file);
        let named =
            |user: &str, address: &str| Session { user: user.into(), address: address.parse().unwrap() };
        assert_eq!(found, [named("admin", "192.0.2.7"), named("six", "198.51.100.1")]);
    }

    #[test]
    fn the_pipe_of_a_session_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("5"), "USER=root\nSTATE=active\nREMOTE_HOST=192.0.2.7\n").unwrap();
        let pipe = folder.path().join("5.ref");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // As logind and the session hold it: open, and silent.
        let _held = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
        let folder = folder.path().to_owned();
        let (done, found) = std::sync::mpsc::channel();
        std::thread::spawn(move || done.send(logind(&folder)));
        let found = found.recv_timeout(std::time::Duration::from_secs(10)).expect("the pipe is waited for");
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn sessions_are_read_from_logind() {
        let text = "UID=0\nUSER=root\nACTIVE=1\nSTATE=active\nREMOTE=1\nREMOTE_HOST=2001:db8::1\n";
        assert_eq!(session(text).unwrap().address, "2001:db8::1".parse::<IpAddr>().unwrap());
        assert_eq!(session(&text.replace("active", "closing")), None);
        assert_eq!(session(&text.replace("2001:db8::1", "host.example.org")), None);
        assert_eq!(session("USER=root\n"), None);
    }
}
