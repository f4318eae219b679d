//! The module leaves nothing behind in the process that loads it: no heap, no thread, no descriptor, no signal handler,
//! and itself not either.
//!
//! `cargo xtask test` runs these with the short numbers of [`Numbers`]; `cargo xtask test leaks` with the long ones.

#![allow(clippy::unwrap_used, reason = "this is how a test fails, in its helpers too")]

use std::ffi::{c_int, c_uint, c_void};
use std::path::Path;
use std::process::Command;

use portcullis_common::abi::{op, outcome, verdict};
use portcullis_tests::bench::run::{ask, request};
use portcullis_tests::bench::stacks::keep_loaded;
use portcullis_tests::footprint::{Footprint, heap};
use portcullis_tests::inside::{DENY_3, enter, long};
use portcullis_tests::object::Object;
use portcullis_tests::pam::{AUTH_ERR, Handle, SUCCESS};
use portcullis_tests::stack::service;
use portcullis_tests::system::write;

const MODULE: &str = "pam_portcullis.so";
/// Set for the part of a test that runs under valgrind.
const WATCHED: &str = "PORTCULLIS_TEST_WATCHED";
/// What is not ours: the test harness hands its results over a channel that is still there when the process ends.
const NOT_OURS: &str = "{
   the test harness
   Memcheck:Leak
   match-leak-kinds: possible
   ...
   fun:*run_tests*
   ...
   fun:main
}
";
/// Bytes that malloc(3) may keep at hand in other places after many handles than after few: libpam and the loader take
/// and give back hundreds of blocks for each. It is the same after 3,000 attempts and after 100,000. The smallest block
/// (32 bytes) lost once in ten attempts is more.
const SETTLING: usize = 4096;
/// Resident memory may move by this much, in KiB: the kernel decides what of it is resident.
const RESIDENT: u64 = 1024;

/// How often.
struct Numbers {
    calls: u32,
    attempts: u32,
}

fn numbers() -> Numbers {
    if long() {
        Numbers { calls: 1_000_000, attempts: 100_000 }
    } else {
        Numbers { calls: 100_000, attempts: 3_000 }
    }
}

/// The application's own delay function, which does not sleep.
extern "C" fn no_delay(_status: c_int, _usec: c_uint, _appdata: *mut c_void) {}

fn services() {
    // libpam loads this one's modules for every handle too: pam_unix and all it needs, which are not what is watched.
    service("other", "auth required pam_deny.so\n").unwrap();
    for (name, check) in [("right", "pam_permit.so"), ("wrong", "pam_deny.so")] {
        service(name, &format!("auth requisite {MODULE}\nauth required {check}\n")).unwrap();
        let own = format!("auth requisite {MODULE} charge=conversation\nauth requisite pam_stress.so\n");
        service(&format!("{name}-conversation"), &format!("{own}auth required {check}\n")).unwrap();
    }
}

/// A wrong and a right logon, each on a fresh handle. The right one clears what the wrong one left.
fn wrong_and_right(kind: &str) {
    for (name, code) in [("wrong", AUTH_ERR), ("right", SUCCESS)] {
        let mut handle = Handle::start(&format!("{name}{kind}"), "jon", "a password").unwrap();
        handle.set_delay_fn(no_delay).unwrap();
        assert_eq!(handle.authenticate(), code, "{name}{kind}");
        if code == SUCCESS {
            assert_eq!(handle.establish(), SUCCESS);
        }
    }
}

