//! The observer's first half: a task that ends with a guess out has failed, at once.
//!
//! The task's address is the key: no pid is reused, no pid namespace matters. Whatever this misses (table full, program
//! not attached) ends by the reservation's maximum age.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::{bpf_get_current_task, bpf_ktime_get_boot_ns, generated::bpf_probe_read_kernel};
use portcullis_common::{
    abi::{Entry, Found, event, flag, op, task_key, verdict},
    ledger::{Actor, Call, Lapsed},
};

use crate::{
    gate::{key_of, rule_of},
    maps::TASKS,
    output, row, sources,
};

/// The current task ends: ends its reservation at an account, or that at a pair. Each is a program of its own, since the
/// verifier walks the second one once for each way through the first.
#[inline(always)]
pub fn ended(pair: bool) {
    // The tracepoint's argument is the same task, but a pointer, which the verifier lets nobody reckon with.
    // SAFETY: a helper without arguments.
    let task = task_key(unsafe { bpf_get_current_task() }, pair);
    // SAFETY: nobody but this task's own calls writes this entry, and this task makes no more calls.
    let Some(entry) = (unsafe { TASKS.get(task) }) else {
        return;
    };
    if !cfg!(feature = "mutation-no-exit") {
        lapse(entry, pair);
    }
    let _ = TASKS.remove(task);
}

#[inline(always)]
fn lapse(entry: &Entry, pair: bool) {
    let Some((rule, ..)) = rule_of(entry.account, pair) else {
        return;
    };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let mut call = Call::new(op::LAPSE);
    call.token = entry.token;
    let key = key_of(entry.account, Actor::of(&entry.detail), pair);
    let Some(row) = row::find(key) else {
        return;
    };
    let mut lapsed = MaybeUninit::<Lapsed>::uninit();
    forget(&mut lapsed);
    // SAFETY: our own variable.
    let kinds = unsafe { &raw mut (*lapsed.as_mut_ptr()).kinds };
    // SAFETY: as above.
    unsafe { kinds.write_volatile(0) };
    let Some(mut seen) = row::apply(row, key, now, rule, &call, lapsed.as_mut_ptr()) else {
        return;
    };
    seen.step.flags |= rule.marks() | (u32::from(pair) * flag::PAIR + seen.soft * flag::SOFT);
    let kind = if seen.step.verdict == verdict::DONE {
        event::DIED
    } else if seen.step.flags & !flag::STANDING != 0 {
        event::DUE
    } else {
        return;
    };
    let mut found = MaybeUninit::<Found>::uninit();
    // What a pair loses its account loses, too: counted once.
    output::note(found.as_mut_ptr(), kind, !pair, now, rule.limit(), &seen);
    forget(&mut found);
    forget(&mut lapsed);
    let source = if pair {
        sources::NOTHING
    } else {
        // SAFETY: initialised above, all of it.
        unsafe { sources::count_lapsed(lapsed.as_ptr(), entry.account, now) };
        sources::count(found.as_ptr(), entry)
    };
    output::tell(found.as_ptr(), &source, entry);
}

/// Copies a variable onto itself, after which the verifier knows no number in it any more: without this it walks what
/// follows once for each combination (`row::launder` does the same through the row). What was not initialised is some
/// number then.
#[inline(always)]
fn forget<T: Copy>(variable: &mut MaybeUninit<T>) {
    let place = variable.as_mut_ptr();
    // SAFETY: reads and writes this very variable, whole.
    let _ = unsafe { bpf_probe_read_kernel(place.cast(), size_of::<T>() as u32, place.cast_const().cast()) };
}
