//! A user who opens as many connections to the agent as he can, and says nothing on them.

#![allow(clippy::unwrap_used, reason = "this is how a test fails")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use portcullis_tests::agent;
use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::su::KON;
use portcullis_tests::system::{portcullis, wait_for};

/// Opens connections to each of the agent's sockets, asks one thing on each so that it was surely accepted, keeps them,
/// says so, and ends with its standard input.
const HOLD: &str = r#"
import resource, socket, sys
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
held = []
for family, address in ((socket.AF_UNIX, "/run/portcullis/agent.sock"), (socket.AF_INET, ("127.0.0.1", 9456))):
    for _ in range(800):
        one = socket.socket(family)
        one.settimeout(5)
        try:
            one.connect(address)
            one.sendall(b"GET /none HTTP/1.1\r\nHost: x\r\n\r\n")
            if one.recv(4096):
                held.append(one)
        except OSError:
            pass
print(len(held), flush=True)
sys.stdin.read()
"#;

/// What he may hold: eight of the API's, 32 of the metrics page's.
const BOUND: usize = 40;

fn descriptors() -> usize {
    let pid = agent::pid().unwrap().unwrap();
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Whether the prober's page answers.
fn healthy() -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect("127.0.0.1:9456")?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.contains("200 OK"))
}

#[test]
fn nobody_takes_the_agents_descriptors() {
    if !enter("nobody_takes_the_agents_descriptors", &Setup::short()) {
        return;
    }
    wait_for("the metrics page", 10, || Ok(healthy())).unwrap();
    let before = descriptors();
    let mut kon = Command::new("python3")
        .args(["-c", HOLD])
        .uid(KON)
        .gid(KON)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(kon.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let held: usize = line.trim().parse().unwrap();
    let now = descriptors();
    // A few are the agent's own, of the moment.
    assert!(
        (1..=BOUND).contains(&held) && now <= before + BOUND + 20,
        "{held} held; {before} before, {now} now"
    );
    portcullis(&["status"]).unwrap();
    // Those who say nothing are let go: the page is there for others while he still holds on.
    wait_for("the metrics page again", 40, || Ok(healthy())).unwrap();
    drop(kon.stdin.take());
    kon.wait().unwrap();
}
