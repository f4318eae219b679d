//! sudo, situation by situation: whom it charges and what is recorded. See docs/ways-in.md.

#![allow(clippy::unwrap_used, reason = "this is how a test fails, in its helpers too")]

use std::path::Path;

use portcullis_tests::books::Books;
use portcullis_tests::inside::{DENY_3, enter};
use portcullis_tests::stack::{must, without_delays};
use portcullis_tests::system::{password, run, write};
use portcullis_tests::terminal::{Key, Terminal};

const COMMAND: &str = "runuser -u kon -- sudo -u jon id -un";

/// What kon may, and sudo's settings.
fn rules(lines: &str) {
    write(Path::new("/etc/sudoers.d/kon"), &format!("{lines}\n")).unwrap();
}

/// A sudo on a terminal, answered with these passwords; what it printed after the last.
fn sudo(command: &str, passwords: &[&str]) -> String {
    let mut sudo = Terminal::start(command).unwrap();
    for password in passwords {
        sudo.answer_to("[sudo] password for", password).unwrap();
    }
    sudo.rest().unwrap()
}

#[test]
fn sudo_charges_the_caller_for_his_own_password() {
    if !enter("sudo_charges_the_caller_for_his_own_password", &DENY_3) {
        return;
    }
    without_delays().unwrap();
    rules("kon ALL=(ALL) ALL");
    let right = password("kon");
    let mut books = Books::open("kon").unwrap();

    assert!(sudo(COMMAND, &["wrong", &right]).contains("jon"));
    assert_eq!(
        books.take().unwrap(),
        "fail sudo kon, pass sudo kon, cleared sudo kon → 0",
        "wrong, then right"
    );

    must("runuser", &["-u", "kon", "--", "sudo", "-k"]).unwrap();
    let text = sudo("runuser -u kon -- sudo -v", &["wrong", &right]);
    assert!(!text.contains("incorrect"), "{text}");
    assert_eq!(books.take().unwrap(), "fail sudo kon, pass sudo kon → 1", "sudo -v: no setcred, not cleared");

    // Three tries in one sudo, each a handle's next pam_authenticate.
    let text = sudo("runuser -u kon -- sudo -k -u jon id -un", &["wrong", "wrong", "wrong"]);
    assert!(text.contains("3 incorrect password attempts"), "{text}");
    let text = sudo("runuser -u kon -- sudo -k -u jon id -un", &[&right, &right, &right]);
    assert!(text.contains("incorrect password attempt"), "locked: {text}");
    assert_eq!(
        books.take().unwrap(),
        "fail sudo kon, fail sudo kon, fail sudo kon, refused sudo kon, refused sudo kon, refused sudo kon → locked",
        "three wrong, then the right one"
    );

    for key in [Key::CtrlC, Key::CtrlD] {
        let mut sudo = Terminal::start("runuser -u kon -- sudo -k -u jon id -un").unwrap();
        sudo.press_at("[sudo] password for", key).unwrap();
        sudo.rest().unwrap();
        assert_eq!(books.take().unwrap(), "→ 0", "{key:?}");
    }

    let (asked, text) = run("runuser", &["-u", "kon", "--", "sudo", "-n", "-k", "id"]).unwrap();
    assert!(!asked && text.contains("a password is required"), "{text}");
    assert_eq!(books.take().unwrap(), "→ 0", "sudo -n prompts for nothing and is charged nothing");

    must("chage", &["-E", "1", "kon"]).unwrap();
    let text = sudo("runuser -u kon -- sudo -k -u jon id -un", &[&right]);
    must("chage", &["-E", "-1", "kon"]).unwrap();
    assert!(text.contains("account validation failure"), "{text}");
    assert_eq!(books.take().unwrap(), "pass sudo kon → 0", "expired, right");
}

#[test]
fn sudo_cached_nopasswd_not_in_sudoers() {
    if !enter("sudo_cached_nopasswd_not_in_sudoers", &DENY_3) {
        return;
    }
    without_delays().unwrap();
    let right = password("kon");
    let mut books = Books::open("kon").unwrap();

    assert!(sudo("runuser -u kon -- sudo -k id", &["wrong"].repeat(3)).contains("incorrect"));
    assert_eq!(
        books.take().unwrap(),
        "fail sudo kon, fail sudo kon, fail sudo kon → locked",
        "not in sudoers: counted all the same"
    );
    let text = sudo("runuser -u kon -- sudo -k id", &[&right]);
    assert!(text.contains("not in the sudoers"), "{text}");
    assert_eq!(books.take().unwrap(), "pass sudo kon → 0", "not in sudoers, right: not confirmed");

    // The record of a password given is bound to the terminal: one terminal, two commands.
    rules("kon ALL=(ALL) ALL");
    let text = sudo("runuser -u kon -- sh -c 'sudo -u jon id -un; sudo -u jon id -un'", &[&right]);
    assert_eq!(text.matches("jon").count(), 2, "{text}");
    assert_eq!(
        books.take().unwrap(),
        "pass sudo kon, cleared sudo kon → 0",
        "the second command asks no password, and its setcred finds no pass to confirm"
    );

    rules("kon ALL=(ALL) NOPASSWD: ALL");
    must("portcullis", &["lock", "kon"]).unwrap();
    let (ran, text) = run("runuser", &["-u", "kon", "--", "sudo", "-n", "-u", "jon", "id", "-un"]).unwrap();
    assert!(ran && text.contains("jon"), "NOPASSWD, locked: {text}");
    assert_eq!(books.take().unwrap(), "→ locked", "NOPASSWD goes on while locked");
}

#[test]
fn sudo_charges_whose_password_it_asks() {
    if !enter("sudo_charges_whose_password_it_asks", &DENY_3) {
        return;
    }
    without_delays().unwrap();
    let mut books = Books::open("jon").unwrap();
    rules("Defaults targetpw\nkon ALL=(ALL) ALL");
    assert!(sudo(COMMAND, &["wrong", &password("jon")]).contains("jon"));
    assert_eq!(books.take().unwrap(), "fail sudo kon, pass sudo kon, cleared sudo kon → 0", "targetpw");

    let mut books = Books::open("kon").unwrap();
    rules("kon ALL=(ALL) ALL");
    let right = password("kon");
    sudo("runuser -u kon -- sudo -k -i -u jon id -un", &["wrong", &right]);
    assert_eq!(books.take().unwrap(), "fail sudo-i kon, pass sudo-i kon, cleared sudo-i kon → 0", "sudo -i");

    rules("Defaults !pam_setcred\nkon ALL=(ALL) ALL");
    sudo("runuser -u kon -- sudo -k -u jon id -un", &["wrong", &right]);
    assert_eq!(books.take().unwrap(), "fail sudo kon, pass sudo kon → 1", "!pam_setcred");
}
