//! `password requisite pam_portcullis.so`: passwd's question for the current password, with the real passwd.

#![allow(clippy::unwrap_used, reason = "this is how a test fails, in its helpers too")]

use std::path::Path;

use portcullis_tests::inside::{DENY_3, enter};
use portcullis_tests::system::{number, password, read, write};
use rexpect::session::PtySession;

fn failures() -> u64 {
    number("kon", "failures").unwrap()
}

/// kon's passwd, at the question for the current password.
fn passwd() -> PtySession {
    let mut session = rexpect::spawn("runuser -u kon -- passwd", Some(20_000)).unwrap();
    session.exp_string("urrent password:").unwrap();
    session
}

/// Answers; what passwd said after `until`.
fn answer(session: &mut PtySession, text: &str, until: &str) {
    session.send_line(text).unwrap();
    session.exp_string(until).unwrap();
}

#[test]
fn passwds_question_for_the_current_password_is_a_guess() {
    if !enter("passwds_question_for_the_current_password_is_a_guess", &DENY_3) {
        return;
    }
    let file = Path::new("/etc/pam.d/common-password");
    let stack = "password requisite pam_portcullis.so\n".to_owned() + &read(file).unwrap();
    write(file, &stack).unwrap();
    let right = password("kon");

    let mut session = passwd();
    answer(&mut session, "wrong", "unchanged");
    assert_eq!(failures(), 1);
    // A new password that is too weak does not count.
    let mut session = passwd();
    answer(&mut session, &right, "ew password:");
    assert_eq!(failures(), 1);
    for end in ["ew password:", "ew password:", "unchanged"] {
        answer(&mut session, "x", "etype new password:");
        answer(&mut session, "x", end);
    }
    assert_eq!(failures(), 1);
    // Nothing answered, nothing charged.
    let mut session = passwd();
    session.send_control('d').unwrap();
    session.exp_string("unchanged").unwrap();
    assert_eq!(failures(), 1);
    // A real change, with the password asked for once.
    let mut session = passwd();
    answer(&mut session, &right, "ew password:");
    answer(&mut session, "a-quite-long-one-17", "etype new password:");
    answer(&mut session, "a-quite-long-one-17", "updated successfully");
    assert_eq!(failures(), 1);
    for _ in 0..2 {
        let mut session = passwd();
        answer(&mut session, "wrong", "unchanged");
    }
    // Locked: the right one is refused too.
    let mut session = passwd();
    answer(&mut session, "a-quite-long-one-17", "unchanged");
}
