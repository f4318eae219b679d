//! Soft locks: open to some, with a limit of their own.

use portcullis_common::abi::{Detail, Place, cause, op, outcome, place, source, verdict, via};
use portcullis_common::ledger::{Call, DAY, Ledger, Rule, SLOTS, rule_flag};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

fn rule() -> impl Strategy<Value = Rule> {
    (1..=SLOTS as u32, 1..=SLOTS as u32, 1..200u64, 1..200u64).prop_map(|(deny, soft_deny, window, lock)| {
        Rule {
            deny,
            soft_deny,
            flags: rule_flag::SOFT,
            fail_interval: window * SECOND,
            unlock_time: lock * SECOND,
            ..Rule::DEFAULT
        }
    })
}

fn guess(ledger: &mut Ledger, now: u64, rule: &Rule, open: u32, result: u32) -> u32 {
    let step = ledger.apply(now, rule, &Call { open, ..Call::new(op::ADMIT) });
    if step.verdict == verdict::ADMITTED {
        let call = Call { token: step.token, arg: result, ..Call::new(op::RESOLVE) };
        ledger.apply(now + 1, rule, &call);
    }
    step.verdict
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_soft_lock_has_a_limit_of_its_own_and_the_next_lock_is_for_all(
        rule in rule(),
        acts in prop::collection::vec((0..2u32, 1..3u32, prop::option::of(1..30u64)), 1..150),
    ) {
        let mut ledger = Ledger::EMPTY;
        let mut now = SECOND;
        // Wrong guesses in this soft lock, and its number.
        let mut wrong = 0;
        let mut trips = 0;
        for (open, result, wait) in acts {
            now += wait.map_or(2, |seconds| seconds * SECOND);
            ledger.settle(now, &rule);
            let before = ledger;
            if before.trips != trips {
                (trips, wrong) = (before.trips, 0);
            }
            let answer = guess(&mut ledger, now, &rule, open, result);
            if before.locked() {
                prop_assert_eq!(answer == verdict::LOCKED, before.soft & open == 0, "open to whom it is open alone");
            } else {
                prop_assert_eq!(before.soft, 0, "no lock, no soft one");
            }
            if before.soft == 1 && answer == verdict::ADMITTED && result == outcome::FAIL {
                wrong += 1;
                // In a shorter window than the lock failures leave it meanwhile.
                let whole = rule.fail_interval >= rule.unlock_time;
                prop_assert!(wrong <= rule.soft_deny || !whole);
                // Told when the lock has run out, it is a failure like any other.
                if wrong == rule.soft_deny && whole && before.locked_until > now + 1 {
                    prop_assert!(ledger.locked() && ledger.soft == 0 && ledger.trips == trips + 1);
                }
            }
            if !before.locked() && ledger.locked() {
                prop_assert_eq!(ledger.soft, 1, "the first lock is the soft one");
            }
        }
    }
}

#[test]
fn a_lock_on_request_is_for_all() {
    let rule = Rule { flags: rule_flag::SOFT, soft_deny: 3, ..Rule::DEFAULT };
    let mut ledger = Ledger::EMPTY;
    let lock = Call { until: u64::MAX, arg: cause::ADMINISTRATOR, ..Call::new(op::LOCK) };
    ledger.apply(SECOND, &rule, &lock);
    assert_eq!(guess(&mut ledger, SECOND, &rule, 1, outcome::PASS), verdict::LOCKED);
    // But a restored one may be soft.
    ledger.apply(SECOND, &rule, &Call { open: 1, ..lock });
    assert_eq!(guess(&mut ledger, SECOND, &rule, 1, outcome::PASS), verdict::ADMITTED);
    ledger.apply(SECOND, &rule, &Call::new(op::UNLOCK));
    assert_eq!((ledger.locked_until, ledger.soft), (0, 0));
}

#[test]
fn only_programs_that_no_user_started_say_where_they_are() {
    let mut remote = Detail { source: source::IPV4, ..Detail::EMPTY };
    remote.address = [192, 0, 2, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(Place::of(&remote).kind, place::NETWORK);
    assert_eq!(Place::of(&remote).bytes, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 7]);
    assert_eq!(Place::of(&Detail { uid: 2001, ..remote }).kind, 0, "a user's set-user-id program");
    assert_eq!(Place::of(&Detail { via: via::CLAIM, ..remote }).kind, 0, "a claim");
    let local = Detail { source: source::LOCAL, tty: *b"tty1\0\0\0\0\0\0\0\0\0\0\0\0", ..Detail::EMPTY };
    assert_eq!((Place::of(&local).kind, Place::of(&local).bytes), (place::TERMINAL, local.tty));
    assert_eq!(Place::of(&Detail { uid: 2001, ..local }).kind, 0);
    assert_eq!(Place::of(&Detail { source: source::NONE, ..local }).kind, 0, "an address that is a name");
}

proptest! {
    /// Every day at the same time, whenever it is asked; time that goes back a little changes nothing but the border itself.
    #[test]
    fn a_soft_lock_is_open_in_its_hours_alone(opens in 0..DAY, open_for in 1..DAY, day in 1..20_000u64, at in 0..DAY) {
        let rule = Rule { opens, open_for, ..Rule::DEFAULT };
        let begins = day * DAY + opens;
        prop_assert!(rule.open_at(begins) && rule.open_at(begins + open_for - 1));
        prop_assert!(!rule.open_at(begins + open_for) && !rule.open_at(begins - 1));
        prop_assert_eq!(rule.open_at(day * DAY + at), rule.open_at(at));
        let other = Rule { opens: (opens + open_for) % DAY, open_for: DAY - open_for, ..rule };
        prop_assert_ne!(rule.open_at(at), other.open_at(at), "inside or outside of the opposite");
        let always = Rule { open_for: 0, ..rule };
        prop_assert!(always.open_at(at));
    }

    /// Whatever lies in the memory.
    #[test]
    fn hours_are_total(opens: u64, open_for: u64, now: u64) {
        let rule = Rule { opens, open_for, ..Rule::DEFAULT };
        prop_assert!(rule.open_at(now) || open_for != 0);
    }
}
