//! What stands behind our line gets in its way: the delay function replaced, attempts inside attempts, handles that take
//! turns. Whatever happens to the result, no guess is free.

#![allow(clippy::unwrap_used, reason = "this is how a test fails, in its helpers too")]

use std::time::{Duration, Instant};

use portcullis_tests::books::Books;
use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::ledger;
use portcullis_tests::pam::{AUTH_ERR, Handle, INCOMPLETE, SUCCESS};
use portcullis_tests::stack::{BETWEEN, install_between, service, without_delays};
use portcullis_tests::su::{JON, KON, attempt};
use portcullis_tests::system::{Counter, password, read, wait_for, write};

const CONFIG: &str = r#"
break_glass = "admin"
reservation_max_age = "2s"
[default]
deny = 3
unlock_time = "10m"
"#;
const SETUP: Setup<'_> = Setup { config: Some(CONFIG), no_agent: false, bare: false };

/// A stack like the system's, with the module of the tests between our line and the check.
fn stack(word: &str, unix: &str) {
    let lines = format!(
        "auth requisite pam_portcullis.so\nauth optional {BETWEEN} {word}\n\
         auth optional pam_exec.so quiet seteuid /usr/local/sbin/count-guess\n\
         auth required pam_unix.so try_first_pass {unix}\naccount required pam_unix.so\n"
    );
    service("ways", &lines).unwrap();
}

#[test]
fn a_replaced_delay_function_makes_every_attempt_a_failure() {
    if !enter("a_replaced_delay_function_makes_every_attempt_a_failure", &SETUP) {
        return;
    }
    without_delays().unwrap();
    install_between().unwrap();
    let counter = Counter::install("").unwrap();
    let right = password("jon");
    for word in ["replace", "remove"] {
        // A program that lives on: what it never told fails by its age, and the limit holds.
        stack(word, "nodelay");
        let before = counter.guesses().unwrap();
        let mut handle = Handle::start("ways", "jon", "wrong").unwrap();
        for _ in 0..3 {
            // The third waits for the age of the first two: one actor holds at most deny - 1. (At the third pam_unix says
            // PAM_MAXTRIES.)
            assert_ne!(handle.authenticate(), SUCCESS, "{word}");
        }
        assert_eq!(counter.guesses().unwrap() - before, 3, "{word}");
        wait_for("the lock", 10, || ledger::locked(JON)).unwrap();
        handle.switch("jon", &right).unwrap();
        assert_eq!(handle.authenticate(), AUTH_ERR, "{word}: locked");
        assert_eq!(counter.guesses().unwrap() - before, 3, "{word}: refused before the check");
        drop(handle);

        // A program that ends: a failure at its exit, right or wrong.
        let mut books = Books::open("jon").unwrap();
        let common = std::path::Path::new("/etc/pam.d/common-auth");
        let text = read(common).unwrap();
        let line = format!("auth optional {BETWEEN} {word}");
        let place = text.find("auth optional pam_exec.so").unwrap();
        let (head, tail) = text.split_at(place);
        write(common, &format!("{head}{line}\n{tail}")).unwrap();
        assert!(!attempt(KON, "jon", "wrong").unwrap().let_in);
        assert!(attempt(KON, "jon", &right).unwrap().let_in, "{word}: nothing is refused that is not locked");
        write(common, &text).unwrap();
        assert_eq!(books.take().unwrap(), "died su kon, died su kon → 2", "{word}");
    }
}

