//! The end of leases in the fast table: a timer of the kernel's goes over the rows and takes what has ended out of its
//! line. It lives in a pinned map: no agent is needed.
//!
//! Invariants: a row is taken over by one exchange of its end, by the sweep or by user space, before its lane is touched;
//! one beat is bounded; whatever is in the maps, the timer goes on.

use aya_ebpf::{
    bindings::bpf_timer,
    btf_maps::Array,
    helpers::{
        bpf_for_each_map_elem, bpf_ktime_get_boot_ns, bpf_timer_init, bpf_timer_set_callback, bpf_timer_start,
    },
    macros::btf_map,
};
use core::ffi::c_void;
use core::hint::black_box;
use core::intrinsics::{AtomicOrdering, atomic_and, atomic_cxchg, atomic_or};
use portcullis_common::filter::fast::{Family, Four, Heads, Six, TURNS, WORDS, row};

use crate::fast::{FAST, FAST_LINES_4, FAST_LINES_6, FAST_ROWS_4, FAST_ROWS_6, Line, word};

/// CLOCK_MONOTONIC: a sleeping machine drops nothing.
const MONOTONIC: u64 = 1;
/// Rows of a turn.
const STEP: u32 = 8;
/// Nanoseconds in which all rows are gone over, as far as timers keep up.
const ROUND: u64 = 500_000_000;

/// What the timer lies in.
#[repr(C)]
pub struct Timer {
    timer: bpf_timer,
}

#[btf_map]
pub static FAST_TIMER: Array<Timer, 1> = Array::new();
/// Linux 5.15 has no loops but over maps: this one's elements are turns.
#[btf_map]
pub static FAST_TURNS: Array<u32, { TURNS as usize }> = Array::new();

#[repr(C)]
struct Beat {
    now: u64,
}

/// Starts the timer, with this program's sweep; one that runs already goes on with it.
#[inline(always)]
pub fn start() -> i64 {
    let Some(timer) = FAST_TIMER.get_ptr_mut(0) else { return -1 };
    let timer = timer.cast::<bpf_timer>();
    let map = (&raw const FAST_TIMER).cast_mut().cast::<c_void>();
    // SAFETY: the timer lies in that map. It fails where there was one, which is as well.
    unsafe { bpf_timer_init(timer, map, MONOTONIC) };
    // SAFETY: a function of the signature of timers.
    let set = unsafe { bpf_timer_set_callback(timer, beat as *mut c_void) };
    if set != 0 {
        return set;
    }
    // SAFETY: the same timer.
    unsafe { bpf_timer_start(timer, 0, 0) }
}

extern "C" fn beat(_map: *mut c_void, _key: *mut u32, timer: *mut Timer) -> i64 {
    let mut delay = ROUND;
    if let Some(heads) = FAST.get_ptr_mut(0) {
        // SAFETY: a helper without arguments.
        let mut beat = Beat { now: unsafe { bpf_ktime_get_boot_ns() } };
        let context = (&raw mut beat).cast::<c_void>();
        let map = (&raw const FAST_TURNS).cast_mut().cast::<c_void>();
        // SAFETY: a function of the signature of such loops, which ends before this one does.
        unsafe { bpf_for_each_map_elem(map, turn as *mut c_void, context, 0) };
        // SAFETY: an element of an ARRAY; only here it is written.
        unsafe { (*heads).beat = beat.now / ROUND };
        // SAFETY: as above.
        let four = unsafe { &raw const (*heads).four.rows };
        // SAFETY: as above.
        let six = unsafe { &raw const (*heads).six.rows };
        // SAFETY: as above; user space writes it meanwhile, by whole words.
        let four = unsafe { four.read_volatile() };
        // SAFETY: as above.
        let six = unsafe { six.read_volatile() };
        let rows = four.min(Four::ROWS) / STEP + six.min(Six::ROWS) / STEP;
        delay = ROUND / (u64::from(rows / TURNS) + 1);
    }
    // SAFETY: the timer that called.
    unsafe { bpf_timer_start(timer.cast(), delay, 0) };
    0
}

