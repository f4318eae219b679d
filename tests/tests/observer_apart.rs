//! The observer and services with a mount namespace of their own, as systemd makes one for PrivateTmp= and the like.

#![allow(clippy::unwrap_used, reason = "this is how a test fails")]

use std::process::{Command, Stdio};

use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::su::KON;
use portcullis_tests::system::{number, portcullis, run, wait_for};
use serde_json::Value;

/// The newest program seen with that process number.
fn seen(pid: u32) -> Value {
    let (_, text) = run("portcullis", &["observe", "--json"]).unwrap();
    let mut all = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    all.rfind(|seen| seen["pid"] == pid).unwrap_or_default()
}

#[test]
fn a_logon_from_a_service_with_mounts_of_its_own_is_seen() {
    if !enter("a_logon_from_a_service_with_mounts_of_its_own_is_seen", &Setup::short()) {
        return;
    }
    wait_for("the observer", 20, || Ok(portcullis(&["status"])?["observer"]["loaded"] == true)).unwrap();
    let kon = KON.to_string();
    let mut su = Command::new("unshare")
        .args(["--mount", "setpriv", "--reuid", &kon, "--regid", &kon, "--clear-groups"])
        .args(["su", "jon", "-c", "true"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = su.id();
    std::io::Write::write_all(&mut su.stdin.take().unwrap(), b"wrong\n").unwrap();
    assert!(!su.wait().unwrap().success());
    // The PAM line's record is there: without the program behind it, it would be held against somebody.
    wait_for("the failure", 10, || Ok(number("jon", "failures")? == 1)).unwrap();
    wait_for("the end of su", 10, || Ok(seen(pid)["result"] == "exit 1")).unwrap();
    assert_eq!(seen(pid)["program"], "su");
}
