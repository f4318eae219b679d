//! The observer's first half: a task that ends with a guess out has failed, at once.
//!
//! The task's address is the key: no pid is reused, no pid namespace matters. Whatever this misses (table full, program
//! not attached) ends by the reservation's maximum age.

use aya_ebpf::helpers::{bpf_get_current_task, bpf_ktime_get_boot_ns};
use portcullis_common::{
    abi::{Entry, event, flag, op, task_key, verdict},
    ledger::{Actor, Call},
};

use crate::{
    gate::{key_of, rule_of},
    maps::{FOUND, TASKS},
    output, row, sources,
};

/// The current task ends.
#[inline(always)]
pub fn ended() {
    // The tracepoint's argument is the same task, but a pointer, which the verifier lets nobody reckon with.
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    end(task, false);
    end(task, true);
}

/// Ends the reservation at an account, or that at a pair.
#[inline(always)]
fn end(task: u64, pair: bool) {
    let task = task_key(task, pair);
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
    let Some(mut seen) = row::apply(row, key, now, rule, &call) else {
        return;
    };
    seen.step.flags |= u32::from(pair) * flag::PAIR + seen.soft * flag::SOFT;
    let kind = if seen.step.verdict == verdict::DONE {
        event::DIED
    } else if seen.step.flags & !(flag::PAIR | flag::SOFT) != 0 {
        event::DUE
    } else {
        return;
    };
    // Through a map's memory: all ways to get here are one to the verifier.
    let Some(found) = FOUND.get_ptr_mut(0) else {
        return;
    };
    // What a pair loses its account loses, too: counted once.
    output::note(found, kind, !pair, now, rule.limit(), &seen);
    let source = if pair { sources::NOTHING } else { sources::count(found, entry) };
    output::tell(found, &source, entry);
}
