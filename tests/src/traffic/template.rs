//! The frames that a flood is made from: everything but the source, and the sums that its program completes.
//!
//! Invariant: with the source that the program writes, every checksum is right: what is not dropped is received.

use super::scene::{Scene, transport};

/// Address of the receiving end.
pub const VICTIM_4: [u8; 4] = [10, 77, 0, 1];
/// The same for IPv6.
pub const VICTIM_6: [u8; 16] = [0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// Ethernet address of every receiving end.
pub const VICTIM_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// A port where nobody listens.
const PORT: u16 = 9;
/// Bytes of the shortest frame, without its checksum.
const SHORTEST: usize = 60;

/// What a flood's packets are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UDP over IPv4 to a port where nobody listens, 60 bytes.
    Udp4,
    /// UDP over IPv6 to such a port, 62 bytes.
    Udp6,
    /// UDP over IPv4 of 1,400 bytes to such a port.
    Volume,
    /// TCP SYN to a port.
    Syn(u16),
    /// ICMP echo requests.
    Ping,
}

/// A frame without its source, and how its program completes it.
#[derive(Clone, Debug)]
pub struct Template {
    /// From the Ethernet header on.
    pub frame: Vec<u8>,
    /// `family`, `header`, `transport`, `covered`, `ports`; the rest is the flood's.
    pub scene: Scene,
}

impl Kind {
    /// Its frame.
    #[must_use]
    pub fn template(self) -> Template {
        match self {
            Self::Udp4 => four(17, &udp(PORT, &[0; 18]), transport::NONE, 0),
            Self::Volume => four(17, &udp(PORT, &[0; 1358]), transport::NONE, 1),
            Self::Ping => four(1, &ping(), transport::NONE, 0),
            Self::Syn(port) => four(6, &syn(port), transport::TCP4, 1),
            Self::Udp6 => six(&udp(PORT, &[])),
        }
    }
}

/// Sum of 16-bit words in network order.
fn sum(bytes: &[u8]) -> u32 {
    let word = |pair: &[u8]| {
        let byte = |place| pair.get(place).copied().unwrap_or(0);
        u32::from(u16::from_be_bytes([byte(0), byte(1)]))
    };
    bytes.chunks(2).map(word).sum()
}

fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes()
}

fn ethernet(kind: u16) -> Vec<u8> {
    let mut frame = VICTIM_MAC.to_vec();
    frame.extend([2, 0, 0, 0, 0, 2]);
    frame.extend(kind.to_be_bytes());
    frame
}

/// Behind an IPv4 header; `rest` with a zero checksum and, where ports vary, a zero source port.
fn four(protocol: u8, rest: &[u8], transport: u32, ports: u32) -> Template {
    let mut header = vec![0x45, 0];
    header.extend(length(20 + rest.len()));
    header.extend([0, 0, 0x40, 0, 64, protocol, 0, 0, 0, 0, 0, 0]);
    header.extend(VICTIM_4);
    let pseudo = sum(&VICTIM_4) + u32::from(protocol) + sum(&length(rest.len()));
    let scene = Scene {
        family: 4,
        header: sum(&header),
        transport,
        covered: pseudo + sum(rest),
        ports,
        ..Scene::default()
    };
    let mut frame = ethernet(0x0800);
    frame.extend(header);
    frame.extend(rest);
    frame.resize(frame.len().max(SHORTEST), 0);
    Template { frame, scene }
}

/// Behind an IPv6 header.
fn six(rest: &[u8]) -> Template {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend(length(rest.len()));
    header.extend([17, 64]);
    header.extend([0; 16]);
    header.extend(VICTIM_6);
    let pseudo = sum(&VICTIM_6) + 17 + sum(&length(rest.len()));
    let scene =
        Scene { family: 6, transport: transport::UDP6, covered: pseudo + sum(rest), ..Scene::default() };
    let mut frame = ethernet(0x86dd);
    frame.extend(header);
    frame.extend(rest);
    Template { frame, scene }
}

fn udp(port: u16, data: &[u8]) -> Vec<u8> {
    let mut packet = vec![0xc0, 0];
    packet.extend(port.to_be_bytes());
    packet.extend(length(8 + data.len()));
    packet.extend([0, 0]);
    packet.extend(data);
    packet
}

fn ping() -> Vec<u8> {
    let mut packet = vec![8, 0, 0, 0, 0x70, 0x6f, 0, 1];
    packet.extend([0; 18]);
    let checksum = super::scene::checksum(sum(&packet)).to_be_bytes();
    if let Some(place) = packet.get_mut(2..4) {
        place.copy_from_slice(&checksum);
    }
    packet
}

fn syn(port: u16) -> Vec<u8> {
    let mut packet = vec![0, 0];
    packet.extend(port.to_be_bytes());
    // Sequence 1, no acknowledgement, 20 bytes, SYN, a window, no checksum, nothing urgent.
    packet.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0x72, 0x10, 0, 0, 0, 0]);
    packet
}

#[cfg(test)]
mod tests {
    use super::super::scene::{checksum, source_4, spread};
    use super::*;

    #[test]
    fn what_the_program_completes_is_a_valid_header() {
        let Template { mut frame, scene } = Kind::Syn(22).template();
        let source = source_4(77);
        let words = (source >> 16) + (source & 0xffff);
        frame[24..26].copy_from_slice(&checksum(scene.header + words).to_be_bytes());
        frame[26..30].copy_from_slice(&source.to_be_bytes());
        assert_eq!(checksum(sum(&frame[14..34])), 0, "the header sums up");
        frame[50..52].copy_from_slice(&checksum(scene.covered + words).to_be_bytes());
        let pseudo = sum(&frame[26..34]) + 6 + 20;
        assert_eq!(checksum(pseudo + sum(&frame[34..54])), 0, "TCP sums up");
    }

    #[test]
    fn places_lie_apart() {
        let mut seen: Vec<u32> = (0..1 << 20).chain((1 << 29)..(1 << 29) + (1 << 20)).map(spread).collect();
        seen.sort_unstable();
        assert!(seen.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
