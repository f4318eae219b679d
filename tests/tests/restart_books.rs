//! All that can be on the books goes on when the agent is started again: sources that are shut out of an account, listed
//! places and soft locks, rows of trips, failures of sources, local users who are refused.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use std::process::Child;

use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::stack::{must, without_delays};
use portcullis_tests::su::{self, JON};
use portcullis_tests::system::{Counter, password, portcullis, wait_for};
use portcullis_tests::users::add_like_jon;
use portcullis_tests::{agent, ledger, pamtester};

const CONFIG: &str = r#"
break_glass = "admin"
[default]
deny = 16
[sc5]
local = "refuse"
deny = 4
accounts = 16
drop_time = "1h"
[[class]]
name = "growing"
users = ["jon"]
deny = 2
unlock_time = "8s"
backoff_window = "1d"
max_unlock_time = "1h"
[[class]]
name = "pairs"
users = ["kon"]
scope = "pair"
deny = 2
account_deny = 8
unlock_time = "1h"
[[class]]
name = "soft"
users = ["eva"]
deny = 2
unlock_time = "1h"
restrict = { ttys = ["tty7"] }
"#;
const EVA: u32 = 2011;
const LEO: u32 = 2012;
/// Trips jon, in a row; is shut out of kon; trips eva; has failed three times; has tripped.
const GUESSERS: [u32; 5] = [3001, 3002, 3003, 3004, 3005];
const SECOND: u64 = 1_000_000_000;

fn wrong(uid: u32, user: &str, count: usize) {
    for _ in 0..count {
        assert!(!su::attempt(uid, user, "wrong").unwrap().let_in);
    }
}

fn right(uid: u32, user: &str) -> bool {
    let of = if user == "kon" { "kon" } else { "jon" };
    su::attempt(uid, user, &password(of)).unwrap().let_in
}

fn refused(uid: u32) -> bool {
    let rows = portcullis(&["sources"]).unwrap();
    rows.as_array().unwrap().iter().any(|row| row["actor"]["uid"] == uid && row["answered"] == true)
}

fn failures_of(uid: u32) -> u64 {
    let rows = portcullis(&["sources"]).unwrap();
    let row = rows.as_array().unwrap().iter().find(|row| row["actor"]["uid"] == uid).cloned();
    row.map_or(0, |row| row["failures"].as_u64().unwrap())
}

/// Everything on the books; then `change`; then nothing is lost, and nobody gets a guess more.
fn play(change: impl FnOnce() -> Child) {
    without_delays().unwrap();
    add_like_jon("eva", EVA).unwrap();
    add_like_jon("leo", LEO).unwrap();
    must("portcullis", &["reload"]).unwrap();
    let counter = Counter::install("").unwrap();
    let [climber, pair, soft, three, tripped] = GUESSERS;
    wrong(climber, "jon", 2);
    wrong(pair, "kon", 2);
    wrong(soft, "eva", 2);
    wrong(three, "leo", 3);
    wrong(tripped, "leo", 4);
    wait_for("the refusal", 20, || Ok(refused(tripped))).unwrap();
    wait_for("the end of jon's first lock", 30, || Ok(!ledger::locked(JON)?)).unwrap();
    // The same source may fail but once more: another one goes on with jon's row.
    wrong(su::KON, "jon", 2);
    assert!(portcullis(&["explain", "eva"]).unwrap()["row"]["lock"]["soft"] == true);
    wait_for("the end of jon's second lock", 40, || Ok(!ledger::locked(JON)?)).unwrap();
    let leos = ledger::of(LEO).unwrap().failures;
    assert_eq!(leos, 7);
    let before = counter.guesses().unwrap();
    assert_eq!(before, 2 + 2 + 2 + 3 + 4 + 2);

    let mut agent = change();

    let of = |uid: u32| ledger::of(uid).unwrap();
    // Who was shut out is, and nobody else; the password is checked for the owner alone.
    assert!(!right(pair, "kon"), "the pair is shut out still");
    assert!(!right(soft, "eva"), "the soft lock is there");
    assert!(!right(tripped, "leo"), "the refused local user is refused");
    assert_eq!(counter.guesses().unwrap(), before, "not one guess more");
    assert!(right(su::KON, "kon"), "kon himself goes on");
    let items: &pamtester::Items<'_> = &[("tty", b"tty7")];
    let eva = pamtester::login("login", "eva", items, &["authenticate"], &password("jon")).unwrap();
    assert!(eva.0, "eva's listed terminal is open still: {}", eva.1);
    assert_eq!(of(LEO).failures, leos);
    assert_eq!(failures_of(three), 3, "the failures of a source");
    wrong(three, "leo", 1);
    wait_for("the refusal by the fourth failure", 20, || Ok(refused(three))).unwrap();
    // The third of jon's row, by somebody new.
    wrong(LEO, "jon", 2);
    let jon = of(JON);
    let left = jon.locked_until - jon.now;
    assert!(left > 16 * SECOND && left <= 32 * SECOND, "the third lock of a row: {jon:?}");
    agent.kill().unwrap();
    agent.wait().unwrap();
}

#[test]
fn all_that_is_on_the_books_goes_on_over_a_restart() {
    let setup = Setup { config: Some(CONFIG), ..Setup::default() };
    if !enter("all_that_is_on_the_books_goes_on_over_a_restart", &setup) {
        return;
    }
    let change = || {
        agent::kill_9().unwrap();
        agent::start().unwrap()
    };
    play(change);
}
