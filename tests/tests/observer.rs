//! The observer, with real programs: a failed su, unix_chkpwd by hand.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::su::{self, KON};
use portcullis_tests::system::{number, wait_for};
use portcullis_tests::watched::{counted, held_against_anybody, wait_end, wait_loaded};

const SETUP: Setup<'static> = Setup { config: None, no_agent: false, bare: false };

#[test]
fn a_failed_su_is_seen_with_who_where_and_how_it_ended() {
    if !enter("a_failed_su_is_seen_with_who_where_and_how_it_ended", &SETUP) {
        return;
    }
    wait_loaded().unwrap();
    let mut su = su::Su::start(KON, "jon").unwrap();
    let pid = su.pid().as_raw();
    su.wait_prompt().unwrap();
    su.submit("wrong").unwrap();
    su.verdict().unwrap();
    let seen = wait_end("su", pid).unwrap();
    assert_eq!((&seen["uid"], &seen["target"]), (&KON.into(), &"jon".into()), "{seen}");
    assert_eq!(seen["result"], "exit 1", "{seen}");
    assert!(seen["duration_ms"].as_u64().unwrap() >= 1000, "su sleeps after a wrong password: {seen}");
    assert!(seen["chain"].as_str().unwrap().ends_with("→ su"), "{seen}");
    // Recorded, and a process for the record: nothing is held against anybody.
    assert_eq!(held_against_anybody().unwrap(), [0; 3]);
}

#[test]
fn a_wrong_password_for_unix_chkpwd_by_hand_counts_for_its_user() {
    if !enter("a_wrong_password_for_unix_chkpwd_by_hand_counts_for_its_user", &SETUP) {
        return;
    }
    wait_loaded().unwrap();
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
    assert_eq!(counted("own_guesses").unwrap(), 2);
    assert_eq!(number("jon", "failures").unwrap(), 0);
}
