//! sshd and clients that go away: at the prompt, after sending the password, when the time for the logon is over.

#![allow(clippy::unwrap_used, reason = "this is how a test fails, in its helpers too")]

use std::path::Path;

use portcullis_tests::books::Books;
use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::ssh::{Sshd, wait_idle};
use portcullis_tests::stack::{must, without_delays};
use portcullis_tests::system::{Counter, password, wait_for, write};
use portcullis_tests::terminal::{Key, Terminal};

/// Unresolved guesses would count by their age only long after these tests.
const CONFIG: &str = r#"
break_glass = "admin"
reservation_max_age = "10m"
[default]
deny = 3
"#;
const SETUP: Setup<'_> = Setup { config: Some(CONFIG), no_agent: false, bare: false };
const METHODS: [&str; 2] = ["password", "keyboard-interactive"];
const ALL: &str = "PasswordAuthentication yes\nKbdInteractiveAuthentication yes";
/// While this is there no check ends.
const HOLD: &str = "/run/hold";

/// A client at its prompt.
fn at_the_prompt(sshd: &Sshd, method: &str) -> Terminal {
    sshd.at_terminal("jon", method, 1).unwrap()
}

#[test]
fn sshd_nothing_is_recorded_before_the_password_is_sent() {
    if !enter("sshd_nothing_is_recorded_before_the_password_is_sent", &SETUP) {
        return;
    }
    let sshd = Sshd::start(2211, ALL).unwrap();
    let short = Sshd::start(2212, &format!("{ALL}\nLoginGraceTime 2")).unwrap();
    let mut books = Books::open("jon").unwrap();
    books.leave_unjudged();
    for method in METHODS {
        for key in [Key::CtrlC, Key::CtrlD] {
            let mut client = at_the_prompt(&sshd, method);
            client.press(key).unwrap();
            client.rest().unwrap();
            wait_idle().unwrap();
            // There ssh answers an end of file with an empty password: nothing tells it from a guess.
            let empty = method == "keyboard-interactive" && key == Key::CtrlD;
            let expected = if empty { "fail sshd 127.0.0.1 → 1" } else { "→ 0" };
            assert_eq!(books.take().unwrap(), expected, "{method}, {key:?}");
        }
        let mut client = at_the_prompt(&sshd, method);
        client.wait("assword:").unwrap();
        client.kill().unwrap();
        wait_idle().unwrap();
        assert_eq!(books.take().unwrap(), "→ 0", "{method}, client killed at the prompt");

        let mut client = at_the_prompt(&short, method);
        client.wait("assword:").unwrap();
        wait_idle().unwrap();
        assert_eq!(books.take().unwrap(), "→ 0", "{method}, LoginGraceTime over at the prompt");
        client.kill().unwrap();
    }
}

#[test]
fn sshd_a_client_that_goes_after_the_password_is_recorded() {
    if !enter("sshd_a_client_that_goes_after_the_password_is_recorded", &SETUP) {
        return;
    }
    without_delays().unwrap();
    let sshd = Sshd::start(2213, ALL).unwrap();
    let short = Sshd::start(2214, &format!("{ALL}\nLoginGraceTime 3")).unwrap();
    let right = password("jon");
    let counter = Counter::install(&format!("while [ -e {HOLD} ]; do sleep 0.02; done")).unwrap();
    let mut books = Books::open("jon").unwrap();
    books.leave_unjudged();
    let mut guesses = 0;
    let mut recorded = |sshd: &Sshd, method: &str, password: &str, kill: bool| {
        write(Path::new(HOLD), "").unwrap();
        let mut client = sshd.client("jon", method, password).unwrap();
        guesses += 1;
        wait_for("the guess", 10, || Ok(counter.guesses()? == guesses)).unwrap();
        if kill {
            client.kill().unwrap();
        }
        // Else sshd ends it.
        client.wait().unwrap();
        std::fs::remove_file(HOLD).unwrap();
        wait_idle().unwrap();
        books.take().unwrap()
    };
    for method in METHODS {
        assert_eq!(recorded(&sshd, method, "wrong", true), "fail sshd 127.0.0.1 → 1", "{method}, wrong");
        let died = recorded(&short, method, &right, false);
        assert_eq!(died, "died sshd 127.0.0.1 → 1", "{method}, LoginGraceTime over during the check");
    }
    let gone = recorded(&sshd, "password", &right, true);
    assert_eq!(gone, "pass sshd 127.0.0.1, cleared sshd 127.0.0.1 → 0", "password, right");
    let gone = recorded(&sshd, "keyboard-interactive", &right, true);
    assert_eq!(gone, "pass sshd 127.0.0.1 → 0", "keyboard-interactive, right");
}

#[test]
fn sshd_killed_counts_a_sent_password_once() {
    if !enter("sshd_killed_counts_a_sent_password_once", &SETUP) {
        return;
    }
    let sshd = Sshd::start(2215, ALL).unwrap();
    let counter = Counter::install(&format!("while [ -e {HOLD} ]; do sleep 0.02; done")).unwrap();
    // In here there is no other sshd than those of this sandbox.
    let kill = || must("pkill", &["-9", "-f", "^sshd: jon"]).unwrap();
    let mut books = Books::open("jon").unwrap();
    books.leave_unjudged();
    let mut guesses = 0;
    for method in METHODS {
        let mut client = at_the_prompt(&sshd, method);
        client.wait("assword:").unwrap();
        kill();
        client.kill().unwrap();
        wait_idle().unwrap();
        assert_eq!(books.take().unwrap(), "→ 0", "{method}, at the prompt");

        write(Path::new(HOLD), "").unwrap();
        let mut client = sshd.client("jon", method, "wrong").unwrap();
        guesses += 1;
        wait_for("the guess", 10, || Ok(counter.guesses()? == guesses)).unwrap();
        kill();
        client.wait().unwrap();
        std::fs::remove_file(HOLD).unwrap();
        wait_idle().unwrap();
        assert_eq!(books.take().unwrap(), "died sshd 127.0.0.1 → 1", "{method}, during the check");

        let mut client = sshd.client("jon", method, "wrong").unwrap();
        guesses += 1;
        books.wait("fail sshd 127.0.0.1").unwrap();
        kill();
        client.wait().unwrap();
        wait_idle().unwrap();
        assert_eq!(books.take().unwrap(), "fail sshd 127.0.0.1 → 1", "{method}, during the delay");
    }
}
