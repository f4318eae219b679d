//! What the agent does meanwhile changes no count: stopped, started and killed again and again, reloading, loading the gate
//! anew; and a lock that expires under a crowd that goes on guessing.

#![allow(clippy::unwrap_used, reason = "this is how a test fails, in its helpers too")]

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use portcullis_tests::crowd::at_once;
use portcullis_tests::inside::{DENY_3, Setup, enter};
use portcullis_tests::stack::{must, without_delays};
use portcullis_tests::su::{self, JON, KON};
use portcullis_tests::system::{Counter, password, read, run, wait_for};
use portcullis_tests::{agent, ledger};

const DENY: usize = 3;
const WRONG: usize = 50;
const RIGHT: usize = 20;

/// Runs crowds, wrong and right, while `meanwhile` is done over and over; how often it was done.
fn while_repeating(what: &str, counter: &Counter, meanwhile: impl Fn() + Sync) -> usize {
    let before = counter.guesses().unwrap();
    let over = AtomicBool::new(false);
    let (times, wrong, wrong_checked, right) = std::thread::scope(|scope| {
        let repeated = scope.spawn(|| {
            let mut times = 0;
            while !over.load(Ordering::SeqCst) {
                meanwhile();
                times += 1;
            }
            times
        });
        // Nothing may be left running when a crowd fails.
        let crowds = || {
            let wrong = at_once(WRONG, "wrong")?;
            let checked = counter.guesses()? - before;
            let locked = ledger::locked(JON)?;
            // The administrator's way that needs no agent. One that is killed in the middle of its answer is asked again.
            wait_for("the release", 10, || Ok(run("portcullis", &["unlock", "jon"])?.0))?;
            let right = at_once(RIGHT, &password("jon"))?;
            Ok::<_, portcullis_tests::Error>(((wrong, locked), checked, right))
        };
        let crowds = crowds();
        over.store(true, Ordering::SeqCst);
        let times = repeated.join().unwrap();
        let (wrong, checked, right) = crowds.unwrap();
        (times, wrong, checked, right)
    });
    println!(
        "{what}: done {times} times; of {WRONG} wrong ones {wrong_checked} checked, of {RIGHT} right ones {right} let in"
    );
    assert_eq!((wrong, wrong_checked), ((0, true), DENY), "{what}");
    assert_eq!(right, RIGHT, "{what}");
    assert_eq!(counter.guesses().unwrap() - before, DENY + RIGHT, "{what}");
    let row = ledger::of(JON).unwrap();
    assert_eq!((row.failures, row.reservations, row.locked_until), (0, 0, 0), "{what}");
    times
}

#[test]
fn crowds_while_the_agent_reloads_restarts_and_is_stopped() {
    if !enter("crowds_while_the_agent_reloads_restarts_and_is_stopped", &DENY_3) {
        return;
    }
    without_delays().unwrap();
    let counter = Counter::install("").unwrap();

    let reloads = while_repeating("portcullis reload", &counter, || {
        must("portcullis", &["reload"]).unwrap();
    });
    assert!(reloads > 1);

    let loads = while_repeating("the gate loaded anew", &counter, || {
        must("portcullisd", &["gate"]).unwrap();
    });
    assert!(loads > 1);

    agent::kill_9().unwrap();
    let starts = while_repeating("started and killed", &counter, || {
        let mut next = agent::start().unwrap();
        next.kill().unwrap();
        next.wait().unwrap();
    });
    assert!(starts > 1);

    let mut stopped = agent::start().unwrap();
    let process = agent::pid().unwrap().unwrap();
    kill(process, Signal::SIGSTOP).unwrap();
    let before = counter.guesses().unwrap();
    assert_eq!(at_once(WRONG, "wrong").unwrap(), 0);
    assert_eq!(counter.guesses().unwrap() - before, DENY);
    assert!(ledger::locked(JON).unwrap(), "locked while the agent stands still");
    kill(process, Signal::SIGCONT).unwrap();
    must("portcullis", &["unlock", "jon"]).unwrap();
    kill(process, Signal::SIGSTOP).unwrap();
    assert_eq!(at_once(RIGHT, &password("jon")).unwrap(), RIGHT);
    kill(process, Signal::SIGCONT).unwrap();
    stopped.kill().unwrap();
    stopped.wait().unwrap();
}

const EXPIRING: &str = r#"
break_glass = "admin"
[default]
deny = 3
fail_interval = "15m"
unlock_time = "2s"
"#;
/// How many locks have to run out under the crowd.
const LOCKS: u32 = 3;

#[test]
fn guesses_that_go_on_while_locks_expire() {
    if !enter("guesses_that_go_on_while_locks_expire", &Setup { config: Some(EXPIRING), ..DENY_3 }) {
        return;
    }
    without_delays().unwrap();
    let counter = Counter::install("date +%s%N >> /run/times").unwrap();
    // A dozen who try again as soon as they are told, until the account has been locked once more than `LOCKS` times.
    let trips = || Ok::<_, portcullis_tests::Error>(ledger::of(JON)?.trips);
    std::thread::scope(|scope| {
        let guessers: Vec<_> = (0..12)
            .map(|n| {
                scope.spawn(move || {
                    let actor = if n % 2 == 0 { KON } else { JON };
                    while trips().unwrap() <= LOCKS {
                        assert!(!su::attempt(actor, "jon", "wrong").unwrap().let_in);
                    }
                })
            })
            .collect();
        guessers.into_iter().for_each(|guesser| guesser.join().unwrap());
    });
    // Every guess that reached the check is one of the `deny` of a lock, or still on the books.
    let row = ledger::of(JON).unwrap();
    let guesses = counter.guesses().unwrap();
    println!("{} locks, {guesses} guesses checked, {} on the books", row.trips, row.failures);
    assert_eq!(row.reservations, 0, "{row:?}");
    assert_eq!(guesses, DENY * row.trips as usize + row.failures as usize, "{row:?}");
    // And by the clock: no guess is less than unlock_time after the one that is `deny` before it.
    let times = read(Path::new("/run/times")).unwrap();
    let mut times: Vec<u64> = times.lines().map(|line| line.parse().unwrap()).collect();
    times.sort_unstable();
    assert_eq!(times.len(), guesses);
    let later = times.iter().skip(DENY);
    let shortest = times.iter().zip(later).map(|(first, later)| Duration::from_nanos(later - first)).min();
    println!("{DENY} guesses are followed by the next after {shortest:?} at the soonest");
    assert!(shortest.unwrap() >= Duration::from_secs(2), "{times:?}");
}
