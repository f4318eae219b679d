//! The gate's pins taken away under a running agent: enforcement stops, everything that tells how things are says so,
//! and the way back is the one that is named.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::su::{self, KON};
use portcullis_tests::system::{password, portcullis, run, wait_for};

const PINS: &str = "/sys/fs/bpf/portcullis";

/// Status and body of a page of the agent's TCP side.
fn page(path: &str) -> (String, String) {
    let address = format!("http://127.0.0.1:9456{path}");
    let (_, text) = run("curl", &["--silent", "--write-out", "\n%{http_code}", &address]).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.to_owned(), body.to_owned())
}

fn trip() {
    for _ in 0..3 {
        assert!(!su::attempt(KON, "kon", "wrong").unwrap().let_in);
    }
}

#[test]
fn a_gate_that_is_gone_is_said_everywhere() {
    if !enter("a_gate_that_is_gone_is_said_everywhere", &Setup::default()) {
        return;
    }
    assert_eq!(page("/healthz"), ("200".to_owned(), "ok\n".to_owned()));
    assert!(page("/metrics").1.contains("\nportcullis_gate_loaded 1\n"));
    trip();
    let right = password("kon");
    assert!(!su::attempt(KON, "kon", &right).unwrap().let_in);

    std::fs::remove_dir_all(PINS).unwrap();
    // The way out: enforcement has stopped.
    assert!(su::attempt(KON, "kon", &right).unwrap().let_in);
    let (status, line) = page("/healthz");
    assert_eq!(status, "503");
    assert!(line.starts_with("nothing is counted or refused: no gate is loaded"), "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(page("/metrics").1.contains("\nportcullis_gate_loaded 0\n"));
    let (_, text) = run("portcullis", &["status"]).unwrap();
    assert!(text.contains("DOES NOT ANSWER: nothing is counted or refused"), "{text}");
    assert!(text.contains("systemctl restart portcullis-gate portcullisd"), "{text}");
    let status = portcullis(&["status"]).unwrap();
    assert_eq!(status["gate"], false);
    let (_, events) = run("portcullis", &["events"]).unwrap();
    assert!(events.contains("gate_gone"), "{events}");
    // It is not loaded again behind the administrator's back.
    assert!(!std::path::Path::new(PINS).exists());

    // What a restart of both units does.
    let pid = Pid::from_raw(i32::try_from(status["pid"].as_i64().unwrap()).unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    let lock = "/run/portcullis/portcullisd.lock";
    assert!(run("flock", &["--timeout", "20", lock, "true"]).unwrap().0, "the agent's end");
    let (loaded, text) = run("portcullisd", &["gate"]).unwrap();
    assert!(loaded && text.contains("1 locks given back"), "{text}");
    let mut agent = Command::new("portcullisd").stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the agent", 20, || Ok(portcullis(&["status"])?["pid"] == agent.id())).unwrap();
    assert_eq!(page("/healthz").0, "200");
    assert!(!su::attempt(KON, "kon", &right).unwrap().let_in, "the lock came back from the store");
    kill(Pid::from_raw(agent.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert!(agent.wait().unwrap().success());
}
