//! A gate of a new ABI version takes over from the one that runs, while su with either version's module go on: no guess is
//! lost or let through, and no two gates answer at the same moment.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is how a test fails, in its helpers too")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use portcullis_common::abi::{Answer, Version, map, verdict};
use portcullis_common::client::Error;
use portcullis_common::ledger::NEVER;
use portcullis_tests::crowd::Crowd;
use portcullis_tests::inside::{Kind, SHORT, Setup, enter_a};
use portcullis_tests::next::{NEW, OLD, built, new_module};
use portcullis_tests::stack::must;
use portcullis_tests::su::{self, JON, KON, Su};
use portcullis_tests::system::{Counter, Hold, password, run, wait_for};
use portcullis_tests::{agent, ledger};

const ADMIN: u32 = 2003;
const DENY: usize = 3;

/// A guess may be held for as long as an upgrade takes on a busy machine, and still be one that is out.
fn patient() -> String {
    SHORT.replace("reservation_max_age = \"4s\"", "reservation_max_age = \"60s\"")
}

/// Whether a gate gives another answer than MOVED.
fn answers(version: &Version) -> bool {
    match ledger::in_version(version, ADMIN) {
        Ok(Answer { verdict: verdict::MOVED, .. }) | Err(Error::Open(libc::ENOENT)) => false,
        Ok(_) => true,
        Err(error) => panic!("the gate of ABI {}: {error}", version.abi),
    }
}

/// Looks at both gates, again and again.
struct Watch {
    over: Arc<AtomicBool>,
    seen: JoinHandle<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    old: u64,
    new: u64,
    /// Times that the old one answered after the new one had.
    both: u64,
}

impl Watch {
    fn begin() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&over);
        let seen = std::thread::spawn(move || {
            let mut seen = Seen::default();
            while !end.load(Ordering::Relaxed) {
                seen.new += u64::from(answers(&NEW));
                // Once the new one has answered, the old one may not any more.
                if answers(&OLD) {
                    seen.old += 1;
                    seen.both += u64::from(seen.new > 0);
                }
            }
            seen
        });
        Self { over, seen }
    }

    /// Fails if there were two gates at a time, or only one all the while.
    fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        let seen = self.seen.join().unwrap();
        println!("{seen:?}");
        assert_eq!(seen.both, 0, "the old gate answered after the new one: {seen:?}");
        assert!(seen.old > 0 && seen.new > 0, "the watch saw no change: {seen:?}");
    }
}

fn upgrade() -> Child {
    let mut gate = Command::new(built("portcullisd"));
    gate.arg("gate").stdin(Stdio::null());
    gate.spawn().unwrap()
}

fn old_pins_gone() {
    wait_for("the end of the old pins", 20, || Ok(!Path::new(OLD.folder).exists())).unwrap();
}

#[test]
fn two_hundred_guesses_across_an_upgrade_never_exceed_deny() {
    let config = patient();
    let setup = Setup { config: Some(&config), ..Setup::default() };
    if !enter_a(Kind::Next, "two_hundred_guesses_across_an_upgrade_never_exceed_deny", &setup) {
        return;
    }
    let hold = Hold::begin().unwrap();
    let counter = Counter::install(Hold::WAIT).unwrap();
    agent::kill_9().unwrap();
    // Two guesses are out when the gate changes, by programs that know the old one only.
    let mut first = Crowd::at_the_prompt(DENY - 1).unwrap();
    let mut old = Crowd::at_the_prompt(95).unwrap();
    let mut late = Crowd::at_the_prompt(8).unwrap();
    new_module().unwrap();
    let mut new = Crowd::at_the_prompt(95).unwrap();
    first.submit("wrong").unwrap();
    wait_for("two guesses in the check", 30, || Ok(counter.guesses()? == DENY - 1)).unwrap();
    let watch = Watch::begin();
    let mut gate = upgrade();
    // All the while it loads, freezes, copies.
    for crowd in [&mut old, &mut new] {
        crowd.submit("wrong").unwrap();
    }
    assert!(gate.wait().unwrap().success());
    assert!(Path::new(OLD.gate).exists(), "it says that it has moved until an agent serves");
    let carried = ledger::in_version(&NEW, JON).unwrap();
    assert_eq!(carried.failures + carried.reservations, 2, "{carried:?}");
    let mut agent = agent::start_program(&built("portcullisd")).unwrap();
    hold.end().unwrap();
    late.submit("wrong").unwrap();
    for crowd in [first, old, new, late] {
        assert_eq!(crowd.let_in().unwrap(), 0);
    }
    watch.end();
    assert_eq!(counter.guesses().unwrap(), DENY, "guesses that reached the check");
    assert_ne!(ledger::in_version(&NEW, JON).unwrap().locked_until, 0);
    old_pins_gone();
    agent.kill().unwrap();
    agent.wait().unwrap();
}

