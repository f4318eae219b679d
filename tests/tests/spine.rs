//! Three wrong passwords at `su` lock the account: whole-system tests with the real su, passwd, cron and agent.

#![allow(clippy::unwrap_used, reason = "this is how a test fails, in its helpers too")]

use nix::sys::signal::Signal;
use portcullis_tests::inside::{Setup, enter, xtask};
use portcullis_tests::su::{self, JON, KON, Su};
use portcullis_tests::system::{Counter, password, portcullis, run, shadow_locked, wait_for};

/// deny = 3, short times, no shadow lock.
const SHORT: &str = r#"
break_glass = "admin"
reservation_max_age = "4s"
[default]
deny = 3
fail_interval = "15m"
unlock_time = "10m"
shadow_lock = false
"#;

fn short() -> Setup<'static> {
    Setup { config: Some(SHORT), ..Setup::default() }
}

/// The account row of jon as the agent shows it, as text.
fn jon() -> String {
    portcullis(&["explain", "jon"]).unwrap().to_string()
}

/// Starts `count` su at once, all of which wait at their prompts, then answers them all; how many were let in.
fn at_once(count: usize, password: &str) -> usize {
    let mut all: Vec<Su> = (0..count).map(|_| Su::start(KON, "jon").unwrap()).collect();
    for su in &mut all {
        su.wait_prompt().unwrap();
    }
    for su in &mut all {
        su.submit(password).unwrap();
    }
    let verdicts: Vec<_> = all.into_iter().map(|su| su.verdict().unwrap()).collect();
    assert_eq!(verdicts.len(), count);
    assert!(verdicts.iter().all(|verdict| verdict.signal.is_none()), "every process ends with a verdict");
    verdicts.iter().filter(|verdict| verdict.let_in).count()
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
fn parallel_wrong_guesses_never_exceed_deny() {
    if !enter("parallel_wrong_guesses_never_exceed_deny", &short()) {
        return;
    }
    let counter = Counter::install("").unwrap();
    assert_eq!(at_once(200, "wrong"), 0);
    assert_eq!(counter.guesses().unwrap(), 3);
}

#[test]
fn correct_logins_at_once_all_succeed_and_lock_nobody() {
    if !enter("correct_logins_at_once_all_succeed_and_lock_nobody", &short()) {
        return;
    }
    assert_eq!(at_once(20, &password("jon")), 20);
    assert!(su::attempt(KON, "jon", &password("jon")).unwrap().let_in);
}

#[test]
fn the_gate_counts_without_the_agent() {
    if !enter("the_gate_counts_without_the_agent", &Setup { no_agent: true, ..short() }) {
        return;
    }
    let counter = Counter::install("").unwrap();
    assert_eq!(at_once(20, "wrong"), 0);
    assert_eq!(counter.guesses().unwrap(), 3);
    assert!(!su::attempt(KON, "jon", &password("jon")).unwrap().let_in);
}

#[test]
fn a_confirmed_success_clears_the_failures() {
    if !enter("a_confirmed_success_clears_the_failures", &short()) {
        return;
    }
    for _ in 0..2 {
        for _ in 0..2 {
            assert!(!su::attempt(KON, "jon", "wrong").unwrap().let_in);
        }
        assert!(su::attempt(KON, "jon", &password("jon")).unwrap().let_in);
    }
}

#[test]
fn kill_while_the_password_is_checked_counts_at_once() {
    // Unresolved guesses would count by their age only long after this test.
    let config = SHORT.replace("\"4s\"", "\"10m\"");
    let setup = Setup { config: Some(&config), no_agent: true, ..Setup::default() };
    if !enter("kill_while_the_password_is_checked_counts_at_once", &setup) {
        return;
    }
    // Behind our line a program that does not end: the guess is out, its result never comes.
    let counter = Counter::install("exec sleep 1000").unwrap();
    for expected in 1..=3 {
        let mut su = Su::start(KON, "jon").unwrap();
        su.wait_prompt().unwrap();
        su.submit("wrong").unwrap();
        wait_for("the guess", 10, || Ok(counter.guesses()? == expected)).unwrap();
        su.signal(Signal::SIGKILL).unwrap();
        assert_eq!(su.verdict().unwrap().signal, Some(9));
    }
    // Long before the maximum age the third one has locked.
    assert!(!su::attempt(KON, "jon", &password("jon")).unwrap().let_in);
    assert_eq!(counter.guesses().unwrap(), 3);
}

#[test]
fn stopped_guesses_do_not_shut_the_owner_out() {
    if !enter("stopped_guesses_do_not_shut_the_owner_out", &short()) {
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
    if !enter("an_aborted_prompt_does_not_count", &short()) {
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
fn odd_names_lock_nobody() {
    if !enter("odd_names_lock_nobody", &short()) {
        return;
    }
    let long = "x".repeat(300);
    for name in ["a\u{1}b\u{7f}", long.as_str(), "../../etc/passwd", "-rf", "j\u{f6}n"] {
        // su's own stack lets root pass without a password: sshd's does not.
        let command = "echo wrong | pamtester sshd \"$1\" authenticate";
        let (ok, text) = run("sh", &["-c", command, "sh", name]).unwrap();
        assert!(!ok, "{name:?}: {text}");
    }
    assert!(su::attempt(KON, "jon", &password("jon")).unwrap().let_in);
    let (ok, text) = run("portcullis", &["status"]).unwrap();
    assert!(ok, "{text}");
}

#[test]
fn the_demos_story() {
    let status = std::process::Command::new(xtask().unwrap())
        .args(["sandbox", "--quiet", "--config", concat!(env!("CARGO_MANIFEST_DIR"), "/demo.toml"), "--bind"])
        .arg(concat!(env!("CARGO_BIN_EXE_portcullis-demo"), ":/opt/portcullis-demo"))
        .args(["--", "/opt/portcullis-demo"])
        .status()
        .unwrap();
    assert!(status.success());
}
