//! When the rungs above the lock are withheld.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use portcullis_policy::Boot;
use portcullis_policy::breaker::{Breaker, Override, Rules, Why};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;
const RULES: Rules = Rules { accounts: 3, window: 60 * SECOND, locked_percent: 50 };

#[test]
fn many_failing_accounts_and_no_success_open_it() {
    let mut breaker = Breaker::new(RULES);
    for account in 0..2 {
        breaker.failed(Boot(SECOND), account);
        breaker.failed(Boot(SECOND), account);
    }
    assert_eq!(breaker.withheld(Boot(SECOND)), None, "two accounts, however often");
    breaker.failed(Boot(2 * SECOND), 9);
    assert_eq!(breaker.withheld(Boot(2 * SECOND)), Some(Why::Failing(3)));
    breaker.succeeded(Boot(3 * SECOND));
    assert_eq!(breaker.withheld(Boot(3 * SECOND)), None, "somebody got in");
}

#[test]
fn it_closes_when_the_window_is_over_and_not_when_time_goes_back() {
    let mut breaker = Breaker::new(RULES);
    (0..3).for_each(|account| breaker.failed(Boot(100 * SECOND), account));
    assert!(breaker.withheld(Boot(159 * SECOND)).is_some());
    assert!(breaker.withheld(Boot(90 * SECOND)).is_some());
    assert_eq!(breaker.withheld(Boot(160 * SECOND)), None);
    assert_eq!(breaker.withheld(Boot(100 * SECOND)), None, "time that goes back opens nothing");
}

#[test]
fn too_large_a_share_of_locked_accounts_opens_it() {
    let mut breaker = Breaker::new(RULES);
    breaker.locked(2, 2);
    assert_eq!(breaker.withheld(Boot(1)), None, "a share of a handful says nothing");
    breaker.locked(5, 10);
    assert_eq!(breaker.withheld(Boot(1)), None, "half, and no more");
    breaker.locked(6, 10);
    assert_eq!(breaker.withheld(Boot(1)), Some(Why::Locked(6, 10)));
}

#[test]
fn an_administrator_has_the_last_word() {
    let mut breaker = Breaker::new(RULES);
    breaker.set_override(Override::Open);
    assert_eq!(breaker.withheld(Boot(1)), Some(Why::Administrator));
    breaker.locked(10, 10);
    breaker.set_override(Override::Closed);
    assert_eq!(breaker.withheld(Boot(1)), None);
    breaker.set_override(Override::Auto);
    assert_eq!(breaker.withheld(Boot(1)), Some(Why::Locked(10, 10)));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Against the rule as it is written down: distinct accounts that failed within the window, since the last success.
    #[test]
    fn it_counts_distinct_accounts_within_the_window(
        events in prop::collection::vec((0..40_u64, prop::option::weighted(0.9, 0..6_u32)), 0..60)
    ) {
        let mut breaker = Breaker::new(RULES);
        let mut failures: Vec<(u64, u32)> = Vec::new();
        let mut now = 0;
        for (passed, account) in events {
            now += passed * SECOND;
            match account {
                Some(account) => {
                    failures.push((now, account));
                    breaker.failed(Boot(now), account);
                }
                None => {
                    failures.clear();
                    breaker.succeeded(Boot(now));
                }
            }
            let mut recent: Vec<u32> = failures
                .iter()
                .filter(|(at, _)| at + RULES.window > now)
                .map(|(_, account)| *account)
                .collect();
            recent.sort_unstable();
            recent.dedup();
            prop_assert_eq!(breaker.withheld(Boot(now)).is_some(), recent.len() >= 3);
        }
    }
}
