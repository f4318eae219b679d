//! The observer's share: records of its maps, the names of its pins.
//!
//! * [`record`]: what lies in the maps and crosses the ring buffer.
//! * [`denial`]: who is kept from starting which of them.
//! * [`layout`]: where the running kernel keeps what the observer reads; filled in by the loader from the kernel's own
//!   type information, so that one object serves all kernels.
//! * [`sieve`]: what lets programs that nobody watches pass by.
//!
//! Invariants: as in [`crate::abi`]; a change of any record raises [`OBSERVER_ABI`], which is part of the pin path.

pub mod denial;
pub mod layout;
pub mod record;
pub mod sieve;

pub use layout::Layout;
pub use record::{Ancestor, File, Process, Scope, Watch};
pub use sieve::Sieve;

/// Version of everything below.
pub const OBSERVER_ABI: u32 = 1;
/// The folder of the observer's pins, beside those of the gate and the filter.
pub const OBSERVER_DIR: &str = "/sys/fs/bpf/portcullis/observer-v1";
/// The links of the two programs: at exec, at exit.
pub const PIN_LINKS: [&str; 2] = [
    "/sys/fs/bpf/portcullis/observer-v1/observe_exec_link",
    "/sys/fs/bpf/portcullis/observer-v1/observe_exit_link",
];

/// The link of the program at `bprm_check_security`, where a locked-out user's programs are refused before they start.
pub const PIN_CHECK_LINK: &str = "/sys/fs/bpf/portcullis/observer-v1/observe_check_link";

/// Names of the maps, which are the names of their pins too.
pub mod map {
    /// HASH: [`super::File`] → [`super::Watch`]. The watched binaries.
    pub const WATCHED: &str = "WATCHED";
    /// HASH: command name (`[u8; 16]`) → u32, not used. A program of such a name that is not in `WATCHED` is told of, too:
    /// its file may have been replaced.
    pub const NAMES: &str = "WATCHED_NAMES";
    /// HASH: address of a task (u64) → [`super::Process`]. Watched programs that run.
    pub const RUNNING: &str = "RUNNING";
    /// ARRAY of one [`super::Sieve`]: files and names of the two above.
    pub const SIEVE: &str = "SIEVE";
    /// ARRAY of u32: how many of the pids of a place have a row in `RUNNING`, see [`super::sieve::counter`].
    pub const COUNTERS: &str = "COUNTERS";
    /// ARRAY of one [`super::Scope`].
    pub const SCOPE: &str = "OBSERVER_SCOPE";
    /// ARRAY of one [`super::Process`], all zero: what a new one begins as.
    pub const BLANK: &str = "BLANK";
    /// ARRAY of u64 counters, see [`super::stat`].
    pub const STATS: &str = "OBSERVER_STATS";
    /// RINGBUF of [`super::Process`]: apart from the gate's, so that no storm of programs crowds out a PAM record.
    pub const OBSERVED: &str = "OBSERVED";
}

/// Rows of `WATCHED`.
pub const MAX_WATCHED: u32 = 256;
/// Rows of `WATCHED_NAMES`.
pub const MAX_NAMES: u32 = 256;
/// Rows of `RUNNING`; memory is taken as they are made. Full means: a program's end is not told, which is counted.
pub const MAX_RUNNING: u32 = 16_384;
/// Bytes of the ring buffer.
pub const OBSERVED_BYTES: u32 = 1 << 20;

/// Indexes of `OBSERVER_STATS`.
pub mod stat {
    /// Starts told.
    pub const STARTS: u32 = 0;
    /// Ends told.
    pub const ENDS: u32 = 1;
    /// Starts that found no room in the ring buffer.
    pub const LOST_STARTS: u32 = 2;
    /// Ends that found no room in the ring buffer.
    pub const LOST_ENDS: u32 = 3;
    /// Starts that found no room in `RUNNING`: neither they nor their ends are told.
    pub const NO_ROOM: u32 = 4;
    /// Programs that a locked-out user was kept from running.
    pub const DENIED: u32 = 5;
    /// Entries of the map.
    pub const ENTRIES: u32 = 8;
}

/// What a record tells: `Process::kind`.
pub mod kind {
    /// A watched program was started.
    pub const START: u32 = 1;
    /// It ended.
    pub const END: u32 = 2;
    /// Its process became another program (`newgrp` becomes a shell).
    pub const BECAME: u32 = 3;
    /// It was refused before it started. There is no end to come, and arguments are not known.
    pub const DENIED: u32 = 4;
}

/// Bits of `Process::flags`.
pub mod flag {
    /// Known by its name alone: the file is none of the watched ones.
    pub const BY_NAME: u32 = 1;
    /// A child of it started a program with its user's own rights (real and effective user the same): a session, or the
    /// command that was asked for.
    pub const SERVED: u32 = 2;
    /// Killed before its first instruction: who started it is locked out.
    pub const DENIED: u32 = 4;
}

/// A login uid that is not set.
pub const NO_LOGIN: u32 = u32::MAX;
/// Bytes of a path.
pub const PATH_BYTES: usize = 128;
/// Bytes of arguments, each ended by a zero.
pub const ARGUMENT_BYTES: usize = 192;
/// Ancestors told of a program.
pub const ANCESTORS: usize = 6;
