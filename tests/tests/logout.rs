//! The rung that ends sessions, under the real systemd: sessions of sshd, login and user managers, as logind knows them.

#![allow(clippy::unwrap_used, reason = "this is how a test fails, in its helpers too")]

use std::path::Path;
use std::process::Child;

use portcullis_tests::inside::{Kind, Setup, enter_a};
use portcullis_tests::ssh::Sshd;
use portcullis_tests::stack::{must, without_delays};
use portcullis_tests::su::{self, JON, KON};
use portcullis_tests::system::{password, portcullis, run, wait_for};
use portcullis_tests::terminal::Terminal;

/// jon and kon lose their sessions at the first trip; root can be locked, admin is break-glass.
const CONFIG: &str = r#"
break_glass = "admin"
[default]
deny = 2
unlock_time = "10m"
end_sessions_after_trips = 1
[root]
even_deny_root = true
restrict = false
deny = 2
root_unlock_time = "10m"
"#;

/// What runs in the test's sessions, by a number of its own in the list of processes.
fn runs(seconds: u32) -> bool {
    run("pgrep", &["-f", &format!("^(/usr/bin/)?sleep {seconds}$")]).unwrap().0
}

/// Users that logind knows sessions or a manager of.
fn users() -> Vec<String> {
    let mut listed = String::new();
    // A user who goes meanwhile makes it fail.
    wait_for("logind's list", 10, || {
        let (good, text) = run("loginctl", &["list-users", "--no-legend"])?;
        listed = text;
        Ok(good)
    })
    .unwrap();
    listed.lines().filter_map(|line| line.split_whitespace().nth(1).map(str::to_owned)).collect()
}

fn ssh(user: &str, command: &str) -> Child {
    Sshd::at(22).runs(user, &password(user), command).unwrap()
}

fn wrong(who: u32, user: &str) {
    for _ in 0..2 {
        assert!(!su::attempt(who, user, "wrong").unwrap().let_in);
    }
}

fn ended(user: &str) {
    wait_for("the end of the sessions", 60, || {
        let explained = portcullis(&["explain", user])?;
        let actions = explained.pointer("/actions").and_then(serde_json::Value::as_array).cloned();
        Ok(actions.unwrap_or_default().iter().any(|kept| {
            kept.get("action").is_some_and(|action| action == "end_sessions")
                && kept.get("result").is_some_and(|result| result == "verified")
        }))
    })
    .unwrap();
}

#[test]
fn logind_ends_the_sessions_of_the_locked_account_and_no_others() {
    let setup = Setup { config: Some(CONFIG), ..Setup::default() };
    if !enter_a(Kind::Systemd, "logind_ends_the_sessions_of_the_locked_account_and_no_others", &setup) {
        return;
    }
    without_delays().unwrap();
    must("sh", &["-c", "echo root:of-root | chpasswd --crypt-method YESCRYPT"]).unwrap();
    // jon: by ssh, where one program ignores SIGTERM; at a terminal, where he became root; a unit of his own manager.
    let mut jon = ssh("jon", "trap '' TERM; echo in; sleep 7001; sleep 7002; sleep 7001");
    let mut terminal = Terminal::start("login jon").unwrap();
    terminal.answer(&password("jon")).unwrap();
    terminal.wait("jon@").unwrap();
    terminal.line("su root -c 'sleep 7003'").unwrap();
    terminal.answer("of-root").unwrap();
    wait_for("root's program in jon's session", 20, || Ok(runs(7003))).unwrap();
    let mut manager = ssh("jon", "systemd-run --quiet --user sleep 7004; echo in; sleep 7005");
    // Others, in the same ways.
    let mut kon = ssh("kon", "systemd-run --quiet --user sleep 7011; echo in; sleep 7012");
    let mut admin = ssh("admin", "systemd-run --quiet --user sleep 7021; echo in; sleep 7022");
    let mut root = Terminal::start("login root").unwrap();
    root.answer("of-root").unwrap();
    root.wait("root@").unwrap();
    root.line("sleep 7031").unwrap();
    let all = [7001, 7003, 7004, 7005, 7011, 7012, 7021, 7022, 7031];
    wait_for("all sessions", 20, || Ok(all.into_iter().all(runs))).unwrap();
    let mut known = users();
    known.sort();
    assert_eq!(known, ["admin", "jon", "kon", "root"], "logind knows them all");
    // root is locked, and the break-glass account guessed at: neither loses anything.
    wrong(KON, "root");
    wrong(KON, "admin");
    wait_for("root's lock", 20, || Ok(!portcullis(&["explain", "root"])?["row"]["lock"].is_null())).unwrap();
    wrong(KON, "jon");
    ended("jon");
    for number in [7001, 7002, 7003, 7004, 7005] {
        assert!(!runs(number), "sleep {number} is left of jon's sessions");
    }
    for child in [&mut jon, &mut manager] {
        child.wait().unwrap();
    }
    wait_for("logind to forget jon", 20, || Ok(!users().contains(&"jon".to_owned()))).unwrap();
    for number in [7011, 7012, 7021, 7022, 7031] {
        assert!(runs(number), "sleep {number} was not jon's");
    }
    let mut known = users();
    known.sort();
    assert_eq!(known, ["admin", "kon", "root"]);
    // Without logind: by the login uid of his processes.
    must("systemctl", &["mask", "--runtime", "--now", "systemd-logind.service"]).unwrap();
    assert!(!run("loginctl", &["list-users"]).unwrap().0, "logind answers still");
    wrong(JON, "kon");
    ended("kon");
    for (number, left) in [(7011, false), (7012, false), (7021, true), (7022, true), (7031, true)] {
        assert_eq!(runs(number), left, "sleep {number}, without logind");
    }
    kon.wait().unwrap();
    for user in ["admin", "root"] {
        let explained = portcullis(&["explain", user]).unwrap();
        assert!(!explained["actions"].to_string().contains("end_sessions"), "{user}: {explained}");
    }
    // The hardened unit was forbidden nothing.
    let (_, journal) = run(
        "journalctl",
        &["--unit", "portcullisd.service", "--grep", "cannot|denied|not permitted", "--quiet"],
    )
    .unwrap();
    assert_eq!(journal, "");
    assert!(Path::new("/run/systemd/seats").is_dir());
    admin.kill().unwrap();
    admin.wait().unwrap();
    root.kill().unwrap();
    terminal.rest().unwrap();
}
