//! Throttles: sources, networks, ports and interfaces that are held to a rate, as leases. The records of their maps.
//!
//! Invariants: as in [`crate::abi`]; a throttle lies in one slot of `THROTTLES`, with all that is known of it, and chains
//! lead there: by network (the longest that has any, which names those around it too), by port, by interface.

use crate::arithmetic::same;

use super::limit::{Bucket, Meter, Rate, Share};

/// Slots of `THROTTLES`; the first is not used.
pub const MAX_THROTTLES: u32 = 1_024;
/// Throttles that can apply to one packet by its network, its port and its interface each.
pub const CHAIN: usize = 4;
/// Entries of `THROTTLE_SHARES`: sources that share a throttle. The one seen longest ago makes room.
pub const MAX_SHARES: u32 = 16_384;
/// Entries of `THROTTLE_FLOWS`. The one seen longest ago makes room.
pub const MAX_FLOWS: u32 = 65_536;
/// Quiet after which a flow is a new one, nanoseconds.
pub const FLOW_IDLE: u64 = 60_000_000_000;
/// A flow's time is written down again when it is this old.
pub const FLOW_FRESH: u64 = 1_000_000_000;

/// Names of the maps, which are the names of their pins too.
pub mod map {
    /// ARRAY of [`super::Throttle`].
    pub const THROTTLES: &str = "THROTTLES";
    /// ARRAY of one [`super::Counts`].
    pub const COUNTS: &str = "THROTTLE_COUNTS";
    /// LPM_TRIE: IPv4 prefixes, as in `NETS_4` → [`super::Chain`].
    pub const NETS_4: &str = "THROTTLE_NETS_4";
    /// LPM_TRIE: IPv6 prefixes → [`super::Chain`].
    pub const NETS_6: &str = "THROTTLE_NETS_6";
    /// HASH: destination port (u32) → [`super::Chain`].
    pub const PORTS: &str = "THROTTLE_PORTS";
    /// HASH: index of an interface (u32) → [`super::Chain`].
    pub const LINKS: &str = "THROTTLE_LINKS";
    /// LRU_HASH: [`super::share_key`] → [`super::Share`].
    pub const SHARES: &str = "THROTTLE_SHARES";
    /// LRU_HASH: [`super::flow_key`] → u64, when it was seen last.
    pub const FLOWS: &str = "THROTTLE_FLOWS";
}

/// What a throttle counts: `Throttle::unit`.
pub mod unit {
    /// Packets.
    pub const PACKETS: u32 = 1;
    /// Bytes.
    pub const BYTES: u32 = 2;
    /// TCP segments that begin a connection.
    pub const SYNS: u32 = 3;
    /// New flows.
    pub const FLOWS: u32 = 4;
}

/// What a throttle is for: the first byte of `Throttle::target`.
pub mod target {
    /// A network: length, two zeros, then the address (IPv4 in the first four bytes), first byte first.
    pub const V4: u8 = 4;
    /// The same.
    pub const V6: u8 = 6;
    /// A destination port: two zeros more, then the port, lowest byte first.
    pub const PORT: u8 = 1;
    /// An interface: two zeros more, then its name, zero-filled.
    pub const INTERFACE: u8 = 2;
}

/// A throttle: value of `THROTTLES`. All zero: a free slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Throttle {
    /// The kernel's `bpf_spin_lock`.
    pub lock: u32,
    /// One of [`unit`].
    pub unit: u32,
    /// CLOCK_BOOTTIME nanoseconds at which it is none any more; u64::MAX: until it is taken away.
    pub until: u64,
    /// Its number.
    pub rule: u32,
    /// One of [`super::reason`]: who asked for it.
    pub reason: u32,
    /// What it is for, see [`target`].
    pub target: [u8; 24],
    /// How much may pass, and what did.
    pub meter: Meter,
}

/// Slots of the throttles for something, the narrowest first; 0: no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Chain {
    /// The slots.
    pub slots: [u16; CHAIN],
}

/// Value of `THROTTLE_COUNTS`: never lower than what is in the maps, the filter does not look where there is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counts {
    /// Entries of `THROTTLE_NETS_4`.
    pub nets_4: u32,
    /// Entries of `THROTTLE_NETS_6`.
    pub nets_6: u32,
    /// Entries of `THROTTLE_PORTS`.
    pub ports: u32,
    /// Entries of `THROTTLE_LINKS`.
    pub links: u32,
    /// Throttles that count flows.
    pub flows: u32,
    /// Always zero.
    pub reserved: [u32; 3],
}

/// What a packet counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    /// Packets that were made one of.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// 1: it asks for a connection.
    pub syns: u64,
    /// 1: it begins a flow.
    pub flows: u64,
}

impl Weight {
    /// In a unit; 0 where it is none. Without branches, for the verifier.
    #[must_use]
    #[inline(always)]
    pub fn of(&self, unit: u32) -> u64 {
        let unit = u64::from(unit);
        let is = |other: u32| same(unit, u64::from(other));
        is(unit::PACKETS) & self.packets
            | is(unit::BYTES) & self.bytes
            | is(unit::SYNS) & self.syns
            | is(unit::FLOWS) & self.flows
    }
}

/// Key of a source's share of a throttle.
#[must_use]
#[inline(always)]
pub const fn share_key(slot: u32, source: super::Source) -> [u64; 2] {
    // IPv6 by its /64, as everywhere.
    let number = if source.family == 4 { source.low } else { source.high };
    [(slot as u64) << 32 | source.family as u64, number]
}

/// Key of a flow. The destination's address is not in it.
#[must_use]
#[inline(always)]
pub const fn flow_key(source: super::Source, from: u16, port: u32, protocol: u32) -> [u64; 3] {
    [source.high, source.low, (from as u64) << 48 | (protocol as u64 & 0xff) << 40 | port as u64]
}

const _: () = {
    assert!(size_of::<Throttle>() == 48 + 96);
    assert!(size_of::<Chain>() == 8);
    assert!(size_of::<Counts>() == 32);
    assert!(size_of::<Bucket>() + size_of::<Rate>() + size_of::<Share>() == 56);
};
