//! su stopped with SIGSTOP after its right password was submitted, and continued when it is too old and the account is
//! locked.

#![allow(clippy::unwrap_used, reason = "this is how a test fails, in its helpers too")]

use nix::sys::signal::Signal;
use portcullis_tests::books::Books;
use portcullis_tests::inside::{SHORT, Setup, enter};
use portcullis_tests::ledger;
use portcullis_tests::stack::{edit, without_delays};
use portcullis_tests::su::{JON, KON, Su, attempt};
use portcullis_tests::system::{Counter, Hold, password, wait_for};

/// A su of kon's with jon's password, stopped while the password is checked, and what it holds is too old.
fn stopped(counter: &Counter) -> Su {
    let before = counter.guesses().unwrap();
    let hold = Hold::begin().unwrap();
    let mut su = Su::start(KON, "jon").unwrap();
    su.wait_prompt().unwrap();
    su.submit(&password("jon")).unwrap();
    wait_for("the guess", 10, || Ok(counter.guesses()? > before)).unwrap();
    su.signal(Signal::SIGSTOP).unwrap();
    hold.end().unwrap();
    wait_for("the guess to be too old", 15, || Ok(ledger::of(JON)?.failures == 1)).unwrap();
    su
}

#[test]
fn stopped_with_the_right_password_and_continued_while_locked() {
    let config = SHORT.replace("\"4s\"", "\"2s\"");
    let setup = Setup { config: Some(&config), ..Setup::default() };
    if !enter("stopped_with_the_right_password_and_continued_while_locked", &setup) {
        return;
    }
    without_delays().unwrap();
    let counter = Counter::install(Hold::WAIT).unwrap();
    let mut books = Books::open("jon").unwrap();

    let su = stopped(&counter);
    for _ in 0..2 {
        assert!(!attempt(JON, "jon", "wrong").unwrap().let_in);
    }
    assert!(ledger::locked(JON).unwrap(), "its failure by age and two more");
    su.signal(Signal::SIGCONT).unwrap();
    let verdict = su.verdict().unwrap();
    assert!(!verdict.let_in && verdict.output.contains("locked"), "{verdict:?}");
    // That the guess became too old is told without a service.
    assert_eq!(
        books.take().unwrap(),
        "due  kon, fail su jon, fail su jon, pass su kon, refused su kon → locked",
        "late, and it opens nothing"
    );

    // Not locked: its failure is withdrawn, that of another stays.
    let su = stopped(&counter);
    assert!(!attempt(JON, "jon", "wrong").unwrap().let_in);
    su.signal(Signal::SIGCONT).unwrap();
    assert!(su.verdict().unwrap().let_in);
    assert_eq!(books.take().unwrap(), "due  kon, fail su jon, pass su kon → 1", "withdrawn, not cleared");

    // Without the account line nobody asks again: its guess was charged before the lock.
    edit("common-account", |line| if line.contains("pam_portcullis") { String::new() } else { line.into() })
        .unwrap();
    let su = stopped(&counter);
    for _ in 0..2 {
        assert!(!attempt(JON, "jon", "wrong").unwrap().let_in);
    }
    assert!(ledger::locked(JON).unwrap());
    su.signal(Signal::SIGCONT).unwrap();
    assert!(su.verdict().unwrap().let_in, "docs/pam.md says so");
    assert_eq!(
        books.take().unwrap(),
        "due  kon, fail su jon, fail su jon, pass su kon → locked",
        "no account line"
    );
}
