//! A sandbox leaves nothing behind: no mount, namespace, process, pin or link, whether it ends by itself or is killed.
//! Needs root and a built Portcullis: run by `cargo xtask test`.

#![allow(clippy::unwrap_used, reason = "helpers of tests: a panic is a red test")]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What the whole machine has of the things a sandbox makes.
#[derive(Debug, PartialEq, Eq)]
struct Machine {
    mounts: String,
    pins: BTreeSet<String>,
    users: Vec<u8>,
    pam: Vec<u8>,
}

/// The cgroups of sandboxes that run now.
fn cgroups() -> BTreeSet<String> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let unified = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).unwrap();
    let all = Path::new(unified.split(' ').nth(1).unwrap()).read_dir().unwrap();
    let names = all.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("portcullis-sandbox-")).collect()
}

fn machine() -> Machine {
    let pins = Path::new("/sys/fs/bpf").read_dir().unwrap();
    Machine {
        mounts: std::fs::read_to_string("/proc/self/mountinfo").unwrap(),
        pins: pins.map(|pin| pin.unwrap().file_name().to_string_lossy().into_owned()).collect(),
        users: std::fs::read("/etc/shadow").unwrap(),
        pam: std::fs::read("/etc/pam.d/common-auth").unwrap(),
    }
}

/// Processes that live in the namespaces of the sandbox's command, by its network, mount and pid namespace.
fn inhabitants(namespaces: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    for process in Path::new("/proc").read_dir().unwrap().flatten() {
        for kind in ["net", "mnt", "pid"] {
            let link = std::fs::read_link(process.path().join("ns").join(kind));
            if link.is_ok_and(|link| namespaces.contains(&link.to_string_lossy().into_owned())) {
                found.push(format!("{} in {kind}", process.path().display()));
            }
        }
    }
    found
}

fn open(level: &[&str], script: &str) -> Child {
    let mut sandbox = Command::new(env!("CARGO_BIN_EXE_xtask"));
    sandbox.args(["sandbox", "--quiet"]).args(level).args(["--", "bash", "-c", script]);
    sandbox.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

/// Reads the three lines that the script's `readlink` prints.
fn namespaces(child: &mut Child) -> BTreeSet<String> {
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    let found: BTreeSet<_> = (0..3).map(|_| lines.next().unwrap().unwrap()).collect();
    for kind in ["net", "mnt", "pid"] {
        let ours = std::fs::read_link(Path::new("/proc/self/ns").join(kind)).unwrap();
        assert!(!found.contains(&ours.to_string_lossy().into_owned()), "{kind} is the host's");
    }
    found
}

const TELL: &str = "readlink /proc/self/ns/{net,mnt,pid}";

/// Fails unless the namespaces are empty soon: the last pipe is closed a moment before a process's namespaces are.
fn assert_deserted(namespaces: &BTreeSet<String>) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let left = inhabitants(namespaces);
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "still there: {left:?}");
        std::thread::yield_now();
    }
}

/// Waits until every process that holds the pipe is gone: the kernel closes it with the last of them.
fn all_gone(mut child: Child) {
    let mut rest = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut rest).unwrap();
    child.wait().unwrap();
}

#[test]
fn a_sandbox_that_ends_leaves_nothing() {
    let before = machine();
    let mut child =
        open(&[], &format!("{TELL}; setsid sleep 1000 & test -e /sys/fs/bpf/portcullis/v1/gate && exit 7"));
    let inside = namespaces(&mut child);
    let mut rest = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(7), "the gate was pinned inside");
    assert_eq!(machine(), before);
    assert_deserted(&inside);
}

#[test]
fn a_sandbox_that_is_killed_leaves_nothing() {
    let before = machine();
    let mut child = open(&[], &format!("{TELL}; setsid sleep 1000 & read line"));
    let inside = namespaces(&mut child);
    assert!(!inhabitants(&inside).is_empty(), "the look from outside sees a living sandbox");
    child.kill().unwrap();
    all_gone(child);
    assert_eq!(machine(), before);
    assert_deserted(&inside);
}

#[test]
fn a_sandbox_with_systemd_that_is_killed_leaves_nothing() {
    let before = machine();
    let mut child = open(&["--systemd"], &format!("{TELL}; setsid sleep 1000 & read line"));
    let inside = namespaces(&mut child);
    let own = format!("portcullis-sandbox-{}", child.id());
    assert!(cgroups().contains(&own), "it has a cgroup as long as it lives");
    child.kill().unwrap();
    // Whoever removes the cgroup holds the pipe as well.
    all_gone(child);
    assert!(!cgroups().contains(&own));
    assert_eq!(machine(), before);
    assert_deserted(&inside);
}

#[test]
fn the_status_of_the_command_is_returned() {
    for (level, script, status) in [
        ("--bare", "exit 0", 0),
        ("--bare", "exit 42", 42),
        ("--bare", "kill -9 $$", 137),
        ("--systemd", "systemctl is-active --quiet portcullisd && exit 42", 42),
    ] {
        let child = open(&[level], script);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{script}");
    }
}

#[test]
fn a_termination_reaches_the_command() {
    let mut child = open(&["--bare"], &format!("trap 'exit 9' TERM; {TELL}; read line"));
    let _inside = namespaces(&mut child);
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(9));
}
