//! Who is told, and what an administrator switches at run time: notifier, breaker, modes; with the real su and programs.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use portcullis_tests::agent;
use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::stack::{must, without_delays};
use portcullis_tests::su::{self, JON, KON};
use portcullis_tests::system::{password, portcullis, read, run, shadow_locked, wait_for, write};
use serde_json::Value;

const FILE: &str = "/var/log/portcullis/events.json";

const TOLD: &str = r#"
break_glass = "admin"
[default]
deny = 3
[notify]
file = "/var/log/portcullis/events.json"
parallel = 1
queue = 1
timeout = "10s"
[[notify.command]]
events = ["lock"]
argv = ["/usr/local/sbin/told", "$(touch /run/shell)", "; touch /run/shell"]
[[notify.command]]
events = ["refused"]
argv = ["/usr/bin/sleep", "1000"]
"#;

fn metric(line: &str) -> bool {
    let (_, page) = run("curl", &["-s", "http://127.0.0.1:9456/metrics"]).unwrap();
    page.lines().any(|found| found == line)
}

fn wrong(who: u32, user: &str, times: usize) {
    for _ in 0..times {
        assert!(!su::attempt(who, user, "wrong").unwrap().let_in);
    }
}

fn lines() -> Vec<Value> {
    let text = read(Path::new(FILE)).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn commands_and_the_file_tell_and_hold_up_nothing() {
    let setup = Setup { config: Some(TOLD), ..Setup::default() };
    if !enter("commands_and_the_file_tell_and_hold_up_nothing", &setup) {
        return;
    }
    without_delays().unwrap();
    std::fs::create_dir_all("/var/log/portcullis").unwrap();
    let told = "#!/bin/sh\n{ echo \"$@\"; env; cat; } >> /run/told\n";
    write(Path::new("/usr/local/sbin/told"), told).unwrap();
    must("chmod", &["755", "/usr/local/sbin/told"]).unwrap();
    wrong(KON, "jon", 3);
    wait_for("the command", 20, || {
        Ok(read(Path::new("/run/told")).unwrap_or_default().contains("\"tripped\""))
    })
    .unwrap();
    let text = read(Path::new("/run/told")).unwrap();
    assert!(text.contains("$(touch /run/shell) ; touch /run/shell\n"), "words are words: {text}");
    assert!(!Path::new("/run/shell").exists(), "a shell looked at them");
    let environment: Vec<&str> =
        text.lines().filter(|line| line.contains('=') && !line.starts_with('{')).collect();
    let known = ["LC_ALL=", "PATH=", "PWD=", "OLDPWD=", "SHLVL=", "_="];
    assert!(
        environment.iter().all(|line| known.iter().any(|name| line.starts_with(name))),
        "{environment:?}"
    );
    // The same schema as everywhere, by the same names.
    wait_for("the file", 10, || Ok(lines().iter().any(|line| line["event"] == "tripped"))).unwrap();
    let mode = Path::new(FILE).metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let line = lines().into_iter().find(|line| line["event"] == "tripped").unwrap();
    let (_, shown) = run("portcullis", &["events", "--json"]).unwrap();
    assert!(shown.lines().any(|shown| serde_json::from_str::<Value>(shown).unwrap() == line), "{line}");
    // A command that never ends is killed; those that find no room are dropped and counted; locks do not wait for it.
    for _ in 0..6 {
        assert!(!su::attempt(KON, "jon", &password("jon")).unwrap().let_in);
    }
    wrong(JON, "kon", 3);
    assert!(!su::attempt(JON, "kon", &password("kon")).unwrap().let_in, "locked meanwhile");
    wait_for("the limits", 60, || {
        let (_, page) = run("curl", &["-s", "http://127.0.0.1:9456/metrics"])?;
        let count = |result: &str| {
            let start = format!("portcullis_notify_commands_total{{result=\"{result}\"}} ");
            page.lines().find_map(|line| line.strip_prefix(&start)?.parse::<u64>().ok()).unwrap_or(0)
        };
        Ok(count("timeout") >= 1 && count("dropped") >= 1)
    })
    .unwrap();
    // logrotate: renamed away, then a reload.
    std::fs::rename(FILE, "/var/log/portcullis/old").unwrap();
    must("portcullis", &["reload"]).unwrap();
    must("portcullis", &["unlock", "jon"]).unwrap();
    wait_for("the new file", 10, || Ok(!lines().is_empty())).unwrap();
}

const BREAKING: &str = r#"
break_glass = "admin"
[default]
deny = 1
shadow_lock = true
[breaker]
failing_accounts = 2
failing_window = "10m"
locked_percent = 100
"#;

fn breaker_open() -> bool {
    portcullis(&["status"]).unwrap()["breaker"]["open"] == true
}

#[test]
fn the_breaker_withholds_the_rungs_above_the_lock() {
    let setup = Setup { config: Some(BREAKING), ..Setup::default() };
    if !enter("the_breaker_withholds_the_rungs_above_the_lock", &setup) {
        return;
    }
    without_delays().unwrap();
    assert!(!breaker_open());
    wrong(KON, "jon", 1);
    wait_for("the shadow lock", 20, || shadow_locked("jon")).unwrap();
    wrong(JON, "kon", 1);
    wait_for("the breaker", 20, || Ok(breaker_open() && metric("portcullis_breaker_open 1"))).unwrap();
    // The lock itself holds, and what was set before stays.
    assert!(!su::attempt(JON, "kon", &password("kon")).unwrap().let_in);
    must("portcullis", &["unlock", "jon"]).unwrap();
    wrong(KON, "jon", 1);
    wait_for("the lock", 10, || Ok(!portcullis(&["explain", "jon"])?["row"]["lock"].is_null())).unwrap();
    assert!(!shadow_locked("jon").unwrap(), "the password is locked though rungs are withheld");
    let (_, text) = run("portcullis", &["status"]).unwrap();
    assert!(text.contains("BREAKER") && text.contains("directory"), "{text}");
    // An administrator's word, and back.
    must("portcullis", &["breaker", "close"]).unwrap();
    wait_for("the shadow lock", 20, || shadow_locked("jon")).unwrap();
    must("portcullis", &["breaker", "open"]).unwrap();
    assert!(breaker_open());
    assert!(shadow_locked("jon").unwrap(), "what was set stays");
    must("portcullis", &["breaker", "auto"]).unwrap();
    assert!(breaker_open(), "two accounts fail still");
    // Somebody gets in: whatever checks passwords works.
    assert!(su::attempt(KON, "admin", &password("admin")).unwrap().let_in);
    wait_for("the breaker", 20, || Ok(!breaker_open())).unwrap();
    let (_, events) = run("portcullis", &["events", "--json"]).unwrap();
    assert!(events.contains("\"breaker_open\"") && events.contains("\"breaker_closed\""));
}

const MODES: &str = r#"
break_glass = "admin"
[default]
deny = 2
[[class]]
name = "strict"
users = ["jon"]
"#;

#[test]
fn modes_are_switched_at_run_time() {
    let setup = Setup { config: Some(MODES), ..Setup::default() };
    if !enter("modes_are_switched_at_run_time", &setup) {
        return;
    }
    without_delays().unwrap();
    let enters = |who, user: &str| su::attempt(who, user, &password(user)).unwrap().let_in;
    must("portcullis", &["mode", "monitor", "--class", "strict"]).unwrap();
    wrong(KON, "jon", 2);
    assert!(enters(KON, "jon"), "monitor");
    wrong(JON, "kon", 2);
    assert!(!enters(JON, "kon"), "the other class enforces");
    let (_, text) = run("portcullis", &["status"]).unwrap();
    assert!(text.contains("strict: MONITOR, nothing is refused (set at run time)"), "{text}");
    // Kept over a reload and over a restart of the agent; the file is as it was.
    must("portcullis", &["reload"]).unwrap();
    agent::kill_9().unwrap();
    let mut second = agent::start().unwrap();
    wrong(KON, "jon", 2);
    assert!(enters(KON, "jon"), "monitor still");
    must("portcullis", &["mode", "monitor"]).unwrap();
    assert!(enters(JON, "kon"), "all: the lock is released");
    must("portcullis", &["mode", "file"]).unwrap();
    assert!(portcullis(&["status"]).unwrap()["modes"].as_array().unwrap().is_empty());
    wrong(KON, "jon", 2);
    assert!(!enters(KON, "jon"), "as the file says");
    assert!(!run("portcullis", &["mode", "monitor", "--class", "absent"]).unwrap().0);
    second.kill().unwrap();
    second.wait().unwrap();
}

const LOCKED: &str = r#"
break_glass = "admin"
[default]
deny = 2
unlock_time = "1h"
shadow_lock = true
[[class]]
name = "strict"
users = ["jon"]
"#;

/// Both classes have a lock on the books; one is switched, then all, both ways.
#[test]
fn modes_are_switched_with_locks_on_the_books() {
    let setup = Setup { config: Some(LOCKED), ..Setup::default() };
    if !enter("modes_are_switched_with_locks_on_the_books", &setup) {
        return;
    }
    without_delays().unwrap();
    let enters = |who, user: &str| su::attempt(who, user, &password(user)).unwrap().let_in;
    let both = [(KON, "jon"), (JON, "kon")];
    for (who, user) in both {
        wrong(who, user, 2);
        wait_for("the shadow lock", 20, || shadow_locked(user)).unwrap();
        assert!(!enters(who, user));
    }
    // One class: its lock is released with all that hung on it, the other's stays.
    must("portcullis", &["mode", "monitor", "--class", "strict"]).unwrap();
    wait_for("the release", 20, || Ok(!shadow_locked("jon")?)).unwrap();
    assert!(enters(KON, "jon"));
    assert!(!enters(JON, "kon") && shadow_locked("kon").unwrap());
    // A lock that is only computed, and back: nothing is held against anybody.
    wrong(KON, "jon", 2);
    wait_for("what would have been", 10, || Ok(metric("portcullis_would_trip_total 1"))).unwrap();
    assert!(!shadow_locked("jon").unwrap());
    must("portcullis", &["mode", "enforce", "--class", "strict"]).unwrap();
    assert!(enters(KON, "jon"), "a lock that was only computed is none");
    wrong(KON, "jon", 2);
    wait_for("the shadow lock", 20, || shadow_locked("jon")).unwrap();
    // All.
    must("portcullis", &["mode", "monitor"]).unwrap();
    for (who, user) in both {
        wait_for("the release", 20, || Ok(!shadow_locked(user)?)).unwrap();
        assert!(enters(who, user), "{user}");
    }
    must("portcullis", &["mode", "enforce"]).unwrap();
    for (who, user) in both {
        assert!(enters(who, user), "{user}: what was released stays so");
        wrong(who, user, 2);
        assert!(!enters(who, user), "{user}");
    }
}
