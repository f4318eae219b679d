//! The counting of sources against a model that keeps everything, and against floods.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test, its model too")]

use std::collections::BTreeSet;

use portcullis_common::abi::{Detail, UNKNOWN, source};
use portcullis_common::sources::{
    BUCKETS, Bucket, Happened, SourceCounts, SourceRule, TRIES, WAYS, bucket_of, id_of,
};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;
const RULE: SourceRule = SourceRule { find_time: 600 * SECOND, deny: 5, accounts: 4 };
const START: u64 = 1_000_000 * SECOND;

fn fail(id: u64, account: u64) -> Happened {
    Happened { kind: source::IPV4, id, account, pass: 0 }
}

fn pass(id: u64, account: u64) -> Happened {
    Happened { pass: 1, ..fail(id, account) }
}

/// A table as the gate has it.
struct Table {
    buckets: Vec<Bucket>,
    keys: [u64; 2],
}

impl Table {
    fn new() -> Self {
        Self { buckets: vec![Bucket::EMPTY; BUCKETS as usize], keys: [0x1234_5678_9abc_def0, 0x0fed_cba9] }
    }

    fn count(&mut self, now: u64, what: &Happened) -> SourceCounts {
        let bucket = bucket_of(self.keys, what.kind, what.id);
        self.buckets[bucket as usize].count(now, &RULE, what)
    }

    fn holds(&self, id: u64) -> bool {
        let bucket = &self.buckets[bucket_of(self.keys, source::IPV4, id) as usize];
        bucket.ways.iter().any(|way| way.id == id && way.trips > 0)
    }
}

#[test]
fn a_source_is_named_as_the_ledger_names_it() {
    let mut address = [0; 16];
    address[..9].copy_from_slice(&[0x20, 1, 0xd, 0xb8, 1, 2, 3, 4, 5]);
    let detail = Detail { uid: 2001, address, ..Detail::EMPTY };
    for (kind, id) in [
        (source::NONE, 0),
        (source::LOCAL, 2001),
        (source::IPV4, 0x2001_0db8),
        (source::IPV6, 0x2001_0db8_0102_0304),
        (99, 0),
    ] {
        assert_eq!(id_of(&Detail { source: kind, ..detail }), id, "{kind}");
    }
}

/// The clock is read before the bucket's lock: a call may come with a time before that of what it finds.
#[test]
fn a_call_that_was_late_for_the_lock_evicts_no_source_that_tripped() {
    let mut bucket = Bucket::EMPTY;
    for source in 1..=WAYS as u64 {
        for _ in 0..5 {
            bucket.count(START + 100, &RULE, &fail(source, 1000));
        }
    }
    bucket.count(START + 99, &RULE, &fail(1_000, 1000));
    for source in 1..=WAYS as u64 {
        assert!(bucket.ways.iter().any(|way| way.id == source && way.trips == 1), "source {source}");
    }
}

#[test]
fn the_failure_that_reaches_deny_trips_and_uses_them_up() {
    let mut bucket = Bucket::EMPTY;
    for number in 1..=4 {
        let counts = bucket.count(START + number, &RULE, &fail(7, 1000));
        assert_eq!((counts.failures, counts.accounts, counts.tripped), (number as u32, 1, 0));
    }
    let counts = bucket.count(START + 5, &RULE, &fail(7, 1000));
    assert_eq!((counts.failures, counts.tripped, counts.trips), (5, 1, 1));
    let counts = bucket.count(START + 6, &RULE, &fail(7, 1000));
    assert_eq!((counts.failures, counts.tripped, counts.trips), (1, 0, 1));
    assert_eq!(bucket.ways[0].last, 5 | 1 << 8);
}

#[test]
fn different_accounts_trip_earlier_and_invented_names_are_told_apart() {
    let mut bucket = Bucket::EMPTY;
    for (account, accounts, unknown, tripped) in
        [(1, 1, 0, 0), (UNKNOWN | 1, 2, 1, 0), (UNKNOWN | 2, 3, 2, 0), (2, 4, 2, 1)]
    {
        let counts = bucket.count(START, &RULE, &fail(7, account));
        assert_eq!((counts.accounts, counts.unknown, counts.tripped), (accounts, unknown, tripped));
    }
}

#[test]
fn a_logon_clears_what_was_mistyped_at_that_account_alone_and_raises_the_limit() {
    let mut bucket = Bucket::EMPTY;
    for account in [1, 2, 2] {
        bucket.count(START, &RULE, &fail(7, account));
    }
    let counts = bucket.count(START, &RULE, &pass(7, 2));
    assert_eq!((counts.failures, counts.accounts, counts.passes), (1, 1, 1));
    for expected in [0, 0, 0, 0, 1] {
        assert_eq!(bucket.count(START, &RULE, &fail(7, 1)).tripped, expected, "the limit is 6 now");
    }
    // An account entered twice counts once.
    bucket.count(START, &RULE, &pass(7, 2));
    assert_eq!(bucket.count(START, &RULE, &pass(7, 2)).passes, 1);
}

#[test]
fn whoever_comes_first_is_not_told_from_a_free_place() {
    let mut bucket = Bucket::EMPTY;
    // A free place before its own must not tempt it.
    bucket.count(START, &RULE, &fail(1, 1));
    bucket.count(START, &RULE, &fail(2, 1));
    bucket.ways[0] = portcullis_common::sources::Source::EMPTY;
    assert_eq!(bucket.count(START, &RULE, &fail(2, 1)).failures, 2);
}

