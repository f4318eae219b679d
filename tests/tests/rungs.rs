//! The rungs above the shadow lock: the account expires, its sessions end, with the real chage, su and processes.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use portcullis_tests::agent;
use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::stack::without_delays;
use portcullis_tests::su::{self, JON, KON};
use portcullis_tests::system::{password, portcullis, read, run, shadow_locked, wait_for};

const NEITHER: &str = "the expiry that was there is not there again";

/// The expiry of a user as shadow(5) has it.
fn expiry(user: &str) -> String {
    let shadow = read(Path::new("/etc/shadow")).unwrap();
    let line = shadow.lines().find(|line| line.starts_with(&format!("{user}:"))).unwrap();
    line.split(':').nth(7).unwrap().to_owned()
}

fn trip(user: &str) {
    for _ in 0..2 {
        assert!(!su::attempt(KON, user, "wrong").unwrap().let_in);
    }
    wait_for("the lock", 10, || Ok(!portcullis(&["explain", user])?["row"]["lock"].is_null())).unwrap();
}

/// Waits for an action of jon's with that result.
fn acted(user: &str, action: &str, result: &str) {
    wait_for(&format!("{action} {result}"), 30, || {
        let explained = portcullis(&["explain", user])?;
        let actions = explained["actions"].as_array().unwrap();
        Ok(actions.iter().any(|kept| kept["action"] == action && kept["result"] == result))
    })
    .unwrap();
}

/// kon's account expires at the second trip of a row, jon's at once.
const SHORT: &str = r#"
break_glass = "admin"
[default]
deny = 2
unlock_time = "1s"
backoff_window = "10m"
max_unlock_time = "10m"
shadow_lock = true
expire_after_trips = 2
[[class]]
name = "first"
users = ["jon"]
unlock_time = "10m"
expire_after_trips = 1
end_sessions_after_trips = 1
"#;

/// A program that runs as `uid`; `ignores`: it does not end on SIGTERM.
fn process(uid: u32, ignores: bool) -> Child {
    let script = if ignores {
        "trap '' TERM; echo ready; while :; do sleep 1; done"
    } else {
        "echo ready; exec sleep 1000"
    };
    let mut command = Command::new("sh");
    command.args(["-c", script]).uid(uid).gid(uid).current_dir("/");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = [0_u8; 6];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
    child
}

/// Gives this process a login uid, which its children inherit.
fn logged_in_as(uid: u32) {
    std::fs::write("/proc/thread-self/loginuid", uid.to_string()).unwrap();
}

#[test]
fn an_account_expires_with_the_lock_and_gets_its_own_date_back() {
    let setup = Setup { config: Some(SHORT), ..Setup::default() };
    if !enter("an_account_expires_with_the_lock_and_gets_its_own_date_back", &setup) {
        return;
    }
    without_delays().unwrap();
    for (date, field) in [("-1", ""), ("30000", "30000")] {
        assert!(run("chage", &["-E", date, "jon"]).unwrap().0);
        trip("jon");
        wait_for("the expiry", 20, || Ok(expiry("jon") == "1")).unwrap();
        acted("jon", "expire", "verified");
        assert!(shadow_locked("jon").unwrap(), "the rung below is there too");
        assert!(run("portcullis", &["unlock", "jon"]).unwrap().0);
        assert_eq!(expiry("jon"), field, "{NEITHER}");
        assert!(!shadow_locked("jon").unwrap());
        assert!(su::attempt(KON, "jon", &password("jon")).unwrap().let_in);
    }
    // What an administrator set while we held it is his.
    trip("jon");
    wait_for("the expiry", 20, || Ok(expiry("jon") == "1")).unwrap();
    assert!(run("chage", &["-E", "20000", "jon"]).unwrap().0);
    let (_, text) = run("portcullis", &["unlock", "jon"]).unwrap();
    assert!(text.contains("changed by others"), "{text}");
    acted("jon", "unexpire", "foreign");
    assert_eq!(expiry("jon"), "20000", "an administrator's own change is undone");
    // And one that had expired before is not touched.
    trip("jon");
    acted("jon", "expire", "already_locked");
    assert!(run("portcullis", &["unlock", "jon"]).unwrap().0);
    assert_eq!(expiry("jon"), "20000");
}

