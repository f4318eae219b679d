//! kill -9 changes no count: of the agent in the middle of many logons, of su at any moment.

#![allow(clippy::unwrap_used, reason = "this is how a test fails, in its helpers too")]

use std::path::Path;

use nix::sys::signal::Signal;
use portcullis_tests::crowd::Crowd;
use portcullis_tests::inside::{SHORT, Setup, enter};
use portcullis_tests::su::{self, JON, KON, Su};
use portcullis_tests::system::{Counter, Hold, password, portcullis, read, wait_for, write};
use portcullis_tests::{agent, ledger};

/// Submits `count` passwords at once and kills the agent while guesses are out and no su has its verdict; lets them end.
/// How many were let in, and how many reached the check.
fn without_the_agent_from_the_middle_on(count: usize, password: &str) -> (usize, usize) {
    let counter = Counter::install(Hold::WAIT).unwrap();
    let hold = Hold::begin().unwrap();
    let mut crowd = Crowd::at_the_prompt(count).unwrap();
    crowd.submit(password).unwrap();
    wait_for("the first guess", 10, || Ok(counter.guesses()? > 0)).unwrap();
    agent::kill_9().unwrap();
    // The middle: guesses are out, held in the check, and nobody has a verdict.
    let out = ledger::of(JON).unwrap();
    assert!(out.reservations > 0 && out.failures == 0 && out.locked_until == 0, "{out:?}");
    assert_eq!(crowd.without_verdict().unwrap(), count);
    hold.end().unwrap();
    let let_in = crowd.let_in().unwrap();
    assert_eq!(agent::pid().unwrap(), None);
    (let_in, counter.guesses().unwrap())
}

#[test]
fn agent_killed_amid_200_wrong_guesses_three_are_checked() {
    if !enter("agent_killed_amid_200_wrong_guesses_three_are_checked", &Setup::short()) {
        return;
    }
    assert_eq!(without_the_agent_from_the_middle_on(200, "wrong"), (0, 3));
    assert!(ledger::locked(JON).unwrap());
    // The next agent finds it so.
    let mut next = agent::start().unwrap();
    assert!(ledger::locked(JON).unwrap());
    assert!(!su::attempt(KON, "jon", &password("jon")).unwrap().let_in);
    next.kill().unwrap();
    next.wait().unwrap();
}

#[test]
fn agent_killed_amid_20_right_logons_all_get_in() {
    if !enter("agent_killed_amid_20_right_logons_all_get_in", &Setup::short()) {
        return;
    }
    assert_eq!(without_the_agent_from_the_middle_on(20, &password("jon")), (20, 20));
    let after = ledger::of(JON).unwrap();
    assert!(after.failures == 0 && after.locked_until == 0 && after.trips == 0, "{after:?}");
    // The next agent finds it so.
    let mut next = agent::start().unwrap();
    assert!(portcullis(&["explain", "jon"]).unwrap().to_string().contains("\"failures\":0"));
    assert!(su::attempt(KON, "jon", &password("jon")).unwrap().let_in);
    next.kill().unwrap();
    next.wait().unwrap();
}

#[test]
fn su_killed_in_its_fail_delay_counts() {
    // Unresolved guesses would count by their age only long after this test.
    let config = SHORT.replace("\"4s\"", "\"10m\"");
    let setup = Setup { config: Some(&config), no_agent: true, ..Setup::default() };
    if !enter("su_killed_in_its_fail_delay_counts", &setup) {
        return;
    }
    let counter = Counter::install("").unwrap();
    // Longer than the 2 s of pam_unix: this test must not lose a race on a busy machine.
    let stack = Path::new("/etc/pam.d/su");
    let text = read(stack).unwrap();
    write(stack, &format!("auth optional pam_faildelay.so delay=60000000\n{text}")).unwrap();
    for nth in 1..=3 {
        let mut su = Su::start(KON, "jon").unwrap();
        su.wait_prompt().unwrap();
        su.submit("wrong").unwrap();
        // The result is told before the delay: it is on the books while su sleeps on.
        wait_for("the failure on the books", 10, || {
            let books = ledger::of(JON)?;
            Ok(books.failures == nth || books.locked_until != 0)
        })
        .unwrap();
        let books = ledger::of(JON).unwrap();
        assert_eq!((books.reservations, books.locked_until != 0), (0, nth == 3), "{books:?}");
        assert!(su.running().unwrap());
        su.signal(Signal::SIGKILL).unwrap();
        let verdict = su.verdict().unwrap();
        assert_eq!(verdict.signal, Some(9), "su was through with its delay: {}", verdict.output);
        // What su says when the delay is over.
        assert!(!verdict.output.contains("failure"), "{}", verdict.output);
    }
    assert_eq!(counter.guesses().unwrap(), 3);
    write(stack, &text).unwrap();
    assert!(!su::attempt(KON, "jon", &password("jon")).unwrap().let_in);
    assert_eq!(counter.guesses().unwrap(), 3);
}

#[test]
fn kill_while_the_password_is_checked_counts_at_once() {
    // Unresolved guesses would count by their age only long after this test.
    let config = SHORT.replace("\"4s\"", "\"10m\"");
    let setup = Setup { config: Some(&config), no_agent: true, ..Setup::default() };
    if !enter("kill_while_the_password_is_checked_counts_at_once", &setup) {
        return;
    }
    // Behind our line a program that does not end: the guess is out, its result never comes.
    let counter = Counter::install("exec sleep 1000").unwrap();
    for expected in 1..=3 {
        let mut su = Su::start(KON, "jon").unwrap();
        su.wait_prompt().unwrap();
        su.submit("wrong").unwrap();
        // One actor holds at most two: the third goes through only when the first two are failures.
        let reached = wait_for("the guess", 8, || Ok(counter.guesses()? == expected));
        assert!(reached.is_ok(), "killed guesses are still out: {reached:?}");
        su.signal(Signal::SIGKILL).unwrap();
        assert_eq!(su.verdict().unwrap().signal, Some(9));
    }
    // Long before the maximum age the third one has locked.
    assert!(!su::attempt(KON, "jon", &password("jon")).unwrap().let_in);
    assert_eq!(counter.guesses().unwrap(), 3);
}
