//! Services that use libpam in less usual ways: a delay function of their own, several attempts, users and threads.
//! See docs/ways-in.md.

#![allow(clippy::unwrap_used, reason = "this is how a test fails, in its helpers too")]

use std::ffi::{c_int, c_uint, c_void};
use std::path::Path;
use std::sync::Mutex;

use portcullis_tests::books::Books;
use portcullis_tests::inside::{DENY_3, enter};
use portcullis_tests::pam::{AUTH_ERR, Handle, SUCCESS};
use portcullis_tests::stack::{service, without_delays};
use portcullis_tests::system::{Counter, password, wait_for, write};

/// While this is there no check ends.
const HOLD: &str = "/run/hold";

/// Calls of the application's own delay function.
static CALLS: Mutex<Vec<(c_int, c_uint)>> = Mutex::new(Vec::new());

/// As KDM has it: remembers, and never sleeps.
extern "C" fn own_delay(status: c_int, usec: c_uint, _appdata: *mut c_void) {
    CALLS.lock().unwrap().push((status, usec));
}

fn calls() -> Vec<(c_int, c_uint)> {
    std::mem::take(&mut CALLS.lock().unwrap())
}

#[test]
fn a_service_with_its_own_delay_function_keeps_it() {
    if !enter("a_service_with_its_own_delay_function_keeps_it", &DENY_3) {
        return;
    }
    // pam_unix asks for its 2 s here: the application's function is told, and nobody sleeps them.
    service("ways", "@include common-auth\n@include common-account\n").unwrap();
    let right = password("jon");
    let mut books = Books::open("jon").unwrap();
    let mut handle = Handle::start("ways", "jon", "wrong").unwrap();
    handle.set_delay_fn(own_delay).unwrap();

    let begun = std::time::Instant::now();
    assert_eq!(handle.authenticate(), AUTH_ERR);
    let took = begun.elapsed();
    let told = calls();
    assert!(matches!(told[..], [(AUTH_ERR, usec)] if usec >= 900_000), "wrong: {told:?}");
    assert!(took.as_micros() < u128::from(told[0].1), "slept {took:?}, which is the application's to decide");
    assert!(handle.delay_fn_is(Some(own_delay)).unwrap(), "put back");
    assert_eq!(books.take().unwrap(), "fail ways root → 1", "wrong");

    handle.switch("jon", &right).unwrap();
    assert_eq!((handle.authenticate(), handle.account(), handle.establish()), (SUCCESS, SUCCESS, SUCCESS));
    let told = calls();
    assert!(matches!(told[..], [(SUCCESS, _)]), "right: {told:?}");
    assert_eq!(books.take().unwrap(), "pass ways root, cleared ways root → 0", "right");

    handle.switch("jon", "wrong").unwrap();
    for _ in 0..3 {
        assert_eq!(handle.authenticate(), AUTH_ERR);
    }
    assert_eq!(calls().len(), 3);
    handle.switch("jon", &right).unwrap();
    assert_eq!(handle.authenticate(), AUTH_ERR, "locked");
    let told = calls();
    assert!(matches!(told[..], [(AUTH_ERR, usec)] if usec >= 900_000), "locked: {told:?}");
    assert!(handle.delay_fn_is(Some(own_delay)).unwrap(), "still there");
    assert_eq!(
        books.take().unwrap(),
        "fail ways root, fail ways root, fail ways root, refused ways root → locked",
        "three wrong, one right"
    );
}

#[test]
fn a_service_may_ask_again_and_for_others_on_one_handle() {
    if !enter("a_service_may_ask_again_and_for_others_on_one_handle", &DENY_3) {
        return;
    }
    without_delays().unwrap();
    service("ways", "@include common-auth\n@include common-account\n").unwrap();
    let mut books = Books::open("jon").unwrap();
    let mut handle = Handle::start("ways", "jon", "wrong").unwrap();

    assert_eq!(handle.authenticate(), AUTH_ERR);
    handle.switch("jon", &password("jon")).unwrap();
    assert_eq!((handle.authenticate(), handle.authenticate()), (SUCCESS, SUCCESS));
    assert_eq!(handle.establish(), SUCCESS);
    assert_eq!(
        books.take().unwrap(),
        "fail ways root, pass ways root, pass ways root, cleared ways root → 0",
        "one user, again and again"
    );
    assert!(handle.delay_fn_is(None).unwrap(), "ours is taken out again");

    handle.switch("jon", "wrong").unwrap();
    assert_eq!(handle.authenticate(), AUTH_ERR);
    handle.switch("kon", "wrong").unwrap();
    assert_eq!(handle.authenticate(), AUTH_ERR);
    handle.switch("kon", &password("kon")).unwrap();
    assert_eq!((handle.authenticate(), handle.establish()), (SUCCESS, SUCCESS));
    assert_eq!(
        books.take().unwrap(),
        "fail ways root, fail ways root for kon, pass ways root for kon, cleared ways root for kon → 1",
        "another user's login clears his own failures only"
    );

    // The name changes between pam_authenticate and pam_setcred, as sudo does it: the one who was asked is cleared.
    handle.switch("jon", "wrong").unwrap();
    assert_eq!(handle.authenticate(), AUTH_ERR);
    handle.switch("jon", &password("jon")).unwrap();
    assert_eq!(handle.authenticate(), SUCCESS);
    handle.switch("kon", "").unwrap();
    assert_eq!(handle.establish(), SUCCESS);
    assert_eq!(
        books.take().unwrap(),
        "fail ways root, pass ways root, cleared ways root → 0",
        "switched before setcred"
    );
}

#[test]
fn a_service_may_ask_from_many_threads() {
    if !enter("a_service_may_ask_from_many_threads", &DENY_3) {
        return;
    }
    without_delays().unwrap();
    service("ways", "@include common-auth\n@include common-account\n").unwrap();
    let counter = Counter::install(&format!("while [ -e {HOLD} ]; do sleep 0.02; done")).unwrap();
    let mut books = Books::open("jon").unwrap();

    // Both guesses are out at once; each thread tells the result of its own.
    write(Path::new(HOLD), "").unwrap();
    let mut wrong = Handle::start("ways", "jon", "wrong").unwrap();
    let mut right = Handle::start("ways", "kon", &password("kon")).unwrap();
    std::thread::scope(|scope| {
        let threads = [scope.spawn(|| wrong.authenticate()), scope.spawn(|| right.authenticate())];
        let both = wait_for("both guesses", 10, || Ok(counter.guesses()? == 2));
        std::fs::remove_file(HOLD).unwrap();
        both.unwrap();
        let codes = threads.map(|thread| thread.join().unwrap());
        assert_eq!(codes, [AUTH_ERR, SUCCESS]);
    });
    // The threads have ended: the results stand.
    let entries = books.take().unwrap();
    assert!(entries.contains("fail ways root") && entries.contains("pass ways root for kon"), "{entries}");
    assert!(entries.ends_with("→ 1") && !entries.contains("died"), "{entries}");

    // One handle, asked in one thread, confirmed in another of the same process.
    assert_eq!(wrong.authenticate(), AUTH_ERR);
    wrong.switch("jon", &password("jon")).unwrap();
    assert_eq!(std::thread::scope(|scope| scope.spawn(|| wrong.authenticate()).join().unwrap()), SUCCESS);
    assert_eq!(std::thread::scope(|scope| scope.spawn(|| wrong.establish()).join().unwrap()), SUCCESS);
    assert_eq!(
        books.take().unwrap(),
        "fail ways root, pass ways root, cleared ways root → 0",
        "two threads, one login"
    );
}
