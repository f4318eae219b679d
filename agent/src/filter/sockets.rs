//! Ends established connections of dropped sources: their packets would not arrive any more, and they would hang.
//!
//! Invariants: only sockets whose far end a lease covers and the allow-list does not are ended, and of a lease for ports
//! those at that port; where the kernel cannot (built without CONFIG_INET_DIAG_DESTROY) that is told apart from none.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::sys::socket::SockProtocol;

use super::netlink::{ACK, DUMP, Netlink, array};
use super::{Lease, Net};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const INET: u8 = 2;
const INET6: u8 = 10;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// All states but closed, listening and time-wait.
const STATES: u32 = 0xfff & !(1 << 7) & !(1 << 10) & !(1 << 6);
/// Bytes of `struct inet_diag_sockid`.
const ID: usize = 48;
/// Where it begins in `struct inet_diag_msg`.
const ID_AT: usize = 4;

/// A socket as the kernel names it.
struct Socket {
    family: u8,
    protocol: u8,
    local_port: u16,
    remote: IpAddr,
    id: [u8; ID],
}

impl Socket {
    /// Whether its packets are dropped from now on: as the kernel's filter judges, the allow-list first.
    fn doomed(&self, leases: &Leases<'_>, allow: &[Net]) -> bool {
        leases
            .around(self.remote)
            .any(|lease| lease.ports.is_empty() || lease.ports.contains(&self.local_port))
            && (cfg!(feature = "mutation-end-allowed-connections")
                || !allow.iter().any(|allowed| allowed.contains(self.remote)))
    }
}

/// Leases by their networks: a list of 100,000 is not gone through for each socket.
struct Leases<'a> {
    by_net: HashMap<Net, &'a Lease>,
    lengths: BTreeSet<u8>,
}

impl<'a> Leases<'a> {
    fn new(leases: &[&'a Lease]) -> Self {
        let by_net: HashMap<_, _> = leases.iter().map(|lease| (lease.net, *lease)).collect();
        let lengths = by_net.keys().map(|net| net.length()).collect();
        Self { by_net, lengths }
    }

    /// Those that cover an address.
    fn around(&self, address: IpAddr) -> impl Iterator<Item = &'a Lease> + '_ {
        let most = if address.is_ipv4() { 32 } else { 128 };
        let lengths = self.lengths.iter().filter(move |length| **length <= most);
        lengths.filter_map(move |length| self.by_net.get(&Net::around(address, *length)).copied())
    }
}

/// Ends the connections of these leases' sources, but those of the allow-list. Returns how many; none: the kernel
/// cannot.
///
/// # Errors
/// The kernel's words.
pub fn end(leases: &[&Lease], allow: &[Net]) -> io::Result<Option<usize>> {
    let leases = Leases::new(leases);
    let mut doomed = Vec::new();
    for (family, protocol) in [(INET, TCP), (INET6, TCP), (INET, UDP), (INET6, UDP)] {
        for socket in list(family, protocol)? {
            if socket.doomed(&leases, allow) {
                doomed.push(socket);
            }
        }
    }
    let mut ended = 0;
    for socket in doomed {
        match Netlink::open(SockProtocol::NetlinkSockDiag, 0)?.ask(
            SOCK_DESTROY,
            ACK,
            &request(socket.family, socket.protocol, &socket.id),
            |_, _| {},
        ) {
            Ok(()) => ended += 1,
            // It ended by itself.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(ended))
}

fn list(family: u8, protocol: u8) -> io::Result<Vec<Socket>> {
    let mut found = Vec::new();
    let mut netlink = Netlink::open(SockProtocol::NetlinkSockDiag, 0)?;
    let asked = netlink.ask(SOCK_DIAG_BY_FAMILY, DUMP, &request(family, protocol, &[0; ID]), |kind, body| {
        if kind == SOCK_DIAG_BY_FAMILY {
            found.extend(socket(body, protocol));
        }
    });
    match asked {
        // No such protocol in this kernel: no such sockets.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Vec::new()),
        Err(error) => Err(error),
        Ok(()) => Ok(found),
    }
}

/// `struct inet_diag_req_v2`.
fn request(family: u8, protocol: u8, id: &[u8; ID]) -> Vec<u8> {
    let mut request = vec![family, protocol, 0, 0];
    request.extend(STATES.to_ne_bytes());
    request.extend(id);
    request
}

/// Of `struct inet_diag_msg`: family, state, timer, retrans, then the id: ports, addresses, interface, cookie.
fn socket(body: &[u8], protocol: u8) -> Option<Socket> {
    let family = *body.first()?;
    let id: [u8; ID] = array(body, ID_AT)?;
    let far = ID_AT + 4 + 16;
    let remote = match family {
        INET => IpAddr::V4(Ipv4Addr::from(array::<4>(body, far)?)),
        INET6 => IpAddr::V6(Ipv6Addr::from(array::<16>(body, far)?)).to_canonical(),
        _ => return None,
    };
    let local_port = u16::from_be_bytes(array(body, ID_AT)?);
    (!remote.is_unspecified()).then_some(Socket { family, protocol, local_port, remote, id })
}

#[cfg(test)]
mod tests {
    use portcullis_policy::Boot;

    use super::super::Cause;
    use super::*;

    #[test]
    fn connections_of_the_allow_list_are_not_ended() {
        let lease = |net: &str, ports: &[u16]| Lease {
            net: net.parse().unwrap(),
            until: Boot::NEVER,
            ports: ports.to_vec(),
            cause: Cause::Policy,
            reason: String::new(),
        };
        let (all, one) = (lease("10.9.0.0/16", &[]), lease("2001:db8::/32", &[22]));
        let leases = Leases::new(&[&all, &one]);
        let allow = ["10.9.1.9/32", "2001:db8:7::/64"].map(|net| net.parse().unwrap());
        let doomed = |remote: &str, local_port| {
            let remote = remote.parse().unwrap();
            let socket = Socket { family: INET, protocol: TCP, local_port, remote, id: [0; ID] };
            socket.doomed(&leases, &allow)
        };
        assert!(doomed("10.9.1.8", 22) && doomed("10.9.1.8", 443));
        assert!(doomed("2001:db8:6::1", 22) && !doomed("2001:db8:6::1", 443));
        assert!(!doomed("10.10.1.8", 22), "no lease covers it");
        assert!(!doomed("10.9.1.9", 22) && !doomed("2001:db8:7::1", 22), "they are on the allow-list");
    }
}
