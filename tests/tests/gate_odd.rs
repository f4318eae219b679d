//! The gate's answers to what should not come: odd requests, no configuration, rows deleted under a call, full tables.

#![allow(clippy::unwrap_used, reason = "this is how a test fails, in its helpers too")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use portcullis_common::abi::{
    self, ABI, Detail, MAX_ACCOUNTS, MAX_CLASSES, MAX_TASKS, Request, map, op, outcome, source, stat, verdict,
};
use portcullis_common::client::Gate;
use portcullis_common::ledger::Rule;
use portcullis_tests::bpf::Map;
use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::ledger;
use portcullis_tests::stack::edit;
use portcullis_tests::su::{self, JON, KON, Su};
use portcullis_tests::system::{Counter, Hold, password, run, wait_for};

/// Uids nobody has.
const FIRST_UID: u32 = 1_000_000;

fn quiet() -> Setup<'static> {
    Setup { no_agent: true, ..Setup::short() }
}

fn admit(account: u32) -> Request {
    let mut request = Request::new(op::ADMIT, account.into());
    request.entry.detail = Detail { source: source::LOCAL, uid: KON, ..Detail::EMPTY };
    request
}

fn counter(index: u32) -> u64 {
    // SAFETY: STATS is an array of u64.
    unsafe { Map::open(map::STATS).unwrap().get(&index) }.unwrap()
}

#[test]
fn a_request_that_is_none_changes_nothing() {
    if !enter("a_request_that_is_none_changes_nothing", &quiet()) {
        return;
    }
    let gate = Gate::open().unwrap();
    for op in [0, op::LAPSE, op::LAPSE + 1, u32::MAX] {
        let request = Request { op, ..admit(JON) };
        assert_eq!(gate.call(&request).unwrap().verdict, verdict::INVALID, "op {op}");
    }
    for abi in [0, ABI + 100, u32::MAX] {
        let request = Request { abi, ..admit(JON) };
        assert_eq!(gate.call(&request).unwrap().verdict, verdict::INVALID, "abi {abi}");
    }
    let books = ledger::of(JON).unwrap();
    assert_eq!((books.failures, books.reservations), (0, 0), "{books:?}");
    // The same request, whole, is one.
    assert_eq!(gate.call(&admit(JON)).unwrap().verdict, verdict::ADMITTED);
    assert_eq!(ledger::of(JON).unwrap().reservations, 1);
}

#[test]
fn without_a_configuration_nothing_is_counted() {
    if !enter("without_a_configuration_nothing_is_counted", &quiet()) {
        return;
    }
    let classes = Map::open(map::CLASSES).unwrap();
    // As the kernel makes the map: all zero.
    let none = [0u64; size_of::<Rule>() / 8];
    for class in 0..4 * MAX_CLASSES {
        // SAFETY: CLASSES is an array of Rule, integers of that size.
        unsafe { classes.set(&class, &none) }.unwrap();
    }
    let answer = Gate::open().unwrap().call(&admit(JON)).unwrap();
    assert_eq!((answer.verdict, answer.token), (verdict::UNCOUNTED, 0));
    assert!(su::attempt(KON, "jon", &password("jon")).unwrap().let_in, "on_error=ignore");
    edit("common-auth", |line| line.replace("pam_portcullis.so", "pam_portcullis.so on_error=deny")).unwrap();
    assert!(!su::attempt(KON, "jon", &password("jon")).unwrap().let_in, "on_error=deny");
    let (_, log) = run("cat", &["/var/log/auth.log"]).unwrap();
    assert_eq!(log.matches("no configuration loaded").count(), 2, "one line each: {log}");
    assert_eq!(std::fs::read(abi::UNREACHABLE).unwrap(), b"ir");
}

