//! The gate: one call, one account (or one pair of it and a source), one verdict.
//!
//! The clock is read before the lock (no helper may run under it), so the ledger takes time that goes back a little.
//! What each op does is said at `common::abi::op`.

use aya_ebpf::{
    btf_maps::lpm_trie::Key,
    helpers::{bpf_get_current_task, bpf_ktime_get_boot_ns},
};
use portcullis_common::{
    abi::{
        ABI, Packet, Place, Request, ask, class_index, event, flag, member_key, member_of, op, outcome,
        pair_index, place, stat, task_key, verdict,
    },
    ledger::{Actor, Call, Lapsed, Ledger, Rule, rule_flag},
    pair,
};

use crate::{
    maps::{CLASSES, MEMBERS, PLACES, SETTINGS, TASKS, add},
    output,
    row::{self, KernelRow, Seen},
    sources,
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
    let report = op == op::REPORT;
    add(if report { stat::REPORTS } else { stat::CALLS + (op & 7) }, 1);
    silence(packet);
    if request.abi != ABI || op == 0 || (op > op::FORGET && !report) {
        say(packet, now, verdict::INVALID);
    } else if frozen() {
        say(packet, now, verdict::MOVED);
    } else if report {
        hear(packet, now);
    } else if !refuse_actor(packet, op, now) {
        call(packet, op, now);
    }
    tell(packet);
    // SAFETY: see above; every way wrote the answer.
    let place = unsafe { &raw const (*packet).answer.now };
    // SAFETY: a field of the packet, which is ours alone.
    let now = unsafe { place.read_volatile() };
    // SAFETY: a helper without arguments.
    let took = unsafe { bpf_ktime_get_boot_ns() }.wrapping_sub(now);
    add(stat::LATENCY + log2(took), 1);
    add(stat::LATENCY_SUM, took);
}

/// Nothing is to be told yet.
#[inline(always)]
fn silence(packet: *mut Packet) {
    // SAFETY: see `answer`.
    let place = unsafe { &raw mut (*packet).found.kind };
    // SAFETY: a field of the packet, which is ours alone.
    unsafe { place.write_volatile(NO_EVENT) };
    owes_nothing(packet, 0);
}

/// Where whose guesses lapsed is noted: in the scratch row, which by then is in its table or not needed. Until then it is
/// all zero, which is nobody's.
#[inline(always)]
fn lapsed_of(packet: *mut Packet) -> *mut Lapsed {
    const { assert!(size_of::<Lapsed>() <= size_of::<Ledger>() && align_of::<Lapsed>() <= align_of::<Ledger>()) };
    // SAFETY: `packet` is whole.
    unsafe { &raw mut (*packet).row.ledger }.cast()
}

/// Takes what lapsed off again, but for `keep` of its kinds (all ones: all).
#[inline(always)]
fn owes_nothing(packet: *mut Packet, keep: u64) {
    // SAFETY: see `lapsed_of`.
    let place = unsafe { &raw mut (*lapsed_of(packet)).kinds };
    // SAFETY: a field of the packet, which is ours alone.
    let kinds = unsafe { place.read_volatile() };
    // SAFETY: as above.
    unsafe { place.write_volatile(kinds & keep) };
}

/// Counts what was found for its source, and tells of it. Here all ways through the gate are one again.
#[inline(always)]
fn tell(packet: *mut Packet) {
    // SAFETY: see `answer`.
    let found = unsafe { &raw const (*packet).found };
    // SAFETY: as above.
    let place = unsafe { &raw const (*found).kind };
    // SAFETY: as above.
    if unsafe { place.read_volatile() } != NO_EVENT {
        // SAFETY: as above.
        let entry = unsafe { &raw const (*packet).request.entry };
        // SAFETY: as above.
        let place = unsafe { &raw const (*found).time };
        // SAFETY: as above.
        let now = unsafe { place.read_volatile() };
        // SAFETY: as above.
        let place = unsafe { &raw const (*entry).account };
        // SAFETY: as above.
        let account = unsafe { place.read_volatile() };
        // SAFETY: the packet came zeroed or was written by the row.
        unsafe { sources::count_lapsed(lapsed_of(packet), account, now) };
        let source = sources::count(found, entry);
        output::tell(found, &source, entry);
    }
}

