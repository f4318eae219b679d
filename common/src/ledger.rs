//! The counting rule of one account: an exact sliding window of failures, reservations apart from them, a lock.
//!
//! NIST SP 800-53 AC-7a: "a limit of N consecutive invalid logon attempts by a user during a time period"; the options
//! are those of faillock.conf(5) (`deny`, `fail_interval`, `unlock_time`).
//!
//! One array of slots holds what counts against the limit, so the limit cannot be exceeded by construction: a guess may
//! only be made by whoever holds a slot, a wrong one keeps it until the window has passed, a right one gives it back.
//! There are never more than `deny` slots in use.
//!
//! Invariants
//! * Pure: no clock, no I/O, no allocation, no panic, no `unsafe`, total for every input, and for every content of the
//!   memory it is laid over.
//! * Time is CLOCK_BOOTTIME nanoseconds and may go back a little: the gate reads the clock before it takes the lock.
//! * Things that came due between two calls happen at the time they came due, in that order, whenever the call comes.
//! * The same lines run in the kernel and in the property tests. No function here may compile to a call: no memcpy, no
//!   memset, hence field by field, and `#[inline(always)]` (`cargo xtask build-ebpf` checks the object).

mod types;

use crate::abi::{cause, flag, op, outcome, verdict};

use types::OWED;
pub use types::*;

impl Ledger {
    /// A fresh account.
    pub const EMPTY: Self = Self {
        newest: 0,
        tokens: 0,
        failed: 0,
        locked_until: 0,
        locked_at: 0,
        cause: 0,
        trips: 0,
        lapsed_at: 0,
        lapsed_actor: 0,
        climb_until: 0,
        level: 0,
        soft: 0,
        lapsed_kind: 0,
        next_pass: 0,
        slots: [Slot { state: state::FREE, kind: 0, actor: 0, token: 0, time: 0 }; SLOTS],
        passes: [Pass { process: 0, parent: 0, time: 0, failed: 0 }; PASSES],
    };

    /// Whether the account is locked. Settle first: an expired lock is no lock.
    #[inline(always)]
    pub fn locked(&self) -> bool {
        self.locked_until != 0
    }

    /// How many slots are in use. Settle first.
    #[inline(always)]
    pub fn counts(&self) -> Counts {
        let mut failures = 0;
        let mut reservations = 0;
        for slot in &self.slots {
            failures += (slot.state >> 1) & 1;
            reservations += slot.state & 1;
        }
        Counts { failures, reservations }
    }

    /// Lets happen what came due since the last call: reservations too old become failures (and may trip), failures
    /// leave the window, the lock expires. The first half of [`Ledger::apply`].
    ///
    /// One pass is exact: every call settles first, so no failure on the books is newer than one that comes due here,
    /// and since no more than `deny` slots are in use, only the newest of them all can be the one that trips.
    #[inline(always)]
    pub fn settle(&mut self, now: u64, rule: &Rule) -> Step {
        let step = self.settle_marked(now, rule);
        for slot in &mut self.slots {
            slot.kind &= !OWED;
        }
        step
    }

    /// [`Ledger::settle`] for those who tell the sources: where anything lapsed, [`Ledger::take_lapsed`] comes next.
    #[inline(always)]
    pub fn settle_marked(&mut self, now: u64, rule: &Rule) -> Step {
        let now = self.clock(now);
        let mut step = Step { verdict: verdict::DONE, flags: 0, token: 0, lapsed: 0 };
        let before = self.failed;
        for slot in &mut self.slots {
            if slot.state == state::RESERVED
                && now.saturating_sub(slot.time) >= rule.max_age
                && !cfg!(feature = "mutation-no-lapse")
            {
                slot.state = state::LAPSED;
                slot.time = slot.time.saturating_add(rule.max_age);
                self.failed += 1;
                if slot.time >= self.lapsed_at {
                    self.lapsed_at = slot.time;
                    self.lapsed_kind = slot.kind;
                    self.lapsed_actor = slot.actor;
                }
                slot.kind |= OWED;
            }
        }
        let mut newest = now;
        if self.failed != before {
            newest = self.lapsed_at;
            step.lapsed = self.failed.wrapping_sub(before) as u32;
            step.flags = flag::LAPSED;
        }
        // Without anything lapsed it can only trip because `deny` was lowered below what is on the books.
        step.flags |= self.judge(newest, rule);
        // Needed only where something lapsed, but a branch costs the verifier more than the pass costs the gate.
        self.forget_old(now, rule);
        // An account that is exempt is locked no longer than to the next look.
        let end = self.locked_until >> rule.exempt_shift();
        if self.locked_until != 0 && end <= now && !cfg!(feature = "mutation-forget-expiry") {
            self.locked_until = 0;
            self.cause = 0;
            self.soft = 0;
            step.flags |= flag::EXPIRED;
        }
        step
    }

