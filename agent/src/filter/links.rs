//! The interfaces of this host, and news of them, of its addresses and of its routes.
//!
//! Invariant: what is asked is always the whole list, so that lost news lose nothing.

use std::io;
use std::os::fd::OwnedFd;

use nix::sys::socket::SockProtocol;

use super::netlink::{DUMP, Netlink, array, attributes};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
/// RTMGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
const IFINFO: usize = 16;
const IFLA_IFNAME: u16 = 3;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_PROG_ID: u16 = 4;

const ETHERNET: u16 = 1;
const PPP: u16 = 512;
const TUNNEL: u16 = 768;
const TUNNEL_6: u16 = 769;
const LOOPBACK: u16 = 772;
const SIT: u16 = 776;
const NONE: u16 = 0xfffe;

/// What a packet of an interface begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// An Ethernet header.
    Ethernet,
    /// The IP header.
    Raw,
    /// The host's own.
    Loopback,
    /// Something that is not read: the kernel's number of it.
    Other(u16),
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its number, never used again while the kernel runs.
    pub index: u32,
    /// Its name now.
    pub name: String,
    /// What its packets begin with.
    pub link: Link,
    /// The XDP program attached to it.
    pub xdp: Option<u32>,
}

/// All interfaces.
///
/// # Errors
/// The kernel's words.
pub fn list() -> io::Result<Vec<Interface>> {
    let mut found = Vec::new();
    Netlink::open(SockProtocol::NetlinkRoute, 0)?.ask(RTM_GETLINK, DUMP, &[0; IFINFO], |kind, body| {
        if kind == RTM_NEWLINK {
            found.extend(interface(body));
        }
    })?;
    Ok(found)
}

/// A socket that can be read whenever an interface, an address of this host or a route comes, goes or changes.
///
/// # Errors
/// The kernel's words.
pub fn news() -> io::Result<OwnedFd> {
    let socket = Netlink::open(SockProtocol::NetlinkRoute, GROUPS)?.into_socket();
    nix::fcntl::fcntl(&socket, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
    Ok(socket)
}

fn interface(body: &[u8]) -> Option<Interface> {
    let kind = u16::from_ne_bytes(array(body, 2)?);
    let index = u32::from_ne_bytes(array(body, 4)?);
    let mut name = None;
    let mut xdp = None;
    for (attribute, value) in attributes(body.get(IFINFO..)?) {
        match attribute {
            IFLA_IFNAME => name = Some(crate::text::field(value)),
            IFLA_XDP => {
                let id = attributes(value).find(|(attribute, _)| *attribute == IFLA_XDP_PROG_ID);
                xdp = id.and_then(|(_, value)| array(value, 0)).map(u32::from_ne_bytes).filter(|id| *id != 0);
            }
            _ => {}
        }
    }
    let link = match kind {
        ETHERNET => Link::Ethernet,
        LOOPBACK => Link::Loopback,
        NONE | PPP | TUNNEL | TUNNEL_6 | SIT => Link::Raw,
        other => Link::Other(other),
    };
    Some(Interface { index, name: name?, link, xdp })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_found() {
        let lo = list().unwrap().into_iter().find(|interface| interface.name == "lo").unwrap();
        assert_eq!((lo.index, lo.link, lo.xdp), (1, Link::Loopback, None));
    }
}
