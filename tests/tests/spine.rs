//! Three wrong passwords at `su` lock the account: whole-system tests with the real su, passwd, cron and agent.

#![allow(clippy::unwrap_used, reason = "this is how a test fails, in its helpers too")]

use nix::sys::signal::Signal;
use portcullis_tests::inside::{Setup, enter, xtask};
use portcullis_tests::su::{self, JON, KON, Su};
use portcullis_tests::system::{Counter, password, portcullis, run, shadow_locked, wait_for};

/// The account row of jon as the agent shows it, as text.
fn jon() -> String {
    portcullis(&["explain", "jon"]).unwrap().to_string()
}

#[test]
fn three_wrong_passwords_lock_and_the_administrator_releases() {
    if !enter("three_wrong_passwords_lock_and_the_administrator_releases", &Setup::default()) {
        return;
    }
    let counter = Counter::install("").unwrap();
    let right = password("jon");
    for _ in 0..3 {
        assert!(!shadow_locked("jon").unwrap());
        assert!(!su::attempt(KON, "jon", "wrong").unwrap().let_in);
    }
    wait_for("the shadow lock", 10, || shadow_locked("jon")).unwrap();
    assert_eq!(counter.guesses().unwrap(), 3);
    // While it is locked no password, right or wrong, reaches the module behind ours.
    assert!(!su::attempt(KON, "jon", &right).unwrap().let_in);
    assert!(!su::attempt(KON, "jon", "wrong").unwrap().let_in);
    assert_eq!(counter.guesses().unwrap(), 3);
    // A lock refuses logons, not the machine's own work.
    let (root, text) = run("su", &["jon", "-c", "id -un"]).unwrap();
    assert!(root && text.contains("jon"), "root's su: {text}");
    let (released, text) = run("portcullis", &["unlock", "jon"]).unwrap();
    assert!(released, "{text}");
    wait_for("the release", 10, || Ok(!shadow_locked("jon")?)).unwrap();
    assert!(su::attempt(KON, "jon", &right).unwrap().let_in);
}

#[test]
fn stopped_guesses_do_not_shut_the_owner_out() {
    if !enter("stopped_guesses_do_not_shut_the_owner_out", &Setup::short()) {
        return;
    }
    let counter =
        Counter::install("case $(cat /run/hold 2>/dev/null) in yes) exec sleep 1000;; esac").unwrap();
    std::fs::write("/run/hold", "yes").unwrap();
    let mut stopped = Vec::new();
    for n in 0..3 {
        let mut su = Su::start(KON, "jon").unwrap();
        su.wait_prompt().unwrap();
        su.submit("wrong").unwrap();
        if n < 2 {
            wait_for("the guess", 10, || Ok(counter.guesses()? == n + 1)).unwrap();
        }
        su.signal(Signal::SIGSTOP).unwrap();
        stopped.push(su);
    }
    std::fs::write("/run/hold", "no").unwrap();
    // jon himself, another actor, still finds a guess.
    assert!(su::attempt(JON, "jon", &password("jon")).unwrap().let_in);
    // Past the maximum age the two that hold one are failures like any other: one more and jon is locked.
    wait_for("the two to lapse", 15, || Ok(jon().contains("\"failures\":2"))).unwrap();
    assert!(!su::attempt(JON, "jon", "wrong").unwrap().let_in);
    assert!(!su::attempt(JON, "jon", &password("jon")).unwrap().let_in);
    for su in stopped {
        su.signal(Signal::SIGKILL).unwrap();
        su.verdict().unwrap();
    }
}

#[test]
fn an_aborted_prompt_does_not_count() {
    if !enter("an_aborted_prompt_does_not_count", &Setup::short()) {
        return;
    }
    for _ in 0..4 {
        let mut session = rexpect::spawn("runuser -u kon -- su jon -c id", Some(10_000)).unwrap();
        session.exp_string("assword:").unwrap();
        session.send_control('c').unwrap();
        session.exp_eof().unwrap();
    }
    assert!(su::attempt(KON, "jon", &password("jon")).unwrap().let_in);
}

#[test]
fn the_demos_story() {
    let status = std::process::Command::new(xtask().unwrap())
        .args(["sandbox", "--quiet", "--config", concat!(env!("CARGO_MANIFEST_DIR"), "/demo.toml"), "--bind"])
        .arg(concat!(env!("CARGO_BIN_EXE_portcullis-demo"), ":/opt/portcullis-demo"))
        .args(["--", "/opt/portcullis-demo", "--siege"])
        .status()
        .unwrap();
    assert!(status.success());
}
