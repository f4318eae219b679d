//! Where the sessions of the one who calls come from: he must not drop himself.
//!
//! Invariant: what is found here only ever refuses something; `--force` is the way past it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

/// sshd sets it: address and port of the client, address and port of the server.
const VARIABLE: &[u8] = b"SSH_CONNECTION=";
/// Processes looked at on the way up.
const DEEPEST: usize = 64;

/// The addresses that this process or one above it was called from by ssh. sudo takes the variable away, the shell
/// above it still has it.
pub fn addresses() -> Vec<IpAddr> {
    let mut found = BTreeSet::new();
    let mut pid = std::process::id();
    for _ in 0..DEEPEST {
        let folder = Path::new("/proc").join(pid.to_string());
        // A process that has ended, or that is not ours to look at, tells nothing.
        found.extend(client(&std::fs::read(folder.join("environ")).unwrap_or_default()));
        match parent(&std::fs::read_to_string(folder.join("stat")).unwrap_or_default()) {
            Some(above) if above != 0 => pid = above,
            _ => break,
        }
    }
    found.into_iter().collect()
}

/// The client's address in an environment.
fn client(environment: &[u8]) -> Option<IpAddr> {
    let value = environment.split(|byte| *byte == 0).find_map(|word| word.strip_prefix(VARIABLE))?;
    let text = std::str::from_utf8(value).ok()?.split(' ').next()?;
    // A link-local address comes with its interface.
    let address: IpAddr = text.split('%').next()?.parse().ok()?;
    Some(address.to_canonical())
}

/// The parent in /proc/PID/stat: the second number behind the name, which may hold anything.
fn parent(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_found() {
        let address = |text: &str| client(text.as_bytes()).map(|address| address.to_string());
        assert_eq!(address("A=1\0SSH_CONNECTION=192.0.2.9 4711 192.0.2.1 22\0").unwrap(), "192.0.2.9");
        assert_eq!(address("SSH_CONNECTION=fe80::1%eth0 4711 fe80::2 22").unwrap(), "fe80::1");
        assert_eq!(address("XSSH_CONNECTION=192.0.2.9 1 2 3\0"), None);
        assert_eq!(address("SSH_CONNECTION=\0"), None);
    }

    #[test]
    fn names_with_brackets_are_no_trap() {
        assert_eq!(parent("7 (a) R 1) S 42 7 7"), Some(42));
        assert_eq!(parent(""), None);
    }
}
