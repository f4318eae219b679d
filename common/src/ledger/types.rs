//! What the rule works on: an account's slots and passes, what its class asks for, a call and what it did.
//!
//! Invariant: what lies in a map ([`Rule`], [`Ledger`] and its parts) is `repr(C)` without implicit padding; sizes are
//! asserted in `abi`.

use crate::abi::{flag, verdict};
use crate::arithmetic::clamp;

/// Slots of an account: the highest `deny`.
pub const SLOTS: usize = 16;
/// Passes remembered for their confirmation; more at once are forgotten, oldest first, which clears less.
pub const PASSES: usize = 8;
/// "Never" as a time or a duration.
pub const NEVER: u64 = u64::MAX;

/// Slot states, as bits: counting them is arithmetic, not branching, which keeps the verifier's states few.
pub mod state {
    /// Not in use.
    pub const FREE: u32 = 0;
    /// A guess is out.
    pub const RESERVED: u32 = 1;
    /// A guess was wrong.
    pub const FAILED: u32 = 2;
    /// A guess was never resolved: its task died or it got too old. A failure; a late pass withdraws it.
    pub const LAPSED: u32 = FAILED | 4;
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
    /// A trip this soon after the last lock's end doubles the lock; 0: every lock is as long as the first.
    pub backoff_window: u64,
    /// The longest lock that doubling leads to.
    pub max_unlock_time: u64,
    /// What the first failure on the books costs the next guess in waiting; 0: nothing.
    pub delay: u64,
    /// The longest delay.
    pub max_delay: u64,
    /// With [`rule_flag::PAIR`]: failures of one source that lock it out; `deny` is then what locks the account.
    pub pair_deny: u32,
    /// With [`rule_flag::SOFT`]: failures during a soft lock that make it a lock for all, 1 to [`SLOTS`].
    pub soft_deny: u32,
    /// With [`rule_flag::RESTRICT`]: boot time, less whole days of [`DAY`], at which the hours begin every day.
    pub opens: u64,
    /// How long they are; 0: all day.
    pub open_for: u64,
}

/// A day of the hours in [`Rule`], in nanoseconds.
pub const DAY: u64 = 86_400 * 1_000_000_000;

/// Bits of `Rule::flags`.
pub mod rule_flag {
    /// Never locked, still counted and delayed. Of more wrong guesses than `deny` the newest are not kept.
    pub const EXEMPT: u32 = 1;
    /// Everything is counted and computed, nothing refused: the gate's affair, the ledger takes no notice.
    pub const MONITOR: u32 = 2;
    /// Each further failure doubles the delay; without it, adds the first one again.
    pub const DELAY_DOUBLES: u32 = 4;
    /// Failures count per account and source first ([`Rule::of_pairs`]): the gate's affair, the ledger takes no notice.
    pub const PAIR: u32 = 8;
    /// The first trip sets a soft lock, which does not hold for calls with [`Call::open`]; the next one a lock for all.
    pub const SOFT: u32 = 64;
    /// A soft lock is open to listed places: the gate's affair, as are the rest of these.
    pub const RESTRICT: u32 = 128;
    /// It is open to every place.
    pub const ANYWHERE: u32 = 256;
    /// It is open to whoever has another factor.
    pub const FACTOR: u32 = 1024;
}

/// `time` doubled `times` times, at most `cap`.
#[inline(always)]
fn capped_double(time: u64, times: u64, cap: u64) -> u64 {
    let times = times & 31;
    if time >= cap >> times { cap } else { time << times }
}