/// A report of another program: counts for the source alone.
#[inline(always)]
fn hear(packet: *mut Packet, now: u64) {
    // SAFETY: see `answer`.
    let request = unsafe { &(*packet).request };
    let kind = if request.arg == outcome::PASS { event::REPORTED_PASS } else { event::REPORTED };
    let seen = Seen::nothing(verdict::DONE, 0);
    // SAFETY: see `answer`.
    output::note(unsafe { &raw mut (*packet).found }, kind, true, now, 0, &seen);
    reply(packet, now, 0, &seen);
}

/// Refuses a local user who tripped, at every account but his own, before the account's row is touched.
#[inline(always)]
fn refuse_actor(packet: *mut Packet, op: u32, now: u64) -> bool {
    if op != op::ADMIT {
        return false;
    }
    // SAFETY: see `answer`.
    let until = sources::refused_until(unsafe { &raw const (*packet).request.entry }, now);
    if until == 0 {
        return false;
    }
    let mut seen = Seen::nothing(verdict::LOCKED, flag::ACTOR);
    seen.locked_until = until;
    // His guess is told, and counted for nobody: he is refused already.
    // SAFETY: see `answer`.
    output::note(unsafe { &raw mut (*packet).found }, event::REFUSED, false, now, 0, &seen);
    reply(packet, now, 0, &seen);
    true
}

/// The rule of an account's class, or of its pairs; whom nobody listed is in class 0. None: no
/// configuration has been written yet. With it, the generation and the class.
#[inline(always)]
pub fn rule_of<'a>(account: u64, pair: bool) -> Option<(&'a Rule, u32, u32)> {
    let generation = SETTINGS.get(0).map_or(0, |settings| settings.generation);
    // SAFETY: the agent replaces whole u32 values.
    let class = unsafe { MEMBERS.get(member_key(generation, member_of(account))) }.map_or(0, |class| *class);
    let index = if pair { pair_index(generation, class) } else { class_index(generation, class) };
    CLASSES.get(index).filter(|rule| rule.deny != 0).map(|rule| (rule, generation, class))
}

/// 1 where a soft lock of the class is open to where the call comes from, in its hours.
#[inline(always)]
fn permitted(packet: *mut Packet, rule: &Rule, generation: u32, class: u32) -> u32 {
    if rule.flags & rule_flag::RESTRICT == 0 {
        return 0;
    }
    if rule.flags & rule_flag::ANYWHERE != 0 {
        return 1;
    }
    // SAFETY: see `answer`.
    let mut place = Place::of(unsafe { &(*packet).request.entry.detail });
    place.generation = generation;
    place.class = class;
    if place.kind == 0 {
        return 0;
    }
    u32::from(PLACES.get(&Key::new(place::HEAD + 128, place)).is_some())
}

/// Key of a row: the account's, or that of the pair it makes with `actor`.
#[inline(always)]
pub fn key_of(account: u64, actor: Actor, pair: bool) -> u64 {
    if pair && let Some(settings) = SETTINGS.get(0) {
        return pair::key(settings.hash_key, account, actor);
    }
    account
}

