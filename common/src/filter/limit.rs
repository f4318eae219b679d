//! Token buckets: how much passes in a time. The same lines in the kernel, under the bucket's lock, and in the tests.
//!
//! Invariants
//! * Pure: no clock, no I/O, no panic, total for every input and every content of the memory. No call and no loop.
//! * In any time `t` at most `burst + rate * t` passes, whatever the clock does; whoever stays below is never held back.
//!   Exact: a bucket counts in billionths of a unit, so a nanosecond at a rate of one a second is one.
//! * Time that goes back adds nothing, a leap forward no more than one burst.

/// Billionths of a unit, and nanoseconds of a second.
pub const SECOND: u64 = 1_000_000_000;
/// Highest rate, units a second: 275 Gbit/s in bytes.
pub const MAX_RATE: u64 = 1 << 35;
/// Largest burst, units.
pub const MAX_BURST: u64 = 1 << 32;
/// Shortest window in which sources are held to equal shares, as a power of two of nanoseconds: 134 ms.
const WINDOW: u32 = 27;
/// Longest: 34 s.
const LONGEST_WINDOW: u32 = 35;

/// How much may pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Rate {
    /// Units a second.
    pub rate: u64,
    /// Units at once, in billionths.
    pub burst: u64,
    /// Nanoseconds in which an empty bucket is full.
    pub full: u64,
}

impl Rate {
    /// `rate` units a second, `burst` at once; both are brought between 1 and the highest there is.
    #[must_use]
    pub const fn new(rate: u64, burst: u64) -> Self {
        let rate = bounded(rate, MAX_RATE);
        let burst = bounded(burst, MAX_BURST) * SECOND;
        Self { rate, burst, full: burst / rate + 1 }
    }
}

const fn bounded(number: u64, most: u64) -> u64 {
    if number == 0 {
        1
    } else if number > most {
        most
    } else {
        number
    }
}

/// What is left of a rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Bucket {
    /// Billionths of a unit.
    pub level: u64,
    /// Latest time it was looked at, nanoseconds.
    pub last: u64,
}

impl Bucket {
    /// A full one.
    #[must_use]
    pub const fn full(rate: &Rate, now: u64) -> Self {
        Self { level: rate.burst, last: now }
    }

    /// Adds what the time since the last look gives.
    #[inline(always)]
    pub fn refill(&mut self, rate: &Rate, now: u64) {
        // At most a burst and what a nanosecond gives: it does not wrap.
        let passed = now.saturating_sub(self.last).min(rate.full);
        let level = self.level.min(rate.burst).saturating_add(passed.wrapping_mul(rate.rate));
        let most = if cfg!(feature = "mutation-no-refill-cap") { u64::MAX } else { rate.burst };
        self.level = level.min(most);
        self.last = self.last.max(now);
    }

    /// Takes `units`, all or nothing.
    #[inline(always)]
    pub fn take(&mut self, rate: &Rate, now: u64, units: u64) -> bool {
        self.refill(rate, now);
        let cost = units.min(MAX_BURST) * SECOND;
        let enough = self.level >= cost;
        if enough {
            self.level -= cost;
        }
        enough
    }
}

/// What one of many sources has taken of a rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Share {
    /// Number of the window.
    pub window: u64,
    /// Billionths of a unit in it, and what it took too much in the one before.
    pub taken: u64,
}

/// A rate that sources share: none gets more than its part while another wants its own.
///
/// Time is cut into windows, and the part of a source in one is the rate by the number of sources that were seen in it or
/// in the one before. The more a source has had, the fuller the bucket must be for it to take more: half full where it has
/// had its part. So what somebody does not want goes to the others, and who has had nothing yet finds some.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Meter {
    /// How much may pass.
    pub rate: Rate,
    /// What is left.
    pub bucket: Bucket,
    /// Number of the window.
    pub window: u64,
    /// Sources seen in it.
    pub sources: u32,
    /// Sources seen in the one before.
    pub before: u32,
    /// Length of a window: a power of two of nanoseconds.
    pub shift: u32,
    /// Always zero.
    pub reserved: u32,
    /// Packets that passed.
    pub passed: u64,
    /// Packets that were held back.
    pub limited: u64,
    /// Bytes that passed.
    pub passed_bytes: u64,
    /// Bytes that were held back.
    pub limited_bytes: u64,
}

/// Something that wants to pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Units of the rate.
    pub units: u64,
    /// Packets, for the counters.
    pub packets: u64,
    /// Bytes, for the counters.
    pub bytes: u64,
}

impl Meter {
    /// A full one. `step`: units that come at once, as a packet's bytes: a window holds some of them.
    #[must_use]
    pub fn new(rate: Rate, step: u64, now: u64) -> Self {
        let enough = step.saturating_mul(64).saturating_mul(SECOND);
        let mut shift = WINDOW;
        while shift < LONGEST_WINDOW && rate.rate << shift < enough {
            shift += 1;
        }
        let bucket = Bucket::full(&rate, now);
        Self { rate, bucket, shift, ..Self::default() }
    }

    /// Whether it passes; counts it. `share`: that of its source. A lone source has no others to leave anything for.
    #[inline(always)]
    pub fn passes(&mut self, share: &mut Share, now: u64, load: Load) -> bool {
        self.bucket.refill(&self.rate, now);
        let cost = load.units.min(MAX_BURST) * SECOND;
        let part = self.part(share, now);
        // What must be left for others: nothing where he has had nothing, half of all where he has had his part.
        let had = share.taken / (share.taken.saturating_add(part) >> 10 | 1);
        let left = (self.rate.burst >> 10) * had.min(1 << 10);
        let alone = part == u64::MAX || cfg!(feature = "mutation-no-share");
        let left = if alone { 0 } else { left };
        let wanted = cost.saturating_add(left).min(self.rate.burst.max(cost));
        let passes = self.bucket.level >= wanted;
        if passes {
            self.bucket.level -= cost;
            share.taken = share.taken.saturating_add(cost);
            self.passed = self.passed.wrapping_add(load.packets);
            self.passed_bytes = self.passed_bytes.wrapping_add(load.bytes);
        } else {
            self.limited = self.limited.wrapping_add(load.packets);
            self.limited_bytes = self.limited_bytes.wrapping_add(load.bytes);
        }
        passes
    }

    /// The part of one source in this window, billionths. Begins windows.
    #[inline(always)]
    fn part(&mut self, share: &mut Share, now: u64) -> u64 {
        let shift = self.shift & 63;
        let window = now >> shift;
        // Clocks of two processors may be a window apart at its border.
        let window = if window.wrapping_add(1) == self.window { self.window } else { window };
        if window != self.window {
            self.before = if window == self.window.wrapping_add(1) { self.sources } else { 0 };
            self.sources = 0;
            self.window = window;
        }
        let fresh = share.window != window;
        if fresh {
            self.sources = self.sources.wrapping_add(1);
        }
        let sources = u64::from(self.sources.max(self.before).max(1));
        let all = self.rate.rate << shift;
        let part = if sources == 1 { u64::MAX } else { all / sources };
        if fresh {
            // What was taken too much is made up for, in one window at the most.
            let too_much = share.taken.saturating_sub(part).min(part);
            share.taken = if share.window.wrapping_add(1) == window { too_much } else { 0 };
            share.window = window;
        }
        part
    }
}

const _: () = {
    assert!(size_of::<Rate>() == 24);
    assert!(size_of::<Bucket>() == 16);
    assert!(size_of::<Share>() == 16);
    assert!(size_of::<Meter>() == 96);
};
