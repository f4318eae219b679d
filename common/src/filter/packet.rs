//! From a packet to what the verdict looks at: source address and destination port.
//!
//! Invariants: nothing behind [`HEADERS`] bytes is looked at; every loop is bounded; a packet whose source can be read
//! has one, whatever follows; what may be the port of a lease and cannot be read is [`PORT_UNKNOWN`], so that no odd
//! packet slips past a lease for one port.

use core::net::IpAddr;

/// Bytes of a packet that are looked at.
pub const HEADERS: usize = 256;
/// VLAN tags that are read; a packet with more is no IP.
pub const MAX_TAGS: u32 = 2;
/// Extension headers that are read; behind more of them the port is unknown.
pub const MAX_EXTENSIONS: u32 = 8;

/// The packet carries no port: another protocol, or a fragment that is not the first.
pub const PORT_NONE: u32 = 1 << 16;
/// There may be a port, which cannot be read.
pub const PORT_UNKNOWN: u32 = 1 << 17;

const ETHERNET: usize = 14;
const VLAN: u16 = 0x8100;
const QINQ: u16 = 0x88a8;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

const HOP_BY_HOP: u8 = 0;
const TCP: u8 = 6;
const SYN: u8 = 2;
const ACK: u8 = 16;
const UDP: u8 = 17;
const DCCP: u8 = 33;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
const SCTP: u8 = 132;
const MOBILITY: u8 = 135;
const UDP_LITE: u8 = 136;
const HIP: u8 = 139;
const SHIM6: u8 = 140;

/// The bytes of a packet, from its beginning.
pub trait Bytes {
    /// `N` bytes (at least two: the compiler makes of one a comparison that the verifier does not follow) from `offset`
    /// on; none where the packet or what can be seen of it ends before, and behind [`HEADERS`].
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// The same number. In the kernel it goes through memory, so that the verifier does not follow each way by which it
    /// came to be.
    fn launder(&self, number: u64) -> u64 {
        number
    }
}

impl Bytes for &[u8] {
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let end = offset.checked_add(N).filter(|end| *end <= HEADERS)?;
        self.get(offset..end)?.try_into().ok()
    }
}

/// Where a packet says it comes from. Numbers as on paper: the first byte of the address is the highest.
///
/// No enum: what one kind lacks would be left unwritten, and verifiers before Linux 6.3 refuse to see it read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// 4, also where the address came as v4-mapped IPv6, or 6.
    pub family: u32,
    /// The first half of an IPv6 address.
    pub high: u64,
    /// The second half, or an IPv4 address.
    pub low: u64,
}

impl Source {
    /// An IPv4 address.
    #[must_use]
    #[inline(always)]
    pub const fn v4(address: u32) -> Self {
        Self { family: 4, high: 0, low: address as u64 }
    }

    /// An IPv6 address, which is IPv4 where it is v4-mapped.
    #[must_use]
    #[inline(always)]
    pub const fn v6(high: u64, low: u64) -> Self {
        if high == 0 && low >> 32 == 0xffff { Self::v4(low as u32) } else { Self { family: 6, high, low } }
    }

    /// The address.
    #[must_use]
    pub fn address(self) -> IpAddr {
        if self.family == 4 {
            IpAddr::V4((self.low as u32).into())
        } else {
            IpAddr::V6(((u128::from(self.high) << 64) | u128::from(self.low)).into())
        }
    }
}

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No IP: ARP, or more VLAN tags than are read.
    NotIp,
    /// It says it is IP and cannot be read as such.
    Malformed,
    /// IP.
    Ip(Packet),
}

/// What the verdict looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The source address.
    pub source: Source,
    /// The destination port, [`PORT_NONE`] or [`PORT_UNKNOWN`].
    pub port: u32,
    /// The protocol behind the IP headers; that of the last header read where the port is not known.
    pub protocol: u32,
    /// Where the header of that protocol begins; 0: not in this packet, or not known.
    pub offset: u32,
}

/// What a packet begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The source port; 0: none.
    pub from: u16,
    /// Whether it asks for a TCP connection. A packet of which that cannot be read does.
    pub syn: bool,
}

/// Reads what a packet begins.
#[inline(always)]
pub fn opening(bytes: &impl Bytes, packet: Packet) -> Opening {
    if packet.offset == 0 {
        return Opening { from: 0, syn: packet.port == PORT_UNKNOWN };
    }
    let offset = packet.offset as usize;
    let from =
        if packet.port < PORT_NONE { bytes.load::<2>(offset).map_or(0, u16::from_be_bytes) } else { 0 };
    let flags = |[_, flags]: [u8; 2]| flags & (SYN | ACK) == SYN;
    let syn = packet.protocol == TCP as u32 && bytes.load::<2>(offset + 12).is_none_or(flags);
    Opening { from, syn }
}