extern "C" fn turn(_map: *mut c_void, _key: *mut u32, _value: *mut u32, beat: *mut Beat) -> i64 {
    let Some(heads) = FAST.get_ptr_mut(0) else { return 1 };
    // SAFETY: the beat of the caller, which waits.
    let now = unsafe { (*beat).now };
    // One family after the other; the round ends behind the last row of the second.
    // SAFETY: an element of an ARRAY; cursors are the sweep's alone.
    let Heads { four, six, .. } = unsafe { &mut *heads };
    if four.cursor < four.rows {
        let start = four.cursor;
        let mut step = 0;
        while step < STEP {
            // The step by itself: by an unknown row the verifier sees no end of it.
            if let Some(found) = FAST_ROWS_4.get_ptr_mut(start.wrapping_add(black_box(step))) {
                visit::<Four>(found.cast(), now, heads);
            }
            step += 1;
        }
        four.cursor = start.wrapping_add(STEP);
        return 0;
    }
    if six.cursor < six.rows {
        let start = six.cursor;
        let mut step = 0;
        while step < STEP {
            // The step by itself: by an unknown row the verifier sees no end of it.
            if let Some(found) = FAST_ROWS_6.get_ptr_mut(start.wrapping_add(black_box(step))) {
                visit::<Six>(found.cast(), now, heads);
            }
            step += 1;
        }
        six.cursor = start.wrapping_add(STEP);
        return 0;
    }
    four.cursor = 0;
    six.cursor = 0;
    1
}

/// Looks whether a row has ended.
#[inline(always)]
fn visit<F: Family>(found: *mut u64, now: u64, heads: *const Heads) {
    // SAFETY: the first word of a row.
    let until = unsafe { found.read_volatile() };
    if until == 0 || until > now && until < row::LEFT || until == u64::MAX {
        return;
    }
    // SAFETY: the last word of the row.
    let last = unsafe { found.add(F::ROW - 1) };
    // SAFETY: as above.
    let mark = unsafe { last.read_volatile() };
    if mark & row::SWEPT != 0 {
        return;
    }
    // Whoever began to take it out may still be at it: one round for that.
    let next = if until == row::LEAVING { row::LEFT } else { row::LEAVING };
    // SAFETY: the first word of the row, 8-aligned.
    let (_, ours) = unsafe {
        atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(found, until, next)
    };
    if !ours || next == row::LEFT {
        return;
    }
    // SAFETY: a word of the row.
    let key = unsafe { found.add(row::KEY) };
    // SAFETY: as above, 8-aligned.
    let key = unsafe { key.read_volatile() };
    // SAFETY: heads are an element of an ARRAY.
    let heads = unsafe { &*heads };
    if F::ROW == Four::ROW {
        let mixed = Four::mixed(key, heads.four.mix);
        if let Some(line) = FAST_LINES_4.get_ptr_mut(Four::line(mixed, heads.four.mask)) {
            clear::<Four>(line, Four::lane(mixed));
        }
    } else {
        let mixed = Six::mixed(key, heads.six.mix);
        if let Some(line) = FAST_LINES_6.get_ptr_mut(Six::line(mixed, heads.six.mask)) {
            clear::<Six>(line, Six::lane(mixed));
        }
    }
    // SAFETY: the last word of the row.
    unsafe { atomic_or::<u64, u64, { AtomicOrdering::Relaxed }>(last, row::SWEPT) };
    let until = if until == row::LEFT { 1 } else { until };
    // SAFETY: the first word of the row, ours until now.
    unsafe { found.write_volatile(until) };
}

/// Takes a lane out of a line. The lane is its row's, and the row is ours: the neighbours stay, whoever changes them now.
#[inline(always)]
fn clear<F: Family>(line: *mut Line, lane: u64) {
    let mut place = 0;
    let mut at = 0;
    while at < WORDS {
        let now = word(line, at);
        let mut ones = 0;
        while place < F::LANES && F::place(place).0 == at {
            let (_, shift, all) = F::place(place);
            let other = (now >> shift & all) ^ lane;
            // The highest bit of it: the lane is this one.
            ones |= (all << shift) * ((other.wrapping_sub(1) & !other) >> 63);
            place += 1;
        }
        if ones != 0 {
            // SAFETY: a word of the line.
            let to = unsafe { line.cast::<u64>().add(at) };
            // SAFETY: 8-aligned.
            unsafe { atomic_and::<u64, u64, { AtomicOrdering::Relaxed }>(to, !ones) };
        }
        at += 1;
    }
}
