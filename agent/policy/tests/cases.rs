//! Single rules of the policy, each shown by one short story.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step is a failed test"
)]

use portcullis_policy::{Action, Actor, Boot, Cause, Class, Input, Kind, Notice, Outcome, Policy, Restored};

const SECOND: u64 = 1_000_000_000;
const PLAIN: Class =
    Class { exempt: false, shadow_lock: false, expire_after: 0, end_sessions_after: 0, backoff_window: 0 };
const SHADOW: Class = Class { shadow_lock: true, ..PLAIN };
const EXEMPT: Class = Class { exempt: true, ..SHADOW };

fn tripped(account: u32, class: Class, trips: u32, locked_until: Boot) -> Input {
    Input::Tripped { account, class, trips, locked_until, actor: Actor { kind: 1, id: 1000 } }
}

fn shadow_locks(actions: &[Action]) -> usize {
    actions.iter().filter(|action| matches!(action, Action::ShadowLock { .. })).count()
}

#[test]
fn a_lock_of_an_administrator_is_followed_by_the_shadow_lock() {
    let mut policy = Policy::new();
    let lock =
        |class| Input::LockSet { account: 7, class, trips: 0, until: Boot::NEVER, by: Cause::Administrator };
    assert_eq!(shadow_locks(&policy.step(Boot(1), lock(PLAIN))), 0);
    assert_eq!(shadow_locks(&policy.step(Boot(2), lock(SHADOW))), 1);
    assert_eq!(shadow_locks(&policy.step(Boot(3), lock(SHADOW))), 0);
}

#[test]
fn a_longer_lock_keeps_the_shadow_lock() {
    let mut policy = Policy::new();
    assert_eq!(shadow_locks(&policy.step(Boot(1), tripped(7, SHADOW, 1, Boot(100)))), 1);
    let done = Input::ActionDone { account: 7, kind: Kind::ShadowLock, outcome: Outcome::Verified };
    let _ = policy.step(Boot(2), done);
    let actions = policy.step(Boot(50), tripped(7, SHADOW, 2, Boot(200)));
    assert_eq!(shadow_locks(&actions), 0);
    assert!(!policy.step(Boot(150), Input::Tick).contains(&Action::ShadowUnlock { account: 7 }));
    assert!(policy.step(Boot(200), Input::Tick).contains(&Action::ShadowUnlock { account: 7 }));
}

