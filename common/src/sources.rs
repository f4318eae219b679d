//! What is counted about sources: failures in a window, how many different accounts they were at, who got in.
//!
//! A bounded table: [`BUCKETS`] buckets of [`WAYS`] sources. A keyed hash picks the bucket, so nobody outside can choose
//! whom he meets there. In a full bucket a new source takes the place of the one with the fewest failures in the window,
//! of these the one seen longest ago; never of one that tripped less than a window ago.
//!
//! Invariants
//! * Pure: no clock, no I/O, no allocation, no panic, no `unsafe`, total for every input and every content of the memory.
//! * The same lines run in the kernel, under the bucket's lock, and in the tests. Arithmetic instead of branches: the
//!   verifier walks every combination of branches, and each mask here would be one. No call, no negation.
//! * Exact: a trip is the failure that makes `deny` failures (or `accounts` different accounts) within `find_time`; it
//!   uses them up. At most [`TRIES`] are ever kept, which no limit exceeds.
//! * A confirmed logon takes the source's failures at that account off the books, and no others: whoever has an account
//!   of his own cannot clear what he did to others. Each account that was entered from a source in the window raises its
//!   limits by one: many people behind one address mistype more often than one.

use core::hint::black_box;

use crate::abi::{Detail, source};
use crate::arithmetic::{less, pick, same};

/// Failures kept of a source: the highest limit.
pub const TRIES: usize = 16;
/// Accounts entered from a source that are remembered.
pub const PASSES: usize = 4;
/// Sources of a bucket.
pub const WAYS: usize = 8;
/// Buckets of the table.
pub const BUCKETS: u32 = 2_048;

/// Bit of an account key that marks a name no user has: `abi::UNKNOWN`.
const UNKNOWN_BIT: u32 = 63;

/// When a source trips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SourceRule {
    /// Length of the window, nanoseconds.
    pub find_time: u64,
    /// Failures within it: 1 to [`TRIES`].
    pub deny: u32,
    /// Different accounts among them, names nobody has included: 1 to [`TRIES`].
    pub accounts: u32,
}

/// A failure, or an account that was entered. `time` 0: not in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Seen {
    /// Account key.
    pub account: u64,
    /// When.
    pub time: u64,
}

/// What is known of one source. All zero: not in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Source {
    /// `ledger::Actor::id`.
    pub id: u64,
    /// Newest time seen.
    pub newest: u64,
    /// When it tripped last; 0: never.
    pub tripped: u64,
    /// One of `abi::source`; 0: not in use.
    pub kind: u32,
    /// Times it tripped since it was taken into the table.
    pub trips: u32,
    /// What the last trip was: failures, accounts, unknown names, a byte each from the lowest. The agent's scan finds
    /// here what a lost event said.
    pub last: u32,
    /// Failures on the books.
    pub held: u32,
    /// Failures.
    pub tries: [Seen; TRIES],
    /// Accounts entered.
    pub passes: [Seen; PASSES],
}

/// Sources whose hash is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Bucket {
    /// The kernel's `bpf_spin_lock`.
    pub lock: u32,
    /// Explicit padding.
    pub pad: u32,
    /// The sources.
    pub ways: [Source; WAYS],
}

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Happened {
    /// One of `abi::source`, not NONE.
    pub kind: u32,
    /// Which one of that kind.
    pub id: u64,
    /// Account key.
    pub account: u64,
    /// 1: a logon to it was confirmed; 0: a failure.
    pub pass: u32,
}

/// The numbers of a source after something happened. All zero: not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SourceCounts {
    /// Failures in the window; at a trip those that made it.
    pub failures: u32,
    /// Different accounts among them.
    pub accounts: u32,
    /// Different names among those that nobody has.
    pub unknown: u32,
    /// Different accounts entered in the window.
    pub passes: u32,
    /// Trips since the source was taken into the table.
    pub trips: u32,
    /// 1: it tripped in this call.
    pub tripped: u32,
}

/// What fits into a byte.
#[inline(always)]
fn byte(number: u64) -> u64 {
    number & 0xff
}

/// Who is behind a call: `ledger::Actor::id` of its kind. Without a branch for each kind.
#[inline(always)]
#[must_use]
pub fn id_of(detail: &Detail) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = detail.address;
    let first = u64::from(u32::from_be_bytes([a, b, c, d]));
    let second = u64::from(u32::from_be_bytes([e, f, g, h]));
    let is = |kind: u32| same(u64::from(detail.source), u64::from(kind));
    (u64::from(detail.uid) & is(source::LOCAL))
        | (first & is(source::IPV4))
        | (((first << 32) | second) & is(source::IPV6))
}

