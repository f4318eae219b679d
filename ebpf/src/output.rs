//! Events out of the kernel.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::bpf_ringbuf_query;
use portcullis_common::{
    abi::{EVENTS_BYTES, Entry, Event, Found, event, flag, stat},
    sources::SourceCounts,
};

use crate::{
    maps::{EVENTS, add},
    row::Seen,
};

/// Notes what an event will say, field by field: see `abi::Found`.
#[allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "one operation: the fields of one record, by one pointer"
)]
#[inline(always)]
pub fn note(found: *mut Found, kind: u32, counts: bool, now: u64, deny: u32, seen: &Seen) {
    // SAFETY: the caller's whole packet, or its own variable.
    unsafe {
        (&raw mut (*found).kind).write_volatile(kind);
        (&raw mut (*found).counts).write_volatile(u32::from(counts));
        (&raw mut (*found).flags).write_volatile(seen.step.flags);
        (&raw mut (*found).failures).write_volatile(seen.failures);
        (&raw mut (*found).deny).write_volatile(deny);
        (&raw mut (*found).trips).write_volatile(seen.trips);
        (&raw mut (*found).lapsed).write_volatile(seen.step.lapsed);
        (&raw mut (*found).lapsed_source).write_volatile(seen.lapsed_kind);
        (&raw mut (*found).lapsed_actor).write_volatile(seen.lapsed_actor);
        (&raw mut (*found).seq).write_volatile(seen.seq);
        (&raw mut (*found).time).write_volatile(now);
        (&raw mut (*found).locked_until).write_volatile(seen.locked_until);
        (&raw mut (*found).cause).write_volatile(seen.cause);
    }
}

/// Writes the event, with what was counted for its source; where the ring buffer is full it is counted as lost, and
/// the agent's next scan finds what it said.
///
/// Field by field into the reserved memory: the record does not fit on a BPF stack beside the rest.
#[allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "one operation: the fields of one record, by one pointer"
)]
#[inline(always)]
pub fn tell(found: *const Found, source: &SourceCounts, entry: *const Entry) {
    let Some(mut slot) = EVENTS.reserve(0) else {
        add(stat::LOST_EVENTS, 1);
        return;
    };
    let reserved: &mut MaybeUninit<Event> = &mut slot;
    let event = reserved.as_mut_ptr();
    // SAFETY: `event` is reserved, 8-aligned and exclusively ours, and every field is written before it is read by
    // anybody; `found` and `entry` are the caller's whole packet, its own variable, or a map value.
    unsafe {
        (*event).kind = (*found).kind;
        (*event).flags = (*found).flags | (source.tripped * flag::SOURCE_TRIPPED);
        (*event).seq = (*found).seq;
        (*event).time = (*found).time;
        (*event).locked_until = (*found).locked_until;
        (*event).failures = (*found).failures;
        (*event).deny = (*found).deny;
        (*event).trips = (*found).trips;
        (*event).lapsed = (*found).lapsed;
        (*event).lapsed_actor = (*found).lapsed_actor;
        (*event).lapsed_source = (*found).lapsed_source;
        (*event).cause = (*found).cause;
        (*event).source.failures = source.failures;
        (*event).source.accounts = source.accounts;
        (*event).source.unknown = source.unknown;
        (*event).source.passes = source.passes;
        (*event).source.trips = source.trips;
        (*event).source.tripped = source.tripped;
        copy(entry, &raw mut (*event).entry);
    }
    // SAFETY: as above.
    let (kind, flags) = unsafe { ((*found).kind, (*found).flags | (source.tripped * flag::SOURCE_TRIPPED)) };
    slot.submit(wakeup(kind, flags));
}

/// Whether the agent is woken for an event: not for one that nothing follows from, since the caller would pay for it
/// (40 µs and more, in the middle of a logon). The agent looks for those itself, see `engine`. Forced otherwise: left to
/// itself the kernel wakes nobody who has older events still to read.
#[inline(always)]
fn wakeup(kind: u32, flags: u32) -> u64 {
    let quiet = matches!(kind, event::PASS | event::VOID | event::CLEARED) && flags & !flag::STANDING == 0;
    if quiet && waiting() < u64::from(EVENTS_BYTES / 4) {
        u64::from(BPF_RB_NO_WAKEUP)
    } else {
        u64::from(BPF_RB_FORCE_WAKEUP)
    }
}

/// Bytes of the ring buffer that were not read yet.
#[inline(always)]
fn waiting() -> u64 {
    let ring = core::ptr::from_ref(&EVENTS).cast_mut().cast();
    // SAFETY: the map, which the loader puts in the place of its definition.
    unsafe { bpf_ringbuf_query(ring, u64::from(BPF_RB_AVAIL_DATA)) }
}

/// Copies an entry word by word.
///
/// # Safety
/// Both sides are valid for an [`Entry`] and 8-aligned.
#[inline(always)]
unsafe fn copy(from: *const Entry, to: *mut Entry) {
    const WORDS: usize = size_of::<Entry>() / 8;
    let from = from.cast::<u64>();
    let to = to.cast::<u64>();
    for word in 0..WORDS {
        let (from, to) = (from.wrapping_add(word), to.wrapping_add(word));
        // SAFETY: below WORDS, the caller's promise. Volatile, lest it becomes a call of memcpy through the stack.
        let value = unsafe { from.read_volatile() };
        // SAFETY: as above.
        unsafe { to.write_volatile(value) };
    }
}