    /// Whose guesses lapsed in the call at hand: each is told to its source, also when its failure was used up by a trip
    /// at once.
    #[inline(always)]
    pub fn take_lapsed(&mut self, lapsed: &mut Lapsed) {
        let mut kinds = 0;
        for (index, (slot, id)) in self.slots.iter_mut().zip(&mut lapsed.ids).enumerate() {
            let owed = u64::from(slot.kind & 3) * u64::from(slot.kind >> 31);
            kinds = if cfg!(feature = "mutation-one-lapse") && owed != 0 { 0 } else { kinds };
            kinds |= owed << (2 * index);
            *id = slot.actor;
            slot.kind &= !OWED;
        }
        lapsed.kinds = kinds;
    }

    /// One call: settles what came due, then does what `call` asks. Unknown ops only settle.
    #[inline(always)]
    pub fn apply(&mut self, now: u64, rule: &Rule, call: &Call) -> Step {
        let step = self.settle(now, rule);
        self.act(now, rule, call, step)
    }

    /// The second half of [`Ledger::apply`]: `step` is what [`Ledger::settle`] answered in the same call.
    #[inline(always)]
    pub fn act(&mut self, now: u64, rule: &Rule, call: &Call, step: Step) -> Step {
        let now = self.clock(now);
        let mut step = step;
        let failed = self.failed;
        match call.op {
            op::ADMIT => self.admit(now, rule, call, &mut step),
            op::RESOLVE | op::LAPSE => self.resolve(now, call, &mut step),
            op::CONFIRM => self.confirm(now, rule, call.process, &mut step),
            op::LOCK => {
                self.locked_until = call.until;
                self.locked_at = now;
                self.cause = call.arg & 0xff;
                self.soft = call.open & 1;
                if call.token != 0 {
                    self.climb_until = call.token;
                    self.level = (call.arg >> 8) & 31;
                }
            }
            op::UNLOCK => {
                self.locked_until = 0;
                self.cause = 0;
                self.soft = 0;
                self.climb_until = 0;
                self.clear();
            }
            _ => {}
        }
        if self.failed != failed {
            step.flags |= self.judge(now, rule);
        }
        step
    }

    /// Reserves a guess: ADMITTED with a token, BUSY (all guesses are out, or the actor's share is), or LOCKED.
    #[inline(always)]
    fn admit(&mut self, now: u64, rule: &Rule, call: &Call, step: &mut Step) {
        // Arithmetic: what is open to this call is no lock to it.
        if self.locked_until.wrapping_mul(u64::from((self.soft & call.open & 1) ^ 1)) != 0 {
            step.verdict = verdict::LOCKED;
            return;
        }
        step.verdict = verdict::BUSY;
        let mut own = 0;
        let mut taken = 0;
        for slot in &self.slots {
            if slot.kind == call.actor.kind && slot.actor == call.actor.id {
                own += slot.state & 1;
            }
            taken += (slot.state >> 1) & 1;
            if !cfg!(feature = "mutation-no-reservation") {
                taken += slot.state & 1;
            }
        }
        if taken >= rule.limit_now(self.soft & 1) || own >= rule.actor_limit() {
            return;
        }
        for slot in &mut self.slots {
            if slot.state == state::FREE && step.verdict == verdict::BUSY {
                self.tokens += 1;
                slot.state = state::RESERVED;
                slot.kind = call.actor.kind;
                slot.actor = call.actor.id;
                slot.token = self.tokens;
                slot.time = now;
                step.token = self.tokens;
                step.verdict = verdict::ADMITTED;
            }
        }
    }

    /// Tells what became of a guess (RESOLVE), or that the task which held it is gone (LAPSE): unresolved is a failure.
    /// A token that is no longer known changes nothing (NOTHING): what it stood for has been counted already.
    #[inline(always)]
    fn resolve(&mut self, now: u64, call: &Call, step: &mut Step) {
        let gone = call.op == op::LAPSE;
        let right = !gone && call.arg == outcome::PASS;
        let void = !gone && call.arg == outcome::VOID;
        let before = self.next_pass;
        step.verdict = verdict::NOTHING;
        for slot in &mut self.slots {
            if slot.token != call.token {
                continue;
            }
            if slot.state == state::RESERVED {
                step.verdict = verdict::DONE;
                if right || void {
                    slot.state = state::FREE;
                    if right {
                        self.next_pass = before.wrapping_add(1);
                    }
                } else {
                    slot.state = if gone { state::LAPSED } else { state::FAILED };
                    slot.time = now;
                    self.failed += 1;
                }
            } else if slot.state == state::LAPSED && !gone {
                if right {
                    // Late: the failure is withdrawn, no lock is cleared, nothing can be confirmed by it.
                    slot.state = state::FREE;
                    step.flags |= flag::WITHDRAWN;
                } else if !void {
                    slot.state = state::FAILED;
                }
            }
        }
        if self.next_pass != before {
            self.remember(now, before, call.process, call.parent);
            if cfg!(feature = "mutation-clear-on-pass") {
                self.clear();
            }
        }
    }

