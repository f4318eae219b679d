//! Who is locked out starts no su: with the real one, by real users.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use std::path::Path;
use std::process::{Command, Stdio};

use portcullis_tests::agent;
use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::stack::{must, without_delays};
use portcullis_tests::su::{self, JON, KON, Su, Verdict};
use portcullis_tests::system::{password, portcullis, read, run, wait_for, write};
use serde_json::Value;

const CONFIG: &str = r#"
break_glass = "admin"
[default]
deny = 3
scope = "pair"
[sc5]
local = "refuse"
deny = 4
accounts = 3
drop_time = "20s"
[observer]
deny_exec = true
"#;
const SETUP: Setup<'static> = Setup { config: Some(CONFIG), no_agent: false, bare: false };
/// Uid of the break-glass account.
const ADMIN: &str = "admin";

fn observer() -> Value {
    portcullis(&["status"]).unwrap()["observer"].clone()
}

fn wait_denies() {
    wait_for("the observer", 20, || Ok(portcullis(&["status"])?["observer"]["denies"] == true)).unwrap();
}

/// Guesses at three accounts, one after the other, and waits until the gate refuses `uid`.
fn trip(uid: u32, accounts: [&str; 3]) {
    without_delays().unwrap();
    for account in accounts {
        assert!(!su::attempt(uid, account, "wrong").unwrap().let_in);
    }
    let refused = || Ok(run("portcullis", &["sources"])?.1.contains("refused"));
    wait_for("the refusal", 10, refused).unwrap();
}

/// A su that nobody answers.
fn start(uid: u32) -> Verdict {
    let su = Su::start(uid, "jon").unwrap();
    su.verdict().unwrap()
}

/// Killed, and before it could say anything.
fn is_denied(verdict: &Verdict) -> bool {
    verdict.signal == Some(libc::SIGKILL) && verdict.output.is_empty()
}

fn events(name: &str) -> Vec<Value> {
    let (_, text) = run("portcullis", &["events", "--json"]).unwrap();
    let all = text.lines().filter_map(|line| serde_json::from_str(line).ok());
    all.filter(|event: &Value| event["event"] == name).collect()
}

#[test]
fn a_refused_user_starts_no_su_until_his_lease_ends() {
    if !enter("a_refused_user_starts_no_su_until_his_lease_ends", &SETUP) {
        return;
    }
    wait_denies();
    assert_eq!(observer()["means"]["way"], "signal", "this is what the machine of the tests gives");
    trip(KON, ["jon", "admin", "root"]);
    for _ in 0..3 {
        let verdict = start(KON);
        assert!(is_denied(&verdict), "{verdict:?}");
    }
    assert!(su::attempt(JON, "kon", &password("kon")).unwrap().let_in, "jon's goes on");
    wait_for("the count", 10, || Ok(portcullis(&["status"])?["observer"]["denied"] == 3)).unwrap();
    wait_for("the event", 10, || Ok(!events("exec_denied").is_empty())).unwrap();
    let told = events("exec_denied");
    assert_eq!(told.len(), 1, "once a minute: {told:?}");
    assert_eq!((&told[0]["actor"]["uid"], &told[0]["service"]), (&KON.into(), &"su".into()), "{told:?}");
    let (_, seen) = run("portcullis", &["observe"]).unwrap();
    assert_eq!(seen.matches("denied").count(), 3, "{seen}");
    assert_eq!(observer()["unrecorded"], 0, "what was denied is no failed logon");
    let (_, doctor) = run("portcullis", &["doctor"]).unwrap();
    assert!(doctor.contains("SIGKILL at exec"), "{doctor}");
    // The agent is gone: the kernel goes on, and lets him go by itself.
    agent::kill_9().unwrap();
    assert!(is_denied(&start(KON)));
    wait_for("the end of the lease", 40, || Ok(!is_denied(&start(KON)))).unwrap();
    assert!(su::attempt(KON, "jon", &password("jon")).unwrap().let_in);
}

#[test]
fn root_break_glass_and_other_namespaces_are_spared() {
    let config = CONFIG.replace("20s", "10m");
    let setup = Setup { config: Some(&config), ..SETUP };
    if !enter("root_break_glass_and_other_namespaces_are_spared", &setup) {
        return;
    }
    wait_denies();
    let admin = nix::unistd::User::from_name(ADMIN).unwrap().unwrap().uid.as_raw();
    trip(admin, ["jon", "kon", "root"]);
    assert!(!su::attempt(admin, "jon", &password("jon")).unwrap().let_in, "the gate refuses him");
    assert!(su::attempt(admin, ADMIN, &password(ADMIN)).unwrap().let_in, "his su starts");
    trip(KON, ["jon", "admin", "root"]);
    wait_for("the refusal", 10, || Ok(is_denied(&start(KON)))).unwrap();
    assert!(run("su", &["jon", "-c", "true"]).unwrap().0, "root's su starts");
    // In a container's namespaces it starts, and asks: the end of its input is no password.
    for apart in [["--mount", "--"], ["--pid", "--fork"]] {
        let mut su = Command::new("unshare");
        su.args(apart).args(["setpriv", "--reuid=2001", "--regid=2001", "--clear-groups"]);
        su.args(["su", "jon", "-c", "true"]).stdin(Stdio::null());
        let output = su.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("assword"), "{apart:?}: {text} {}", output.status);
    }
    assert!(is_denied(&start(KON)));
    // A reload turns it off.
    let path = Path::new("/etc/portcullis/portcullis.toml");
    write(path, &read(path).unwrap().replace("deny_exec = true", "deny_exec = false")).unwrap();
    must("portcullis", &["reload"]).unwrap();
    wait_for("the end of it", 10, || Ok(!is_denied(&start(KON)))).unwrap();
    assert_eq!(observer()["denies"], false);
    assert!(!su::attempt(KON, "jon", &password("jon")).unwrap().let_in, "the gate refuses him still");
}
