//! sshd, method by method and situation by situation: what is recorded. See docs/ways-in.md.

#![allow(clippy::unwrap_used, reason = "this is how a test fails, in its helpers too")]

use portcullis_tests::books::Books;
use portcullis_tests::inside::{DENY_3, enter};
use portcullis_tests::ssh::{Sshd, make_key};
use portcullis_tests::stack::{must, without_delays};
use portcullis_tests::system::{password, run};

const PASSWORD: &str = "password";
const INTERACTIVE: &str = "keyboard-interactive";
const KEY: &str = "publickey";
const ALL: &str = "PasswordAuthentication yes\nKbdInteractiveAuthentication yes";

#[test]
fn sshd_right_wrong_unknown_expired() {
    if !enter("sshd_right_wrong_unknown_expired", &DENY_3) {
        return;
    }
    without_delays().unwrap();
    let sshd = Sshd::start(2201, ALL).unwrap();
    let right = password("jon");
    let mut books = Books::open("jon").unwrap();
    for method in [PASSWORD, INTERACTIVE] {
        assert!(!sshd.logon("jon", method, "wrong").unwrap());
        assert_eq!(books.take().unwrap(), "fail sshd 127.0.0.1 → 1", "{method}, wrong");

        assert!(!sshd.logon("jon", method, "wrong").unwrap());
        assert!(sshd.logon("jon", method, &right).unwrap());
        assert_eq!(
            books.take().unwrap(),
            "fail sshd 127.0.0.1, pass sshd 127.0.0.1, cleared sshd 127.0.0.1 → 0",
            "{method}, wrong, then right"
        );

        assert!(!sshd.logon("nosuch", method, "wrong").unwrap());
        assert_eq!(
            books.take().unwrap(),
            "fail sshd 127.0.0.1 for an unknown name → 0",
            "{method}, unknown user"
        );

        assert!(!sshd.logon("jon", method, "wrong").unwrap());
        must("chage", &["-E", "1", "jon"]).unwrap();
        assert!(!sshd.logon("jon", method, &right).unwrap());
        must("chage", &["-E", "-1", "jon"]).unwrap();
        assert_eq!(
            books.take().unwrap(),
            "fail sshd 127.0.0.1, pass sshd 127.0.0.1 → 1",
            "{method}, expired, right"
        );
    }
}

#[test]
fn sshd_locks_passwords_and_keys() {
    if !enter("sshd_locks_passwords_and_keys", &DENY_3) {
        return;
    }
    without_delays().unwrap();
    make_key().unwrap();
    let sshd = Sshd::start(2202, ALL).unwrap();
    let right = password("jon");
    let mut books = Books::open("jon").unwrap();
    assert!(sshd.logon("jon", KEY, "").unwrap());
    assert_eq!(books.take().unwrap(), "→ 0", "a key alone is no guess and clears nothing");

    for method in [PASSWORD, INTERACTIVE, PASSWORD] {
        assert!(!sshd.logon("jon", method, "wrong").unwrap());
    }
    assert!(!sshd.logon("jon", PASSWORD, &right).unwrap(), "password, right, locked");
    assert!(!sshd.logon("jon", INTERACTIVE, &right).unwrap(), "keyboard-interactive, right, locked");
    assert!(!sshd.logon("jon", KEY, "").unwrap(), "the account line refuses the key");
    let (_, log) = run("portcullis", &["explain", "jon"]).unwrap();
    assert!(log.contains("127.0.0.1"), "{log}");
    assert_eq!(
        books.take().unwrap(),
        "fail sshd 127.0.0.1, fail sshd 127.0.0.1, fail sshd 127.0.0.1, refused sshd 127.0.0.1, refused sshd 127.0.0.1, refused sshd 127.0.0.1 → locked",
        "two passwords and a key"
    );
    assert!(sshd.logon("jon", KEY, "").unwrap(), "released");

    // Without the account line nothing stands in a key's way.
    must("sed", &["-i", "/pam_portcullis/d", "/etc/pam.d/common-account"]).unwrap();
    must("portcullis", &["lock", "jon"]).unwrap();
    assert!(sshd.logon("jon", KEY, "").unwrap(), "no account line, locked");
    assert!(!sshd.logon("jon", PASSWORD, &right).unwrap());
}

#[test]
fn sshd_password_and_key_together() {
    if !enter("sshd_password_and_key_together", &DENY_3) {
        return;
    }
    without_delays().unwrap();
    make_key().unwrap();
    let either = Sshd::start(2203, ALL).unwrap();
    let both = Sshd::start(2204, &format!("{ALL}\nAuthenticationMethods password,publickey")).unwrap();
    let codes =
        Sshd::start(2205, &format!("{ALL}\nAuthenticationMethods publickey,keyboard-interactive")).unwrap();
    let right = password("jon");
    let mut books = Books::open("jon").unwrap();

    assert!(either.logon("jon", "password,publickey", "wrong").unwrap());
    assert_eq!(
        books.take().unwrap(),
        "fail sshd 127.0.0.1 → 1",
        "a good key does not clear a wrong password"
    );

    assert!(!both.logon("jon", "password,publickey", "wrong").unwrap());
    assert_eq!(books.take().unwrap(), "fail sshd 127.0.0.1 → 1", "both asked, password wrong");

    assert!(!both.logon("jon", PASSWORD, "wrong").unwrap());
    assert!(!both.logon("jon", PASSWORD, &right).unwrap(), "the password alone is not enough");
    assert_eq!(
        books.take().unwrap(),
        "fail sshd 127.0.0.1, pass sshd 127.0.0.1 → 1",
        "both asked, password right, no key: not cleared"
    );

    assert!(!both.logon("jon", PASSWORD, "wrong").unwrap());
    assert!(both.logon("jon", "password,publickey", &right).unwrap());
    assert_eq!(
        books.take().unwrap(),
        "fail sshd 127.0.0.1, pass sshd 127.0.0.1, cleared sshd 127.0.0.1 → 0",
        "both asked, both right"
    );

    assert!(!codes.logon("jon", "publickey,keyboard-interactive", "wrong").unwrap());
    assert!(codes.logon("jon", "publickey,keyboard-interactive", &right).unwrap());
    assert_eq!(
        books.take().unwrap(),
        "fail sshd 127.0.0.1, pass sshd 127.0.0.1, cleared sshd 127.0.0.1 → 0",
        "key, then keyboard-interactive"
    );
}