#[test]
fn a_failed_unlock_is_tried_again_ever_more_slowly() {
    let mut policy = Policy::new();
    let mut now = Boot(SECOND);
    let restored =
        Input::Restored { account: 7, class: SHADOW, lock: None, shadow: true, expired: false, climb: None };
    let mut actions = policy.step(now, restored);
    let mut pauses = Vec::new();
    for _ in 0..12 {
        assert!(actions.contains(&Action::ShadowUnlock { account: 7 }));
        let outcome = Outcome::Failed { reason: "busy".to_owned(), retry: true };
        let told = policy.step(now, Input::ActionDone { account: 7, kind: Kind::ShadowUnlock, outcome });
        let wake = told.iter().find_map(|action| match action {
            Action::Wake { at } => Some(*at),
            _ => None,
        });
        let wake = wake.unwrap();
        pauses.push((wake.0 - now.0) / SECOND);
        if pauses.len() == 1 {
            assert!(told.iter().any(|action| matches!(
                action,
                Action::Alert { notice: Notice::ShadowUnlockFailed { tries: 1, .. }, .. }
            )));
        }
        assert!(policy.step(Boot(wake.0 - 1), Input::Tick).is_empty());
        now = wake;
        actions = policy.step(now, Input::Tick);
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
}

#[test]
fn what_the_kernel_lost_is_given_back() {
    let mut policy = Policy::new();
    let lock = |lost| Some(Restored { until: Boot(100), trips: 0, lost });
    let restored = |account, lock| Input::Restored {
        account,
        class: SHADOW,
        lock,
        shadow: false,
        expired: false,
        climb: None,
    };
    let actions = policy.step(Boot(1), restored(7, lock(true)));
    assert!(actions.contains(&Action::GateLock { account: 7, until: Boot(100), cause: Cause::Restored }));
    assert_eq!(shadow_locks(&actions), 1);
    // Until that is done, a scan that finds no lock is no release.
    assert!(policy.step(Boot(2), Input::NoLockSeen { account: 7 }).is_empty());
    let actions = policy.step(Boot(3), restored(8, lock(false)));
    assert!(!actions.iter().any(|action| matches!(action, Action::GateLock { .. })));
    // An exempt account gets no lock back.
    let exempt = Input::Restored {
        account: 9,
        class: EXEMPT,
        lock: lock(true),
        shadow: false,
        expired: false,
        climb: None,
    };
    let actions = policy.step(Boot(4), exempt);
    assert!(!actions.iter().any(|action| matches!(action, Action::GateLock { .. })));
    assert_eq!(shadow_locks(&actions), 0);
}

#[test]
fn stale_news_of_a_release_change_nothing() {
    let mut policy = Policy::new();
    let _ = policy.step(Boot(1), tripped(7, SHADOW, 2, Boot(100)));
    assert!(policy.step(Boot(2), Input::Unlocked { account: 7, trips: 1 }).is_empty());
    assert!(policy.step(Boot(3), Input::Expired { account: 7 }).is_empty());
    assert_eq!(policy.locked().count(), 1);
    let released = policy.step(Boot(4), Input::Unlocked { account: 7, trips: 2 });
    assert!(!released.is_empty());
    assert_eq!(policy.locked().count(), 0);
}

#[test]
fn a_row_that_counts_trips_anew_is_acted_on() {
    let mut policy = Policy::new();
    let _ = policy.step(Boot(1), tripped(7, PLAIN, 5, Boot(100)));
    let _ = policy.step(Boot(100), Input::Tick);
    let actions = policy.step(Boot(200), tripped(7, PLAIN, 1, Boot(300)));
    assert!(
        actions
            .iter()
            .any(|action| matches!(action, Action::Alert { notice: Notice::Tripped { trips: 1, .. }, .. }))
    );
}

#[test]
fn an_exempt_account_is_never_acted_on() {
    let mut policy = Policy::new();
    let until = Boot::NEVER;
    let inputs = [
        tripped(7, EXEMPT, 1, until),
        Input::LockSeen { account: 7, class: EXEMPT, trips: 1, locked_until: until, cause: Cause::Trip },
        Input::LockSet { account: 7, class: EXEMPT, trips: 1, until, by: Cause::Administrator },
    ];
    for input in inputs {
        assert_eq!(policy.step(Boot(1), input), []);
    }
    assert_eq!(policy.accounts().count(), 0);
}

#[test]
fn who_becomes_exempt_is_released() {
    let mut policy = Policy::new();
    let _ = policy.step(Boot(1), tripped(7, SHADOW, 1, Boot::NEVER));
    let done = Input::ActionDone { account: 7, kind: Kind::ShadowLock, outcome: Outcome::Verified };
    let _ = policy.step(Boot(2), done);
    let actions = policy.step(Boot(3), Input::ConfigChanged { classes: vec![(7, EXEMPT)] });
    assert!(actions.contains(&Action::GateUnlock { account: 7 }));
    assert!(actions.contains(&Action::ShadowUnlock { account: 7 }));
}

#[test]
fn a_lock_that_was_over_stays_over_when_the_clock_goes_back() {
    let mut policy = Policy::new();
    let _ = policy.step(Boot(1), tripped(7, SHADOW, 1, Boot(100)));
    let _ = policy.step(Boot(100), Input::Expired { account: 7 });
    let seen =
        Input::LockSeen { account: 7, class: SHADOW, trips: 1, locked_until: Boot(100), cause: Cause::Trip };
    assert_eq!(policy.step(Boot(60), seen), []);
    assert_eq!(policy.locked().count(), 0);
}