#[test]
fn a_million_invented_sources_evict_no_tripped_one() {
    let mut table = Table::new();
    let tripped: Vec<u64> = (0..1_000).map(|number| 0xc000_0000 + number * 7).collect();
    for id in &tripped {
        for _ in 0..5 {
            table.count(START, &fail(*id, 1000));
        }
        assert!(table.holds(*id));
    }
    let mut uncounted = 0;
    for invented in 0..1_000_000 {
        let counts = table.count(START + invented * 1_000, &fail(invented, 1000));
        uncounted += u64::from(counts.failures == 0);
    }
    let gone = tripped.iter().filter(|id| !table.holds(**id)).count();
    assert_eq!(gone, 0, "tripped sources were evicted");
    assert_eq!(uncounted, 0, "there is room for new ones beside them");
}

#[test]
fn whoever_has_failures_outlives_whoever_has_fewer() {
    let mut bucket = Bucket::EMPTY;
    for _ in 0..3 {
        bucket.count(START, &RULE, &fail(0xdead, 1000));
    }
    for invented in 0..10_000 {
        bucket.count(START + 1 + invented, &RULE, &fail(invented, 1000));
    }
    assert_eq!(bucket.count(START + 20_000, &RULE, &fail(0xdead, 1000)).failures, 4);
}

#[test]
fn a_bucket_of_tripped_sources_counts_no_other_until_the_window_is_over() {
    let mut bucket = Bucket::EMPTY;
    for id in 0..WAYS as u64 {
        for _ in 0..5 {
            bucket.count(START, &RULE, &fail(id, 1000));
        }
    }
    assert_eq!(bucket.count(START + 1, &RULE, &fail(99, 1)), SourceCounts::default());
    assert_eq!(bucket.count(START + RULE.find_time, &RULE, &fail(99, 1)).failures, 1);
}

/// The rule as one would write it on paper, of one source.
#[derive(Default)]
struct Model {
    failures: Vec<(u64, u64)>,
    passes: Vec<(u64, u64)>,
    trips: u32,
}

impl Model {
    fn count(&mut self, now: u64, rule: &SourceRule, what: &Happened) -> SourceCounts {
        let fresh = |time: &u64| now - time < rule.find_time;
        self.failures.retain(|(_, time)| fresh(time));
        if what.pass == 1 {
            self.failures.retain(|(account, _)| *account != what.account);
            self.passes.retain(|(account, _)| *account != what.account);
            self.passes.push((what.account, now));
        } else {
            self.failures.push((what.account, now));
        }
        let passes = self.passes.iter().rev().take(4).filter(|(_, time)| fresh(time)).count();
        let accounts: BTreeSet<u64> = self.failures.iter().map(|(account, _)| *account).collect();
        let limit = |limit: u32| (limit as usize + passes).clamp(1, TRIES);
        let tripped = what.pass == 0
            && (self.failures.len() >= limit(rule.deny) || accounts.len() >= limit(rule.accounts));
        let counts = SourceCounts {
            failures: self.failures.len() as u32,
            accounts: accounts.len() as u32,
            unknown: accounts.iter().filter(|account| *account & UNKNOWN != 0).count() as u32,
            passes: passes as u32,
            trips: self.trips + u32::from(tripped),
            tripped: u32::from(tripped),
        };
        if tripped {
            self.trips += 1;
            self.failures.clear();
        }
        counts
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_counting_is_the_model(
        deny in 1..=16_u32, accounts in 1..=16_u32,
        happened in prop::collection::vec((0..200_u64, 0..6_u64, prop::bool::weighted(0.2), any::<bool>()), 0..120),
    ) {
        let rule = SourceRule { deny, accounts, ..RULE };
        let (mut bucket, mut model, mut now) = (Bucket::EMPTY, Model::default(), START);
        for (pause, account, passed, unknown) in happened {
            now += pause * SECOND;
            let account = if unknown { UNKNOWN | account } else { account };
            let what = Happened { pass: u32::from(passed), ..fail(7, account) };
            // Others in the same bucket change nothing, as long as there is a place for each.
            bucket.count(now, &rule, &fail(100 + pause % 4, account));
            prop_assert_eq!(bucket.count(now, &rule, &what), model.count(now, &rule, &what));
        }
    }

    /// Whatever memory it is laid over: it ends, and the next failures of a source are counted or told not to be.
    #[test]
    fn total_for_any_content(words in prop::collection::vec(any::<u64>(), 40), now: u64, deny: u32, accounts: u32) {
        let mut bucket = Bucket::EMPTY;
        for (way, chunk) in bucket.ways.iter_mut().zip(words.chunks(5)) {
            (way.id, way.newest, way.tripped) = (chunk[0], chunk[1], chunk[2]);
            (way.kind, way.trips) = (chunk[3] as u32, chunk[4] as u32);
            for (seen, word) in way.tries.iter_mut().zip(chunk.iter().cycle()) {
                seen.time = *word;
                seen.account = word.rotate_left(7);
            }
        }
        let rule = SourceRule { find_time: words[0], deny, accounts };
        let counts = bucket.count(now, &rule, &fail(words[1], words[2]));
        prop_assert!(counts.failures <= TRIES as u32 && counts.accounts <= counts.failures);
        prop_assert!(counts.unknown <= counts.accounts);
    }
}