#[test]
fn a_row_that_is_deleted_under_a_call_is_asked_for_again() {
    if !enter("a_row_that_is_deleted_under_a_call_is_asked_for_again", &quiet()) {
        return;
    }
    let over = AtomicBool::new(false);
    /// Ends the other thread, also when an assertion fails.
    struct End<'a>(&'a AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let deadline = Instant::now() + Duration::from_secs(120);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let gate = Gate::open().unwrap();
            while !over.load(Ordering::Relaxed) {
                gate.call(&Request::new(op::FORGET, FIRST_UID.into())).unwrap();
            }
        });
        let _end = End(&over);
        let gate = Gate::open().unwrap();
        while counter(stat::ROW_RACE) == 0 && Instant::now() < deadline {
            for _ in 0..10_000 {
                let answer = gate.call(&admit(FIRST_UID)).unwrap();
                assert_eq!(answer.verdict, verdict::ADMITTED, "asked again until there is a row");
                let mut resolve = admit(FIRST_UID);
                (resolve.op, resolve.arg, resolve.entry.token) = (op::RESOLVE, outcome::VOID, answer.token);
                // A row that holds a guess is not deleted: the guess is found, each time.
                assert_eq!(gate.call(&resolve).unwrap().verdict, verdict::DONE);
            }
        }
    });
    assert!(counter(stat::ROW_RACE) > 0, "no row was deleted under a call in two minutes");
}

#[test]
fn a_full_table_of_accounts_is_the_lines_choice() {
    if !enter("a_full_table_of_accounts_is_the_lines_choice", &quiet()) {
        return;
    }
    for _ in 0..3 {
        su::attempt(KON, "kon", "wrong").unwrap();
    }
    assert!(ledger::locked(KON).unwrap());
    let gate = Gate::open().unwrap();
    let refused = (0..MAX_ACCOUNTS)
        .filter(|n| gate.call(&admit(FIRST_UID + n)).unwrap().verdict == verdict::UNCOUNTED)
        .count();
    assert!(refused > 0, "the table is bounded");
    assert!(counter(stat::NO_ROW) > 0);
    assert!(su::attempt(KON, "jon", &password("jon")).unwrap().let_in, "on_error=ignore");
    edit("common-auth", |line| line.replace("pam_portcullis.so", "pam_portcullis.so on_error=deny")).unwrap();
    assert!(!su::attempt(KON, "jon", &password("jon")).unwrap().let_in, "on_error=deny");
    let (_, log) = run("cat", &["/var/log/auth.log"]).unwrap();
    assert_eq!(log.matches("its table is full").count(), 2, "one line each: {log}");
    assert_eq!(std::fs::read(abi::UNREACHABLE).unwrap(), b"ir");
    assert!(ledger::locked(KON).unwrap(), "no lock was evicted");
    assert!(!su::attempt(KON, "kon", &password("kon")).unwrap().let_in);
}

#[test]
fn with_a_full_table_of_tasks_a_killed_guess_counts_by_its_age() {
    if !enter("with_a_full_table_of_tasks_a_killed_guess_counts_by_its_age", &quiet()) {
        return;
    }
    let tasks = Map::open(map::TASKS).unwrap();
    let entry = admit(FIRST_UID).entry;
    for task in 0..u64::from(MAX_TASKS) {
        // SAFETY: TASKS is a hash of Entry by u64; Entry is integers with explicit padding. No task is at such an address.
        unsafe { tasks.set(&task, &entry) }.unwrap();
    }
    Counter::install(Hold::WAIT).unwrap();
    let hold = Hold::begin().unwrap();
    let mut su = Su::start(KON, "jon").unwrap();
    su.wait_prompt().unwrap();
    su.submit("wrong").unwrap();
    wait_for("the guess", 10, || Ok(ledger::of(JON)?.reservations == 1)).unwrap();
    assert_eq!(counter(stat::NO_TASK), 1);
    su.signal(Signal::SIGKILL).unwrap();
    assert_eq!(su.verdict().unwrap().signal, Some(libc::SIGKILL));
    hold.end().unwrap();
    let books = ledger::of(JON).unwrap();
    assert_eq!((books.failures, books.reservations), (0, 1), "nobody knew that it ended: {books:?}");
    wait_for("its age", 10, || Ok(ledger::of(JON)?.failures == 1)).unwrap();
    assert_eq!(ledger::of(JON).unwrap().reservations, 0);
}
