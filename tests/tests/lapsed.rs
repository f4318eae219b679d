//! Guesses that nobody answered for until they were too old: each counts for whoever made it, with the real su.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use std::time::Duration;

use nix::sys::signal::Signal;
use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::ledger;
use portcullis_tests::stack::without_delays;
use portcullis_tests::su::{self, JON, KON, Su};
use portcullis_tests::system::{Counter, Hold, number, password, portcullis, wait_for};

/// The agent looks only when it is told something, so that one call of the gate finds all that is too old.
const CONFIG: &str = r#"
break_glass = "admin"
reservation_max_age = "3s"
[default]
deny = 8
fail_interval = "15m"
unlock_time = "10m"
[sc5]
local = "refuse"
deny = 3
drop_time = "10m"
[agent]
reconcile = "1h"
"#;
const OTHER: u32 = 3001;
const AGE: Duration = Duration::from_secs(3);

/// Failures, trips, and whether he is refused, of a local user as a source.
fn source(uid: u32) -> (u64, u64, bool) {
    let rows = portcullis(&["sources"]).unwrap();
    let row = rows.as_array().unwrap().iter().find(|row| row["actor"]["uid"] == uid);
    row.map_or((0, 0, false), |row| {
        (row["failures"].as_u64().unwrap(), row["trips"].as_u64().unwrap(), row["answered"] == true)
    })
}

/// A su of `uid` to jon whose password is in the check.
fn in_the_check(counter: &Counter, uid: u32, password: &str) -> Su {
    let before = counter.guesses().unwrap();
    let mut su = Su::start(uid, "jon").unwrap();
    su.wait_prompt().unwrap();
    su.submit(password).unwrap();
    wait_for("the guess in the check", 20, || Ok(counter.guesses()? == before + 1)).unwrap();
    su
}

#[test]
fn guesses_that_outlive_their_age_in_one_call_count_each_for_its_source() {
    let setup = Setup { config: Some(CONFIG), ..Setup::default() };
    if !enter("guesses_that_outlive_their_age_in_one_call_count_each_for_its_source", &setup) {
        return;
    }
    without_delays().unwrap();
    let counter = Counter::install(Hold::WAIT).unwrap();
    let hold = Hold::begin().unwrap();
    let mut guesses: Vec<Su> = (0..3).map(|_| in_the_check(&counter, KON, "wrong")).collect();
    guesses.push(in_the_check(&counter, OTHER, "wrong"));
    // Their age is all that happens.
    std::thread::sleep(AGE);
    assert_eq!(ledger::of(JON).unwrap().failures, 4, "all of them in this call");
    wait_for("the refusal of kon", 10, || Ok(source(KON).2)).unwrap();
    assert_eq!(source(KON), (0, 1, true));
    assert_eq!(source(OTHER), (1, 0, false), "his one guess is his");
    // The results come late: they were counted.
    hold.end().unwrap();
    for su in guesses {
        assert!(!su.verdict().unwrap().let_in);
    }
    assert_eq!(number("jon", "failures").unwrap(), 4);
    assert_eq!((source(KON), source(OTHER)), ((0, 1, true), (1, 0, false)));
    assert!(su::attempt(JON, "jon", &password("jon")).unwrap().let_in, "jon is not locked");
}

#[test]
fn a_right_password_that_comes_late_clears_nothing_of_its_source() {
    let setup = Setup { config: Some(CONFIG), ..Setup::default() };
    if !enter("a_right_password_that_comes_late_clears_nothing_of_its_source", &setup) {
        return;
    }
    without_delays().unwrap();
    let counter = Counter::install(Hold::WAIT).unwrap();
    assert!(!su::attempt(OTHER, "jon", "wrong").unwrap().let_in);
    let hold = Hold::begin().unwrap();
    let late = in_the_check(&counter, OTHER, &password("jon"));
    std::thread::sleep(AGE);
    // Found by its own result, and by nobody before.
    hold.end().unwrap();
    late.verdict().unwrap();
    assert_eq!(source(OTHER), (2, 0, false));
    assert_eq!(number("jon", "failures").unwrap(), 1, "the account's is withdrawn");
}

#[test]
fn a_killed_guess_in_monitor_mode_counts_and_shuts_nobody_out() {
    let config = CONFIG.replace("[default]", "[default]\nmode = \"monitor\"").replace("deny = 8", "deny = 2");
    let setup = Setup { config: Some(&config), ..Setup::default() };
    if !enter("a_killed_guess_in_monitor_mode_counts_and_shuts_nobody_out", &setup) {
        return;
    }
    without_delays().unwrap();
    let counter = Counter::install(Hold::WAIT).unwrap();
    let hold = Hold::begin().unwrap();
    for _ in 0..2 {
        let su = in_the_check(&counter, OTHER, "wrong");
        su.signal(Signal::SIGKILL).unwrap();
        su.verdict().unwrap();
    }
    hold.end().unwrap();
    assert_eq!(source(OTHER), (2, 0, false));
    assert_eq!(number("jon", "trips").unwrap(), 1, "it would have locked");
    assert!(su::attempt(KON, "jon", &password("jon")).unwrap().let_in, "and locks nobody");
}

#[test]
fn a_right_password_that_is_reported_while_locked_counts_for_its_source_alone() {
    let setup = Setup { config: Some(CONFIG), ..Setup::default() };
    if !enter("a_right_password_that_is_reported_while_locked_counts_for_its_source_alone", &setup) {
        return;
    }
    let report = |result: &str| {
        let source = ["report", "--source", "198.51.100.7", "--service", "web"];
        let account = ["--account", "jon", "--result", result];
        let (done, text) =
            portcullis_tests::system::run("portcullis", &[&source[..], &account].concat()).unwrap();
        assert!(done, "{text}");
    };
    let row = || {
        let rows = portcullis(&["sources"]).unwrap();
        let found =
            rows.as_array().unwrap().iter().find(|row| row["actor"]["address"] == "198.51.100.7").cloned();
        let row = found.unwrap();
        (row["failures"].as_u64().unwrap(), row["logons"].as_u64().unwrap())
    };
    report("fail");
    assert_eq!((row(), number("jon", "failures").unwrap()), ((1, 0), 1));
    assert!(portcullis_tests::system::run("portcullis", &["lock", "jon"]).unwrap().0);
    report("pass");
    assert_eq!(row(), (0, 1), "that program let him in, whoever is locked here");
    let account = portcullis(&["explain", "jon"]).unwrap();
    assert!(!account["row"]["lock"].is_null(), "{account}");
    assert_eq!(number("jon", "failures").unwrap(), 1, "nothing is cleared while it is locked");
}
