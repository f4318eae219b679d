//! The filter's share: the verdict itself, the records of its maps, the names of its pins.
//!
//! * [`net`]: networks as people write them.
//! * [`packet`]: from a packet to its source and port.
//! * [`verdict`]: from source and port to pass or drop, over any table.
//! * [`record`]: what lies in the maps.
//! * [`fast`]: the table of sources that are dropped for all ports.
//! * [`limit`]: token buckets.
//! * [`throttle`]: the records of what is held to a rate.
//!
//! The programs in the kernel and the property tests run the same lines.
//!
//! Invariants: as in [`crate::abi`]; a change of any record raises [`FILTER_ABI`], which is part of the pin path; an
//! allow-listed source is never dropped; what cannot be read as IP passes (the host's own stack judges it).

pub mod fast;
pub mod limit;
pub mod net;
pub mod packet;
pub mod record;
pub mod throttle;
pub mod verdict;

pub use net::{Net, NetError};
pub use packet::{Bytes, Kind, Packet, Source};
pub use record::{Lease, Sample, Settings};
pub use verdict::{Clock, MAX_LENGTHS, Table, Verdict, is_spared, judge};

/// Version of everything below.
pub const FILTER_ABI: u32 = 1;
/// The folder of the filter's pins, beside those of the gate: it outlives an upgrade of the gate.
pub const FILTER_DIR: &str = "/sys/fs/bpf/portcullis/filter-v1";

/// Ports one lease can name.
pub const PORTS: usize = 4;

/// The classifier among those of clsact, where it hangs on no link.
pub mod clsact {
    /// Its priority.
    pub const PRIORITY: u16 = 1;
    /// Its handle.
    pub const HANDLE: u16 = 0x706f;
}

/// Names of the maps, which are the names of their pins too.
pub mod map {
    /// ARRAY of one [`super::fast::Heads`]; this and all of `FAST_` can be mapped into memory.
    pub const FAST: &str = "FAST";
    /// ARRAY of lines of IPv4 addresses, `[u64; 8]`.
    pub const FAST_LINES_4: &str = "FAST_LINES_4";
    /// ARRAY of lines of IPv6 networks.
    pub const FAST_LINES_6: &str = "FAST_LINES_6";
    /// ARRAY of u64: the bits in front of each line.
    pub const FAST_BITS_4: &str = "FAST_BITS_4";
    /// The same for IPv6.
    pub const FAST_BITS_6: &str = "FAST_BITS_6";
    /// ARRAY of `[u32; 24]`: the row of each lane.
    pub const FAST_INDEX_4: &str = "FAST_INDEX_4";
    /// ARRAY of `[u32; 8]`, the last one not used.
    pub const FAST_INDEX_6: &str = "FAST_INDEX_6";
    /// ARRAY of `[u64; 3]`, see [`super::fast::row`].
    pub const FAST_ROWS_4: &str = "FAST_ROWS_4";
    /// ARRAY of `[u64; 4]`.
    pub const FAST_ROWS_6: &str = "FAST_ROWS_6";
    /// ARRAY of one bpf_timer: the sweep's.
    pub const TIMER: &str = "FAST_TIMER";
    /// ARRAY of u32, never written: the turns of the sweep's loop.
    pub const TURNS: &str = "FAST_TURNS";
    /// HASH: IPv4 address, network order (`[u8; 4]`) → [`super::Lease`]: for ports, or where the fast table has no room.
    pub const DROPS_4: &str = "DROPS_4";
    /// HASH: first half of an IPv6 address, network order (`[u8; 8]`) → [`super::Lease`].
    pub const DROPS_6: &str = "DROPS_6";
    /// LPM_TRIE: IPv4 prefixes, in 8 bytes of which the last four are zero → [`super::Lease`].
    pub const NETS_4: &str = "NETS_4";
    /// LPM_TRIE: IPv6 prefixes → [`super::Lease`].
    pub const NETS_6: &str = "NETS_6";
    /// LPM_TRIE: IPv4 prefixes that are never dropped → u64, not used.
    pub const ALLOW_4: &str = "ALLOW_4";
    /// LPM_TRIE: IPv6 prefixes that are never dropped → u64, not used.
    pub const ALLOW_6: &str = "ALLOW_6";
    /// ARRAY of one [`super::Settings`].
    pub const SETTINGS: &str = "FILTER_SETTINGS";
    /// PERCPU_ARRAY of u64 counters, see [`super::stat`].
    pub const STATS: &str = "FILTER_STATS";
    /// PERCPU_ARRAY of one `[u64; 8]`, see [`super::pace`].
    pub const PACE: &str = "FILTER_PACE";
    /// RINGBUF of [`super::Sample`].
    pub const SAMPLES: &str = "SAMPLES";
}