impl Slot {
    /// Whether this counts as a failure.
    #[inline(always)]
    pub fn is_failure(&self) -> bool {
        self.state & state::FAILED != 0
    }
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
        backoff_window: 0,
        max_unlock_time: 0,
        delay: 0,
        max_delay: 0,
        pair_deny: 0,
        soft_deny: 0,
        opens: 0,
        open_for: 0,
    };

    /// What holds for the pairs of this class. Where it counts none, what is left of earlier ones ends by the class's own
    /// rule.
    #[must_use]
    pub fn of_pairs(&self) -> Self {
        let pairs = self.flags & rule_flag::PAIR != 0 && !cfg!(feature = "mutation-one-scope");
        let deny = if pairs { self.pair_deny } else { self.deny };
        // A source that is shut out is shut out.
        Self { deny, flags: self.flags & !rule_flag::SOFT, ..*self }
    }

    /// Whether `now` lies in the hours of [`rule_flag::RESTRICT`]: the gate knows them for every day to come, so that they
    /// neither begin nor end with the agent.
    #[inline(always)]
    pub fn open_at(&self, now: u64) -> bool {
        // In two steps, since the sum may be more than fits.
        let since = (now % DAY + DAY - self.opens % DAY) % DAY;
        self.open_for == 0 || since < self.open_for || cfg!(feature = "mutation-no-hours")
    }

    /// By how much the end of a lock is shifted down: to nearly nothing where accounts of this class are never locked.
    /// Arithmetic instead of a branch, see [`state`].
    #[inline(always)]
    pub(super) fn exempt_shift(&self) -> u32 {
        (self.flags & rule_flag::EXEMPT) * 63
    }

    /// Failures that trip: `deny`; out of reach for exempt accounts.
    #[inline(always)]
    pub(super) fn trip_limit(&self, soft: u32) -> u32 {
        self.limit_now(soft) + (self.flags & rule_flag::EXEMPT) * SLOTS as u32
    }

    /// What a verdict is worth to this class: an exempt account is neither locked nor kept waiting. Of a guess that
    /// found no free slot nothing is kept.
    #[inline(always)]
    pub fn let_through(&self, verdict: u32) -> u32 {
        let refused = matches!(verdict, verdict::LOCKED | verdict::BUSY);
        if refused && self.flags & rule_flag::EXEMPT != 0 && !cfg!(feature = "mutation-lock-exempt") {
            verdict::ADMITTED
        } else {
            verdict
        }
    }

    /// How long a guess waits before it is checked, with so many failures on the books. Never more than `max_delay`.
    #[inline(always)]
    pub fn delay_after(&self, failures: u32) -> u64 {
        // No more failures than slots; masked for the verifier, which does not know it.
        let failures = u64::from(failures) & (2 * SLOTS as u64 - 1);
        if failures == 0 {
            0
        } else if self.flags & rule_flag::DELAY_DOUBLES != 0 {
            capped_double(self.delay, failures - 1, self.max_delay)
        } else if self.delay >= self.max_delay {
            self.max_delay
        } else {
            // Of less than `max_delay`, which the configuration bounds far below the overflow.
            let delay = self.delay.wrapping_mul(failures);
            if delay < self.max_delay { delay } else { self.max_delay }
        }
    }

    /// Length of the lock of a trip that is the `level`th in a row, from 0.
    #[inline(always)]
    pub(super) fn lock_time(&self, level: u32) -> u64 {
        if level == 0 || self.unlock_time >= self.max_unlock_time {
            return self.unlock_time;
        }
        capped_double(self.unlock_time, u64::from(level), self.max_unlock_time)
    }

    /// What an event says about the class.
    #[inline(always)]
    pub fn marks(&self) -> u32 {
        let exempt = (self.flags & rule_flag::EXEMPT) * flag::EXEMPT;
        let monitored = (self.flags & rule_flag::MONITOR) / rule_flag::MONITOR * flag::MONITORED;
        let pairs = (self.flags & rule_flag::PAIR) / rule_flag::PAIR * flag::PAIRS;
        exempt | monitored | pairs
    }

    /// `deny`, brought into its range.
    #[inline(always)]
    pub fn limit(&self) -> u32 {
        in_range(self.deny)
    }

    /// The same during a soft lock (`soft` is 1), or not (0).
    #[inline(always)]
    pub(super) fn limit_now(&self, soft: u32) -> u32 {
        let limit = self.limit();
        limit + soft * in_range(self.soft_deny) - soft * limit
    }

    /// Reservations one actor may hold: one less than would shut everybody else out.
    #[inline(always)]
    pub(super) fn actor_limit(&self) -> u32 {
        if cfg!(feature = "mutation-no-actor-cap") {
            return self.limit();
        }
        clamp(u64::from(self.limit()) - 1, 1, SLOTS as u64) as u32
    }
}

/// A limit as the slots allow it.
#[inline(always)]
fn in_range(deny: u32) -> u32 {
    clamp(u64::from(deny), 1, SLOTS as u64) as u32
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

/// Bit of [`Slot::kind`] within one call: its guess became a failure by age, which its source has not been told.
pub(super) const OWED: u32 = 1 << 31;

/// Whose guesses became failures by their age in one call: several may, of different actors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Lapsed {
    /// `Actor::kind` of each slot, two bits from the lowest; 0: none of this call, or of nobody known.
    pub kinds: u64,
    /// `Actor::id` of each slot.
    pub ids: [u64; SLOTS],
}

impl Lapsed {
    /// Nobody's.
    pub const NONE: Self = Self { kinds: 0, ids: [0; SLOTS] };

    /// `Actor::kind` of a slot.
    #[inline(always)]
    #[must_use]
    pub const fn kind_of(kinds: u64, slot: usize) -> u32 {
        (kinds >> ((2 * slot) & 31)) as u32 & 3
    }

    /// The actors, one for each guess.
    pub fn actors(&self) -> impl Iterator<Item = Actor> + '_ {
        let kind = |slot| Self::kind_of(self.kinds, slot);
        self.ids
            .iter()
            .enumerate()
            .map(move |(slot, id)| Actor { kind: kind(slot), id: *id })
            .filter(|a| a.kind != 0)
    }
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
    /// When the last reservation became a failure by its age.
    pub lapsed_at: u64,
    /// Who held it: `Actor::id`.
    pub lapsed_actor: u64,
    /// Until when a trip makes a longer lock than the last one.
    pub climb_until: u64,
    /// Trips in a row, each within `backoff_window` of the lock before, less one.
    pub level: u32,
    /// 1: the lock is a soft one, see [`rule_flag::SOFT`].
    pub soft: u32,
    /// Who held it: `Actor::kind`.
    pub lapsed_kind: u32,
    /// Passes so far; modulo [`PASSES`] the next element of `passes` to be written.
    pub next_pass: u32,
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
}

/// One call of the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// One of `abi::op`.
    pub op: u32,
    /// RESOLVE: one of `abi::outcome`. LOCK: one of `abi::cause`.
    pub arg: u32,
    /// RESOLVE, LAPSE: which reservation.
    pub token: u64,
    /// LOCK: its end, [`NEVER`]: until released.
    pub until: u64,
    /// ADMIT: who guesses.
    pub actor: Actor,
    /// RESOLVE, CONFIRM: which process.
    pub process: u32,
    /// RESOLVE: its parent.
    pub parent: u32,
    /// ADMIT: 1 where a soft lock is open to this call. LOCK: 1 for a soft lock.
    pub open: u32,
}

impl Call {
    /// A call with nothing but its op.
    pub const fn new(op: u32) -> Self {
        Self {
            op,
            arg: 0,
            token: 0,
            until: 0,
            actor: Actor { kind: 0, id: 0 },
            process: 0,
            parent: 0,
            open: 0,
        }
    }
}

/// Numbers to show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Slots failed or lapsed.
    pub failures: u32,
    /// Slots reserved.
    pub reservations: u32,
}