#[test]
fn sshd_a_right_password_does_not_pay_for_wrong_codes() {
    if !enter("sshd_a_right_password_does_not_pay_for_wrong_codes", &DENY_3) {
        return;
    }
    without_delays().unwrap();
    // The second factor of this machine is the same password again, asked by a PAM conversation of its own.
    let sshd =
        Sshd::start(2206, &format!("{ALL}\nAuthenticationMethods password,keyboard-interactive")).unwrap();
    let right = password("jon");
    let logon = |code: &str| {
        let mut ssh = sshd.at_terminal("jon", "password,keyboard-interactive", 1).unwrap();
        ssh.answer(&right).unwrap();
        ssh.answer(code).unwrap();
        ssh.rest().unwrap().contains("\njon\r\n")
    };
    let mut books = Books::open("jon").unwrap();
    assert!(!logon("wrong"));
    assert!(logon(&right));
    assert_eq!(
        books.take().unwrap(),
        "pass sshd 127.0.0.1, fail sshd 127.0.0.1, pass sshd 127.0.0.1, pass sshd 127.0.0.1, cleared sshd 127.0.0.1 → 0",
        "code wrong, then right"
    );
    for _ in 0..3 {
        assert!(!logon("wrong"));
    }
    assert_eq!(
        books.take().unwrap(),
        ["pass sshd 127.0.0.1, fail sshd 127.0.0.1"; 3].join(", ") + " → locked",
        "the password right, the code wrong, three times"
    );
}

#[test]
fn sshd_several_tries_in_one_connection() {
    if !enter("sshd_several_tries_in_one_connection", &DENY_3) {
        return;
    }
    without_delays().unwrap();
    let sshd = Sshd::start(2207, ALL).unwrap();
    let right = password("jon");
    let mut books = Books::open("jon").unwrap();
    let logon = |methods: &str, prompts: u32, answers: &[&str]| {
        let mut ssh = sshd.at_terminal("jon", methods, prompts).unwrap();
        for answer in answers {
            ssh.answer(answer).unwrap();
        }
        ssh.rest().unwrap().contains("\njon\r\n")
    };
    for method in [PASSWORD, INTERACTIVE] {
        assert!(logon(method, 3, &["wrong", "wrong", &right]));
        assert_eq!(
            books.take().unwrap(),
            "fail sshd 127.0.0.1, fail sshd 127.0.0.1, pass sshd 127.0.0.1, cleared sshd 127.0.0.1 → 0",
            "{method}: wrong, wrong, right"
        );
        assert!(!logon(method, 4, &["wrong", "wrong", "wrong", &right]));
        let (before, refused) = ("fail sshd 127.0.0.1, ".repeat(3), "refused sshd 127.0.0.1 → locked");
        assert_eq!(books.take().unwrap(), before + refused, "{method}: wrong three times, then right");
    }
    // After a wrong password on the connection's own handle libpam fails pam_setcred for the whole stack, and sshd ends
    // the connection: with stock Debian stacks too. By then every factor was right.
    for (methods, goes_on) in
        [("password,keyboard-interactive", false), ("keyboard-interactive,password", true)]
    {
        assert_eq!(logon(methods, 1, &["wrong", &right]), goes_on, "{methods}");
        assert_eq!(
            books.take().unwrap(),
            "fail sshd 127.0.0.1, pass sshd 127.0.0.1, cleared sshd 127.0.0.1 → 0",
            "{methods}: wrong by the first, right by the second"
        );
    }
}

#[test]
fn sshd_gives_those_it_does_not_let_in_another_password() {
    if !enter("sshd_gives_those_it_does_not_let_in_another_password", &DENY_3) {
        return;
    }
    without_delays().unwrap();
    let denied = Sshd::start(2208, &format!("{ALL}\nDenyUsers jon")).unwrap();
    let mut books = Books::open("jon").unwrap();
    for method in [PASSWORD, INTERACTIVE] {
        assert!(!denied.logon("jon", method, &password("jon")).unwrap());
        assert_eq!(books.take().unwrap(), "fail sshd 127.0.0.1 → 1", "{method}, DenyUsers, right");
        assert!(!denied.logon("root", method, "wrong").unwrap());
        assert_eq!(books.take().unwrap(), "fail sshd 127.0.0.1 for root → 0", "{method}, PermitRootLogin no");
    }
}
