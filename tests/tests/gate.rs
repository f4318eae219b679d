//! The gate by itself: many callers of one account, at the same moment on every core.

#![allow(clippy::unwrap_used, reason = "this is how a test fails, in its helpers too")]

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use portcullis_common::abi::{
    Detail, MAX_ACCOUNTS, MAX_UNKNOWN, Request, UNKNOWN, op, outcome, source, verdict,
};
use portcullis_common::client::Gate;
use portcullis_tests::inside::{Setup, enter};

/// deny, and the rest out of the way.
const CONFIG: &str = r#"
break_glass = "admin"
reservation_max_age = "1h"
[default]
deny = 3
"#;
const DENY: u32 = 3;
const ROUNDS: u32 = 4_000;
const CALLERS: u32 = 2;
const GUESSES: u32 = 4;
/// Uids nobody has.
const FIRST_UID: u32 = 1_000_000;

/// An admit for `account` by the local user `by`.
fn admit(account: u32, by: u32) -> Request {
    let mut request = Request::new(op::ADMIT, account.into());
    request.entry.detail = Detail { source: source::LOCAL, uid: by, ..Detail::EMPTY };
    request
}

#[test]
fn callers_on_every_core_are_admitted_deny_times() {
    if !enter(
        "callers_on_every_core_are_admitted_deny_times",
        &Setup { config: Some(CONFIG), no_agent: true, ..Setup::default() },
    ) {
        return;
    }
    let gate = Gate::open().unwrap();
    let arrived = AtomicU64::new(0);
    let admitted: Vec<AtomicU32> = (0..ROUNDS).map(|_| AtomicU32::new(0)).collect();
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (gate, arrived, admitted) = (&gate, &arrived, &admitted);
            scope.spawn(move || {
                let mut before = None;
                for (round, count) in (0..ROUNDS).zip(admitted) {
                    // Both set out in the same microsecond: they wait for each other awake.
                    arrived.fetch_add(1, Ordering::SeqCst);
                    while arrived.load(Ordering::SeqCst) < u64::from((round + 1) * CALLERS) {
                        std::hint::spin_loop();
                    }
                    // The round before is over for both: they see the same and end together.
                    let exceeded = |count: &AtomicU32| count.load(Ordering::SeqCst) > DENY;
                    if before.replace(count).is_some_and(exceeded) {
                        break;
                    }
                    for guess in 0..GUESSES {
                        let by = FIRST_UID + caller * GUESSES + guess;
                        let answer = gate.call(&admit(FIRST_UID + round, by)).unwrap();
                        count.fetch_add(u32::from(answer.verdict == verdict::ADMITTED), Ordering::SeqCst);
                    }
                }
            });
        }
    });
    for (round, count) in admitted.iter().enumerate() {
        let count = count.load(Ordering::SeqCst);
        assert_eq!(count, DENY, "round {round} of {ROUNDS} admitted another number than deny");
    }
}

/// One wrong guess at `account` by `by`; the verdict of its admission.
fn wrong(gate: &Gate, account: u32, by: u32) -> u32 {
    let answer = gate.call(&admit(account, by)).unwrap();
    if answer.verdict == verdict::ADMITTED {
        let mut resolve = admit(account, by);
        resolve.op = op::RESOLVE;
        resolve.arg = outcome::FAIL;
        resolve.entry.token = answer.token;
        gate.call(&resolve).unwrap();
    }
    answer.verdict
}

#[test]
fn exempt_accounts_are_let_try_without_end() {
    if !enter(
        "exempt_accounts_are_let_try_without_end",
        &Setup { config: Some(CONFIG), no_agent: true, ..Setup::default() },
    ) {
        return;
    }
    let gate = Gate::open().unwrap();
    // root, and admin, who is the break-glass account.
    for account in [0, 2003] {
        for _ in 0..10 * DENY {
            assert_eq!(wrong(&gate, account, FIRST_UID), verdict::ADMITTED, "uid {account} is exempt");
        }
    }
    for expected in [verdict::ADMITTED, verdict::ADMITTED, verdict::ADMITTED, verdict::LOCKED] {
        assert_eq!(wrong(&gate, FIRST_UID, FIRST_UID), expected, "anybody else is not");
    }
}

#[test]
fn invented_names_evict_no_account() {
    if !enter(
        "invented_names_evict_no_account",
        &Setup { config: Some(CONFIG), no_agent: true, ..Setup::default() },
    ) {
        return;
    }
    let gate = Gate::open().unwrap();
    for _ in 0..DENY {
        wrong(&gate, FIRST_UID, FIRST_UID);
    }
    let mut counted = 0;
    for name in 0..u64::from(MAX_ACCOUNTS) {
        let mut request = admit(0, FIRST_UID);
        request.entry.account = UNKNOWN | name;
        counted += u32::from(gate.call(&request).unwrap().verdict == verdict::ADMITTED);
    }
    assert_eq!(wrong(&gate, FIRST_UID, FIRST_UID), verdict::LOCKED, "the lock is still there");
    assert_eq!(wrong(&gate, FIRST_UID + 1, FIRST_UID), verdict::ADMITTED, "there is room for an account");
    assert_eq!(counted, MAX_UNKNOWN, "the table of invented names is bounded");
}
