//! Token buckets and shares, tried to break.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed step is a failed test")]

use portcullis_common::filter::limit::{Bucket, Load, MAX_BURST, MAX_RATE, Meter, Rate, SECOND, Share};
use proptest::prelude::*;

/// Watches that in no time, from whenever on, more than burst and rate pass.
struct Watch {
    rate: Rate,
    latest: u64,
    passed: i128,
    /// The lowest that what passed was ever ahead of the rate.
    lowest: i128,
}

impl Watch {
    fn new(rate: Rate, begin: u64) -> Self {
        Self { rate, latest: begin, passed: 0, lowest: i128::MAX }
    }

    fn ahead(&self) -> i128 {
        self.passed - i128::from(self.rate.rate) * i128::from(self.latest)
    }

    /// `units` passed at `now`; whether that is within the rate.
    fn holds(&mut self, now: u64, units: u64) -> bool {
        self.latest = self.latest.max(now);
        self.lowest = self.lowest.min(self.ahead());
        self.passed += i128::from(units) * i128::from(SECOND);
        self.ahead() - self.lowest <= i128::from(self.rate.burst)
    }
}

fn load(units: u64) -> Load {
    Load { units, packets: 1, bytes: units }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn never_more_than_burst_and_rate_pass_whatever_the_clock_does(
        rate in 1..=MAX_RATE,
        burst in 1..=MAX_BURST,
        steps in prop::collection::vec((any::<i32>(), 0..20_u32, 0..200_000_u64), 1..200),
    ) {
        let rate = Rate::new(rate, burst);
        let begin = 1 << 50;
        let mut bucket = Bucket::full(&rate, begin);
        let (mut now, mut watch) = (begin, Watch::new(rate, begin));
        for (step, scale, units) in steps {
            // Back and forth, by nanoseconds and by days.
            now = now.saturating_add_signed(i64::from(step) << scale);
            let passed = if bucket.take(&rate, now, units) { units } else { 0 };
            prop_assert!(watch.holds(now, passed));
        }
    }

    #[test]
    fn who_stays_below_the_rate_is_never_held_back(
        rate in 1..=1_000_000_u64,
        burst in 1..1_000_u64,
        slack in prop::collection::vec(0..1_000_000_000_u64, 1..300),
    ) {
        let rate = Rate::new(rate, burst);
        let mut now = 7;
        let mut bucket = Bucket::full(&rate, now);
        for slack in slack {
            // One unit each time that one has come back, or later.
            now += SECOND.div_ceil(rate.rate) + slack;
            prop_assert!(bucket.take(&rate, now, 1));
        }
    }

    #[test]
    fn any_memory_is_a_bucket(
        (level, last, shift, sources) in any::<(u64, u64, u32, u32)>(),
        (window, share_window, taken) in any::<(u64, u64, u64)>(),
        (rate, burst, now, units) in any::<(u64, u64, u64, u64)>(),
    ) {
        let rate = Rate::new(rate, burst);
        let bucket = Bucket { level, last };
        let mut meter =
            Meter { rate, bucket, shift, sources, before: sources, window, ..Meter::default() };
        let mut share = Share { window: share_window, taken };
        let _ = meter.passes(&mut share, now, load(units));
        let _ = meter.passes(&mut share, now, load(units));
        prop_assert!(meter.bucket.level <= rate.burst);
    }

    #[test]
    fn shares_never_let_more_through_than_the_rate(
        rate in 1..100_000_u64,
        burst in 1..10_000_u64,
        steps in prop::collection::vec((0..50_000_000_u64, 0..5_usize, 1..100_u64), 1..500),
    ) {
        let rate = Rate::new(rate, burst);
        let begin = 1_000;
        let mut meter = Meter::new(rate, 1, begin);
        let mut shares = [Share::default(); 5];
        let (mut now, mut watch) = (begin, Watch::new(rate, begin));
        for (step, who, units) in steps {
            now += step;
            let passed = if meter.passes(&mut shares[who], now, load(units)) { units } else { 0 };
            prop_assert!(watch.holds(now, passed));
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn sources_that_want_more_than_their_part_get_equal_parts(
        rate in 20..500_u64,
        more in prop::collection::vec(3..20_u64, 2..6),
    ) {
        let counts = race(rate, &more, 60);
        let part = 60.0 * rate as f64 / more.len() as f64;
        // What is in the bucket at the beginning goes to whoever comes first.
        let room = 0.2 * part + burst(rate, &more) as f64;
        for count in &counts {
            prop_assert!((count - part).abs() < room, "{:?} {} {:?}", counts, part, more);
        }
    }
}

/// Packets of burst: some for each source.
fn burst(rate: u64, more: &[u64]) -> u64 {
    rate.div_ceil(4).max(15 * more.len() as u64)
}

/// Packets that pass in `seconds` of sources that each send `more` times the rate.
fn race(rate: u64, more: &[u64], seconds: u64) -> Vec<f64> {
    let mut meter = Meter::new(Rate::new(rate, burst(rate, more)), 1, 1);
    let mut shares = vec![Share::default(); more.len()];
    let mut next: Vec<u64> = (1..).take(more.len()).collect();
    let mut counts = vec![0.0; more.len()];
    loop {
        let (who, now) = next.iter().copied().enumerate().min_by_key(|(_, time)| *time).unwrap();
        if now > seconds * SECOND {
            return counts;
        }
        next[who] = now + SECOND / (rate * more[who]);
        if meter.passes(&mut shares[who], now, load(1)) {
            counts[who] += 1.0;
        }
    }
}

#[test]
fn who_wants_less_than_his_part_gets_all_of_it_and_the_others_the_rest() {
    // One of 100 a second wants 10, in its own rhythm; two want everything.
    let rate = Rate::new(100, 20);
    let mut meter = Meter::new(rate, 1, 1);
    let mut shares = [Share::default(); 3];
    let mut counts = [0; 3];
    for now in (0..60 * SECOND).step_by(1_000_000) {
        for (who, share) in shares.iter_mut().enumerate() {
            if (who != 0 || now % (SECOND / 10) == 0) && meter.passes(share, now, load(1)) {
                counts[who] += 1;
            }
        }
    }
    assert!(counts[0] >= 580, "{counts:?}");
    assert!(counts.iter().sum::<u64>() >= 5_950, "{counts:?}");
    assert!(counts[1].abs_diff(counts[2]) < 300, "{counts:?}");
}

#[test]
fn a_lone_source_gets_burst_and_rate() {
    let mut meter = Meter::new(Rate::new(100, 50), 1, 1);
    let mut share = Share::default();
    let at_once = (0..100).filter(|_| meter.passes(&mut share, 1, load(1))).count();
    assert_eq!(at_once, 50);
    let later = (1..=1_000).filter(|ms| meter.passes(&mut share, 1 + ms * 1_000_000, load(1))).count();
    assert_eq!(later, 100);
}

#[test]
fn a_bucket_is_exact_to_the_nanosecond() {
    let rate = Rate::new(1, 1);
    let mut bucket = Bucket::full(&rate, 0);
    assert!(bucket.take(&rate, 0, 1) && !bucket.take(&rate, SECOND - 1, 1) && bucket.take(&rate, SECOND, 1));
}
