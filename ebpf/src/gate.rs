//! The gate: one call, one account, one verdict.
//!
//! The clock is read before the lock (no helper may run under it), so the ledger takes time that goes back a little.
//! What each op does is said at `common::abi::op`.

use aya_ebpf::helpers::{bpf_get_current_task, bpf_ktime_get_boot_ns};
use portcullis_common::{
    abi::{
        ABI, Packet, Request, UNKNOWN, ask, class_index, event, flag, member_key, op, outcome, source, stat,
        verdict,
    },
    ledger::{Actor, Call, Rule, rule_flag},
};

use crate::{
    maps::{CLASSES, MEMBERS, SETTINGS, TASKS, add},
    output::tell,
    row::{self, KernelRow, Seen},
};

const NO_EVENT: u32 = 0;

/// Answers the request in `packet`, which the entry point has checked to be whole.
#[inline(always)]
pub fn answer(packet: *mut Packet) {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    // SAFETY: `packet` is whole and nobody else's.
    let request = unsafe { &(*packet).request };
    let op = request.op;
    if request.abi != ABI || op == 0 || op > op::FORGET {
        reply(packet, now, 0, &Seen::nothing(verdict::INVALID, 0));
    } else if frozen() {
        reply(packet, now, 0, &Seen::nothing(verdict::MOVED, 0));
    } else {
        call(packet, op, now);
    }
    add(stat::CALLS + (op & 7), 1);
    // SAFETY: a helper without arguments.
    let took = unsafe { bpf_ktime_get_boot_ns() }.wrapping_sub(now);
    add(stat::LATENCY + log2(took), 1);
    add(stat::LATENCY_SUM, took);
}

/// The rule of an account's class; unknown names and users that nobody listed are class 0. None: no configuration has
/// been written yet.
#[inline(always)]
pub fn rule_of<'a>(account: u64) -> Option<&'a Rule> {
    let generation = SETTINGS.get(0).map_or(0, |settings| settings.generation);
    let mut class = 0;
    if account & UNKNOWN == 0 {
        // SAFETY: the agent replaces whole u32 values.
        if let Some(member) = unsafe { MEMBERS.get(member_key(generation, account as u32)) } {
            class = *member;
        }
    }
    CLASSES.get(class_index(generation, class)).filter(|rule| rule.deny != 0)
}

#[inline(always)]
fn call(packet: *mut Packet, op: u32, now: u64) {
    // SAFETY: see `answer`. Only scalars are kept.
    let request = unsafe { &(*packet).request };
    let account = request.entry.account;
    let result = request.arg;
    let flags = request.flags;
    let Some(rule) = rule_of(account) else {
        reply(packet, now, 0, &Seen::nothing(verdict::UNCOUNTED, 0));
        return;
    };
    let row = find_or_make(account, op, packet);
    // Read again, so that the verifier does not carry each op's value through the rule: the packet is ours alone.
    // SAFETY: see `answer`.
    let place = unsafe { &raw const (*packet).request.op };
    // SAFETY: as above.
    let op = unsafe { place.read_volatile() };
    let mut seen = match row {
        Some(row) => match row::apply(row, account, now, rule, &read(request, op)) {
            Some(seen) => seen,
            None => {
                add(stat::ROW_RACE, 1);
                Seen::nothing(verdict::AGAIN, 0)
            }
        },
        None if op == op::ADMIT || op == op::LOCK => {
            add(stat::NO_ROW, 1);
            Seen::nothing(verdict::UNCOUNTED, 0)
        }
        None => Seen::nothing(verdict::NOTHING, 0),
    };
    seen.step.verdict = rule.let_through(seen.step.verdict);
    seen.step.flags |= (rule.flags & rule_flag::EXEMPT) * flag::EXEMPT;
    seen.step.flags |= (rule.flags & rule_flag::MONITOR) / rule_flag::MONITOR * flag::MONITORED;
    seen.step.verdict = launder(packet, seen.step.verdict);
    seen.step.flags = launder(packet, seen.step.flags);
    let monitored = rule.flags & rule_flag::MONITOR != 0;
    after(packet, op, account, &seen);
    let kind = kind_of(op, flags, result, &seen);
    if kind != NO_EVENT {
        // SAFETY: see `answer`.
        tell(kind, now, rule, &seen, unsafe { &raw const (*packet).request.entry });
    }
    // What would have been refused has been told as such, and goes on.
    if monitored && matches!(seen.step.verdict, verdict::LOCKED | verdict::BUSY) {
        seen.step.verdict = verdict::ADMITTED;
    }
    reply(packet, now, rule.limit(), &seen);
    if op == op::ADMIT {
        // SAFETY: see `answer`.
        let delay = unsafe { &mut (*packet).answer.delay };
        *delay = rule.delay_after(seen.failures);
    }
}

