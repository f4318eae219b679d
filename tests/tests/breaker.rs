//! The breaker by real logons: many accounts fail at su and sshd and nobody gets in, or too many are locked at once.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use std::path::Path;

use nix::sys::signal::{Signal, kill};
use portcullis_tests::agent;
use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::ssh::Sshd;
use portcullis_tests::stack::{must, without_delays};
use portcullis_tests::su::{self, KON};
use portcullis_tests::system::{password, portcullis, read, run, shadow_locked, wait_for};
use serde_json::Value;

const CONFIG: &str = r#"
break_glass = "admin"
[default]
deny = 1
unlock_time = "1h"
shadow_lock = true
[agent]
reconcile = "1s"
[breaker]
failing_window = "1h"
"#;

/// Makes the users u1 to u8.
fn users() -> Vec<String> {
    let names: Vec<String> = (1..=8).map(|n| format!("u{n}")).collect();
    for name in &names {
        must("useradd", &["--no-create-home", "--home-dir", "/", "--shell", "/bin/sh", name]).unwrap();
        must("sh", &["-c", &format!("echo {name}:right | chpasswd --crypt-method YESCRYPT")]).unwrap();
    }
    names
}

fn metric(name: &str) -> u64 {
    let (_, page) = run("curl", &["-s", "http://127.0.0.1:9456/metrics"]).unwrap();
    page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap()
}

fn breaker() -> Value {
    portcullis(&["status"]).unwrap()["breaker"].clone()
}

fn locked(user: &str) -> bool {
    !portcullis(&["explain", user]).unwrap()["row"]["lock"].is_null()
}

/// A wrong password, by ssh for every second user.
fn fails(user: &str) {
    if user.ends_with(['2', '4', '6', '8']) {
        assert!(!Sshd::at(22).logon(user, "password", "wrong").unwrap());
    } else {
        assert!(!su::attempt(KON, user, "wrong").unwrap().let_in);
    }
    assert!(locked(user), "{user}: the locks of the gate are never withheld");
}

fn gets_in() {
    assert!(su::attempt(KON, "admin", &password("admin")).unwrap().let_in);
}

fn wait_shadow(user: &str) {
    wait_for(&format!("the shadow lock of {user}"), 20, || shadow_locked(user)).unwrap();
}

fn wait_open(open: bool) {
    wait_for("the breaker", 20, || Ok(breaker()["open"] == open)).unwrap();
    wait_for("its metric", 10, || Ok(metric("portcullis_breaker_open ") == u64::from(open))).unwrap();
}

/// Whether an event of that name was told, with these words.
fn was_told(event: &str, words: &str) -> bool {
    let (_, text) = run("portcullis", &["events", "--json"]).unwrap();
    text.lines().any(|line| line.contains(&format!("\"event\":\"{event}\"")) && line.contains(words))
}

#[test]
fn when_many_fail_and_nobody_gets_in_the_upper_rungs_are_withheld() {
    let config = format!("{CONFIG}failing_accounts = 5\nlocked_percent = 100\n");
    let setup = Setup { config: Some(&config), ..Setup::default() };
    if !enter("when_many_fail_and_nobody_gets_in_the_upper_rungs_are_withheld", &setup) {
        return;
    }
    without_delays().unwrap();
    let users = users();
    for user in &users[..4] {
        fails(user);
        wait_shadow(user);
    }
    assert_eq!(
        (breaker()["open"].clone(), metric("portcullis_breaker_failing_accounts ")),
        (false.into(), 4)
    );
    // The fifth is one too many: an alarm, and its own password stays as it is, and that of the sixth.
    fails(&users[4]);
    fails(&users[5]);
    wait_open(true);
    assert!(was_told("breaker_open", "5 accounts fail and none succeeds"));
    let view = breaker();
    assert_eq!((&view["by"], &view["failing"]), (&"auto".into(), &6.into()), "{view}");
    let (_, text) = run("portcullis", &["status"]).unwrap();
    assert!(text.contains("BREAKER") && text.contains("6 accounts fail"), "{text}");
    // The engine works in order: what it was told later is done by now.
    must("portcullis", &["unlock", "u1"]).unwrap();
    assert!(!shadow_locked("u1").unwrap(), "what was set is undone as ever");
    for user in &users[4..6] {
        assert!(!shadow_locked(user).unwrap(), "{user}: not withheld");
    }
    // An administrator closes it: what was withheld is made up for, and the next is not withheld.
    must("portcullis", &["breaker", "close"]).unwrap();
    users[4..6].iter().for_each(|user| wait_shadow(user));
    assert_eq!(breaker()["by"], "close");
    wait_open(false);
    fails(&users[6]);
    wait_shadow(&users[6]);
    // He opens it.
    must("portcullis", &["breaker", "open"]).unwrap();
    wait_open(true);
    fails(&users[7]);
    must("portcullis", &["unlock", "u2"]).unwrap();
    assert!(!shadow_locked("u2").unwrap() && !shadow_locked(&users[7]).unwrap());
    let (_, text) = run("portcullis", &["breaker"]).unwrap();
    assert!(text.contains("OPEN by an administrator"), "{text}");
    // By its rules again, and whatever checks passwords works again.
    must("portcullis", &["breaker", "auto"]).unwrap();
    assert_eq!((breaker()["by"].clone(), breaker()["open"].clone()), ("auto".into(), true.into()));
    gets_in();
    wait_open(false);
    wait_shadow(&users[7]);
    assert!(was_told("breaker_closed", "climbed again"));
}