/// The bucket of a source. `keys`: random ones of the running gate.
#[inline(always)]
#[must_use]
pub const fn bucket_of(keys: [u64; 2], kind: u32, id: u64) -> u32 {
    let [first, second] = keys;
    let mut mixed = (id ^ first ^ ((kind as u64) << 57)).wrapping_mul(second | 1);
    mixed ^= mixed >> 32;
    mixed = mixed.wrapping_add(second).wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed ^= mixed >> 32;
    mixed = mixed.wrapping_mul(first | 1);
    (mixed >> 40) as u32 & (BUCKETS - 1)
}

impl SourceRule {
    /// What holds before any configuration was written.
    pub const DEFAULT: Self = Self { find_time: 600 * 1_000_000_000, deny: 5, accounts: 4 };

    /// A limit, raised by accounts that were entered, brought into its range.
    #[inline(always)]
    fn limit(limit: u32, passes: u64) -> u64 {
        let limit = u64::from(limit).wrapping_add(passes) & 0xffff;
        let most = TRIES as u64;
        let limit = pick(less(most, limit), most, limit);
        pick(same(limit, 0), 1, limit)
    }
}

impl Source {
    /// A place that is not in use.
    pub const EMPTY: Self = Self {
        id: 0,
        newest: 0,
        tripped: 0,
        kind: 0,
        trips: 0,
        last: 0,
        held: 0,
        tries: [Seen { account: 0, time: 0 }; TRIES],
        passes: [Seen { account: 0, time: 0 }; PASSES],
    };

    /// Whether a time lies in the window that ends at `now`.
    #[inline(always)]
    fn within(time: u64, now: u64, rule: &SourceRule) -> u64 {
        // The clock is read before the lock: what another processor noted a moment later happened now.
        let age = pick(less(now, time), 0, now.wrapping_sub(time) & (u64::MAX >> 1));
        less(age, rule.find_time) & !same(time, 0)
    }

    /// What it is worth to keep this one: 0 not in use; most of all one that tripped in the window.
    #[inline(always)]
    fn worth(&self, now: u64, rule: &SourceRule) -> u64 {
        let failures = u64::from(self.held) & Self::within(self.newest, now, rule) & 0xff;
        let protected = Self::within(self.tripped, now, rule);
        let protected = if cfg!(feature = "mutation-evict-tripped") { 0 } else { protected };
        // Failures first, then age; 2^63 is above all of them.
        let worth = (failures << 55) | ((self.newest >> 8) & ((1 << 55) - 1)) | 1;
        pick(protected, u64::MAX >> 1, worth) & !same(u64::from(self.kind), 0)
    }

    /// The numbers at `now`, without `tripped`: for those who look on.
    #[must_use]
    pub fn counts(mut self, now: u64, rule: &SourceRule) -> SourceCounts {
        self.forget_old(now, rule, u64::MAX);
        self.tally()
    }

    /// Takes off the books what has left the window; everything, where `mine` is zero.
    #[inline(always)]
    fn forget_old(&mut self, now: u64, rule: &SourceRule, mine: u64) {
        for seen in &mut self.tries {
            seen.time &= mine & Self::within(seen.time, now, rule);
        }
        for seen in &mut self.passes {
            seen.time &= mine & Self::within(seen.time, now, rule);
        }
    }

    /// The numbers of what is on the books.
    #[inline(always)]
    fn tally(&self) -> SourceCounts {
        let (mut failures, mut accounts, mut unknown, mut passes) = (0, 0, 0, 0);
        for (index, seen) in self.tries.iter().enumerate() {
            let counts = !same(seen.time, 0);
            let mut before = 0;
            for earlier in self.tries.iter().take(index) {
                before |= same(earlier.account, seen.account) & !same(earlier.time, 0);
            }
            failures += counts & 1;
            accounts += counts & !before & 1;
            unknown += counts & !before & (seen.account >> UNKNOWN_BIT);
        }
        for seen in &self.passes {
            passes += !same(seen.time, 0) & 1;
        }
        SourceCounts {
            failures: failures as u32,
            accounts: accounts as u32,
            unknown: unknown as u32,
            passes: passes as u32,
            trips: self.trips,
            tripped: 0,
        }
    }

