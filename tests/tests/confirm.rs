//! Only a confirmed success clears the failures: authenticate, then setcred, in one login.

#![allow(clippy::unwrap_used, reason = "this is how a test fails, in its helpers too")]

use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::ledger;
use portcullis_tests::pamtester::login;
use portcullis_tests::su::{self, JON, KON};
use portcullis_tests::system::password;

#[test]
fn a_confirmed_success_clears_the_failures() {
    if !enter("a_confirmed_success_clears_the_failures", &Setup::short()) {
        return;
    }
    for _ in 0..2 {
        for _ in 0..2 {
            assert!(!su::attempt(KON, "jon", "wrong").unwrap().let_in);
        }
        assert!(su::attempt(KON, "jon", &password("jon")).unwrap().let_in);
    }
}

#[test]
fn a_success_without_setcred_clears_nothing() {
    if !enter("a_success_without_setcred_clears_nothing", &Setup::short()) {
        return;
    }
    let right = password("jon");
    for nth in 1..=2 {
        assert!(!su::attempt(KON, "jon", "wrong").unwrap().let_in);
        assert_eq!(ledger::of(JON).unwrap().failures, nth);
    }
    // su's own stack lets root pass without a password: sshd's does not.
    let steps: [&[&str]; 4] = [
        &["authenticate"],
        &["authenticate", "acct_mgmt"],
        &["authenticate", "acct_mgmt", "open_session"],
        // Not by the process that passed.
        &["setcred(PAM_ESTABLISH_CRED)"],
    ];
    for steps in steps {
        let (ok, text) = login("sshd", "jon", &[], steps, &right).unwrap();
        assert!(ok, "{steps:?}: {text}");
        let books = ledger::of(JON).unwrap();
        assert_eq!((books.failures, books.reservations), (2, 0), "{steps:?}");
    }
    for flag in ["PAM_ESTABLISH_CRED", "PAM_REINITIALIZE_CRED"] {
        let steps = ["authenticate", &format!("setcred({flag})")];
        let (ok, text) = login("sshd", "jon", &[], &steps, &right).unwrap();
        assert!(ok, "{flag}: {text}");
        assert_eq!(ledger::of(JON).unwrap().failures, 0, "{flag}");
        assert!(!su::attempt(KON, "jon", "wrong").unwrap().let_in);
        assert_eq!(ledger::of(JON).unwrap().failures, 1);
    }
    // Renewing or deleting credentials is no login.
    let (ok, text) =
        login("sshd", "jon", &[], &["authenticate", "setcred(PAM_REFRESH_CRED)"], &right).unwrap();
    assert!(ok, "{text}");
    assert_eq!(ledger::of(JON).unwrap().failures, 1);
}
