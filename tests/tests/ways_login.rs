//! login at a terminal: what is recorded. See docs/ways-in.md.

#![allow(clippy::unwrap_used, reason = "this is how a test fails, in its helpers too")]

use portcullis_tests::books::Books;
use portcullis_tests::inside::{DENY_3, enter};
use portcullis_tests::stack::{must, without_delays};
use portcullis_tests::system::password;
use portcullis_tests::terminal::{Key, Terminal};

#[test]
fn login_right_wrong_unknown_expired() {
    if !enter("login_right_wrong_unknown_expired", &DENY_3) {
        return;
    }
    without_delays().unwrap();
    let right = password("jon");
    let mut books = Books::open("jon").unwrap();

    // login asks again on the same handle.
    let mut login = Terminal::start("login jon").unwrap();
    login.answer("wrong").unwrap();
    login.wait("login:").unwrap();
    login.line("jon").unwrap();
    login.answer(&right).unwrap();
    login.wait("jon@").unwrap();
    login.line("exit").unwrap();
    login.rest().unwrap();
    assert_eq!(
        books.take().unwrap(),
        "fail login root, pass login root, cleared login root → 0",
        "wrong, then right"
    );

    // Another user on the same handle: each attempt counts for its own account, and only the one that is let in is
    // cleared.
    let mut login = Terminal::start("login jon").unwrap();
    login.answer("wrong").unwrap();
    login.wait("login:").unwrap();
    login.line("nosuch").unwrap();
    login.answer("wrong").unwrap();
    login.wait("login:").unwrap();
    login.line("kon").unwrap();
    login.answer("wrong").unwrap();
    login.wait("login:").unwrap();
    login.line("kon").unwrap();
    login.answer(&password("kon")).unwrap();
    login.wait("kon@").unwrap();
    login.line("exit").unwrap();
    login.rest().unwrap();
    assert_eq!(
        books.take().unwrap(),
        "fail login root, fail login root for an unknown name, fail login root for kon, pass login root for kon, \
         cleared login root for kon → 1",
        "several users on one handle"
    );

    must("chage", &["-E", "1", "jon"]).unwrap();
    let mut login = Terminal::start("login jon").unwrap();
    login.answer(&right).unwrap();
    let text = login.rest().unwrap();
    assert!(text.contains("expired"), "{text}");
    must("chage", &["-E", "-1", "jon"]).unwrap();
    assert_eq!(books.take().unwrap(), "pass login root → 0", "expired, right");
}

#[test]
fn login_interrupted_and_locked() {
    if !enter("login_interrupted_and_locked", &DENY_3) {
        return;
    }
    without_delays().unwrap();
    let mut books = Books::open("jon").unwrap();
    let mut login = Terminal::start("login jon").unwrap();
    login.press(Key::CtrlC).unwrap();
    login.rest().unwrap();
    assert_eq!(books.take().unwrap(), "→ 0", "Ctrl-C");

    let mut login = Terminal::start("login jon").unwrap();
    login.press(Key::CtrlD).unwrap();
    login.wait("Login incorrect").unwrap();
    login.wait("login:").unwrap();
    login.kill().unwrap();
    assert_eq!(books.take().unwrap(), "→ 0", "Ctrl-D");

    let mut login = Terminal::start("login jon").unwrap();
    login.wait("assword:").unwrap();
    login.kill().unwrap();
    assert_eq!(books.take().unwrap(), "→ 0", "killed at the prompt");

    let mut login = Terminal::start("login jon").unwrap();
    for _ in 0..3 {
        login.answer("wrong").unwrap();
        login.wait("login:").unwrap();
        login.line("jon").unwrap();
    }
    login.answer(&password("jon")).unwrap();
    login.wait("locked").unwrap();
    login.wait("login:").unwrap();
    login.kill().unwrap();
    assert_eq!(
        books.take().unwrap(),
        "fail login root, fail login root, fail login root, refused login root → locked",
        "three wrong, one right, on one handle"
    );
}
