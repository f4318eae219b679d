//! Whose programs are observed: this system's, not those of containers in it or of systems beside it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};

use portcullis_tests::inside::{Setup, enter, xtask};
use portcullis_tests::stack::service;
use portcullis_tests::system::run;
use portcullis_tests::watched::{held_against_anybody, programs, wait_loaded};
use serde_json::Value;

/// A wrong password by kon for jon, in a stack without our line: seen, it would be held against him.
const WRONG: &str = "echo wrong | setpriv --reuid 2001 --regid 2001 --clear-groups su jon -c id";
/// Such a stack; it delays as pam_unix does.
const BARE: &str =
    "auth required pam_unix.so\naccount required pam_permit.so\nsession required pam_permit.so\n";

#[test]
fn a_container_raises_nothing() {
    if !enter("a_container_raises_nothing", &Setup::short()) {
        return;
    }
    wait_loaded().unwrap();
    service("su", BARE).unwrap();
    // Its own pids, mounts and names, as container runtimes make them; then pids alone.
    for own in ["--mount --pid --ipc --uts --fork --mount-proc", "--pid --fork"] {
        let words: Vec<&str> = own.split(' ').chain(["sh", "-c", WRONG]).collect();
        let (done, said) = run("unshare", &words).unwrap();
        assert!(!done && said.contains("failure"), "{own}: {said}");
    }
    assert_eq!(held_against_anybody().unwrap(), [0; 3]);
    let seen = programs().unwrap();
    assert!(seen.iter().all(|one| one["program"] != "su"), "{seen:?}");
    // The same without a namespace of its own.
    assert!(!run("sh", &["-c", WRONG]).unwrap().0);
    assert_eq!(held_against_anybody().unwrap(), [1, 0, 0]);
}

/// A system that runs a shell's script.
fn system(script: &str) -> Child {
    let mut sandbox = Command::new(xtask().unwrap());
    sandbox.args(["sandbox", "--quiet", "--", "sh", "-c", script]);
    sandbox.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

/// Waits for the observer.
const LOADED: &str = "until portcullis status --json | grep -Eq '\"loaded\": ?true'; do sleep 0.1; done\n";

fn programs_of(text: &str) -> Vec<Value> {
    let all = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    all.filter(|one| one["program"] == "su").collect()
}

#[test]
fn two_systems_on_one_machine_do_not_see_each_other() {
    // Outside: two systems at once. The first only looks on.
    let watch =
        format!("{LOADED}echo ready\nread -r over\nportcullis observe --json\nportcullis alarms --json\n");
    let mut first = system(&watch);
    let mut told = BufReader::new(first.stdout.take().unwrap());
    let mut line = String::new();
    told.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let act = format!(
        "{LOADED}{WRONG}\n{WRONG}\nrm /sys/fs/bpf/portcullis/v*/STATS\n\
         until portcullis observe --json | grep -c 'exit 1' | grep -q 2; do sleep 0.1; done\n\
         until portcullis alarms --json | grep -q pin_gone; do sleep 0.1; done\nportcullis observe --json\n"
    );
    let second = system(&act).wait_with_output().unwrap();
    let second = String::from_utf8(second.stdout).unwrap();
    assert_eq!(programs_of(&second).len(), 2, "{second}");
    first.stdin.take().unwrap().write_all(b"over\n").unwrap();
    let mut text = String::new();
    told.read_to_string(&mut text).unwrap();
    assert!(first.wait().unwrap().success());
    assert_eq!(programs_of(&text), Vec::<Value>::new(), "{text}");
    assert!(text.contains("[]") && !text.contains("pin_gone"), "{text}");
}
