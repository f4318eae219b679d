//! The observer under more programs than anybody reads, and over a restart.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use std::path::Path;

use nix::sys::signal::{Signal, kill};
use portcullis_common::observer::PIN_LINKS;
use portcullis_tests::inside::{Setup, enter, long};
use portcullis_tests::stack::without_delays;
use portcullis_tests::su::{self, JON, KON};
use portcullis_tests::system::{number, portcullis, wait_for};
use portcullis_tests::{agent, bpf, looks, tiny, watched};
use serde_json::Value;

/// A watched program that ends at once.
const PROGRAM: &str = "/run/storm";
const CONFIG: &str = r#"
break_glass = "admin"
[default]
deny = 16
[observer]
watch = ["/bin/su", "/run/storm"]
"#;
const SETUP: Setup<'static> = Setup { config: Some(CONFIG), no_agent: false, bare: false };
const THREADS: u32 = 4;

fn told() -> [u64; 3] {
    ["starts", "ends", "lost"].map(|field| watched::counted(field).unwrap())
}

/// Failed attempts at a user, and whose they were.
fn failures(user: &str) -> Vec<Value> {
    let answer = portcullis(&["explain", user]).unwrap();
    let all = answer["attempts"].as_array().unwrap().iter();
    all.filter(|one| one["outcome"] == "fail").cloned().collect()
}

#[test]
fn a_storm_of_programs_loses_nothing_silently_and_no_record() {
    if !enter("a_storm_of_programs_loses_nothing_silently_and_no_record", &SETUP) {
        return;
    }
    without_delays().unwrap();
    tiny::write(Path::new(PROGRAM)).unwrap();
    watched::wait_loaded().unwrap();
    // Started as what it is: its file has been taken up.
    tiny::run(Path::new(PROGRAM), 1).unwrap();
    watched::wait_program("the program", |seen| seen["program"] == "storm").unwrap();
    wait_for("its end", 10, || Ok(told() == [1, 1, 0])).unwrap();
    let agent = agent::pid().unwrap().unwrap();
    let mut programs = 1;
    let mut guesses = 0;
    // In the second storm nobody reads: the ring buffer holds 1,400 records.
    for (storm, signal) in
        [(if long() { 1_000_000 } else { 20_000 }, Signal::SIGCONT), (8_000, Signal::SIGSTOP)]
    {
        kill(agent, signal).unwrap();
        std::thread::scope(|scope| {
            let storm: Vec<_> = (0..THREADS)
                .map(|_| scope.spawn(move || tiny::run(Path::new(PROGRAM), storm / THREADS)))
                .collect();
            for _ in 0..4 {
                assert!(!su::attempt(KON, "jon", "wrong").unwrap().let_in);
                assert!(!su::attempt(JON, "kon", "wrong").unwrap().let_in);
            }
            storm.into_iter().for_each(|one| one.join().unwrap().unwrap());
        });
        guesses += 4;
        programs += u64::from(storm) + 8;
    }
    kill(agent, Signal::SIGCONT).unwrap();
    // Each start and each end was told or counted as lost; none is neither.
    let whole = wait_for("the last end", 30, || Ok(told().iter().sum::<u64>() == 2 * programs));
    assert!(whole.is_ok(), "{programs} programs, told or lost: {:?}", told());
    let lost = told()[2];
    println!("{programs} programs, {lost} starts and ends lost");
    assert!(lost > 0, "the storm was none");
    wait_for("the word that something was lost", 10, || Ok(!watched::events("observer_lost")?.is_empty()))
        .unwrap();
    // Records of the PAM line have a ring buffer of their own.
    assert_eq!(portcullis(&["status"]).unwrap()["events_lost"], 0);
    for (user, by) in [("jon", KON), ("kon", JON)] {
        assert_eq!(number(user, "failures").unwrap(), guesses);
        let failures = failures(user);
        assert_eq!(failures.len() as u64, guesses, "{failures:?}");
        assert!(failures.iter().all(|one| one["actor"]["uid"] == by), "{failures:?}");
    }
    // Who does not know everything concludes nothing.
    assert_eq!((watched::counted("unrecorded").unwrap(), watched::counted("no_process").unwrap()), (0, 0));
}

#[test]
fn a_new_agent_replaces_the_observers_programs_in_one_step() {
    if !enter("a_new_agent_replaces_the_observers_programs_in_one_step", &SETUP) {
        return;
    }
    watched::wait_loaded().unwrap();
    let programs = || PIN_LINKS.map(|link| bpf::program_number(link).unwrap());
    let before = programs();
    // A program that runs meanwhile: its start was told by the older one, its end by the newer one.
    let mut su = su::Su::start(KON, "jon").unwrap();
    let pid = su.pid().as_raw();
    su.wait_prompt().unwrap();
    agent::kill_9().unwrap();
    assert_eq!(programs(), before, "the kernel's side goes on without an agent");
    let mut second = agent::start().unwrap();
    watched::wait_loaded().unwrap();
    let after = programs();
    assert!(before.iter().all(|old| !after.contains(old)), "{before:?} {after:?}");
    su.submit("wrong").unwrap();
    assert!(!su.verdict().unwrap().let_in);
    assert_eq!(watched::wait_end("su", pid).unwrap()["result"], "exit 1");
    // What the agent itself has put there is nobody's tampering.
    looks::wait(2).unwrap();
    let alarms = portcullis(&["alarms"]).unwrap();
    assert!(!alarms.to_string().contains("/observer-v1/"), "{alarms}");
    second.kill().unwrap();
    second.wait().unwrap();
}
