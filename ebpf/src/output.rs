//! Events out of the kernel.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::bpf_ringbuf_query;
use portcullis_common::{
    abi::{EVENTS_BYTES, Entry, Event, event, flag, stat},
    ledger::Rule,
};

use crate::{
    maps::{EVENTS, add},
    row::Seen,
};

/// Writes an event; where the ring buffer is full it is counted as lost, and the agent's next scan finds what it said.
///
/// Field by field into the reserved memory: the record does not fit on a BPF stack beside the rest.
#[allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "one operation: the fields of one record, by one pointer"
)]
#[inline(always)]
pub fn tell(kind: u32, now: u64, rule: &Rule, seen: &Seen, entry: *const Entry) {
    let Some(mut slot) = EVENTS.reserve(0) else {
        add(stat::LOST_EVENTS, 1);
        return;
    };
    let reserved: &mut MaybeUninit<Event> = &mut slot;
    let event = reserved.as_mut_ptr();
    // SAFETY: `event` is reserved, 8-aligned and exclusively ours, and every field is written before it is read by
    // anybody; `entry` is the caller's whole packet or a map value.
    unsafe {
        (*event).kind = kind;
        (*event).flags = seen.step.flags;
        (*event).seq = seen.seq;
        (*event).time = now;
        (*event).locked_until = seen.locked_until;
        (*event).failures = seen.failures;
        (*event).deny = rule.limit();
        (*event).trips = seen.trips;
        (*event).lapsed = seen.step.lapsed;
        (*event).lapsed_actor = seen.lapsed_actor;
        (*event).lapsed_source = seen.lapsed_kind;
        (*event).cause = seen.cause;
        copy(entry, &raw mut (*event).entry);
    }
    slot.submit(wakeup(kind, seen.step.flags));
}

/// Whether the agent is woken for an event: not for one that nothing follows from, since the caller would pay for it
/// (40 µs and more, in the middle of a logon). The agent looks for those itself, see `engine`. Forced otherwise: left to
/// itself the kernel wakes nobody who has older events still to read.
#[inline(always)]
fn wakeup(kind: u32, flags: u32) -> u64 {
    let quiet = matches!(kind, event::PASS | event::VOID | event::CLEARED) && flags & !flag::EXEMPT == 0;
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