/// Takes a number through the packet, as `row::launder` does through the row.
#[inline(always)]
fn launder(packet: *mut Packet, value: u32) -> u32 {
    // SAFETY: see `answer`; the answer is written later.
    let place = unsafe { &raw mut (*packet).answer.verdict };
    // SAFETY: a field of the packet, which is ours alone.
    unsafe { place.write_volatile(value) };
    // SAFETY: as above.
    unsafe { place.read_volatile() }
}

#[inline(always)]
fn find_or_make(account: u64, op: u32, packet: *mut Packet) -> Option<*mut KernelRow> {
    if let Some(row) = row::find(account) {
        return Some(row);
    }
    if op != op::ADMIT && op != op::LOCK {
        return None;
    }
    row::make(account, packet);
    row::find(account)
}

#[inline(always)]
fn reply(packet: *mut Packet, now: u64, deny: u32, seen: &Seen) {
    // SAFETY: see `answer`; nobody holds a reference into the packet any more.
    let answer = unsafe { &mut (*packet).answer };
    answer.verdict = seen.step.verdict;
    answer.flags = seen.step.flags;
    answer.failures = seen.failures;
    answer.reservations = seen.reservations;
    answer.deny = deny;
    answer.trips = seen.trips;
    answer.token = seen.step.token;
    answer.locked_until = seen.locked_until;
    answer.delay = 0;
    answer.now = now;
}

#[inline(always)]
fn read(request: &Request, op: u32) -> Call {
    let detail = &request.entry.detail;
    let [a, b, c, d, e, f, g, h, ..] = detail.address;
    let id = match detail.source {
        source::LOCAL => u64::from(detail.uid),
        source::IPV4 => u64::from(u32::from_be_bytes([a, b, c, d])),
        source::IPV6 => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
        _ => 0,
    };
    Call {
        op,
        arg: request.arg,
        token: request.entry.token,
        until: request.until,
        actor: Actor { kind: detail.source, id },
        process: detail.pid,
        parent: detail.parent,
    }
}

/// What follows the unlock: the task's entry, the deleted row.
#[allow(
    clippy::needless_borrows_for_generic_args,
    reason = "by value the entry would be copied to the stack"
)]
#[inline(always)]
fn after(packet: *mut Packet, op: u32, account: u64, seen: &Seen) {
    if op == op::ADMIT && seen.step.token != 0 {
        // SAFETY: see `answer`.
        let entry = unsafe { &mut (*packet).request.entry };
        entry.token = seen.step.token;
        // SAFETY: a helper without arguments.
        let task = unsafe { bpf_get_current_task() };
        if TASKS.insert(task, &*entry, 0).is_err() {
            add(stat::NO_TASK, 1);
        }
    } else if op == op::RESOLVE {
        // SAFETY: a helper without arguments.
        let task = unsafe { bpf_get_current_task() };
        // A forked child may resolve what its parent began: then there is no entry here, and the parent's finds its
        // token used.
        let _ = TASKS.remove(task);
    } else if op == op::FORGET && seen.step.verdict == verdict::DONE {
        row::delete(account);
    }
}

#[inline(always)]
fn kind_of(op: u32, flags: u32, result: u32, seen: &Seen) -> u32 {
    let due = if seen.step.flags & !(flag::EXEMPT | flag::MONITORED) != 0 { event::DUE } else { NO_EVENT };
    match op {
        _ if seen.step.verdict == verdict::AGAIN => NO_EVENT,
        op::ADMIT if seen.step.verdict == verdict::UNCOUNTED => event::UNCOUNTED,
        op::ADMIT if seen.step.verdict == verdict::LOCKED => event::REFUSED,
        op::ADMIT if seen.step.verdict == verdict::BUSY && flags & ask::LAST_TRY != 0 => event::BUSY,
        op::ADMIT if seen.step.verdict == verdict::BUSY && seen.step.flags & flag::MONITORED != 0 => {
            event::BUSY
        }
        op::CHECK if seen.locked_until != 0 && flags & ask::LOGON != 0 => event::REFUSED,
        op::RESOLVE => told(result),
        op::CONFIRM if seen.step.verdict == verdict::DONE => event::CLEARED,
        op::LOCK if seen.step.verdict == verdict::DONE => event::LOCKED,
        op::UNLOCK if seen.step.verdict == verdict::DONE => event::UNLOCKED,
        _ => due,
    }
}

#[inline(always)]
fn told(result: u32) -> u32 {
    match result {
        outcome::PASS => event::PASS,
        outcome::VOID => event::VOID,
        _ => event::FAIL,
    }
}

#[inline(always)]
fn frozen() -> bool {
    SETTINGS.get(0).is_some_and(|settings| settings.frozen != 0)
}

/// floor(log2(`ns`)), 0 to 31.
#[inline(always)]
fn log2(ns: u64) -> u32 {
    let mut value = ns;
    let mut result = 0;
    for shift in [16u32, 8, 4, 2, 1] {
        if value >> shift != 0 {
            value >>= shift;
            result += shift;
        }
    }
    result & 31
}
