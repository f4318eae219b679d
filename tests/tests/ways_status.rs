//! Final status → what is recorded, for every code that pam_debug.so can return, by real stacks on the real libpam.

#![allow(clippy::unwrap_used, reason = "this is how a test fails, in its helpers too")]

use portcullis_tests::books::Books;
use portcullis_tests::inside::{DENY_3, Setup, enter};
use portcullis_tests::pam::{Handle, INCOMPLETE};
use portcullis_tests::stack::service;
use portcullis_tests::system::{number, wait_for};

/// The page that must be right.
const PAGE: &str = include_str!("../../docs/pam.md");

/// pam_debug(8)'s words, by the number of the code; "incomplete", which is no end, has a test of its own.
const CODES: [(i32, &str); 31] = [
    (0, "success"),
    (1, "open_err"),
    (2, "symbol_err"),
    (3, "service_err"),
    (4, "system_err"),
    (5, "buf_err"),
    (6, "perm_denied"),
    (7, "auth_err"),
    (8, "cred_insufficient"),
    (9, "authinfo_unavail"),
    (10, "user_unknown"),
    (11, "maxtries"),
    (12, "new_authtok_reqd"),
    (13, "acct_expired"),
    (14, "session_err"),
    (15, "cred_unavail"),
    (16, "cred_expired"),
    (17, "cred_err"),
    (18, "no_module_data"),
    (19, "conv_err"),
    (20, "authtok_err"),
    (21, "authtok_recover_err"),
    (22, "authtok_lock_busy"),
    (23, "authtok_disable_aging"),
    (24, "try_again"),
    // Every module ignored: libpam makes PAM_PERM_DENIED of it.
    (6, "ignore"),
    (26, "abort"),
    (27, "authtok_expired"),
    (28, "module_unknown"),
    (29, "bad_item"),
    (30, "conv_again"),
];

/// What docs/pam.md says of a status: the row of its table that names it, else the row of everything else.
fn documented(status: &str) -> &'static str {
    let name = format!("PAM_{}", status.to_uppercase());
    let (_, table) = PAGE.split_once("## Final status of the stack").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    let row = table.lines().find(|line| line.split([' ', ',', '|']).any(|word| word == name));
    match row.and_then(|row| row.split('|').nth(2)).map(str::trim) {
        Some("pass") => "pass",
        Some(text) if text.starts_with("void") => "void",
        None => "fail",
        Some(other) => unreachable!("docs/pam.md: an outcome that is none: {other}"),
    }
}

#[test]
fn every_final_status_is_recorded_as_documented() {
    if !enter("every_final_status_is_recorded_as_documented", &DENY_3) {
        return;
    }
    let mut books = Books::open("jon").unwrap();
    let mut seen = [0; 3];
    for (code, word) in CODES {
        let stack = format!("auth requisite pam_portcullis.so\nauth required pam_debug.so auth={word}\n");
        service("ways", &stack).unwrap();
        let mut handle = Handle::start("ways", "jon", "any").unwrap();
        assert_eq!(handle.authenticate(), code, "what libpam makes of {word}");
        drop(handle);
        let outcome = documented(word);
        let failures = u32::from(outcome == "fail");
        assert_eq!(books.take().unwrap(), format!("{outcome} ways root → {failures}"), "{word}");
        let place = ["pass", "void", "fail"].iter().position(|name| *name == outcome).unwrap();
        seen[place] += 1;
    }
    assert_eq!(seen, [3, 9, 19], "pass, void, fail");
}

#[test]
fn an_incomplete_attempt_keeps_its_guess_until_it_is_too_old() {
    let config = format!("reservation_max_age = \"1s\"\n{}", DENY_3.config.unwrap());
    let setup = Setup { config: Some(&config), ..DENY_3 };
    if !enter("an_incomplete_attempt_keeps_its_guess_until_it_is_too_old", &setup) {
        return;
    }
    service("ways", "auth requisite pam_portcullis.so\nauth required pam_debug.so auth=incomplete\n")
        .unwrap();
    let mut handle = Handle::start("ways", "jon", "any").unwrap();
    assert_eq!(handle.authenticate(), INCOMPLETE);
    assert_eq!(handle.authenticate(), INCOMPLETE, "resumed behind our line, not charged again");
    // The application never comes back.
    drop(handle);
    wait_for("the guess to be a failure", 20, || Ok(number("jon", "failures")? == 1)).unwrap();
    assert_eq!(number("jon", "reservations").unwrap(), 0);
}
