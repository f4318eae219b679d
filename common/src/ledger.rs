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

use crate::abi::{cause, flag, outcome, verdict};

/// Slots of an account: the highest `deny`.
pub const SLOTS: usize = 16;
/// Passes remembered for their confirmation; more at once are forgotten, oldest first, which clears less.
pub const PASSES: usize = 8;
/// "Never" as a time or a duration.
pub const NEVER: u64 = u64::MAX;

/// Slot states.
pub mod state {
    /// Not in use.
    pub const FREE: u32 = 0;
    /// A guess is out.
    pub const RESERVED: u32 = 1;
    /// A guess was wrong.
    pub const FAILED: u32 = 2;
    /// A guess was never resolved: its task died or it got too old. A late pass withdraws it.
    pub const LAPSED: u32 = 3;
}

/// What one class of accounts asks for. Durations in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Rule {
    /// Failures that lock: 1 to [`SLOTS`]. Other values are read as the nearest of those.
    pub deny: u32,
    /// Bits of [`rule_flag`].
    pub flags: u32,
    /// Length of the window.
    pub fail_interval: u64,
    /// Length of the lock; [`NEVER`]: until an administrator releases it.
    pub unlock_time: u64,
    /// Age at which an unresolved reservation becomes a failure.
    pub max_age: u64,
    /// Time a pass may wait for its confirmation.
    pub confirm_time: u64,
}

/// Bits of `Rule::flags`.
pub mod rule_flag {
    /// Never locked.
    pub const EXEMPT: u32 = 1;
}

impl Rule {
    /// What holds before any configuration was written: faillock's defaults, and a minute for a reservation.
    pub const DEFAULT: Self = Self {
        deny: 3,
        flags: 0,
        fail_interval: 900 * 1_000_000_000,
        unlock_time: 600 * 1_000_000_000,
        max_age: 60 * 1_000_000_000,
        confirm_time: 600 * 1_000_000_000,
    };

    /// `deny`, brought into its range.
    #[inline(always)]
    pub fn limit(&self) -> u32 {
        if self.deny == 0 {
            1
        } else if self.deny > SLOTS as u32 {
            SLOTS as u32
        } else {
            self.deny
        }
    }

    /// Reservations one actor may hold: one less than would shut everybody else out.
    #[inline(always)]
    fn actor_limit(&self) -> u32 {
        if cfg!(feature = "mutation-no-actor-cap") {
            return self.limit();
        }
        let limit = self.limit();
        if limit > 1 { limit - 1 } else { 1 }
    }
}

/// Who guesses: one of `abi::source` and an uid, an IPv4 address, or the upper 64 bits of an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Actor {
    /// One of `abi::source`.
    pub kind: u32,
    /// Which one of that kind.
    pub id: u64,
}

/// What counts against the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Slot {
    /// One of [`state`].
    pub state: u32,
    /// `Actor::kind`.
    pub kind: u32,
    /// `Actor::id`.
    pub actor: u64,
    /// Names the reservation; unique in its row.
    pub token: u64,
    /// When it was reserved, or when it failed.
    pub time: u64,
}

/// A right guess that may be confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Pass {
    /// Process that passed; 0: not in use.
    pub process: u32,
    /// Its parent at that time.
    pub parent: u32,
    /// When.
    pub time: u64,
    /// `Ledger::failed` at that time.
    pub failed: u64,
}

/// The state of one account. All zero is a fresh one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Ledger {
    /// Newest time seen.
    pub newest: u64,
    /// Last token given.
    pub tokens: u64,
    /// Failures recorded, ever.
    pub failed: u64,
    /// 0: no lock; [`NEVER`]: until released; else its end.
    pub locked_until: u64,
    /// When the lock was set.
    pub locked_at: u64,
    /// One of `abi::cause`.
    pub cause: u32,
    /// Trips, ever.
    pub trips: u32,
    /// Next element of `passes` to be written.
    pub next_pass: u32,
    /// Explicit padding.
    pub pad: u32,
    /// What counts.
    pub slots: [Slot; SLOTS],
    /// What may be confirmed.
    pub passes: [Pass; PASSES],
}

/// What a call did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// One of `abi::verdict`.
    pub verdict: u32,
    /// Bits of `abi::flag`.
    pub flags: u32,
    /// Token of the reservation made.
    pub token: u64,
    /// Reservations that became failures by age.
    pub lapsed: u32,
    /// Who held the last of them: kind.
    pub lapsed_kind: u32,
    /// Who held the last of them: id.
    pub lapsed_actor: u64,
}

