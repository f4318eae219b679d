//! The second rung where passwd(1) fails, is killed, or finds what an administrator did: the lock in the gate holds, and
//! what is not ours is never undone.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::su::{self, KON};
use portcullis_tests::system::{password, portcullis, read, run, shadow_locked, wait_for, write};
use serde_json::Value;

const CONFIG: &str = "/etc/portcullis/portcullis.toml";

/// Three wrong passwords for jon, whose class has the shadow lock.
fn trip() {
    for _ in 0..3 {
        assert!(!su::attempt(KON, "jon", "wrong").unwrap().let_in);
    }
}

/// The events so far of that name about jon.
fn events(name: &str) -> Vec<Value> {
    let (_, text) = run("portcullis", &["events", "--json"]).unwrap();
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.filter(|event| event["event"] == name && event["account"]["name"] == "jon").collect()
}

/// Waits for an event with that result and returns its detail.
fn result(name: &str, result: &str) -> String {
    let mut detail = String::new();
    wait_for(&format!("{name} {result}"), 30, || {
        let found = events(name).into_iter().find(|event| event["result"] == result);
        detail = found.as_ref().map_or_else(String::new, |event| event["detail"].to_string());
        Ok(found.is_some())
    })
    .unwrap();
    detail
}

/// Waits for a notice that holds these words.
fn notice(words: &str) {
    wait_for(words, 30, || {
        Ok(events("notice").iter().any(|event| event["detail"].to_string().contains(words)))
    })
    .unwrap();
}

/// The lock that passwd, chpasswd and vipw take, held until the result is dropped.
fn hold_password_files() -> std::fs::File {
    let file = std::fs::File::create("/etc/.pwd.lock").unwrap();
    let lock = nix::libc::flock {
        l_type: nix::libc::F_WRLCK as i16,
        l_whence: nix::libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_SETLK(&lock)).unwrap();
    file
}

/// Kills with -9 the agent that runs.
fn kill_agent() {
    let pid = portcullis(&["status"]).unwrap()["pid"].as_i64().unwrap();
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    kill(pid, Signal::SIGKILL).unwrap();
    // A question that it was asked while it died breaks off.
    wait_for("the agent's end", 10, || {
        Ok(portcullis(&["status"]).is_ok_and(|status| status["answered_by"] == "gate"))
    })
    .unwrap();
}

fn start_agent() -> Child {
    let log = std::fs::File::create("/run/second-agent.log").unwrap();
    let agent = Command::new("portcullisd").stdin(Stdio::null()).stderr(log).spawn().unwrap();
    wait_for("the agent", 20, || Ok(portcullis(&["status"])?["answered_by"] == "agent")).unwrap();
    agent
}

/// The runs of passwd that the agent started.
fn passwds() -> Vec<Pid> {
    let (_, text) = run("pgrep", &["-f", "passwd -q -l -- jon"]).unwrap();
    text.lines().map(|line| Pid::from_raw(line.parse().unwrap())).collect()
}

/// What became of the last action of that name, by what the store keeps.
fn kept(action: &str) -> (String, String) {
    let explained = portcullis(&["explain", "jon"]).unwrap();
    let actions = explained["actions"].as_array().unwrap();
    let found = actions.iter().rev().find(|kept| kept["action"] == action).unwrap();
    (found["result"].to_string(), found["reason"].to_string())
}

fn unlock_and_enter(password: &str) {
    let (released, text) = run("portcullis", &["unlock", "jon"]).unwrap();
    assert!(released, "{text}");
    assert!(!shadow_locked("jon").unwrap());
    assert!(su::attempt(KON, "jon", password).unwrap().let_in);
}

#[test]
fn passwd_that_waits_for_its_lock_is_stopped_and_tried_again() {
    if !enter("passwd_that_waits_for_its_lock_is_stopped_and_tried_again", &Setup::default()) {
        return;
    }
    // Takes effect at a reload, else passwd would wait for 15 s and the agent for 20.
    let text = read(Path::new(CONFIG)).unwrap() + "\n[agent]\npasswd_timeout = \"1s\"\n";
    write(Path::new(CONFIG), &text).unwrap();
    let (reloaded, text) = run("portcullis", &["reload"]).unwrap();
    assert!(reloaded, "{text}");
    let held = hold_password_files();
    trip();
    let why = result("shadow_lock", "failed");
    assert!(why.contains("longer than 1s") && why.contains("/etc/.pwd.lock"), "{why}");
    notice("the password could not be locked");
    // The lock in the gate holds meanwhile.
    assert!(!su::attempt(KON, "jon", &password("jon")).unwrap().let_in);
    assert!(!shadow_locked("jon").unwrap());
    drop(held);
    result("shadow_lock", "verified");
    assert!(shadow_locked("jon").unwrap());
    unlock_and_enter(&password("jon"));
}

