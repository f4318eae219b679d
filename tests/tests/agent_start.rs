//! The agent started where it cannot start: one line that says what is wrong and what to do, a documented exit status,
//! and nothing lost or changed by it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::su::{self, KON};
use portcullis_tests::system::{password, portcullis, read, run, wait_for, write};

const GATE: &str = "/sys/fs/bpf/portcullis/v1/gate";
const BARE: Setup<'static> = Setup { config: None, no_agent: false, bare: true };

/// Runs a program as `uid` to its end: its exit status, and what it printed, which must be one line.
fn fails(uid: u32, program: &str, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(program);
    command.args(arguments).uid(uid).gid(uid).current_dir("/").stdin(Stdio::null());
    let output = command.output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(text.lines().count(), 1, "{program} {arguments:?}: {text}");
    (output.status.code().unwrap(), text)
}

/// Fails unless the program ends with this status and its line holds all the words.
fn assert_fails(uid: u32, program: &str, arguments: &[&str], status: i32, words: &[&str]) {
    let (found, text) = fails(uid, program, arguments);
    assert_eq!(found, status, "{program} {arguments:?}: {text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
}

fn agent_pid() -> Option<u64> {
    portcullis(&["status"]).unwrap()["pid"].as_u64()
}

#[test]
fn a_second_agent_ends_at_once() {
    if !enter("a_second_agent_ends_at_once", &Setup::default()) {
        return;
    }
    let first = agent_pid().unwrap();
    assert!(!su::attempt(KON, "jon", "wrong").unwrap().let_in);
    let words = ["another portcullisd is running", "stop it first", "portcullis reload"];
    for arguments in [&[][..], &["run"]] {
        assert_fails(0, "portcullisd", arguments, 3, &words);
    }
    // The first one goes on, with what it knows.
    assert_eq!(agent_pid(), Some(first));
    assert_eq!(portcullis(&["explain", "jon"]).unwrap()["row"]["failures"], 1);
}

#[test]
fn who_is_not_root_is_told_so() {
    if !enter("who_is_not_root_is_told_so", &Setup::default()) {
        return;
    }
    for arguments in [&[][..], &["run"], &["gate"]] {
        assert_fails(KON, "portcullisd", arguments, 4, &["not root", "sudo"]);
    }
    for arguments in [
        &["status"][..],
        &["accounts"],
        &["events"],
        &["reload"],
        &["metrics"],
        &["doctor"],
        &["lock", "jon"],
        &["unlock", "jon"],
        &["explain", "jon"],
        &["config", "show"],
    ] {
        assert_fails(KON, "portcullis", arguments, 4, &["only root may do that", "sudo"]);
    }
    assert!(su::attempt(KON, "jon", &password("jon")).unwrap().let_in);
}

#[test]
fn a_configuration_with_an_error_starts_nothing() {
    if !enter("a_configuration_with_an_error_starts_nothing", &BARE) {
        return;
    }
    let good = read(Path::new("/etc/portcullis/portcullis.toml")).unwrap();
    let file = "/etc/portcullis/bad.toml";
    let cases = [
        ("break_glass = false\ndenny = 3\n", "bad.toml:2: denny: ", "unknown"),
        ("break_glass = false\n[default]\ndeny = -1\n", "bad.toml:3: default.deny: ", "from 1 to 16"),
        ("break_glass = false\n[default]\ndeny = 99999999999999999999\n", "bad.toml:3: ", "deny"),
        ("break_glass = false\n[default]\ndeny = 17\n", "bad.toml:3: default.deny: ", "from 1 to 16"),
        (
            "break_glass = false\n[default]\nunlock_time = \"99999999999d\"\n",
            "bad.toml:3: default.unlock_time: ",
            "",
        ),
        (
            "break_glass = false\n[default]\nfail_interval = \"-1s\"\n",
            "bad.toml:3: default.fail_interval: ",
            "",
        ),
        (
            "break_glass = false\n[metrics]\nlisten = \"127.0.0.1:99999\"\n",
            "bad.toml:3: metrics.listen: ",
            "",
        ),
        ("break_glass = false\nbreak_glass = false\n", "bad.toml:2: break_glass: ", ""),
        ("[default]\ndeny = 3\n", "break_glass: is missing", ""),
        ("break_glass = \"nobody-here\"\n", "bad.toml:1: break_glass: ", "adduser"),
        ("\u{0}\u{1}\u{1b}[2J", "bad.toml:1: ", ""),
    ];
    for loaded in [false, true] {
        for (text, place, advice) in cases {
            write(Path::new(file), text).unwrap();
            for verb in ["run", "gate", "check"] {
                assert_fails(0, "portcullisd", &["--config", file, verb], 6, &[place, advice]);
            }
            assert_fails(0, "portcullis", &["config", "check", file], 6, &[place, advice]);
        }
        for (path, advice) in [("/etc/portcullis/absent.toml", "cannot be read"), ("/etc", "cannot be read")]
        {
            assert_fails(0, "portcullisd", &["--config", path, "run"], 6, &[path, advice]);
        }
        // A gate that is loaded stays, none is loaded.
        assert_eq!(Path::new(GATE).exists(), loaded);
        assert_eq!(read(Path::new("/etc/portcullis/portcullis.toml")).unwrap(), good);
        if !loaded {
            assert!(run("portcullisd", &["gate"]).unwrap().0);
        }
    }
    for _ in 0..3 {
        assert!(!su::attempt(KON, "jon", "wrong").unwrap().let_in);
    }
    assert!(!su::attempt(KON, "jon", &password("jon")).unwrap().let_in, "the gate that was loaded locks");
}

#[test]
fn without_bpffs_nothing_starts() {
    if !enter("without_bpffs_nothing_starts", &BARE) {
        return;
    }
    assert!(run("umount", &["/sys/fs/bpf"]).unwrap().0);
    for verb in ["run", "gate"] {
        assert_fails(
            0,
            "portcullisd",
            &[verb],
            1,
            &["no bpffs at /sys/fs/bpf", "mount -t bpf bpf /sys/fs/bpf"],
        );
    }
    // The line lets everything pass that pam_unix lets pass, and nothing more.
    assert!(!su::attempt(KON, "jon", "wrong").unwrap().let_in);
    assert!(su::attempt(KON, "jon", &password("jon")).unwrap().let_in);
}

#[test]
fn pins_of_another_version_stay_as_they_are() {
    if !enter("pins_of_another_version_stay_as_they_are", &BARE) {
        return;
    }
    let other = "/sys/fs/bpf/portcullis/v999";
    std::fs::create_dir_all(other).unwrap();
    for verb in ["run", "gate"] {
        assert_fails(0, "portcullisd", &[verb], 1, &["another version", "rm -r /sys/fs/bpf/portcullis/v999"]);
    }
    assert!(Path::new(other).exists() && !Path::new(GATE).exists());
    std::fs::remove_dir(other).unwrap();
    assert!(run("portcullisd", &["gate"]).unwrap().0, "what the line says to do is enough");
}

#[test]
fn without_its_metrics_port_the_agent_works() {
    if !enter("without_its_metrics_port_the_agent_works", &Setup { no_agent: true, ..Setup::default() }) {
        return;
    }
    let _taken = std::net::TcpListener::bind("127.0.0.1:9456").unwrap();
    let log = Path::new("/run/agent.log");
    let mut agent = Command::new("portcullisd");
    agent.stdin(Stdio::null()).stderr(std::fs::File::create(log).unwrap());
    let mut agent = agent.spawn().unwrap();
    wait_for("the agent", 20, || Ok(agent_pid() == Some(u64::from(agent.id())))).unwrap();
    let text = read(log).unwrap();
    let lines: Vec<_> = text.lines().filter(|line| line.contains("127.0.0.1:9456")).collect();
    assert_eq!(lines.len(), 1, "{text}");
    assert!(
        lines.iter().all(|line| line.contains("no metrics") && line.contains("metrics.listen")),
        "{text}"
    );
    for _ in 0..3 {
        assert!(!su::attempt(KON, "jon", "wrong").unwrap().let_in);
    }
    assert!(portcullis(&["explain", "jon"]).unwrap()["row"]["lock"].is_object());
    let (works, page) = run("portcullis", &["metrics"]).unwrap();
    assert!(works && page.contains("portcullis_trips_total 1"), "the socket has them: {page}");
    kill(Pid::from_raw(agent.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert!(agent.wait().unwrap().success());
}
