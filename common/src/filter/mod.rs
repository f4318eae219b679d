//! The filter's share: records of its maps, the names of its pins, and the verdict itself.
//!
//! * [`net`]: networks as people write them.
//!
//! Invariants: as in [`crate::abi`]; a change of any record raises [`FILTER_ABI`], which is part of the pin path.

pub mod net;

pub use net::{Net, NetError};

/// Version of everything below.
pub const FILTER_ABI: u32 = 1;
/// The folder of the filter's pins, beside those of the gate: it outlives an upgrade of the gate.
pub const FILTER_DIR: &str = "/sys/fs/bpf/portcullis/filter-v1";

/// Ports one lease can name.
pub const PORTS: usize = 4;