#[test]
fn passwd_that_fails_is_tried_again() {
    if !enter("passwd_that_fails_is_tried_again", &Setup::default()) {
        return;
    }
    assert!(run("mount", &["--bind", "/etc", "/etc"]).unwrap().0);
    assert!(run("mount", &["-o", "remount,bind,ro", "/etc"]).unwrap().0);
    trip();
    let why = result("shadow_lock", "failed");
    assert!(why.contains("passwd -l jon ended with") && why.contains("not locked"), "{why}");
    notice("the password could not be locked");
    assert!(!su::attempt(KON, "jon", &password("jon")).unwrap().let_in);
    assert!(run("mount", &["-o", "remount,bind,rw", "/etc"]).unwrap().0);
    result("shadow_lock", "verified");
    unlock_and_enter(&password("jon"));
}

#[test]
fn killed_during_passwd_the_next_agent_looks_what_was_done() {
    if !enter("killed_during_passwd_the_next_agent_looks_what_was_done", &Setup::default()) {
        return;
    }
    let right = password("jon");
    let mut agents = Vec::new();
    for passwd_lives in [true, false] {
        let held = hold_password_files();
        trip();
        wait_for("passwd", 10, || Ok(!passwds().is_empty())).unwrap();
        kill_agent();
        if !passwd_lives {
            passwds().into_iter().for_each(|pid| kill(pid, Signal::SIGKILL).unwrap());
        }
        drop(held);
        wait_for("the end of passwd", 20, || Ok(passwds().is_empty())).unwrap();
        assert_eq!(shadow_locked("jon").unwrap(), passwd_lives);
        agents.push(start_agent());
        let (was, reason) = kept("shadow_lock");
        if passwd_lives {
            assert!(was.contains("verified") && reason.contains("found done"), "{was}: {reason}");
        } else {
            // Not done, so it is done now.
            result("shadow_lock", "verified");
        }
        wait_for("the shadow lock", 20, || shadow_locked("jon")).unwrap();
        // Known as ours: undone with the lock.
        unlock_and_enter(&right);
    }
    kill_agent();
    for mut agent in agents {
        assert!(!agent.wait().unwrap().success(), "killed");
    }
}

#[test]
fn a_password_that_an_administrator_locked_is_left_alone() {
    if !enter("a_password_that_an_administrator_locked_is_left_alone", &Setup::default()) {
        return;
    }
    assert!(run("passwd", &["-l", "jon"]).unwrap().0);
    trip();
    result("shadow_lock", "already_locked");
    notice("locked by an administrator before");
    assert_eq!(portcullis(&["explain", "jon"]).unwrap()["row"]["shadow"], "foreign");
    let (released, text) = run("portcullis", &["unlock", "jon"]).unwrap();
    assert!(released, "{text}");
    assert!(portcullis(&["explain", "jon"]).unwrap()["row"]["lock"].is_null());
    assert!(shadow_locked("jon").unwrap(), "his lock stays");
    assert!(run("passwd", &["-u", "jon"]).unwrap().0);
    assert!(su::attempt(KON, "jon", &password("jon")).unwrap().let_in);
}

#[test]
fn a_password_that_was_changed_meanwhile_is_left_alone() {
    if !enter("a_password_that_was_changed_meanwhile_is_left_alone", &Setup::default()) {
        return;
    }
    trip();
    wait_for("the shadow lock", 20, || shadow_locked("jon")).unwrap();
    let fresh = "a fresh password, 4711";
    assert!(run("sh", &["-c", &format!("echo 'jon:{fresh}' | chpasswd")]).unwrap().0);
    let field = || {
        read(Path::new("/etc/shadow"))
            .unwrap()
            .lines()
            .find(|line| line.starts_with("jon:"))
            .map(str::to_owned)
    };
    let before = field();
    let (clean, text) = run("portcullis", &["unlock", "jon"]).unwrap();
    // Unlocked, with a word about the password: that is for the administrator to know.
    assert!(!clean && text.contains("changed while we held it locked"), "{text}");
    result("shadow_unlock", "foreign");
    assert_eq!(field(), before);
    assert!(su::attempt(KON, "jon", fresh).unwrap().let_in);
}
