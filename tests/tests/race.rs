//! Many guesses at the same moment, with the real su: no more than `deny` of them are checked, and right ones all get in.

#![allow(clippy::unwrap_used, reason = "this is how a test fails, in its helpers too")]

use portcullis_tests::crowd::at_once;
use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::ledger;
use portcullis_tests::su::{self, JON, KON, Su};
use portcullis_tests::system::{Counter, password, run};

const MANY: usize = 200;
const DENY: usize = 3;

/// Fails with the words by which `cargo xtask test mutations` knows the gate without its lock.
fn exactly_deny(reached: usize) {
    assert!(reached <= DENY, "{reached} of {MANY} wrong guesses reached the check: more than deny = {DENY}");
    assert_eq!(reached, DENY, "guesses that reached the check");
}

#[test]
fn parallel_wrong_guesses_never_exceed_deny() {
    if !enter("parallel_wrong_guesses_never_exceed_deny", &Setup::short()) {
        return;
    }
    let counter = Counter::install("").unwrap();
    assert_eq!(at_once(MANY, "wrong").unwrap(), 0);
    exactly_deny(counter.guesses().unwrap());
    assert!(ledger::locked(JON).unwrap());
}

#[test]
fn pam_faillock_lets_them_all_through_and_the_gate_three() {
    if !enter("pam_faillock_lets_them_all_through_and_the_gate_three", &Setup::short()) {
        return;
    }
    let before = Counter::install("").unwrap();
    assert_eq!(at_once(MANY, "wrong").unwrap(), 0);
    let ours = before.guesses().unwrap();
    assert!(run("portcullis", &["unlock", "jon"]).unwrap().0);
    let counter = Counter::behind_faillock().unwrap();
    assert_eq!(at_once(MANY, "wrong").unwrap(), 0);
    let faillocks = counter.guesses().unwrap();
    println!("of {MANY} wrong guesses at once reached the check, deny = {DENY}:");
    println!("  pam_portcullis  {ours}");
    println!("  pam_faillock    {faillocks}");
    assert_eq!(faillocks, MANY);
    exactly_deny(ours);
    // pam_faillock was at work all the while: it has locked, only too late. It refuses before the prompt.
    let refused = Su::start(KON, "jon").unwrap().verdict().unwrap();
    assert!(!refused.let_in && !refused.output.contains("assword:"), "{refused:?}");
    assert!(run("faillock", &["--user", "jon", "--reset"]).unwrap().0);
    assert!(su::attempt(KON, "jon", &password("jon")).unwrap().let_in);
}

#[test]
fn correct_logins_at_once_all_succeed_and_lock_nobody() {
    if !enter("correct_logins_at_once_all_succeed_and_lock_nobody", &Setup::short()) {
        return;
    }
    assert_eq!(at_once(20, &password("jon")).unwrap(), 20);
    assert!(su::attempt(KON, "jon", &password("jon")).unwrap().let_in);
}

#[test]
fn the_gate_counts_without_the_agent() {
    if !enter("the_gate_counts_without_the_agent", &Setup { no_agent: true, ..Setup::short() }) {
        return;
    }
    let counter = Counter::install("").unwrap();
    assert_eq!(at_once(20, "wrong").unwrap(), 0);
    assert_eq!(counter.guesses().unwrap(), 3);
    assert!(!su::attempt(KON, "jon", &password("jon")).unwrap().let_in);
}
