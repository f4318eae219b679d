//! The maps. Their names and bounds are `common::abi`'s; the agent pins them by name.
//!
//! Invariant: only the gate makes and deletes rows, so that a row looked up a moment ago can be told from its successor.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, LpmTrie, RingBuf},
    macros::btf_map,
};
use core::intrinsics::{AtomicOrdering, atomic_xadd};
use portcullis_common::{
    abi::{
        EVENTS_BYTES, Entry, Event, MAX_ACCOUNTS, MAX_ACTORS, MAX_CLASSES, MAX_MEMBERS, MAX_PAIRS,
        MAX_PLACES, MAX_TASKS, MAX_UNKNOWN, Place, Settings, stat,
    },
    ledger::Rule,
    sources::{BUCKETS, SourceRule},
};

use crate::row::KernelRow;
use crate::sources::KernelBucket;

const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

#[btf_map]
pub static ACCOUNTS: HashMap<u64, KernelRow, { MAX_ACCOUNTS as usize }, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub static UNKNOWN_NAMES: HashMap<u64, KernelRow, { MAX_UNKNOWN as usize }, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub static PAIRS: HashMap<u64, KernelRow, { MAX_PAIRS as usize }, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub static TASKS: HashMap<u64, Entry, { MAX_TASKS as usize }, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub static CLASSES: Array<Rule, { 4 * MAX_CLASSES as usize }> = Array::new();
#[btf_map]
pub static MEMBERS: HashMap<u64, u32, { MAX_MEMBERS as usize }, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub static PLACES: LpmTrie<Place, u32, { MAX_PLACES as usize }> = LpmTrie::new();
#[btf_map]
pub static SETTINGS: Array<Settings, 1> = Array::new();
#[btf_map]
pub static SOURCES: Array<KernelBucket, { BUCKETS as usize }> = Array::new();
#[btf_map]
pub static SOURCE_RULE: Array<SourceRule, 1> = Array::new();
#[btf_map]
pub static ACTORS: HashMap<u64, u64, { MAX_ACTORS as usize }, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub static STATS: Array<u64, { stat::ENTRIES as usize }> = Array::new();
#[btf_map]
pub static EVENTS: RingBuf<Event, { EVENTS_BYTES as usize }> = RingBuf::new();

/// Adds to a counter of `STATS`.
#[inline(always)]
pub fn add(index: u32, amount: u64) {
    if let Some(counter) = STATS.get_ptr_mut(index) {
        // SAFETY: an element of an ARRAY map lives as long as the map and is 8-aligned; everybody adds atomically.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, amount) };
    }
}