    /// The login of `process` (or of its child) that passed goes on to setcred: clears the failures, unless there is a
    /// newer one than the pass, or no such pass (NOTHING).
    #[inline(always)]
    fn confirm(&mut self, now: u64, rule: &Rule, process: u32, step: &mut Step) {
        let failed = self.failed;
        step.verdict = verdict::NOTHING;
        if process == 0 {
            return;
        }
        // One condition: with a `continue` the compiler walks this loop backwards, by negated offsets, which kernels
        // before 6.18 do not follow.
        for pass in &mut self.passes {
            if pass.process != 0 && (pass.process == process || pass.parent == process) {
                if pass.failed == failed && now.saturating_sub(pass.time) <= rule.confirm_time {
                    step.verdict = verdict::DONE;
                }
                pass.process = 0;
            }
        }
        if step.verdict == verdict::DONE {
            self.clear();
        }
    }

    /// Whether nothing in here matters any more. Settle first.
    #[inline(always)]
    pub fn idle(&self, now: u64, rule: &Rule) -> bool {
        let mut used = 0;
        for slot in &self.slots {
            used |= slot.state;
        }
        if used != 0 || self.locked_until != 0 {
            return false;
        }
        for pass in &self.passes {
            if pass.process != 0 && now.saturating_sub(pass.time) <= rule.confirm_time {
                return false;
            }
        }
        true
    }

    /// Time never goes back in here.
    #[inline(always)]
    fn clock(&mut self, now: u64) -> u64 {
        if now > self.newest {
            self.newest = now;
        }
        self.newest
    }

    /// Failures leave the window when they are `fail_interval` old.
    #[inline(always)]
    fn forget_old(&mut self, now: u64, rule: &Rule) {
        for slot in &mut self.slots {
            if slot.is_failure()
                && now.saturating_sub(slot.time) >= rule.fail_interval
                && !cfg!(feature = "mutation-no-window")
            {
                slot.state = state::FREE;
            }
        }
    }

    /// Trips if the window that ends at `now` holds `deny` failures. A trip uses them up: after the lock the count
    /// starts anew. A longer lock that is there already stays.
    #[inline(always)]
    fn judge(&mut self, now: u64, rule: &Rule) -> u32 {
        self.forget_old(now, rule);
        let counts = self.counts();
        if counts.failures < rule.trip_limit(self.soft & 1) || cfg!(feature = "mutation-no-trip") {
            return 0;
        }
        self.level = if now < self.climb_until { (self.level + 1) & 31 } else { 0 };
        // The first rung where there was no lock, the lock for all above it.
        let soft = (rule.flags / rule_flag::SOFT) & u32::from(self.locked_until == 0);
        self.soft =
            if cfg!(feature = "mutation-soft-forever") { rule.flags / rule_flag::SOFT } else { soft } & 1;
        let until = now.saturating_add(rule.lock_time(self.level));
        self.climb_until =
            if rule.backoff_window == 0 { 0 } else { until.saturating_add(rule.backoff_window) };
        if until > self.locked_until {
            self.locked_until = until;
            self.locked_at = now;
            self.cause = cause::TRIP;
        }
        self.trips = self.trips.wrapping_add(1);
        self.clear();
        flag::TRIPPED
    }

    /// Takes every failure off the books.
    #[inline(always)]
    fn clear(&mut self) {
        for slot in &mut self.slots {
            if slot.is_failure() {
                slot.state = state::FREE;
            }
        }
    }

    /// Keeps a pass for its confirmation, in the place of the oldest.
    #[inline(always)]
    fn remember(&mut self, now: u64, count: u32, process: u32, parent: u32) {
        let place = count % PASSES as u32;
        for (index, pass) in self.passes.iter_mut().enumerate() {
            if index as u32 == place {
                pass.process = process;
                pass.parent = parent;
                pass.time = now;
                pass.failed = self.failed;
            }
        }
    }
}
