//! What lies in the filter's maps.
//!
//! Invariants: as in [`crate::abi`]: `repr(C)`, fixed-width integers, explicit padding, sizes asserted below.

use super::{PORTS, SAMPLE_BYTES};

/// A drop: value of the hash tables and tries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Lease {
    /// CLOCK_BOOTTIME nanoseconds at which it is none any more; u64::MAX: until it is taken away.
    pub until: u64,
    /// Packets dropped by it.
    pub packets: u64,
    /// Destination ports; all zero: everything.
    pub ports: [u16; PORTS],
    /// Number of the lease.
    pub rule: u32,
    /// One of [`super::reason`].
    pub reason: u16,
    /// Length of the prefix, as in its key.
    pub length: u16,
}

/// Value of `FILTER_SETTINGS`. The counts are never lower than what is in the maps: the filter does not look where there
/// are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Settings {
    /// Entries of `ALLOW_4` and `ALLOW_6`.
    pub allowed: u32,
    /// Entries of `NETS_4` and `NETS_6`.
    pub nets: u32,
    /// Samples a second and processor; 0: none.
    pub samples: u32,
    /// Throttles: entries of `THROTTLES`.
    pub throttles: u32,
}

/// A dropped packet, told to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Sample {
    /// When, CLOCK_BOOTTIME.
    pub time: u64,
    /// Number of the lease.
    pub rule: u32,
    /// One of [`super::reason`].
    pub reason: u16,
    /// Bytes of `head` that are the packet's.
    pub taken: u16,
    /// Index of the interface.
    pub interface: u32,
    /// Length of the packet as the interface showed it.
    pub length: u32,
    /// 1: the packet has no Ethernet header.
    pub raw: u32,
    /// Always zero.
    pub reserved: u32,
    /// The packet's beginning.
    pub head: [u8; SAMPLE_BYTES],
}

const _: () = {
    assert!(size_of::<Lease>() == 32);
    assert!(size_of::<Settings>() == 16);
    assert!(size_of::<Sample>() == 32 + SAMPLE_BYTES);
};