#[inline(always)]
fn call(packet: *mut Packet, op: u32, now: u64) {
    // SAFETY: see `answer`. Only scalars are kept.
    let request = unsafe { &(*packet).request };
    let account = request.entry.account;
    let result = request.arg;
    let flags = request.flags;
    let pair = flags & ask::PAIR != 0;
    let Some((rule, generation, class)) = rule_of(account, pair) else {
        say(packet, now, verdict::UNCOUNTED);
        return;
    };
    if op == op::ADMIT {
        // Pairs where the class counts some, the account where it does not.
        let pairs = (rule.flags & rule_flag::PAIR) / rule_flag::PAIR;
        let asked = (flags & ask::PAIR) / ask::PAIR;
        let paired = (flags & ask::PAIRED) / ask::PAIRED;
        if launder(packet, (pairs ^ asked) & !paired & 1) != 0 {
            say(packet, now, verdict::UNCOUNTED + pairs * (verdict::PAIR - verdict::UNCOUNTED));
            return;
        }
    }
    let hours = launder(packet, u32::from(rule.open_at(now)));
    let permitted = launder(packet, permitted(packet, rule, generation, class)) & hours;
    let actor = launder_actor(packet, Actor::of(&request.entry.detail));
    let key = key_of(account, actor, pair);
    let row = find_or_make(key, account, actor, op, packet);
    let key = launder_key(packet, key);
    // Read again, so that the verifier does not carry each op's value through the rule: the packet is ours alone.
    // SAFETY: see `answer`.
    let place = unsafe { &raw const (*packet).request.op };
    // SAFETY: as above.
    let op = unsafe { place.read_volatile() };
    // SAFETY: see `answer`.
    let place = unsafe { &raw const (*packet).request.flags };
    // SAFETY: as above.
    let flags = unsafe { place.read_volatile() };
    let pair = flags & ask::PAIR != 0;
    // What a pair loses its account loses, too: counted once.
    let keep = u64::from((flags & ask::PAIR) / ask::PAIR).wrapping_sub(1);
    let by_factor = (rule.flags / rule_flag::FACTOR) & (flags / ask::FACTOR) & 1;
    let open = (permitted | by_factor | (flags / ask::SOFT)) & 1;
    let mut seen = match row {
        Some(row) => {
            match row::apply(row, key, now, rule, &read(request, op, actor, open), lapsed_of(packet)) {
                Some(seen) => seen,
                None => {
                    add(stat::ROW_RACE, 1);
                    Seen::nothing(verdict::AGAIN, 0)
                }
            }
        }
        None if may_make(op) && gone_again(packet) => {
            add(stat::ROW_RACE, 1);
            Seen::nothing(verdict::AGAIN, 0)
        }
        None if may_make(op) => {
            add(stat::NO_ROW, 1);
            Seen::nothing(verdict::UNCOUNTED, 0)
        }
        None => Seen::nothing(verdict::NOTHING, 0),
    };
    owes_nothing(packet, keep);
    seen.step.verdict = rule.let_through(seen.step.verdict);
    seen.step.flags |= rule.marks();
    seen.step.flags |= (flags & ask::PAIR) / ask::PAIR * flag::PAIR;
    let opened = seen.soft & open;
    seen.step.flags |= seen.soft * flag::SOFT + opened * flag::OPEN;
    seen.step.flags |= (opened & !permitted) * flag::FACTOR;
    seen.step.verdict = launder(packet, seen.step.verdict);
    seen.step.flags = launder(packet, seen.step.flags);
    let monitored = rule.flags & rule_flag::MONITOR != 0;
    after(packet, op, key, pair, &seen);
    let kind = kind_of(op, flags, result, &seen);
    // A logon by a key is no guess, though it is refused; what is told of a pair is told of its account, too, but for
    // what is refused.
    let refused = kind == event::REFUSED;
    // A result that comes when the guess was counted already, by its age, is not counted again.
    let late = op == op::RESOLVE && seen.step.verdict != verdict::DONE;
    let counts = (refused && op != op::CHECK) || (!refused && !pair && !late);
    // SAFETY: see `answer`.
    output::note(unsafe { &raw mut (*packet).found }, kind, counts, now, rule.limit(), &seen);
    // What would have been refused has been told as such, and goes on.
    if monitored && matches!(seen.step.verdict, verdict::LOCKED | verdict::BUSY) {
        seen.step.verdict = verdict::ADMITTED;
    }
    reply(packet, now, rule.limit(), &seen);
    if op == op::ADMIT {
        // SAFETY: see `answer`.
        let delay = unsafe { &mut (*packet).answer.delay };
        *delay = rule.delay_after(seen.failures);
        // What others did costs nobody's pair.
        if rule.flags & rule_flag::PAIR != 0 && !pair {
            *delay = 0;
        }
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

/// The same for a key: what was asked of its bits is forgotten.
#[inline(always)]
fn launder_key(packet: *mut Packet, key: u64) -> u64 {
    // SAFETY: see `answer`; the scratch row is used by now, or never.
    let place = unsafe { &raw mut (*packet).row.key };
    // SAFETY: a field of the packet, which is ours alone.
    unsafe { place.write_volatile(key) };
    // SAFETY: as above.
    unsafe { place.read_volatile() }
}

/// The same for an actor, whose kind was told by branches.
#[inline(always)]
fn launder_actor(packet: *mut Packet, actor: Actor) -> Actor {
    let id = launder_key(packet, actor.id);
    // SAFETY: see `answer`.
    let place = unsafe { &raw const (*packet).request.entry.detail.source };
    // SAFETY: a field of the packet, which is ours alone.
    let kind = unsafe { place.read_volatile() };
    Actor { kind, id }
}

#[inline(always)]
fn find_or_make(
    key: u64,
    account: u64,
    actor: Actor,
    op: u32,
    packet: *mut Packet,
) -> Option<*mut KernelRow> {
    // Looked up again in any case: so all ways to a row are one to the verifier.
    let there = row::find(key).is_some() || (may_make(op) && row::make(key, account, actor, packet));
    // SAFETY: see `answer`; the answer is written later.
    let place = unsafe { &raw mut (*packet).answer.flags };
    // SAFETY: a field of the packet, which is ours alone.
    unsafe { place.write_volatile(u32::from(there)) };
    row::find(key)
}

/// Whether a call makes a row where there is none.
#[inline(always)]
fn may_make(op: u32) -> bool {
    op == op::ADMIT || op == op::LOCK
}

/// Whether `find_or_make` had found or made a row: somebody deleted it at once.
#[inline(always)]
fn gone_again(packet: *const Packet) -> bool {
    // SAFETY: see `answer`.
    let place = unsafe { &raw const (*packet).answer.flags };
    // SAFETY: a field of the packet, which is ours alone.
    unsafe { place.read_volatile() != 0 }
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

/// An answer to a call that looked at no row. The caller sent the rest of it zeroed.
#[inline(always)]
fn say(packet: *mut Packet, now: u64, verdict: u32) {
    // SAFETY: see `answer`; nobody holds a reference into the packet any more.
    let answer = unsafe { &mut (*packet).answer };
    answer.verdict = verdict;
    answer.now = now;
}

#[inline(always)]
fn read(request: &Request, op: u32, actor: Actor, open: u32) -> Call {
    let detail = &request.entry.detail;
    Call {
        op,
        arg: request.arg,
        token: request.entry.token,
        until: request.until,
        actor,
        process: detail.pid,
        parent: detail.parent,
        open,
    }
}

/// What follows the unlock: the task's entry, the deleted row.
#[allow(
    clippy::needless_borrows_for_generic_args,
    reason = "by value the entry would be copied to the stack"
)]
#[inline(always)]
fn after(packet: *mut Packet, op: u32, key: u64, pair: bool, seen: &Seen) {
    if op == op::ADMIT && seen.step.token != 0 {
        // SAFETY: see `answer`.
        let entry = unsafe { &mut (*packet).request.entry };
        entry.token = seen.step.token;
        // SAFETY: a helper without arguments.
        let task = unsafe { bpf_get_current_task() };
        if TASKS.insert(task_key(task, pair), &*entry, 0).is_err() {
            add(stat::NO_TASK, 1);
        }
    } else if op == op::RESOLVE {
        // SAFETY: a helper without arguments.
        let task = unsafe { bpf_get_current_task() };
        // A forked child may resolve what its parent began: then there is no entry here, and the parent's finds its
        // token used.
        let _ = TASKS.remove(task_key(task, pair));
    } else if op == op::FORGET && seen.step.verdict == verdict::DONE {
        row::delete(key);
    }
}

#[inline(always)]
fn kind_of(op: u32, flags: u32, result: u32, seen: &Seen) -> u32 {
    let due = if seen.step.flags & !flag::STANDING != 0 { event::DUE } else { NO_EVENT };
    match op {
        _ if seen.step.verdict == verdict::AGAIN => NO_EVENT,
        // The account's own event tells of it.
        op::RESOLVE | op::CONFIRM if flags & ask::PAIR != 0 && due == NO_EVENT => NO_EVENT,
        op::ADMIT if seen.step.verdict == verdict::UNCOUNTED => event::UNCOUNTED,
        op::ADMIT if seen.step.verdict == verdict::LOCKED => event::REFUSED,
        op::ADMIT if seen.step.verdict == verdict::BUSY && flags & ask::LAST_TRY != 0 => event::BUSY,
        op::ADMIT if seen.step.verdict == verdict::BUSY && seen.step.flags & flag::MONITORED != 0 => {
            event::BUSY
        }
        op::CHECK
            if seen.locked_until != 0 && flags & ask::LOGON != 0 && seen.step.flags & flag::OPEN == 0 =>
        {
            event::REFUSED
        }
        op::CHECK if flags & ask::ABANDONED != 0 => event::ABANDONED,
        op::RESOLVE => told(result),
        op::CONFIRM if seen.step.verdict == verdict::DONE => event::CLEARED,
        op::LOCK if seen.step.verdict == verdict::DONE && seen.locked_until != 0 => event::LOCKED,
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
    !cfg!(feature = "mutation-no-freeze") && SETTINGS.get(0).is_some_and(|settings| settings.frozen != 0)
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