/// Reads a packet that begins with an Ethernet header.
#[inline(always)]
pub fn ethernet(bytes: &impl Bytes) -> Kind {
    let mut offset = ETHERNET;
    let Some(kind) = bytes.load::<2>(ETHERNET - 2) else { return Kind::NotIp };
    let mut kind = u16::from_be_bytes(kind);
    let mut tags = 0;
    while tags < MAX_TAGS && (kind == VLAN || kind == QINQ) {
        let Some(next) = bytes.load::<2>(offset + 2) else { return Kind::NotIp };
        kind = u16::from_be_bytes(next);
        offset += 4;
        tags += 1;
    }
    let offset = bytes.launder(offset as u64) as usize;
    match kind {
        IPV4 => ipv4(bytes, offset),
        IPV6 => ipv6(bytes, offset),
        _ => Kind::NotIp,
    }
}

/// Reads a packet that begins with its IP header, as on a tunnel.
#[inline(always)]
pub fn raw(bytes: &impl Bytes) -> Kind {
    let Some([first, ..]) = bytes.load::<4>(0) else { return Kind::NotIp };
    match first >> 4 {
        4 => ipv4(bytes, 0),
        6 => ipv6(bytes, 0),
        _ => Kind::NotIp,
    }
}

#[inline(always)]
fn ipv4(bytes: &impl Bytes, offset: usize) -> Kind {
    let Some(start) = bytes.load::<10>(offset) else { return Kind::Malformed };
    let Some(source) = bytes.load::<4>(offset + 12) else { return Kind::Malformed };
    let [first, _, _, _, _, _, fragment_high, fragment_low, _, protocol] = start;
    let words = first & 15;
    if first >> 4 != 4 || words < 5 {
        return Kind::Malformed;
    }
    let source = Source::v4(u32::from_be_bytes(source));
    let later = u16::from_be_bytes([fragment_high, fragment_low]) & 0x1fff != 0;
    let transport = if later {
        Transport { port: PORT_NONE, protocol: u32::from(protocol), offset: 0 }
    } else {
        transport(bytes, offset + usize::from(words) * 4, protocol, false)
    };
    Kind::Ip(transport.of(source))
}

#[inline(always)]
fn ipv6(bytes: &impl Bytes, offset: usize) -> Kind {
    let Some(start) = bytes.load::<8>(offset) else { return Kind::Malformed };
    let Some(high) = bytes.load::<8>(offset + 8) else { return Kind::Malformed };
    let Some(low) = bytes.load::<8>(offset + 16) else { return Kind::Malformed };
    // The destination too: the header is whole.
    if bytes.load::<2>(offset + 38).is_none() {
        return Kind::Malformed;
    }
    let [first, _, _, _, _, _, next, _] = start;
    if first >> 4 != 6 {
        return Kind::Malformed;
    }
    let (high, low) = (u64::from_be_bytes(high), u64::from_be_bytes(low));
    let source = Source::v6(high, low);
    Kind::Ip(transport(bytes, offset + 40, next, true).of(source))
}

/// What lies behind the IP headers.
struct Transport {
    port: u32,
    protocol: u32,
    offset: u32,
}

impl Transport {
    #[inline(always)]
    const fn of(self, source: Source) -> Packet {
        Packet { source, port: self.port, protocol: self.protocol, offset: self.offset }
    }
}

/// The destination port behind the headers that follow the IP header.
#[inline(always)]
fn transport(bytes: &impl Bytes, start: usize, first: u8, six: bool) -> Transport {
    let (mut offset, mut protocol) = (start, first);
    let mut headers = 0;
    let at = |port, protocol: u8, offset: usize| Transport {
        port,
        protocol: u32::from(protocol),
        offset: offset as u32,
    };
    while headers < MAX_EXTENSIONS {
        let length = match protocol {
            TCP | UDP | DCCP | SCTP | UDP_LITE => {
                return match bytes.load::<2>(offset + 2) {
                    Some(port) => at(u32::from(u16::from_be_bytes(port)), protocol, offset),
                    None => at(PORT_UNKNOWN, protocol, 0),
                };
            }
            AUTHENTICATION => 4,
            HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION | MOBILITY | HIP | SHIM6 if six => 8,
            _ => return at(PORT_NONE, protocol, offset),
        };
        let Some([next, words, third, fourth]) = bytes.load::<4>(offset) else {
            return at(PORT_UNKNOWN, protocol, 0);
        };
        offset += match protocol {
            FRAGMENT => {
                if u16::from_be_bytes([third, fourth]) & 0xfff8 != 0 {
                    return at(PORT_NONE, next, 0);
                }
                8
            }
            AUTHENTICATION => (usize::from(words) + 2) * length,
            _ => (usize::from(words) + 1) * length,
        };
        if offset >= HEADERS {
            return at(PORT_UNKNOWN, protocol, 0);
        }
        offset = bytes.launder(offset as u64) as usize;
        protocol = bytes.launder(u64::from(next)) as u8;
        headers += 1;
    }
    at(PORT_UNKNOWN, protocol, 0)
}