#[test]
fn when_too_many_are_locked_at_once_the_upper_rungs_are_withheld() {
    let config = format!("{CONFIG}failing_accounts = 3\nlocked_percent = 40\n");
    let setup = Setup { config: Some(&config), ..Setup::default() };
    if !enter("when_too_many_are_locked_at_once_the_upper_rungs_are_withheld", &setup) {
        return;
    }
    without_delays().unwrap();
    let users = users();
    // root, kon, jon, admin, these, and whoever else can log on here.
    let passwd = read(Path::new("/etc/passwd")).unwrap();
    let refuses = |line: &&str| ["/nologin", "/false", "/sync"].iter().any(|shell| line.ends_with(shell));
    let all = passwd.lines().filter(|line| !refuses(line)).count();
    wait_for("the users to be counted", 20, || Ok(metric("portcullis_breaker_accounts ") == all as u64))
        .unwrap();
    let most = all * 40 / 100;
    for user in &users[..most] {
        fails(user);
        // Somebody gets in: it is not the directory.
        gets_in();
        wait_shadow(user);
        assert_eq!(breaker()["open"], false, "{most} of {all} may be locked");
    }
    fails(&users[most]);
    gets_in();
    wait_open(true);
    assert!(was_told("breaker_open", "are locked at once"));
    let view = breaker();
    assert_eq!((&view["locked"], &view["accounts"]), (&(most + 1).into(), &all.into()), "{view}");
    let (_, text) = run("portcullis", &["status"]).unwrap();
    assert!(text.contains("BREAKER") && text.contains(&format!("of {all} accounts are locked")), "{text}");
    assert!(!shadow_locked(&users[most]).unwrap(), "not withheld");
    // Both words of an administrator.
    must("portcullis", &["breaker", "close"]).unwrap();
    wait_shadow(&users[most]);
    wait_open(false);
    must("portcullis", &["breaker", "auto"]).unwrap();
    wait_open(true);
    // Fewer locks.
    must("portcullis", &["unlock", &users[0]]).unwrap();
    wait_open(false);
    must("portcullis", &["breaker", "open"]).unwrap();
    fails(&users[0]);
    must("portcullis", &["unlock", &users[1]]).unwrap();
    assert!(!shadow_locked(&users[0]).unwrap(), "not withheld");
    must("portcullis", &["breaker", "auto"]).unwrap();
    wait_shadow(&users[0]);
}

/// The agent stands still while they fail, and hears of all of them at once.
#[test]
fn of_many_that_fail_at_once_none_climbs() {
    let config = format!("{CONFIG}failing_accounts = 5\nlocked_percent = 100\n");
    let setup = Setup { config: Some(&config), ..Setup::default() };
    if !enter("of_many_that_fail_at_once_none_climbs", &setup) {
        return;
    }
    without_delays().unwrap();
    let users = users();
    let agent = agent::pid().unwrap().unwrap();
    kill(agent, Signal::SIGSTOP).unwrap();
    for user in &users {
        assert!(!su::attempt(KON, user, "wrong").unwrap().let_in);
    }
    kill(agent, Signal::SIGCONT).unwrap();
    wait_open(true);
    assert!(was_told("breaker_open", "8 accounts fail"));
    // The engine works in order: what it was told before is done.
    must("portcullis", &["lock", "jon", "--for", "1h"]).unwrap();
    for user in &users {
        assert!(locked(user) && !shadow_locked(user).unwrap(), "{user}: not withheld");
    }
    // Nor by a restart of the agent, which forgets nothing of it.
    agent::kill_9().unwrap();
    let mut second = agent::start().unwrap();
    wait_open(true);
    must("portcullis", &["unlock", "jon"]).unwrap();
    for user in &users {
        assert!(locked(user) && !shadow_locked(user).unwrap(), "{user}: not withheld after a restart");
    }
    gets_in();
    wait_open(false);
    users.iter().for_each(|user| wait_shadow(user));
    second.kill().unwrap();
    second.wait().unwrap();
}