/// Numbers to show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Slots failed or lapsed.
    pub failures: u32,
    /// Slots reserved.
    pub reservations: u32,
}

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
        next_pass: 0,
        pad: 0,
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
            failures += u32::from(slot.state >= state::FAILED);
            reservations += u32::from(slot.state == state::RESERVED);
        }
        Counts { failures, reservations }
    }

    /// Lets happen what came due since the last call: reservations too old become failures (and may trip), failures
    /// leave the window, the lock expires.
    #[inline(always)]
    pub fn settle(&mut self, now: u64, rule: &Rule) -> Step {
        let now = self.clock(now);
        let mut step = Step {
            verdict: verdict::DONE,
            flags: 0,
            token: 0,
            lapsed: 0,
            lapsed_kind: 0,
            lapsed_actor: 0,
        };
        // At most SLOTS of them, the one that came due first before the others.
        for _ in 0..SLOTS {
            let mut due = NEVER;
            let mut token = 0;
            for slot in &self.slots {
                let end = slot.time.saturating_add(rule.max_age);
                if slot.state == state::RESERVED && end <= now && end < due {
                    due = end;
                    token = slot.token;
                }
            }
            if due == NEVER || cfg!(feature = "mutation-no-lapse") {
                break;
            }
            step.lapsed += 1;
            step.flags |= flag::LAPSED;
            for slot in &mut self.slots {
                if slot.state == state::RESERVED && slot.token == token {
                    step.lapsed_kind = slot.kind;
                    step.lapsed_actor = slot.actor;
                    slot.state = state::LAPSED;
                    slot.time = due;
                }
            }
            self.failed += 1;
            step.flags |= self.judge(due, rule);
        }
        self.forget_old(now, rule);
        if self.locked_until != 0 && self.locked_until <= now && !cfg!(feature = "mutation-forget-expiry") {
            self.locked_until = 0;
            self.cause = 0;
            step.flags |= flag::EXPIRED;
        }
        step
    }

    /// Reserves a guess for `actor`: ADMITTED with a token, BUSY (all guesses are out, or the actor's share is), or
    /// LOCKED.
    #[inline(always)]
    pub fn admit(&mut self, now: u64, rule: &Rule, actor: Actor) -> Step {
        let now = self.clock(now);
        let mut step = self.settle(now, rule);
        if self.locked() {
            step.verdict = verdict::LOCKED;
            return step;
        }
        let counts = self.counts();
        if counts.failures >= rule.limit() {
            // `deny` was lowered below what is on the books.
            step.flags |= self.judge(now, rule);
            step.verdict = if self.locked() { verdict::LOCKED } else { verdict::BUSY };
            return step;
        }
        let mut own = 0;
        for slot in &self.slots {
            own += u32::from(
                slot.state == state::RESERVED && slot.kind == actor.kind && slot.actor == actor.id,
            );
        }
        let taken = if cfg!(feature = "mutation-no-reservation") {
            counts.failures
        } else {
            counts.failures + counts.reservations
        };
        if taken >= rule.limit() || own >= rule.actor_limit() {
            step.verdict = verdict::BUSY;
            return step;
        }
        step.verdict = verdict::BUSY;
        for slot in &mut self.slots {
            if slot.state == state::FREE && step.verdict == verdict::BUSY {
                self.tokens += 1;
                slot.state = state::RESERVED;
                slot.kind = actor.kind;
                slot.actor = actor.id;
                slot.token = self.tokens;
                slot.time = now;
                step.token = self.tokens;
                step.verdict = verdict::ADMITTED;
            }
        }
        step
    }

    /// Tells what became of the guess `token`. A token that is no longer known changes nothing: what it stood for has
    /// been counted already.
    #[inline(always)]
    pub fn resolve(
        &mut self,
        now: u64,
        rule: &Rule,
        token: u64,
        result: u32,
        process: u32,
        parent: u32,
    ) -> Step {
        let now = self.clock(now);
        let mut step = self.settle(now, rule);
        let mut passed = false;
        let mut failed = false;
        for slot in &mut self.slots {
            if slot.token != token {
                continue;
            }
            if slot.state == state::RESERVED {
                if result == outcome::FAIL {
                    slot.state = state::FAILED;
                    slot.time = now;
                    failed = true;
                } else {
                    slot.state = state::FREE;
                    passed = result == outcome::PASS;
                }
            } else if slot.state == state::LAPSED {
                if result == outcome::FAIL {
                    slot.state = state::FAILED;
                } else if result == outcome::PASS {
                    // Late: the failure is withdrawn, no lock is cleared, nothing can be confirmed by it.
                    slot.state = state::FREE;
                    step.flags |= flag::WITHDRAWN;
                }
            }
        }
        if failed {
            self.failed += 1;
            step.flags |= self.judge(now, rule);
        }
        if passed {
            self.remember(now, process, parent);
            if cfg!(feature = "mutation-clear-on-pass") {
                self.clear();
            }
        }
        step
    }

    /// The task that held `token` is gone: what was not resolved is a failure.
    #[inline(always)]
    pub fn lapse(&mut self, now: u64, rule: &Rule, token: u64) -> Step {
        let now = self.clock(now);
        let mut step = self.settle(now, rule);
        let mut lapsed = false;
        for slot in &mut self.slots {
            if slot.token == token && slot.state == state::RESERVED {
                slot.state = state::LAPSED;
                slot.time = now;
                lapsed = true;
            }
        }
        step.verdict = verdict::NOTHING;
        if lapsed {
            self.failed += 1;
            step.flags |= self.judge(now, rule);
            step.verdict = verdict::DONE;
        }
        step
    }

    /// The login of `process` (or of its child) that passed goes on to setcred: clears the failures, unless there is a
    /// newer one than the pass, or no such pass (NOTHING).
    #[inline(always)]
    pub fn confirm(&mut self, now: u64, rule: &Rule, process: u32) -> Step {
        let now = self.clock(now);
        let mut step = self.settle(now, rule);
        let mut found = false;
        let failed = self.failed;
        for pass in &mut self.passes {
            let ours = process != 0
                && pass.process != 0
                && (pass.process == process || pass.parent == process);
            if ours {
                found |= pass.failed == failed && now.saturating_sub(pass.time) <= rule.confirm_time;
                pass.process = 0;
            }
        }
        step.verdict = verdict::NOTHING;
        if found {
            self.clear();
            step.verdict = verdict::DONE;
        }
        step
    }

    /// Locks until `until` ([`NEVER`]: until released), whatever lock there was.
    #[inline(always)]
    pub fn lock(&mut self, now: u64, rule: &Rule, until: u64, why: u32) -> Step {
        let now = self.clock(now);
        let step = self.settle(now, rule);
        self.locked_until = until;
        self.locked_at = now;
        self.cause = why;
        step
    }

    /// Takes the lock off and forgets the failures, as `faillock --reset` does. Guesses that are out stay out.
    #[inline(always)]
    pub fn unlock(&mut self, now: u64, rule: &Rule) -> Step {
        let now = self.clock(now);
        let step = self.settle(now, rule);
        self.locked_until = 0;
        self.cause = 0;
        self.clear();
        step
    }

    /// Whether nothing in here matters any more. Settle first.
    #[inline(always)]
    pub fn idle(&self, now: u64, rule: &Rule) -> bool {
        let mut used = 0;
        for slot in &self.slots {
            used += u32::from(slot.state != state::FREE);
        }
        for pass in &self.passes {
            used +=
                u32::from(pass.process != 0 && now.saturating_sub(pass.time) <= rule.confirm_time);
        }
        used == 0 && self.locked_until == 0
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
            if slot.state >= state::FAILED
                && slot.time.saturating_add(rule.fail_interval) <= now
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
        if counts.failures < rule.limit() || cfg!(feature = "mutation-no-trip") {
            return 0;
        }
        let until = now.saturating_add(rule.unlock_time);
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
            if slot.state >= state::FAILED {
                slot.state = state::FREE;
            }
        }
    }

    /// Keeps a pass for its confirmation.
    #[inline(always)]
    fn remember(&mut self, now: u64, process: u32, parent: u32) {
        let next = self.next_pass;
        let mut index = 0;
        for pass in &mut self.passes {
            if index == next {
                pass.process = process;
                pass.parent = parent;
                pass.time = now;
                pass.failed = self.failed;
            }
            index += 1;
        }
        self.next_pass = if next + 1 >= PASSES as u32 { 0 } else { next + 1 };
    }
}