    /// Notes what happened; `mine` is all ones, or zero where the place was another source's and begins anew.
    #[inline(always)]
    fn note(&mut self, now: u64, rule: &SourceRule, what: &Happened, mine: u64) -> SourceCounts {
        self.kind = what.kind;
        self.id = what.id;
        self.trips &= mine as u32;
        self.tripped &= mine;
        self.last &= mine as u32;
        // The clock was read before the lock: it may have gone back a little.
        self.newest &= mine;
        self.newest = pick(less(self.newest, now), now, self.newest);
        let now = self.newest;
        // Hidden from the compiler, which would negate it.
        let pass = same(u64::from(black_box(what.pass)), 1);
        self.forget_old(now, rule, mine);
        for seen in &mut self.tries {
            let own = same(seen.account, what.account);
            let own = if cfg!(feature = "mutation-pass-clears-all") { u64::MAX } else { own };
            seen.time &= !(own & pass);
        }
        for seen in &mut self.passes {
            seen.time &= !(same(seen.account, what.account) & pass);
        }
        write(&mut self.tries, now, what.account, !pass);
        write(&mut self.passes, now, what.account, pass);
        let mut counts = self.tally();
        let passes = u64::from(counts.passes);
        let many = !less(u64::from(counts.failures), SourceRule::limit(rule.deny, passes));
        let wide = !less(u64::from(counts.accounts), SourceRule::limit(rule.accounts, passes));
        let tripped = (many | wide) & !pass;
        let last = byte(u64::from(counts.failures))
            | (byte(u64::from(counts.accounts)) << 8)
            | (byte(u64::from(counts.unknown)) << 16);
        self.last = pick(tripped, last, u64::from(self.last)) as u32;
        self.tripped = pick(tripped, now, self.tripped);
        self.trips = self.trips.wrapping_add(tripped as u32 & 1);
        for seen in &mut self.tries {
            seen.time &= !tripped;
        }
        self.held = counts.failures & !tripped as u32;
        counts.trips = self.trips;
        counts.tripped = tripped as u32 & 1;
        counts
    }
}

/// Writes into the place that is free, or else holds the oldest: where the mask is all ones.
#[inline(always)]
fn write<const N: usize>(list: &mut [Seen; N], now: u64, account: u64, mask: u64) {
    let (mut place, mut oldest) = (0, u64::MAX >> 1);
    for (index, seen) in list.iter().enumerate() {
        let older = less(seen.time, oldest);
        place = pick(older, index as u64, place);
        oldest = pick(older, seen.time, oldest);
    }
    for (index, seen) in list.iter_mut().enumerate() {
        let here = same(index as u64, place) & mask;
        seen.time = pick(here, now, seen.time);
        seen.account = pick(here, account, seen.account);
    }
}

impl Bucket {
    /// Nobody seen yet.
    pub const EMPTY: Self = Self { lock: 0, pad: 0, ways: [Source::EMPTY; WAYS] };

    /// Notes what happened. Not counted (all zero) where every place is taken by a source that tripped in the window.
    #[inline(always)]
    pub fn count(&mut self, now: u64, rule: &SourceRule, what: &Happened) -> SourceCounts {
        count(&mut self.ways, now, rule, what)
    }
}

/// [`Bucket::count`] on the ways of a bucket.
#[inline(always)]
pub fn count(ways: &mut [Source; WAYS], now: u64, rule: &SourceRule, what: &Happened) -> SourceCounts {
    let (mut place, mut least, mut mine) = (0, u64::MAX >> 1, 0);
    for (index, way) in ways.iter().enumerate() {
        let own = same(way.id, what.id) & same(u64::from(way.kind), u64::from(what.kind));
        let worth = way.worth(now, rule) & !own;
        // One's own place is worth nothing here, so that nothing is less; a free one must not take its turn after it.
        let better = (less(worth, least) & !mine) | own;
        place = pick(better, index as u64, place);
        least = pick(better, worth, least);
        mine |= own;
    }
    let full = same(least, u64::MAX >> 1);
    if full != 0 {
        return SourceCounts { failures: 0, accounts: 0, unknown: 0, passes: 0, trips: 0, tripped: 0 };
    }
    match ways.get_mut(place as usize & (WAYS - 1)) {
        Some(way) => way.note(now, rule, what, mine),
        None => SourceCounts { failures: 0, accounts: 0, unknown: 0, passes: 0, trips: 0, tripped: 0 },
    }
}

const _: () = {
    assert!(size_of::<SourceRule>() == 16);
    assert!(size_of::<Source>() == 40 + 16 * (TRIES + PASSES));
    assert!(size_of::<Bucket>() == 8 + WAYS * size_of::<Source>());
    assert!(size_of::<SourceCounts>() == 24);
    assert!(TRIES.is_power_of_two() && PASSES.is_power_of_two() && WAYS.is_power_of_two());
    assert!(BUCKETS.is_power_of_two());
};
