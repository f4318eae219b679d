//! Counts what happened for its source: the rule of `common::sources`, under the lock of the source's bucket. Local users
//! who tripped are looked up here, too.
//!
//! Invariant: nothing here runs under a row's lock; the clock was read before.

use aya_ebpf::bindings::bpf_spin_lock;
use aya_ebpf::helpers::{bpf_spin_lock as lock, bpf_spin_unlock as unlock};
use portcullis_common::{
    abi::{Entry, Found, event, source, stat},
    ledger::{Lapsed, SLOTS},
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

/// Bit of [`count_source`]'s first argument: a logon was confirmed.
const PASS: u64 = 8;

/// Counts an event for its source. What came due by age is counted by [`count_lapsed`].
#[allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "one operation: the fields of one record, by one pointer"
)]
#[inline(always)]
pub fn count(found: *const Found, entry: *const Entry) -> SourceCounts {
    // SAFETY: both are the caller's whole packet, its own variable, or a map value.
    let (found, entry) = unsafe { (&*found, &*entry) };
    let pass = found.kind == event::CLEARED || found.kind == event::REPORTED_PASS;
    let fail =
        matches!(found.kind, event::FAIL | event::DIED | event::REFUSED | event::UNCOUNTED | event::REPORTED);
    if found.counts == 0 || !(pass || fail) || entry.detail.source > source::IPV6 {
        return NOTHING;
    }
    let what = u64::from(entry.detail.source) | (u64::from(pass) * PASS);
    unpack(count_source(what, id_of(&entry.detail), entry.account, found.time))
}

/// Counts guesses that became failures by their age, each for its source: a call may find several, of different sources.
///
/// # Safety
/// `lapsed` is valid and initialised.
#[inline(always)]
pub unsafe fn count_lapsed(lapsed: *const Lapsed, account: u64, now: u64) {
    // SAFETY: the caller's promise.
    let place = unsafe { &raw const (*lapsed).kinds };
    // SAFETY: as above; volatile, lest the compiler knows what was written on some way to here.
    let kinds = unsafe { place.read_volatile() };
    if kinds == 0 {
        return;
    }
    // SAFETY: as above.
    let ids = unsafe { &raw const (*lapsed).ids }.cast::<u64>();
    for slot in 0..SLOTS {
        // SAFETY: as above, below SLOTS.
        let id = unsafe { ids.wrapping_add(slot).read_volatile() };
        // Nobody's, too: a branch here costs the verifier more than the call costs the gate.
        let _ = count_source(u64::from(Lapsed::kind_of(kinds, slot)), id, account, now);
    }
}

/// Counts one thing for its source: `what` is its kind, and [`PASS`] or nothing. The numbers come back in one word, see
/// [`pack`].
///
/// A global function with numbers for arguments, which the verifier walks once, not once for each way to each call.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn count_source(what: u64, id: u64, account: u64, now: u64) -> u64 {
    let who = (what & 3) as u32;
    // Whoever mistypes his own password on the machine itself attacks nobody.
    if who == source::NONE || (who == source::LOCAL && id == account) {
        return 0;
    }
    let Some(settings) = SETTINGS.get(0) else {
        return 0;
    };
    let Some(rule) = SOURCE_RULE.get(0) else {
        return 0;
    };
    let rule = if rule.deny == 0 { &SourceRule::DEFAULT } else { rule };
    let Some(bucket) = SOURCES.get_ptr_mut(bucket_of(settings.hash_key, who, id)) else {
        return 0;
    };
    let what = Happened { kind: who, id, account, pass: u32::from(what & PASS != 0) };
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
    pack(&counts)
}

/// The numbers in one word: none but the trips is above [`sources::TRIES`].
#[inline(always)]
fn pack(counts: &SourceCounts) -> u64 {
    u64::from(counts.trips)
        | (u64::from(counts.failures & 31) << 32)
        | (u64::from(counts.accounts & 31) << 37)
        | (u64::from(counts.unknown & 31) << 42)
        | (u64::from(counts.passes & 31) << 47)
        | (u64::from(counts.tripped & 1) << 52)
}

/// What [`pack`] has packed.
#[inline(always)]
fn unpack(word: u64) -> SourceCounts {
    let five = |shift: u32| (word >> shift) as u32 & 31;
    SourceCounts {
        failures: five(32),
        accounts: five(37),
        unknown: five(42),
        passes: five(47),
        trips: word as u32,
        tripped: (word >> 52) as u32 & 1,
    }
}

const _: () = assert!(sources::TRIES < 32 && sources::PASSES < 32);

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