#[test]
fn a_delay_function_that_calls_ours_changes_nothing() {
    if !enter("a_delay_function_that_calls_ours_changes_nothing", &SETUP) {
        return;
    }
    install_between().unwrap();
    stack("chain", "");
    let mut books = Books::open("jon").unwrap();
    let mut handle = Handle::start("ways", "jon", "wrong").unwrap();
    // The second time the other module has left our own function there.
    for nth in ["first", "second"] {
        let begun = Instant::now();
        assert_eq!(handle.authenticate(), AUTH_ERR);
        let took = begun.elapsed();
        assert!(took > Duration::from_millis(900), "the {nth}'s delay was slept: {took:?}");
    }
    handle.switch("jon", &password("jon")).unwrap();
    assert_eq!((handle.authenticate(), handle.account(), handle.establish()), (SUCCESS, SUCCESS, SUCCESS));
    assert_eq!(
        books.take().unwrap(),
        "fail ways root, fail ways root, pass ways root, cleared ways root → 0"
    );
}

#[test]
fn an_attempt_aborted_at_the_prompt_sleeps_no_old_delay() {
    if !enter("an_attempt_aborted_at_the_prompt_sleeps_no_old_delay", &SETUP) {
        return;
    }
    service("ways", "@include common-auth\n").unwrap();
    let mut books = Books::open("jon").unwrap();
    let mut handle = Handle::start("ways", "jon", "wrong").unwrap();
    let begun = Instant::now();
    assert_eq!(handle.authenticate(), AUTH_ERR);
    assert!(begun.elapsed() > Duration::from_millis(900), "pam_unix's delay: {:?}", begun.elapsed());
    handle.abort_at_the_prompt();
    let begun = Instant::now();
    assert_ne!(handle.authenticate(), SUCCESS);
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    assert_eq!(books.take().unwrap(), "fail ways root → 1");
}

#[test]
fn handles_inside_one_another_and_in_turn_get_their_own_results() {
    let config = CONFIG.replace("deny = 3", "deny = 16").replace("\"2s\"", "\"10m\"");
    let setup = Setup { config: Some(&config), ..SETUP };
    if !enter("handles_inside_one_another_and_in_turn_get_their_own_results", &setup) {
        return;
    }
    install_between().unwrap();
    let mut books = Books::open("jon").unwrap();

    // The inner one fails, and the outer one passes.
    service("inner", "auth requisite pam_portcullis.so\nauth required pam_deny.so\n").unwrap();
    let outer = format!(
        "auth requisite pam_portcullis.so\nauth optional {BETWEEN} nest=inner\nauth required pam_permit.so\n"
    );
    service("outer", &outer).unwrap();
    let mut handle = Handle::start("outer", "jon", "any").unwrap();
    assert_eq!(handle.authenticate(), SUCCESS);
    assert_eq!(books.take().unwrap(), "fail inner root, pass outer root → 1");

    // As deep as it goes: the ninth finds no place, is refused, and gets its guess back.
    service("nest", &format!("auth requisite pam_portcullis.so\nauth required {BETWEEN} nest=nest\n"))
        .unwrap();
    let mut handle = Handle::start("nest", "jon", "any").unwrap();
    assert_eq!(handle.authenticate(), AUTH_ERR);
    let expected = format!("void nest root, {} → 8", ["fail nest root"; 8].join(", "));
    assert_eq!(books.take().unwrap(), expected, "nested");
    let mut handle = Handle::start("outer", "jon", "any").unwrap();
    assert_eq!(handle.authenticate(), SUCCESS, "every place is free again");
    assert_eq!(books.take().unwrap(), "fail inner root, pass outer root → 1");

    // Two handles that wait for the application, resumed in the order in which they began, not the other way round.
    for word in ["later_wrong", "later_right"] {
        service(word, &format!("auth requisite pam_portcullis.so\nauth required {BETWEEN} {word}\n"))
            .unwrap();
    }
    let mut wrong = Handle::start("later_wrong", "jon", "any").unwrap();
    let mut right = Handle::start("later_right", "kon", "any").unwrap();
    assert_eq!((wrong.authenticate(), right.authenticate()), (INCOMPLETE, INCOMPLETE));
    assert_eq!((wrong.authenticate(), right.authenticate()), (AUTH_ERR, SUCCESS));
    assert_eq!(books.take().unwrap(), "fail later_wrong root, pass later_right root for kon → 1");
}
