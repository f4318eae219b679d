//! The ABI between the gate (eBPF), the PAM module and the agent: requests, answers, events, map values, pin names.
//!
//! Invariants: every record is `repr(C)`, made of fixed-width integers with explicit padding, and its size is asserted
//! beside it; numbers are never reused. A change of any record raises [`ABI`], which is part of the pin path, so two
//! versions never read each other's maps. Times are CLOCK_BOOTTIME nanoseconds.

use core::ffi::CStr;

mod codes;
mod places;
mod records;

pub use codes::*;
pub use places::Place;
pub use records::*;

/// A version of this file, and where its gate is pinned.
#[derive(Clone, Copy, Debug)]
pub struct Version {
    /// Its number.
    pub abi: u32,
    /// The folder of its pins.
    pub folder: &'static str,
    /// Its gate: a program to be called with `BPF_PROG_TEST_RUN`, never attached.
    pub gate: &'static str,
    /// The same path for `BPF_OBJ_GET`.
    pub gate_c: &'static CStr,
    /// Its `SETTINGS`, for `BPF_OBJ_GET`.
    pub settings_c: &'static CStr,
    /// The links of its exit programs, which end what killed tasks held: at accounts, at pairs.
    pub exit_links: [&'static str; 2],
}

macro_rules! version {
    ($number:literal) => {
        Version {
            abi: $number,
            folder: concat!("/sys/fs/bpf/portcullis/v", $number),
            gate: concat!("/sys/fs/bpf/portcullis/v", $number, "/gate"),
            gate_c: c_text(concat!("/sys/fs/bpf/portcullis/v", $number, "/gate\0")),
            settings_c: c_text(concat!("/sys/fs/bpf/portcullis/v", $number, "/SETTINGS\0")),
            exit_links: [
                concat!("/sys/fs/bpf/portcullis/v", $number, "/exit_link"),
                concat!("/sys/fs/bpf/portcullis/v", $number, "/exit_pair_link"),
            ],
        }
    };
}

const fn c_text(text: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(text.as_bytes()) {
        Ok(text) => text,
        Err(_) => c"",
    }
}

/// The versions that this build speaks, its own first, then the one before: its gate may be running when this build is
/// installed, and hands its counts over (see `agent/src/kernel/upgrade.rs`). Their records are laid out alike; a version
/// that lays them out anew converts in `client` and there.
#[cfg(not(feature = "abi-next"))]
pub const VERSIONS: [Version; 1] = [version!(1)];
/// For the tests of an upgrade: the next version, which differs in its number alone.
#[cfg(feature = "abi-next")]
pub const VERSIONS: [Version; 2] = [version!(2), version!(1)];

const OWN: Version = {
    let [own, ..] = VERSIONS;
    own
};

/// Version of everything in this file.
pub const ABI: u32 = OWN.abi;
/// The folder of all pins, mode 0700, root's. Its mode is the whole guard of the gate (`BPF_PROG_TEST_RUN` asks for no
/// capability on new kernels).
pub const PIN_ROOT: &str = "/sys/fs/bpf/portcullis";
/// The pins of this ABI version.
pub const PIN_DIR: &str = OWN.folder;
/// The gate: a program to be called with `BPF_PROG_TEST_RUN`, never attached.
pub const PIN_GATE: &str = OWN.gate;
/// The agent's socket for callers who may not open the gate themselves: one [`Request`] at a time, one [`Answer`] each,
/// as they lie in memory. A connection carries one attempt. See `agent/src/callers`.
pub const CALLERS: &str = "/run/portcullis/callers.sock";
/// Where the module notes what it did without the gate, see [`unreachable`].
pub const UNREACHABLE: &str = "/run/portcullis/unreachable";
/// The links of the exit programs, see [`Version::exit_links`].
pub const PIN_EXIT_LINKS: [&str; 2] = OWN.exit_links;
/// The word on the kernel command line that keeps Portcullis from loading and from refusing.
pub const OFF_WORD: &str = "portcullis=off";

/// Names of the maps, which are the names of their pins too.
pub mod map {
    /// HASH: account key (u64) → [`super::Row`]. Known users; the key is the uid.
    pub const ACCOUNTS: &str = "ACCOUNTS";
    /// HASH: account key (u64, [`super::UNKNOWN`] set) → [`super::Row`]. Names no user has.
    pub const UNKNOWN: &str = "UNKNOWN_NAMES";
    /// HASH: key of a pair (u64, [`crate::pair::key`]) → [`super::Row`]. Accounts as single sources see them.
    pub const PAIRS: &str = "PAIRS";
    /// HASH: [`super::task_key`] (u64) → [`super::Entry`]. One reservation a task, and one of a pair.
    pub const TASKS: &str = "TASKS";
    /// ARRAY: class index, see [`super::class_index`] and [`super::pair_index`] → [`crate::ledger::Rule`].
    pub const CLASSES: &str = "CLASSES";
    /// HASH: [`super::member_key`] (u64) → class (u32). Users, and names no user has, that are not in class 0.
    pub const MEMBERS: &str = "MEMBERS";
    /// LPM_TRIE: [`super::Place`] → u32. Places to which the soft lock of a class is open.
    pub const PLACES: &str = "PLACES";
    /// ARRAY of one [`super::Settings`].
    pub const SETTINGS: &str = "SETTINGS";
    /// ARRAY of u64 counters, see [`super::stat`].
    pub const STATS: &str = "STATS";
    /// ARRAY: [`crate::sources::bucket_of`] → [`crate::sources::Bucket`]. What sources did.
    pub const SOURCES: &str = "SOURCES";
    /// ARRAY of one [`crate::sources::SourceRule`]; all zero: the default.
    pub const SOURCE_RULE: &str = "SOURCE_RULE";
    /// HASH: uid (u64) → boot time in nanoseconds (u64) until which that local user is refused at other accounts.
    pub const ACTORS: &str = "ACTORS";
    /// RINGBUF of [`super::Event`].
    pub const EVENTS: &str = "EVENTS";
}

/// Rows of `ACCOUNTS`; memory is taken as rows are made.
pub const MAX_ACCOUNTS: u32 = 65_536;
/// Rows of `UNKNOWN_NAMES`. Full means: further invented names are let through uncounted (no such user can log in).
pub const MAX_UNKNOWN: u32 = 8_192;
/// Rows of `PAIRS`. Full means: a source without a row is not counted by itself, the account's own limit holds for it.
pub const MAX_PAIRS: u32 = 32_768;
/// Rows of `TASKS`. Full means: reservations end by their maximum age instead of at exit.
pub const MAX_TASKS: u32 = 16_384;
/// Rows of `MEMBERS`.
pub const MAX_MEMBERS: u32 = 131_072;
/// Rows of `ACTORS`.
pub const MAX_ACTORS: u32 = 1_024;
/// Classes of one generation of the configuration.
pub const MAX_CLASSES: u32 = 32;
/// Rows of `PLACES`.
pub const MAX_PLACES: u32 = 4_096;
/// Bytes of the ring buffer.
pub const EVENTS_BYTES: u32 = 1 << 20;

/// Bit of an account key that marks a name no user has (the rest is a keyed hash of it).
pub const UNKNOWN: u64 = 1 << 63;

/// Stands in `MEMBERS` for all names no user has: (uid_t)-1, which is no uid.
pub const NOBODY: u32 = u32::MAX;

/// Who in `MEMBERS` an account key is: its uid, or [`NOBODY`]. Arithmetic, so that the verifier sees one way.
#[inline(always)]
pub const fn member_of(account: u64) -> u32 {
    (account | (account.cast_signed() >> 63).cast_unsigned()) as u32
}

/// Key of a uid in `MEMBERS` for a generation of the configuration.
#[inline(always)]
pub const fn member_key(generation: u32, uid: u32) -> u64 {
    ((generation as u64) << 32) | uid as u64
}

/// Index of a class in `CLASSES`: two banks, so that a new configuration is written beside the running one and takes
/// effect in one store (`Settings::generation`).
#[inline(always)]
pub const fn class_index(generation: u32, class: u32) -> u32 {
    (generation & 1) * MAX_CLASSES + (class & (MAX_CLASSES - 1))
}

/// Index in `CLASSES` of what holds for the pairs of a class, see [`Rule::of_pairs`].
#[inline(always)]
pub const fn pair_index(generation: u32, class: u32) -> u32 {
    2 * MAX_CLASSES + class_index(generation, class)
}

/// Key in `TASKS` of the reservation that `task` holds at an account, or at a pair: the address of a task is even.
#[inline(always)]
pub const fn task_key(task: u64, pair: bool) -> u64 {
    task | pair as u64
}