#[test]
fn higher_rungs_follow_the_trip_they_were_asked_for() {
    let setup = Setup { config: Some(SHORT), ..Setup::default() };
    if !enter("higher_rungs_follow_the_trip_they_were_asked_for", &setup) {
        return;
    }
    without_delays().unwrap();
    for _ in 0..2 {
        assert!(!su::attempt(JON, "kon", "wrong").unwrap().let_in);
    }
    acted("kon", "shadow_lock", "verified");
    wait_for("the end of the first lock", 20, || Ok(!shadow_locked("kon")?)).unwrap();
    assert_eq!(expiry("kon"), "", "nothing more at the first trip");
    // The row is kept over a restart of the agent.
    agent::kill_9().unwrap();
    let mut second = agent::start().unwrap();
    for _ in 0..2 {
        assert!(!su::attempt(JON, "kon", "wrong").unwrap().let_in);
    }
    acted("kon", "expire", "verified");
    // Released with the lock, which is twice as long.
    acted("kon", "unexpire", "verified");
    wait_for("the release", 20, || Ok(!shadow_locked("kon")?)).unwrap();
    assert_eq!(expiry("kon"), "", "{NEITHER}");
    second.kill().unwrap();
    second.wait().unwrap();
}

#[test]
fn killed_while_an_account_is_expired_the_next_agent_gives_it_back() {
    let setup = Setup { config: Some(SHORT), ..Setup::default() };
    if !enter("killed_while_an_account_is_expired_the_next_agent_gives_it_back", &setup) {
        return;
    }
    without_delays().unwrap();
    assert!(run("chage", &["-E", "30000", "jon"]).unwrap().0);
    trip("jon");
    acted("jon", "expire", "verified");
    agent::kill_9().unwrap();
    assert_eq!(expiry("jon"), "1", "a restart releases nothing");
    let mut second = agent::start().unwrap();
    assert_eq!(expiry("jon"), "1", "a restart releases nothing");
    assert!(run("portcullis", &["unlock", "jon"]).unwrap().0);
    assert_eq!(expiry("jon"), "30000", "{NEITHER}");
    second.kill().unwrap();
    second.wait().unwrap();
}

#[test]
fn sessions_of_the_account_end_and_no_others() {
    let setup = Setup { config: Some(SHORT), ..Setup::default() };
    if !enter("sessions_of_the_account_end_and_no_others", &setup) {
        return;
    }
    without_delays().unwrap();
    // By real uid, where no login uid was set.
    let audit = Path::new("/proc/self/loginuid").exists();
    let (mut theirs, mut stubborn) = (process(JON, false), process(JON, true));
    let mut others = process(KON, false);
    let mut later = Vec::new();
    if audit {
        // jon logged in and became kon, root and the break-glass account; kon logged in and became jon.
        let admin: u32 = run("id", &["-u", "admin"]).unwrap().1.trim().parse().unwrap();
        let thread = std::thread::spawn(move || {
            logged_in_as(JON);
            let kept = vec![process(0, false), process(admin, false)];
            let ends = process(KON, false);
            logged_in_as(KON);
            (ends, kept, process(JON, false))
        });
        let (ends, mut kept, visitor) = thread.join().unwrap();
        kept.push(visitor);
        later.push((ends, kept));
    }
    trip("jon");
    acted("jon", "end_sessions", "verified");
    assert!(theirs.try_wait().unwrap().is_some(), "jon's own");
    assert!(stubborn.try_wait().unwrap().is_some(), "jon's own, that ignores SIGTERM");
    assert!(others.try_wait().unwrap().is_none(), "kon's");
    for (mut ends, kept) in later {
        assert!(ends.try_wait().unwrap().is_some(), "jon's session as kon");
        for mut kept in kept {
            assert!(
                kept.try_wait().unwrap().is_none(),
                "a process of root, of break-glass, or of kon's session"
            );
            kept.kill().unwrap();
            kept.wait().unwrap();
        }
    }
    others.kill().unwrap();
    others.wait().unwrap();
    // What root starts for him later goes on: a lock is no obstacle to the machine's own work.
    let mut work = process(JON, false);
    assert!(run("portcullis", &["reload"]).unwrap().0);
    assert!(work.try_wait().unwrap().is_none());
    work.kill().unwrap();
    work.wait().unwrap();
}
