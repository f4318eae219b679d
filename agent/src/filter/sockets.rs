//! Ends established connections of dropped sources: their packets would not arrive any more, and they would hang.
//!
//! Invariants: only sockets whose far end a lease covers are ended, and of a lease for ports those at that port; where the
//! kernel cannot (built without CONFIG_INET_DIAG_DESTROY) that is told apart from none.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::sys::socket::SockProtocol;

use super::Lease;
use super::netlink::{ACK, DUMP, Netlink, array};

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

/// Ends the connections of these leases' sources. Returns how many; none: the kernel cannot.
///
/// # Errors
/// The kernel's words.
pub fn end(leases: &[&Lease]) -> io::Result<Option<usize>> {
    let mut doomed = Vec::new();
    for (family, protocol) in [(INET, TCP), (INET6, TCP), (INET, UDP), (INET6, UDP)] {
        for socket in list(family, protocol)? {
            let hit = |lease: &&&Lease| {
                lease.net.contains(socket.remote)
                    && (lease.ports.is_empty() || lease.ports.contains(&socket.local_port))
            };
            if leases.iter().any(|lease| hit(&lease)) {
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