/// Entries of `DROPS_4` and of `DROPS_6` each; memory is taken as they are made.
pub const MAX_HOSTS: u32 = 262_144;
/// Entries of `NETS_4` and of `NETS_6` each.
pub const MAX_NETS: u32 = 262_144;
/// Entries of `ALLOW_4` and of `ALLOW_6` each.
pub const MAX_ALLOW: u32 = 4_096;
/// Bytes of the ring buffer.
pub const SAMPLES_BYTES: u32 = 1 << 18;
/// Bytes of a packet's beginning in a sample.
pub const SAMPLE_BYTES: usize = 96;

/// Places in the value of `FILTER_PACE`.
pub mod pace {
    /// Begin of the current second of samples.
    pub const BEGIN: usize = 0;
    /// Samples taken in it.
    pub const TAKEN: usize = 1;
    /// Scratch.
    pub const SCRATCH: usize = 2;
    /// The beat (`super::fast::Heads`) of the next two.
    pub const BEAT: usize = 3;
    /// Drops that were looked at closely in it.
    pub const CLOSE: usize = 4;
    /// Packets dropped since the last one that was.
    pub const PACKETS: usize = 5;
    /// Their bytes.
    pub const BYTES: usize = 6;
    /// Places of the value.
    pub const ENTRIES: usize = 8;
    /// Drops of a beat, about half a second, and processor that are each looked at closely.
    pub const EACH: u64 = 1_024;
    /// Of the rest, one of so many is, and takes over what was dropped since the last. A power of two.
    pub const ONE_OF: u64 = 256;
}

/// Who asked for a lease: `Lease::reason`, and an index of the counters.
pub mod reason {
    /// An administrator.
    pub const ADMINISTRATOR: u16 = 1;
    /// The policy for sources.
    pub const POLICY: u16 = 2;
    /// Another program.
    pub const REPORTED: u16 = 3;
    /// A throttle: no drop of its own, what came beyond its rate.
    pub const THROTTLE: u16 = 4;
    /// One more than the highest.
    pub const END: u16 = 8;
}

/// Indexes of `FILTER_STATS`.
pub mod stat {
    /// IP packets that no lease was for.
    pub const PASSED: u32 = 0;
    /// IP packets that a lease was for, and that the allow-list let through.
    pub const ALLOWED: u32 = 1;
    /// Packets that are no IP.
    pub const NOT_IP: u32 = 2;
    /// Packets that say they are IP and cannot be read as such.
    pub const MALFORMED: u32 = 3;
    /// Samples given to the agent.
    pub const SAMPLED: u32 = 4;
    /// Drops without a sample: the second's share was used up.
    pub const PACED: u32 = 5;
    /// Samples that found no room in the ring buffer.
    pub const SAMPLES_LOST: u32 = 6;
    /// Packets dropped: `DROPPED + reason`.
    pub const DROPPED: u32 = 8;
    /// Bytes dropped: `BYTES + reason`.
    pub const BYTES: u32 = 16;
    /// Entries of the map.
    pub const ENTRIES: u32 = 32;
}
