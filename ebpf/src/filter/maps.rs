//! The filter's maps. Their names and bounds are `common::filter`'s; the agent pins and fills them.
//!
//! Invariants: the filter adds or removes no entry, it counts alone; lookups are skipped where the agent says there is
//! nothing to find.

use core::intrinsics::{AtomicOrdering, atomic_xadd};
use core::ops::Deref;

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, LpmTrie, PerCpuArray, RingBuf, lpm_trie::Key},
    macros::btf_map,
};
use portcullis_common::filter::{
    Lease, MAX_ALLOW, MAX_HOSTS, MAX_NETS, SAMPLES_BYTES, Sample, Settings, Source, Table, fast::Look, pace,
    stat,
};

const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

#[btf_map]
pub static DROPS_4: HashMap<[u8; 4], Lease, { MAX_HOSTS as usize }, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub static DROPS_6: HashMap<[u8; 8], Lease, { MAX_HOSTS as usize }, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub static NETS_4: LpmTrie<[u8; 8], Lease, { MAX_NETS as usize }> = LpmTrie::new();
#[btf_map]
pub static NETS_6: LpmTrie<[u8; 16], Lease, { MAX_NETS as usize }> = LpmTrie::new();
#[btf_map]
pub static ALLOW_4: LpmTrie<[u8; 8], u64, { MAX_ALLOW as usize }> = LpmTrie::new();
#[btf_map]
pub static ALLOW_6: LpmTrie<[u8; 16], u64, { MAX_ALLOW as usize }> = LpmTrie::new();
#[btf_map]
pub static FILTER_SETTINGS: Array<Settings, 1> = Array::new();
#[btf_map]
pub static FILTER_STATS: PerCpuArray<u64, { stat::ENTRIES as usize }> = PerCpuArray::new();
#[btf_map]
pub static FILTER_PACE: PerCpuArray<[u64; pace::ENTRIES], 1> = PerCpuArray::new();
#[btf_map]
pub static SAMPLES: RingBuf<Sample, { SAMPLES_BYTES as usize }> = RingBuf::new();

/// Adds to a counter of this processor.
#[inline(always)]
pub fn add(index: u32, amount: u64) {
    if let Some(counter) = FILTER_STATS.get_ptr_mut(index) {
        // SAFETY: this processor's element, which lives as long as the map.
        unsafe { *counter += amount };
    }
}

/// A lease in a map.
#[derive(Clone, Copy)]
pub struct Found(*mut Lease);

impl Found {
    /// Counts a packet that it dropped.
    #[inline(always)]
    pub fn count(self) {
        // SAFETY: a lease that was looked up in this run of the program.
        let packets = unsafe { &raw mut (*self.0).packets };
        // SAFETY: as above, 8-aligned; everybody adds atomically.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(packets, 1) };
    }
}

impl Deref for Found {
    type Target = Lease;

    #[inline(always)]
    fn deref(&self) -> &Lease {
        // SAFETY: a lease that was looked up in this run of the program; the agent replaces whole entries.
        unsafe { &*self.0 }
    }
}

/// The maps as the verdict sees them.
pub struct Maps<'a> {
    pub settings: &'a Settings,
}

#[inline(always)]
pub fn key_4(source: Source) -> [u8; 8] {
    (source.low << 32).to_be_bytes()
}

#[inline(always)]
pub fn key_6(source: Source) -> [u8; 16] {
    ((u128::from(source.high) << 64) | u128::from(source.low)).to_be_bytes()
}

#[inline(always)]
fn found(lease: Option<&Lease>) -> Option<Found> {
    lease.map(|lease| Found(core::ptr::from_ref(lease).cast_mut()))
}

impl Table for Maps<'_> {
    type Found = Found;

    #[inline(always)]
    fn allowed(&self, source: Source) -> bool {
        if self.settings.allowed == 0 || !crate::fast::may_be_spared(source) {
            return false;
        }
        if source.family == 4 {
            ALLOW_4.get(&Key::new(32, key_4(source))).is_some()
        } else {
            ALLOW_6.get(&Key::new(128, key_6(source))).is_some()
        }
    }

    #[inline(always)]
    fn look(&self, source: Source) -> Look {
        crate::fast::look(source)
    }

    #[inline(always)]
    fn host(&self, source: Source) -> Option<Found> {
        let lease = if source.family == 4 {
            DROPS_4.get_ptr_mut((source.low as u32).to_be_bytes())
        } else {
            DROPS_6.get_ptr_mut(source.high.to_be_bytes())
        };
        lease.map(Found)
    }

    #[inline(always)]
    fn any_nets(&self) -> bool {
        self.settings.nets != 0
    }

    #[inline(always)]
    fn net(&self, source: Source, longest: u32) -> Option<Found> {
        if source.family == 4 {
            found(NETS_4.get(&Key::new(longest, key_4(source))))
        } else {
            found(NETS_6.get(&Key::new(longest, key_6(source))))
        }
    }

    #[inline(always)]
    fn launder(&self, number: u64) -> u64 {
        crate::data::launder(number)
    }
}
