//! Counts what happened for its source: the rule of `common::sources`, under the lock of the source's bucket. Local users
//! who tripped are looked up here, too.
//!
//! Invariant: nothing here runs under a row's lock; the clock was read before.

use aya_ebpf::bindings::bpf_spin_lock;
use aya_ebpf::helpers::{bpf_spin_lock as lock, bpf_spin_unlock as unlock};
use portcullis_common::{
    abi::{Entry, Found, event, source, stat},
    sources::{self, Bucket, Happened, Source, SourceCounts, SourceRule, WAYS, bucket_of, id_of},
};

use crate::maps::{ACTORS, SETTINGS, SOURCE_RULE, SOURCES, add};

/// `sources::Bucket` with the lock under the name by which the verifier knows it.
#[repr(C)]
pub struct KernelBucket {
    lock: bpf_spin_lock,
    pad: u32,
    ways: [Source; WAYS],
}

const _: () = assert!(size_of::<KernelBucket>() == size_of::<Bucket>());

/// Nobody was counted.
pub const NOTHING: SourceCounts =
    SourceCounts { failures: 0, accounts: 0, unknown: 0, passes: 0, trips: 0, tripped: 0 };

/// Counts an event for its source: for the one whose guess outlived its age, where the event tells of nothing else.
#[allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "one operation: the fields of one record, by one pointer"
)]
#[inline(always)]
pub fn count(found: *const Found, entry: *const Entry) -> SourceCounts {
    // SAFETY: both are the caller's whole packet, its own variable, or a map value.
    let (found, entry) = unsafe { (&*found, &*entry) };
    let due = found.kind == event::DUE && found.lapsed != 0;
    let pass = found.kind == event::CLEARED || found.kind == event::REPORTED_PASS;
    let fail =
        matches!(found.kind, event::FAIL | event::DIED | event::REFUSED | event::UNCOUNTED | event::REPORTED);
    if found.counts == 0 || !(due || pass || fail) {
        return NOTHING;
    }
    let now = found.time;
    let (who, id) = if due {
        (found.lapsed_source, found.lapsed_actor)
    } else {
        (entry.detail.source, id_of(&entry.detail))
    };
    // Whoever mistypes his own password on the machine itself attacks nobody.
    if who == source::NONE || who > source::IPV6 || (who == source::LOCAL && id == entry.account) {
        return NOTHING;
    }
    let Some(settings) = SETTINGS.get(0) else {
        return NOTHING;
    };
    let Some(rule) = SOURCE_RULE.get(0) else {
        return NOTHING;
    };
    let rule = if rule.deny == 0 { &SourceRule::DEFAULT } else { rule };
    let Some(bucket) = SOURCES.get_ptr_mut(bucket_of(settings.hash_key, who, id)) else {
        return NOTHING;
    };
    let what = Happened { kind: who, id, account: entry.account, pass: u32::from(pass) };
    // SAFETY: an element of an ARRAY map lives as long as the map; everybody changes it under its lock only.
    let bucket = unsafe { &mut *bucket };
    // SAFETY: the lock is a field of a map value, initialised by the kernel.
    unsafe { lock(&raw mut bucket.lock) };
    let counts = sources::count(&mut bucket.ways, now, rule, &what);
    // SAFETY: taken above on the same path; the verifier proves it.
    unsafe { unlock(&raw mut bucket.lock) };
    if counts.failures | counts.passes == 0 {
        add(stat::NO_SOURCE, 1);
    }
    add(stat::SOURCE_TRIPS, u64::from(counts.tripped));
    counts
}

/// Until when the local user behind a call is refused at `account`; 0: he is not.
///
/// Everything is read anew: what is known of it here would be carried through the rule by the verifier.
#[inline(always)]
pub fn refused_until(entry: *const Entry, now: u64) -> u64 {
    // SAFETY: `entry` is the caller's whole packet.
    let place = unsafe { &raw const (*entry).detail.source };
    // SAFETY: as above.
    let kind = unsafe { place.read_volatile() };
    // SAFETY: as above.
    let place = unsafe { &raw const (*entry).detail.uid };
    // SAFETY: as above.
    let uid = u64::from(unsafe { place.read_volatile() });
    // SAFETY: as above.
    let place = unsafe { &raw const (*entry).account };
    // SAFETY: as above.
    let account = unsafe { place.read_volatile() };
    // SAFETY: the agent replaces whole u64 values.
    match unsafe { ACTORS.get(uid) } {
        Some(until) if *until > now && kind == source::LOCAL && account != uid && uid != 0 => *until,
        _ => 0,
    }
}
