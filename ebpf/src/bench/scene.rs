//! What a flood is made of: the record by which the benchmark tells its programs, and where the sources lie. The same
//! file is compiled into the benchmark itself, which fills the lists with these sources.
//!
//! Invariant: [`spread`] is one to one, so a list of the first N places and a flood from places behind N have nothing in
//! common.

/// The benchmark's orders to [`flood`](super) and what it tells in return. Numbers of checksums are sums of 16-bit words
/// in network order, not yet folded.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scene {
    /// Interface that frames leave by (its index).
    pub interface: u32,
    /// First place of the sources.
    pub first: u32,
    /// How many places from there; each is as likely as any other.
    pub count: u32,
    /// 4 or 6.
    pub family: u32,
    /// Sum of the IPv4 header, source and checksum taken as zero.
    pub header: u32,
    /// Which checksum depends on the source: one of [`transport`].
    pub transport: u32,
    /// Sum of what that checksum covers, source address and source port taken as zero.
    pub covered: u32,
    /// 1: random source ports.
    pub ports: u32,
    /// Nanoseconds from one frame to the next; 0: as fast as it goes.
    pub pace: u64,
    /// When the next frame is due (CLOCK_MONOTONIC, ns); the program's own.
    pub due: u64,
    /// Frames sent; the program's own.
    pub sent: u64,
    /// With a pace: so many at once, and then a longer pause, as a network card hands them on that moderates its interrupts.
    /// Not 0.
    pub burst: u64,
    /// 1: every frame is made and thrown away: the load of a flood that does not arrive.
    pub mute: u64,
}

/// Checksums that depend on the source.
pub mod transport {
    /// None: UDP over IPv4 may go without, ICMP does not cover addresses.
    #[allow(dead_code, reason = "what the other two are compared with in words; the benchmark uses it")]
    pub const NONE: u32 = 0;
    /// TCP over IPv4.
    pub const TCP4: u32 = 1;
    /// UDP over IPv6.
    pub const UDP6: u32 = 2;
}

/// Bits of a place.
const PLACE: u32 = 30;
const MASK: u32 = (1 << PLACE) - 1;

/// Puts places that follow each other far apart: one to one over 30 bits (odd factors and shifted exclusive ors can be
/// undone).
#[inline(always)]
#[must_use]
pub const fn spread(place: u32) -> u32 {
    let mut mixed = place & MASK;
    mixed ^= mixed >> 15;
    mixed = mixed.wrapping_mul(0x2c1b_3c6d) & MASK;
    mixed ^= mixed >> 12;
    mixed = mixed.wrapping_mul(0x297a_2d39) & MASK;
    mixed ^ (mixed >> 15)
}

/// The IPv4 source of a place, in 128.0.0.0/2.
#[inline(always)]
#[must_use]
pub const fn source_4(place: u32) -> u32 {
    0x8000_0000 | spread(place)
}

/// The /64 of a place, in 2a00::/34.
#[inline(always)]
#[must_use]
pub const fn source_6(place: u32) -> u64 {
    0x2a00_0000_0000_0000 | spread(place) as u64
}

/// The checksum of a sum of words, in host order.
#[inline(always)]
#[must_use]
pub const fn checksum(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}