/// Runs `what` so often that everything that is made once was made, then `times` more, and compares. The heap may grow
/// by at most `slack` bytes.
fn leaves_nothing(warm_up: u32, times: u32, slack: usize, mut what: impl FnMut()) {
    for _ in 0..warm_up {
        what();
    }
    let before = Footprint::take().unwrap();
    // malloc(3) counts the pieces it keeps at hand for this thread as in use: they are now those of the footprint.
    for _ in 0..warm_up {
        what();
    }
    let heap_before = heap();
    for _ in 0..times {
        what();
    }
    let heap_after = heap();
    let after = Footprint::take().unwrap();
    println!(
        "{times} times: heap {heap_before} → {heap_after}, resident {} → {} KiB",
        before.resident, after.resident
    );
    assert!(
        heap_after <= heap_before + slack,
        "the heap grew over {times} times: {heap_before} → {heap_after}"
    );
    assert_eq!(after.holds, before.holds);
    assert!(after.resident <= before.resident + RESIDENT, "{before:?}\n{after:?}");
    assert!(after.mapped <= before.mapped + RESIDENT, "{before:?}\n{after:?}");
}

#[test]
fn gate_calls_leak_nothing() {
    if !enter("gate_calls_leak_nothing", &DENY_3) {
        return;
    }
    leaves_nothing(1_000, numbers().calls / 2, 0, || {
        let admitted = ask(&request(op::ADMIT, 0, 0)).unwrap();
        assert_eq!(admitted.verdict, verdict::ADMITTED);
        ask(&request(op::RESOLVE, outcome::PASS, admitted.token)).unwrap();
    });
}

#[test]
fn authentications_on_fresh_handles_leak_nothing() {
    if !enter("authentications_on_fresh_handles_leak_nothing", &DENY_3) {
        return;
    }
    services();
    // Each handle loads the module and pam_end(3) unloads it.
    leaves_nothing(300, numbers().attempts / 2, SETTLING, || wrong_and_right(""));
    leaves_nothing(300, numbers().attempts / 6, SETTLING, || wrong_and_right("-conversation"));
}

#[test]
fn a_module_that_is_unloaded_is_gone() {
    if !enter("a_module_that_is_unloaded_is_gone", &DENY_3) {
        return;
    }
    services();
    let mapped = || Footprint::take().unwrap().holds.files.keys().any(|file| file.ends_with(MODULE));
    let loaded = Object::open(MODULE).unwrap();
    assert!(mapped(), "it is seen while it is there");
    loaded.close().unwrap();
    assert!(!mapped(), "unloaded, and never used");
    for kind in ["", "-conversation"] {
        wrong_and_right(kind);
        assert!(!mapped(), "unloaded by pam_end after an attempt ({kind})");
    }
    leaves_nothing(100, 10_000, 0, || Object::open(MODULE).unwrap().close().unwrap());
}

#[test]
fn authentications_are_clean_under_memcheck() {
    const NAME: &str = "authentications_are_clean_under_memcheck";
    if std::env::var_os(WATCHED).is_some() {
        // Loaded and unloaded for each, then kept, since loading is what takes time here.
        for _ in 0..100 {
            wrong_and_right("");
        }
        let _kept = keep_loaded().unwrap();
        for _ in 0..350 {
            wrong_and_right("");
        }
        for _ in 0..50 {
            wrong_and_right("-conversation");
        }
        return;
    }
    if !enter(NAME, &DENY_3) {
        return;
    }
    if !Path::new("/usr/bin/valgrind").exists() {
        println!("skipped: valgrind is not installed: apt-get install valgrind");
        return;
    }
    services();
    let suppressions = Path::new("/run/not-ours.supp");
    write(suppressions, NOT_OURS).unwrap();
    let mut valgrind = Command::new("/usr/bin/valgrind");
    // Unloaded objects keep their names, or nobody could tell whose a leak is.
    valgrind.args(["--quiet", "--leak-check=full", "--show-leak-kinds=definite,indirect,possible"]);
    valgrind.args(["--errors-for-leak-kinds=definite,indirect,possible", "--keep-debuginfo=yes"]);
    valgrind.args(["--error-exitcode=99", "--num-callers=30"]);
    valgrind.arg(format!("--suppressions={}", suppressions.display()));
    valgrind.arg(std::env::current_exe().unwrap()).args(["--exact", NAME, "--nocapture", "--test-threads=1"]);
    let output = valgrind.env(WATCHED, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{said}", output.status);
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "the attempts did not run: {said}");
}