#[test]
fn a_right_password_in_flight_across_an_upgrade_clears_the_failures() {
    let config = patient();
    let setup = Setup { config: Some(&config), ..Setup::default() };
    if !enter_a(Kind::Next, "a_right_password_in_flight_across_an_upgrade_clears_the_failures", &setup) {
        return;
    }
    assert!(!su::attempt(KON, "jon", "wrong").unwrap().let_in);
    let hold = Hold::begin().unwrap();
    let counter = Counter::install(Hold::WAIT).unwrap();
    agent::kill_9().unwrap();
    let mut flying = Su::start(KON, "jon").unwrap();
    flying.wait_prompt().unwrap();
    flying.submit(&password("jon")).unwrap();
    wait_for("the guess in the check", 30, || Ok(counter.guesses()? == 1)).unwrap();
    assert!(upgrade().wait().unwrap().success());
    let carried = ledger::in_version(&NEW, JON).unwrap();
    assert_eq!((carried.failures, carried.reservations), (1, 1), "{carried:?}");
    let mut agent = agent::start_program(&built("portcullisd")).unwrap();
    hold.end().unwrap();
    assert!(flying.verdict().unwrap().let_in);
    let after = ledger::in_version(&NEW, JON).unwrap();
    assert_eq!((after.failures, after.reservations), (0, 0), "{after:?}");
    agent.kill().unwrap();
    agent.wait().unwrap();
}

#[test]
fn an_upgrade_that_is_killed_again_and_again_loses_nothing() {
    if !enter_a(Kind::Next, "an_upgrade_that_is_killed_again_and_again_loses_nothing", &Setup::short()) {
        return;
    }
    must("portcullis", &["lock", "kon"]).unwrap();
    for _ in 1..DENY {
        assert!(!su::attempt(KON, "jon", "wrong").unwrap().let_in);
    }
    agent::kill_9().unwrap();
    let watch = Watch::begin();
    let there = |name: &str| Path::new(NEW.folder).join(name).exists();
    // As soon as: it begins; the first table, the last, the settings are sealed; deaths are the new one's; it is pinned; the
    // old one stands still.
    let steps: [(&str, &dyn Fn() -> bool); 6] = [
        ("the folder", &|| there("")),
        ("a table", &|| there(map::ACCOUNTS)),
        ("the last table", &|| there(map::EVENTS)),
        ("the exit program", &|| there("exit_link")),
        ("the new gate", &|| there("gate")),
        ("the old gate frozen", &|| !answers(&OLD)),
    ];
    for (step, reached) in steps {
        let mut gate = upgrade();
        while !reached() {
            assert!(gate.try_wait().unwrap().is_none(), "it ended before {step}");
        }
        gate.kill().unwrap();
        println!("killed at {step}: {}", gate.wait().unwrap());
    }
    assert!(upgrade().wait().unwrap().success());
    watch.end();
    let kon = ledger::in_version(&NEW, KON).unwrap();
    assert_eq!(kon.locked_until, NEVER);
    let jon = ledger::in_version(&NEW, JON).unwrap();
    assert_eq!((jon.failures as usize, jon.locked_until), (DENY - 1, 0), "{jon:?}");
    // And it counts on.
    new_module().unwrap();
    assert!(!su::attempt(KON, "jon", "wrong").unwrap().let_in);
    assert_ne!(ledger::in_version(&NEW, JON).unwrap().locked_until, 0);
    let refused = run("portcullisd", &["gate"]).unwrap();
    assert!(
        !refused.0 && refused.1.contains("/sys/fs/bpf/portcullis/v2"),
        "the old agent is refused: {}",
        refused.1
    );
}
