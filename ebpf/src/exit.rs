//! The observer's first half: a task that ends with a guess out has failed, at once.
//!
//! The task's address is the key: no pid is reused, no pid namespace matters. Whatever this misses (table full, program
//! not attached) ends by the reservation's maximum age.

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use portcullis_common::{
    abi::{Entry, event, op, verdict},
    ledger::Call,
};

use crate::{gate::rule_of, maps::TASKS, output::tell, row};

/// `task`: address of the `task_struct` that ends.
#[inline(always)]
pub fn ended(task: u64) {
    // SAFETY: nobody but this task's own calls writes this entry, and this task makes no more calls.
    let Some(entry) = (unsafe { TASKS.get(task) }) else {
        return;
    };
    if !cfg!(feature = "mutation-no-exit") {
        lapse(entry);
    }
    let _ = TASKS.remove(task);
}

#[inline(always)]
fn lapse(entry: &Entry) {
    let Some(rule) = rule_of(entry.account) else {
        return;
    };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let mut call = Call::new(op::LAPSE);
    call.token = entry.token;
    let Some(row) = row::find(entry.account) else {
        return;
    };
    let Some(seen) = row::apply(row, entry.account, now, rule, &call) else {
        return;
    };
    if seen.step.verdict == verdict::DONE {
        tell(event::DIED, now, rule, &seen, entry);
    } else if seen.step.flags != 0 {
        tell(event::DUE, now, rule, &seen, entry);
    }
}
