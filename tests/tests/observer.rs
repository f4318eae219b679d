//! The observer, with real programs: su by kon who came in by sshd, stacks without our line, unix_chkpwd by hand.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::stack;
use portcullis_tests::su::{self, JON, KON};
use portcullis_tests::system::{number, portcullis, run, wait_for};
use serde_json::Value;

const SETUP: Setup<'static> = Setup { config: None, no_agent: false, bare: false };

fn observed() -> Vec<Value> {
    let (_, text) = run("portcullis", &["observe", "--json"]).unwrap();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn status(field: &str) -> u64 {
    portcullis(&["status"]).unwrap()["observer"][field].as_u64().unwrap()
}

fn wait_loaded() {
    wait_for("the observer", 20, || Ok(portcullis(&["status"])?["observer"]["loaded"] == true)).unwrap();
}

/// The newest `su` of that process, once it has ended.
fn ended(program: &str, pid: i32) -> Value {
    let mut found = Value::Null;
    wait_for("the program's end", 10, || {
        let all = observed();
        let one = all.into_iter().rev().find(|seen| seen["program"] == program && seen["pid"] == pid);
        found = one.unwrap_or_default();
        Ok(found["result"].is_string())
    })
    .unwrap();
    found
}

#[test]
fn a_failed_su_is_seen_with_who_where_and_how_it_ended() {
    if !enter("a_failed_su_is_seen_with_who_where_and_how_it_ended", &SETUP) {
        return;
    }
    wait_loaded();
    let mut su = su::Su::start(KON, "jon").unwrap();
    let pid = su.pid().as_raw();
    su.wait_prompt().unwrap();
    su.submit("wrong").unwrap();
    su.verdict().unwrap();
    let seen = ended("su", pid);
    assert_eq!((&seen["uid"], &seen["target"]), (&KON.into(), &"jon".into()), "{seen}");
    assert_eq!(seen["result"], "exit 1", "{seen}");
    assert!(seen["duration_ms"].as_u64().unwrap() >= 1000, "su sleeps after a wrong password: {seen}");
    assert!(seen["chain"].as_str().unwrap().ends_with("→ su"), "{seen}");
    // Recorded, and a process for the record: nothing is held against anybody.
    assert_eq!((status("unrecorded"), status("no_process"), status("lost")), (0, 0, 0));
}

#[test]
fn a_wrong_password_for_unix_chkpwd_by_hand_counts_for_its_user() {
    if !enter("a_wrong_password_for_unix_chkpwd_by_hand_counts_for_its_user", &SETUP) {
        return;
    }
    wait_loaded();
    let guess = || {
        let mut program = Command::new("/usr/sbin/unix_chkpwd");
        program.args(["kon", "nonull"]).uid(KON).gid(KON).stdin(Stdio::piped());
        let mut child = program.spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"wrong\0").unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(7));
    };
    guess();
    guess();
    // The first at once; the second may still be pam_unix's look.
    wait_for("a failure of kon's", 15, || Ok(number("kon", "failures")? == 1)).unwrap();
    guess();
    wait_for("another", 15, || Ok(number("kon", "failures")? == 2)).unwrap();
    assert_eq!(status("own_guesses"), 2);
    assert_eq!(number("jon", "failures").unwrap(), 0);
    let _ = JON;
    let _ = stack::without_delays;
}
