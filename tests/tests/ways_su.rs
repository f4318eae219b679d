//! su and `su -`, situation by situation: what is recorded, and whether it locks. See docs/ways-in.md.

#![allow(clippy::unwrap_used, reason = "this is how a test fails, in its helpers too")]

use portcullis_tests::books::Books;
use portcullis_tests::inside::{DENY_3, enter};
use portcullis_tests::stack::{must, without_delays};
use portcullis_tests::su::{JON, KON, Su, attempt};
use portcullis_tests::system::{password, run};
use portcullis_tests::terminal::{Key, Terminal};

#[test]
fn su_right_wrong_unknown_expired() {
    if !enter("su_right_wrong_unknown_expired", &DENY_3) {
        return;
    }
    without_delays().unwrap();
    let right = password("jon");
    let mut books = Books::open("jon").unwrap();

    assert!(attempt(KON, "jon", &right).unwrap().let_in);
    assert_eq!(books.take().unwrap(), "pass su kon, cleared su kon → 0", "right");

    assert!(!attempt(KON, "jon", "wrong").unwrap().let_in);
    assert_eq!(books.take().unwrap(), "fail su kon → 1", "wrong");

    assert!(!attempt(JON, "jon", "wrong").unwrap().let_in);
    assert_eq!(books.take().unwrap(), "fail su jon → 1", "wrong, by jon himself");

    assert!(!attempt(KON, "jon", "").unwrap().let_in);
    assert_eq!(books.take().unwrap(), "fail su kon → 1", "an empty password is a guess");

    // su looks the user up itself and never begins with PAM.
    let mut su = Su::start(KON, "nosuch").unwrap();
    assert!(su.wait_prompt().is_err(), "no prompt for an unknown user");
    assert_eq!(books.take().unwrap(), "→ 0", "unknown user");

    // The password was right; the account phase refuses after that, so nothing is confirmed and nothing cleared.
    assert!(!attempt(KON, "jon", "wrong").unwrap().let_in);
    must("chage", &["-E", "1", "jon"]).unwrap();
    let verdict = attempt(KON, "jon", &right).unwrap();
    assert!(!verdict.let_in && verdict.output.contains("expired"), "{}", verdict.output);
    assert_eq!(books.take().unwrap(), "fail su kon, pass su kon → 1", "expired, right");
    assert!(!attempt(KON, "jon", "wrong").unwrap().let_in);
    assert_eq!(books.take().unwrap(), "fail su kon → 1", "expired, wrong");
    must("chage", &["-E", "-1", "jon"]).unwrap();

    // An old password that is to be changed: it was right, and su goes on only when the change is done.
    assert!(!attempt(KON, "jon", "wrong").unwrap().let_in);
    must("chage", &["-d", "0", "jon"]).unwrap();
    assert!(!attempt(KON, "jon", &right).unwrap().let_in);
    assert_eq!(books.take().unwrap(), "fail su kon, pass su kon → 1", "password to be changed, not changed");
}

#[test]
fn su_login_shell_has_a_service_of_its_own() {
    if !enter("su_login_shell_has_a_service_of_its_own", &DENY_3) {
        return;
    }
    without_delays().unwrap();
    let mut books = Books::open("jon").unwrap();
    let login_shell = |password: &str| {
        let mut su = Terminal::start("runuser -u kon -- su - jon -c 'echo in as $(id -un)'").unwrap();
        su.answer(password).unwrap();
        su.rest().unwrap().contains("in as jon")
    };
    assert!(login_shell(&password("jon")));
    assert_eq!(books.take().unwrap(), "pass su-l kon, cleared su-l kon → 0", "right");
    for _ in 0..3 {
        assert!(!login_shell("wrong"));
    }
    assert!(!login_shell(&password("jon")), "locked");
    assert_eq!(
        books.take().unwrap(),
        "fail su-l kon, fail su-l kon, fail su-l kon, refused su-l kon → locked",
        "three wrong, one right"
    );
}

#[test]
fn su_interrupted_at_the_prompt_records_nothing() {
    if !enter("su_interrupted_at_the_prompt_records_nothing", &DENY_3) {
        return;
    }
    let mut books = Books::open("jon").unwrap();
    for key in [Key::CtrlC, Key::CtrlD] {
        let mut su = Terminal::start("runuser -u kon -- su jon -c 'echo in'").unwrap();
        su.press(key).unwrap();
        su.rest().unwrap();
        assert_eq!(books.take().unwrap(), "→ 0", "{key:?}");
    }
}

#[test]
fn su_counts_the_uid_whatever_its_name() {
    if !enter("su_counts_the_uid_whatever_its_name", &DENY_3) {
        return;
    }
    without_delays().unwrap();
    // A second name of jon's uid, with a password of its own.
    must("useradd", &["--non-unique", "--uid", "2002", "--gid", "2002", "--no-create-home", "jonathan"])
        .unwrap();
    must("sh", &["-c", "echo jonathan:another | chpasswd -c SHA512"]).unwrap();
    let mut books = Books::open("jon").unwrap();
    assert!(!attempt(KON, "jon", "wrong").unwrap().let_in);
    assert!(!attempt(KON, "jonathan", "wrong").unwrap().let_in);
    assert!(!attempt(KON, "jon", "wrong").unwrap().let_in);
    assert!(!attempt(KON, "jonathan", "another").unwrap().let_in, "locked under its other name too");
    assert_eq!(books.take().unwrap(), "fail su kon, fail su kon, fail su kon, refused su kon → locked");
    assert!(attempt(KON, "jonathan", "another").unwrap().let_in, "released under its other name too");
    // Root's own way is open all the time.
    let (ok, text) = run("su", &["jonathan", "-c", "id -u"]).unwrap();
    assert!(ok && text.contains("2002"), "{text}");
}
