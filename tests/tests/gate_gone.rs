//! The gate's pin taken away, or something else in its place, in the middle of a logon.

#![allow(clippy::unwrap_used, reason = "this is how a test fails, in its helpers too")]

use portcullis_common::abi::{self, PIN_GATE};
use portcullis_tests::bpf;
use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::ledger;
use portcullis_tests::stack::{edit, must};
use portcullis_tests::su::{self, JON, KON};
use portcullis_tests::system::{Counter, password, run};

fn quiet() -> Setup<'static> {
    Setup { no_agent: true, ..Setup::short() }
}

fn lines_of_the_log(text: &str) -> usize {
    run("cat", &["/var/log/auth.log"]).unwrap().1.lines().filter(|line| line.contains(text)).count()
}

#[test]
fn what_is_no_gate_is_the_lines_choice() {
    if !enter("what_is_no_gate_is_the_lines_choice", &quiet()) {
        return;
    }
    let right = password("jon");
    bpf::pin_what_is_no_gate(PIN_GATE).unwrap();
    assert!(su::attempt(KON, "jon", &right).unwrap().let_in, "on_error=ignore");
    edit("common-auth", |line| line.replace("pam_portcullis.so", "pam_portcullis.so on_error=deny")).unwrap();
    assert!(!su::attempt(KON, "jon", &right).unwrap().let_in, "on_error=deny");
    // Each says what is there, where, and what to do: the attempt, and what is to be confirmed after it.
    let said = "is not a gate of ABI 1: restart portcullis-gate.service";
    assert_eq!(
        lines_of_the_log(&format!("attempt not counted (on_error=ignore): the program at {PIN_GATE} {said}")),
        1
    );
    assert_eq!(
        lines_of_the_log(&format!("attempt refused (on_error=deny): the program at {PIN_GATE} {said}")),
        1
    );
    assert_eq!(std::fs::read(abi::UNREACHABLE).unwrap(), b"ir");
    // What it says to do helps.
    must("rm", &[PIN_GATE]).unwrap();
    must("portcullisd", &["gate"]).unwrap();
    assert!(su::attempt(KON, "jon", &right).unwrap().let_in);
}

#[test]
fn a_gate_that_goes_while_the_password_is_checked_leaves_a_failure() {
    if !enter("a_gate_that_goes_while_the_password_is_checked_leaves_a_failure", &quiet()) {
        return;
    }
    Counter::install(&format!("rm {PIN_GATE}")).unwrap();
    assert!(su::attempt(KON, "jon", &password("jon")).unwrap().let_in, "as the rest of the stack says");
    assert!(lines_of_the_log("the gate is not loaded") > 0, "and it is said");
    must("portcullisd", &["gate"]).unwrap();
    // The exit program went on: the guess whose result nobody told ended with its process.
    let books = ledger::of(JON).unwrap();
    assert_eq!((books.failures, books.reservations), (1, 0), "{books:?}");
}

#[test]
fn a_gate_that_goes_before_setcred_clears_nothing() {
    if !enter("a_gate_that_goes_before_setcred_clears_nothing", &quiet()) {
        return;
    }
    assert!(!su::attempt(KON, "jon", "wrong").unwrap().let_in);
    edit("common-account", |line| {
        if line.contains("pam_portcullis.so") {
            format!("{line}\naccount optional pam_exec.so quiet seteuid /bin/rm {PIN_GATE}")
        } else {
            line.into()
        }
    })
    .unwrap();
    assert!(su::attempt(KON, "jon", &password("jon")).unwrap().let_in);
    assert!(!std::path::Path::new(PIN_GATE).exists());
    assert!(lines_of_the_log("the gate is not loaded") > 0, "it is said");
    must("portcullisd", &["gate"]).unwrap();
    assert_eq!(ledger::of(JON).unwrap().failures, 1);
}
