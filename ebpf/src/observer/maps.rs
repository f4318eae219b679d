//! The observer's maps. Their names and bounds are `common::observer`'s; the agent pins and fills them.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, RingBuf},
    macros::btf_map,
};
use portcullis_common::abi::MAX_ACTORS;
use portcullis_common::observer::{
    File, MAX_NAMES, MAX_RUNNING, MAX_WATCHED, OBSERVED_BYTES, Process, Scope, Sieve, Watch, sieve, stat,
};

const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

#[btf_map]
pub static WATCHED: HashMap<File, Watch, { MAX_WATCHED as usize }> = HashMap::new();
#[btf_map]
pub static WATCHED_NAMES: HashMap<[u8; 16], u32, { MAX_NAMES as usize }> = HashMap::new();
#[btf_map]
pub static RUNNING: HashMap<u64, Process, { MAX_RUNNING as usize }, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub static SIEVE: Array<Sieve, 1> = Array::new();
#[btf_map]
pub static COUNTERS: Array<u32, { sieve::COUNTERS as usize }> = Array::new();
#[btf_map]
pub static OBSERVER_SCOPE: Array<Scope, 1> = Array::new();
#[btf_map]
pub static BLANK: Array<Process, 1> = Array::new();
#[btf_map]
pub static OBSERVER_STATS: Array<u64, { stat::ENTRIES as usize }> = Array::new();
#[btf_map]
pub static OBSERVED: RingBuf<Process, { OBSERVED_BYTES as usize }> = RingBuf::new();

/// The gate's table of local users that are refused, until when. Where the gate is not there it is empty, and nobody is.
#[btf_map]
pub static ACTORS: HashMap<u64, u64, { MAX_ACTORS as usize }, NO_PREALLOC> = HashMap::new();

/// Whether the task of this pid may have a row in `RUNNING`.
#[inline(always)]
pub fn may_run(pid: u32) -> bool {
    COUNTERS.get(sieve::counter(pid)).is_some_and(|running| *running != 0)
}

/// A row of `RUNNING` came (1) or went (-1) for the task of this pid.
#[inline(always)]
pub fn runs(pid: u32, more: i32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(sieve::counter(pid)) {
        // SAFETY: an element of an ARRAY map lives as long as the map and is 8-aligned; everybody adds atomically.
        unsafe { atomic_xadd::<u32, u32, { AtomicOrdering::Relaxed }>(counter, more as u32) };
    }
}

/// Adds one to a counter.
#[inline(always)]
pub fn count(index: u32) {
    if let Some(counter) = OBSERVER_STATS.get_ptr_mut(index) {
        // SAFETY: an element of an ARRAY map lives as long as the map and is 8-aligned; everybody adds atomically.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, 1) };
    }
}
