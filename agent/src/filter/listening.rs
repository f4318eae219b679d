//! Ports: by the names of services(5), and those that a service listens on.
//!
//! Invariants: what cannot be found out is no port, and a lease without ports is for all of them; only sockets that root
//! opened count, so that no user can add ports to a drop, nor take its own out of one.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::PORTS;

const SERVICES: &str = "/etc/services";
/// Programs and sockets looked at: more than any host has of root's.
const MOST: usize = 65_536;
/// TCP_LISTEN, as /proc/net/tcp has it.
const LISTEN: &str = "0A";

/// The port of a name of services(5), TCP before others.
#[must_use]
pub fn named(name: &str) -> Option<u16> {
    port_of(&std::fs::read_to_string(SERVICES).unwrap_or_default(), name)
}

fn port_of(text: &str, name: &str) -> Option<u16> {
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let first = words.next()?;
        let (port, protocol) = words.next()?.split_once('/')?;
        let port = port.parse::<u16>().ok().filter(|port| *port != 0)?;
        (first == name || words.any(|alias| alias == name)).then_some((protocol != "tcp", port))
    });
    lines.min_by_key(|(other, _)| *other).map(|(_, port)| port)
}

/// The ports of a PAM service (zero-filled): those on which root's programs of that name listen; where none does (a socket
/// that systemd holds), the port of that name in services(5), with or without a final d. Empty: not known, or more than a
/// lease can name.
#[must_use]
pub fn of_service(service: &[u8; 16]) -> Vec<u16> {
    let name = crate::text::field(service);
    if name.is_empty() {
        return Vec::new();
    }
    let mut ports = listened(Path::new("/proc"), &name);
    if ports.is_empty() {
        let other = name.strip_suffix('d').unwrap_or(&name);
        ports.extend(named(&name).or_else(|| named(other)));
    }
    if ports.len() > PORTS { Vec::new() } else { ports.into_iter().collect() }
}

fn listened(proc: &Path, name: &str) -> BTreeSet<u16> {
    let sockets: Vec<(String, u16)> = ["net/tcp", "net/tcp6"]
        .into_iter()
        .flat_map(|table| sockets(&std::fs::read_to_string(proc.join(table)).unwrap_or_default()))
        .collect();
    let mut ports = BTreeSet::new();
    let Ok(entries) = std::fs::read_dir(proc) else { return ports };
    for entry in entries.flatten().take(MOST) {
        let process = entry.path();
        // comm(5) has 15 bytes.
        let same = std::fs::read_to_string(process.join("comm"))
            .is_ok_and(|comm| comm.trim_end() == name.get(..15).unwrap_or(name));
        if !same {
            continue;
        }
        let Ok(files) = std::fs::read_dir(process.join("fd")) else { continue };
        for file in files.flatten().take(MOST) {
            let Ok(target) = std::fs::read_link(file.path()) else { continue };
            let held = sockets.iter().filter(|(inode, _)| inode.as_bytes() == target.as_os_str().as_bytes());
            ports.extend(held.map(|(_, port)| *port));
        }
    }
    ports
}

/// Sockets of root that listen: the name of the descriptor, the port. A line: number, local, remote, state, queues, timer,
/// retransmits, uid, timeout, inode.
fn sockets(table: &str) -> Vec<(String, u16)> {
    let socket = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (_, port) = words.get(1)?.rsplit_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        let ours = *words.get(3)? == LISTEN && *words.get(7)? == "0";
        ours.then_some((format!("socket:[{}]", words.get(9)?), port))
    };
    table.lines().skip(1).filter_map(socket).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_in_services() {
        let text = "# ssh 9/tcp\nssh\t22/udp\nssh\t22/tcp secsh # Secure Shell\nzero 0/tcp\nbad x/tcp\nweb 80/tcp http www\n\
                    both 7/udp\nboth 8/tcp\n";
        for (name, port) in [
            ("ssh", Some(22)),
            ("secsh", Some(22)),
            ("www", Some(80)),
            ("both", Some(8)),
            ("zero", None),
            ("bad", None),
            ("Secure", None),
            ("none", None),
            ("", None),
        ] {
            assert_eq!(port_of(text, name), port, "{name}");
        }
    }

    #[test]
    fn only_roots_listening_sockets_of_that_program_count() {
        let proc = tempfile::tempdir().unwrap();
        let place = |path: &str| proc.path().join(path);
        let line = |port: u16, state: &str, uid: u32, inode: u32| {
            format!(
                "   0: 00000000:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 {uid} 0 {inode} 1\n"
            )
        };
        std::fs::create_dir_all(place("net")).unwrap();
        let tables = [
            ("net/tcp", line(2222, "0A", 0, 1) + &line(2223, "01", 0, 2) + &line(2224, "0A", 1000, 3)),
            ("net/tcp6", line(2222, "0A", 0, 4) + &line(443, "0A", 0, 5)),
        ];
        for (table, lines) in tables {
            std::fs::write(place(table), "  sl  local_address\n".to_owned() + &lines).unwrap();
        }
        for (pid, comm, inodes) in [("7", "sshd", vec![1, 2, 3, 4]), ("8", "httpd", vec![5])] {
            std::fs::create_dir_all(place(pid).join("fd")).unwrap();
            std::fs::write(place(pid).join("comm"), format!("{comm}\n")).unwrap();
            for inode in inodes {
                let link = place(pid).join("fd").join(inode.to_string());
                std::os::unix::fs::symlink(format!("socket:[{inode}]"), link).unwrap();
            }
        }
        assert_eq!(listened(proc.path(), "sshd"), [2222].into());
        assert_eq!(listened(proc.path(), "httpd"), [443].into());
        assert_eq!(listened(proc.path(), "telnetd"), [].into());
    }

    #[test]
    fn what_is_not_known_is_no_port() {
        assert_eq!(of_service(&[0; 16]), Vec::<u16>::new());
        assert_eq!(of_service(b"no-such-service\0"), Vec::<u16>::new());
    }
}
