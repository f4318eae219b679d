//! A netlink socket: requests that dump or change, their answers, and attributes.
//!
//! Invariants: what the kernel sends is cut by its own lengths and never read past its end; a request waits a bounded
//! time for its answer.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket, sockopt::ReceiveTimeout,
};
use nix::sys::time::TimeVal;

const HEADER: usize = 16;
const DONE: u16 = 3;
const ERROR: u16 = 2;
/// This is a request.
const REQUEST: u16 = 1;
/// Answer whether it was done.
pub const ACK: u16 = 4;
/// All there are.
pub const DUMP: u16 = 0x300;
/// Seconds to wait for an answer.
const PATIENCE: i64 = 5;
/// Bytes of one answer; the kernel sends at most 32 KiB at once.
const ANSWER: usize = 1 << 16;

/// A netlink socket.
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Opens one, subscribed to `groups`.
    pub fn open(protocol: SockProtocol, groups: u32) -> io::Result<Self> {
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::new(PATIENCE, 0))?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The socket, to wait for.
    pub fn into_socket(self) -> OwnedFd {
        self.socket
    }

    /// Sends a request and shows each message of the answer: its type and what is behind its header.
    pub fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        body: &[u8],
        mut see: impl FnMut(u16, &[u8]),
    ) -> io::Result<()> {
        self.sequence += 1;
        let length = HEADER + body.len();
        let mut message = Vec::with_capacity(length);
        message.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((REQUEST | flags).to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend([0; 4]);
        message.extend(body);
        send(self.socket.as_raw_fd(), &message, MsgFlags::empty())?;
        let mut answer = vec![0; ANSWER];
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
            let mut rest = answer.get(..length).unwrap_or_default();
            while let Some((kind, sequence, body, next)) = message_of(rest) {
                rest = next;
                if sequence != self.sequence {
                    continue;
                }
                match kind {
                    DONE => return Ok(()),
                    ERROR => {
                        let code = i32::from_ne_bytes(array(body, 0).unwrap_or([0; 4]));
                        return if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) };
                    }
                    kind => see(kind, body),
                }
            }
        }
    }
}

/// The first message of an answer: type, sequence number, body, and what follows.
fn message_of(bytes: &[u8]) -> Option<(u16, u32, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(array(bytes, 0)?) as usize;
    let kind = u16::from_ne_bytes(array(bytes, 4)?);
    let sequence = u32::from_ne_bytes(array(bytes, 8)?);
    let body = bytes.get(HEADER..length)?;
    Some((kind, sequence, body, bytes.get(aligned(length)..).unwrap_or_default()))
}

/// `N` bytes at `offset`, if they are there.
pub fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

/// The attributes in `bytes`: type and value. Nested ones are attributes again.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(array(rest, 0)?));
        // The upper bits are flags.
        let kind = u16::from_ne_bytes(array(rest, 2)?) & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

const fn aligned(length: usize) -> usize {
    (length + 3) & !3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_lie_are_not_followed() {
        assert!(message_of(&[]).is_none());
        assert!(message_of(&[0; 16]).is_none(), "shorter than its header");
        let mut message = [0_u8; 20];
        message[0] = 40;
        assert!(message_of(&message).is_none(), "longer than the answer");
        message[0] = 20;
        assert!(message_of(&message).is_some_and(|(.., body, rest)| body.len() == 4 && rest.is_empty()));
        assert_eq!(attributes(&[8, 0, 3, 0, 1, 2, 3, 4, 200, 0, 1, 0, 9]).count(), 1);
        assert_eq!(attributes(&[2, 0, 3, 0]).count(), 0, "no attribute is shorter than its header");
    }
}
