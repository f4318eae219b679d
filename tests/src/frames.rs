//! Frames as they are: sent through a packet socket, byte by byte.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Sends frames out of the interface `e0` of the calling thread's network.
///
/// # Errors
/// The kernel's words.
pub fn send(frames: &[Vec<u8>]) -> io::Result<()> {
    // SAFETY: integers only.
    let number = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nobody else has.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    // SAFETY: a string that ends in zero.
    let index = unsafe { libc::if_nametoindex(c"e0".as_ptr()) };
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).unwrap_or(0),
        sll_protocol: 0,
        sll_ifindex: i32::try_from(index).unwrap_or(0),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0xff; 8],
    };
    for frame in frames {
        let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or(0);
        // SAFETY: both pointers are to whole objects of the lengths given, which outlive the call.
        let sent = unsafe {
            libc::sendto(
                socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const address).cast(),
                length,
            )
        };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// An Ethernet header to everybody, with VLAN tags.
#[must_use]
pub fn ethernet(tags: &[u16], kind: u16) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 9]);
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 7]);
    }
    frame.extend(kind.to_be_bytes());
    frame
}

/// An IPv4 packet with a UDP header in it; `fragment` as in the header, `words` of options.
#[must_use]
pub fn ipv4(source: [u8; 4], to: [u8; 4], fragment: u16, words: u8, port: u16) -> Vec<u8> {
    let length = 20 + 4 * usize::from(words) + 16;
    let [high, low] = u16::try_from(length).unwrap_or(0).to_be_bytes();
    let [fragment_high, fragment_low] = fragment.to_be_bytes();
    let mut packet = vec![0x45 + words, 0, high, low, 0, 9, fragment_high, fragment_low, 64, 17, 0, 0];
    packet.extend(source);
    packet.extend(to);
    packet.extend(vec![1; 4 * usize::from(words)]);
    let sum = packet.chunks(2).fold(0_u32, |sum, pair| {
        sum + u32::from(u16::from_be_bytes([
            pair.first().copied().unwrap_or(0),
            pair.get(1).copied().unwrap_or(0),
        ]))
    });
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap_or(0);
    if let Some(place) = packet.get_mut(10..12) {
        place.copy_from_slice(&sum.to_be_bytes());
    }
    udp(&mut packet, port);
    packet
}

/// An IPv6 packet with extension headers (kind, its bytes without the first) before a UDP header.
#[must_use]
pub fn ipv6(source: [u8; 16], to: [u8; 16], headers: &[(u8, Vec<u8>)], port: u16) -> Vec<u8> {
    let first = headers.first().map_or(17, |(kind, _)| *kind);
    let length: usize = headers.iter().map(|(_, bytes)| bytes.len() + 1).sum::<usize>() + 16;
    let [high, low] = u16::try_from(length).unwrap_or(0).to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, high, low, first, 64];
    packet.extend(source);
    packet.extend(to);
    for (index, (_, bytes)) in headers.iter().enumerate() {
        packet.push(headers.get(index + 1).map_or(17, |(kind, _)| *kind));
        packet.extend(bytes);
    }
    udp(&mut packet, port);
    packet
}

fn udp(packet: &mut Vec<u8>, port: u16) {
    packet.extend([0xc0, 0]);
    packet.extend(port.to_be_bytes());
    packet.extend([0, 16, 0, 0]);
    packet.extend([0; 8]);
}
