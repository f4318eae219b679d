//! Waiting for a free guess: bounded, and no honest logon is refused for it. What is printed here stands in docs/pam.md.

#![allow(clippy::unwrap_used, reason = "this is how a test fails, in its helpers too")]

use std::ffi::{c_int, c_uint, c_void};
use std::path::Path;
use std::time::{Duration, Instant};

use portcullis_tests::books::Books;
use portcullis_tests::crowd::Crowd;
use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::ledger;
use portcullis_tests::pam::{AUTH_ERR, Handle};
use portcullis_tests::stack::{must, service};
use portcullis_tests::su::{JON, KON, Su};
use portcullis_tests::system::{Counter, Hold, password, wait_for, write};

const CONFIG: &str = "break_glass = \"admin\"\n[default]\ndeny = 1\n";
const SETUP: Setup<'_> = Setup { config: Some(CONFIG), no_agent: false, bare: false };
const HONEST: usize = 20;
/// Crowds for each `deny`.
const ROUNDS: usize = 3;

#[test]
fn twenty_honest_logons_at_once_are_never_refused() {
    if !enter("twenty_honest_logons_at_once_are_never_refused", &SETUP) {
        return;
    }
    let right = password("jon");
    for deny in [1, 2, 3] {
        let config = CONFIG.replace("deny = 1", &format!("deny = {deny}"));
        write(Path::new("/etc/portcullis/portcullis.toml"), &config).unwrap();
        must("portcullis", &["reload"]).unwrap();
        let mut longest = Duration::ZERO;
        for _ in 0..ROUNDS {
            let mut crowd = Crowd::at_the_prompt(HONEST).unwrap();
            let begun = Instant::now();
            crowd.submit(&right).unwrap();
            assert_eq!(crowd.let_in().unwrap(), HONEST, "deny = {deny}");
            longest = longest.max(begun.elapsed());
            let row = ledger::of(JON).unwrap();
            assert_eq!(
                (row.failures, row.reservations, row.locked_until),
                (0, 0, 0),
                "deny = {deny}: {row:?}"
            );
        }
        println!("deny = {deny}: the last of {HONEST} right logons was in after {longest:?} at most");
    }
}

/// Sleeps for nobody: what is measured is our own wait.
extern "C" fn no_delay(_status: c_int, _usec: c_uint, _appdata: *mut c_void) {}

#[test]
fn the_wait_for_a_guess_is_as_long_as_the_line_says() {
    if !enter("the_wait_for_a_guess_is_as_long_as_the_line_says", &SETUP) {
        return;
    }
    let counter = Counter::install(Hold::WAIT).unwrap();
    let mut books = Books::open("jon").unwrap();
    let hold = Hold::begin().unwrap();
    let mut holder = Su::start(KON, "jon").unwrap();
    holder.wait_prompt().unwrap();
    holder.submit(&password("jon")).unwrap();
    wait_for("the guess that is out", 10, || Ok(counter.guesses()? == 1)).unwrap();

    for (wait, least, most) in [("wait=0", 0, 1_000), ("wait=3", 3_000, 4_500)] {
        let line = format!("auth requisite pam_portcullis.so {wait}\nauth required pam_unix.so\n");
        service("ways", &line).unwrap();
        let mut handle = Handle::start("ways", "jon", "any").unwrap();
        handle.set_delay_fn(no_delay).unwrap();
        let begun = Instant::now();
        assert_eq!(handle.authenticate(), AUTH_ERR, "{wait}");
        let took = begun.elapsed();
        println!("{wait:8} refused after {took:?}");
        let bounds = Duration::from_millis(least)..Duration::from_millis(most);
        assert!(bounds.contains(&took), "{wait}: {took:?}");
    }
    hold.end().unwrap();
    assert!(holder.verdict().unwrap().let_in, "who was there first gets in all the same");
    assert_eq!(books.take().unwrap(), "busy ways root, busy ways root, pass su kon, cleared su kon → 0");
}
