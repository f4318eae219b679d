//! Classes of accounts: each kind with limits of its own, by real logons, and what `portcullis explain` says of it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use std::time::{Duration, Instant};

use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::stack::{must, without_delays};
use portcullis_tests::su::{self, JON, KON};
use portcullis_tests::system::{number, password, portcullis, run};
use serde_json::Value;

const CLASSES: &str = r#"
break_glass = "admin"

[default]
deny = 6
fail_interval = "1h"
unlock_time = "1h"

[root]
even_deny_root = true
root_unlock_time = "3m"
deny = 3
fail_interval = "20m"
restrict = false

[break_glass_limits]
deny = 2
fail_interval = "10m"
delay = "1s"

[[class]]
name = "named"
users = ["jon"]
deny = 2
unlock_time = "never"

[[class]]
name = "people"
groups = ["kon"]
deny = 4
unlock_time = "40m"

[[class]]
name = "machine"
system = true
deny = 1

[[class]]
name = "nobody"
unknown = true
deny = 5
fail_interval = "30m"
unlock_time = "50m"
"#;

fn wrong(user: &str, times: usize) {
    for _ in 0..times {
        assert!(!su::attempt(if user == "kon" { JON } else { KON }, user, "wrong").unwrap().let_in);
    }
}

/// Minutes that a lock of the account has left, rounded; none where it has no end.
fn minutes(row: &Value) -> Option<i64> {
    let until = row["lock"]["until"].as_str()?;
    let (_, end) = run("date", &["-d", until, "+%s"]).ok()?;
    let (_, now) = run("date", &["+%s"]).ok()?;
    Some((end.trim().parse::<i64>().ok()? - now.trim().parse::<i64>().ok()? + 30) / 60)
}

#[test]
fn each_class_of_accounts_has_limits_of_its_own() {
    let setup = Setup { config: Some(CLASSES), ..Setup::default() };
    if !enter("each_class_of_accounts_has_limits_of_its_own", &setup) {
        return;
    }
    without_delays().unwrap();
    // ron is in no class.
    must("useradd", &["--no-create-home", "--home-dir", "/", "ron"]).unwrap();
    must("usermod", &["--shell", "/bin/sh", "games"]).unwrap();
    for (user, deny, lasts, class, because) in [
        ("root", 3, Some(3), "root", "uid 0"),
        ("jon", 2, None, "named", "class 1 of the file names the user"),
        ("kon", 4, Some(40), "people", "class 2 of the file names the group kon"),
        ("games", 1, Some(60), "machine", "class 3 of the file takes system accounts"),
        ("ron", 6, Some(60), "default", "no class of the file names it"),
    ] {
        wrong(user, deny - 1);
        let explained = portcullis(&["explain", user]).unwrap();
        assert!(explained["row"]["lock"].is_null(), "{user} is locked before its own limit");
        wrong(user, 1);
        let explained = portcullis(&["explain", user]).unwrap();
        let row = &explained["row"];
        assert!(!row["lock"].is_null(), "{user} is not locked at its own limit");
        assert_eq!(minutes(row), lasts, "{user}: {row}");
        assert_eq!((row["class"].as_str(), explained["because"].as_str()), (Some(class), Some(because)));
        let (_, text) = run("portcullis", &["explain", user]).unwrap();
        assert!(text.contains(because), "{text}");
    }
}

#[test]
fn break_glass_is_counted_and_delayed_by_its_own_numbers_and_never_locked() {
    let setup = Setup { config: Some(CLASSES), ..Setup::default() };
    if !enter("break_glass_is_counted_and_delayed_by_its_own_numbers_and_never_locked", &setup) {
        return;
    }
    without_delays().unwrap();
    wrong("admin", 2);
    assert_eq!(number("admin", "failures").unwrap(), 2);
    let started = Instant::now();
    wrong("admin", 1);
    assert!(started.elapsed() >= Duration::from_secs(2), "two failures delay by two seconds");
    assert_eq!(number("admin", "failures").unwrap(), 2, "of more than its own deny the newest are not kept");
    let explained = portcullis(&["explain", "admin"]).unwrap();
    assert_eq!(explained["rule"]["deny"], 2);
    assert_eq!(explained["rule"]["fail_interval"], 600);
    assert_eq!(explained["because"], "named by break_glass");
    assert!(su::attempt(KON, "admin", &password("admin")).unwrap().let_in, "never locked");
}

#[test]
fn names_no_user_has_are_a_class_of_their_own() {
    let setup = Setup { config: Some(CLASSES), ..Setup::default() };
    if !enter("names_no_user_has_are_a_class_of_their_own", &setup) {
        return;
    }
    without_delays().unwrap();
    // su says at once that there is no such user; login asks for the password first.
    let guess = || run("sh", &["-c", "echo wrong | pamtester login nosuch authenticate"]).unwrap();
    let row = || -> Value {
        let rows = portcullis(&["accounts"]).unwrap();
        let all = rows.as_array().unwrap().iter();
        let mut unknown = all.filter(|row| row["account"]["uid"].is_null());
        let found = unknown.next().unwrap().clone();
        assert!(unknown.next().is_none(), "one name, one row");
        found
    };
    for n in 1..=4 {
        assert!(!guess().0);
        assert_eq!(
            (&row()["failures"], &row()["deny"], &row()["class"]),
            (&n.into(), &5.into(), &"nobody".into())
        );
    }
    assert!(row()["lock"].is_null());
    assert!(!guess().0);
    assert_eq!(minutes(&row()), Some(50), "its own unlock_time");
    // What holds for such names, and that other limits tell who they are.
    let (found, text) = run("portcullis", &["explain", "nosuch"]).unwrap();
    assert!(found && text.contains("class 4 of the file takes names no user has"), "{text}");
    let (right, text) = run("portcullis", &["config", "check"]).unwrap();
    assert!(
        right && text.contains("class \"nobody\".unknown") && text.contains("which names exist"),
        "{text}"
    );
    let (_, text) = run("portcullis", &["doctor"]).unwrap();
    assert!(text.contains("which names exist"), "{text}");
    // Without a class of their own they have the default's limits.
    must("sed", &["-i", "s/^unknown = true/users = [\"ron\"]/", "/etc/portcullis/portcullis.toml"]).unwrap();
    must("portcullis", &["reload"]).unwrap();
    assert_eq!((&row()["deny"], &row()["class"]), (&6.into(), &"default".into()));
}
