//! The accounts that are never locked: several of them, each looked at; delayed all the same, their guessers answered.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use portcullis_tests::inside::{Kind, Setup, enter, enter_a};
use portcullis_tests::siege::{Logon, Siege};
use portcullis_tests::ssh::{Sshd, make_key};
use portcullis_tests::stack::{must, without_delays};
use portcullis_tests::su::{self, JON, KON};
use portcullis_tests::system::{password, portcullis, run, wait_for, write};

const FILE: &str = "/etc/portcullis/portcullis.toml";
const TWO: &str = "break_glass = [\"admin\", \"kon\"]\n[default]\ndeny = 2\nunlock_time = \"1h\"\n";

fn enters(who: u32, user: &str) -> bool {
    su::attempt(who, user, &password(user)).unwrap().let_in
}

#[test]
fn every_break_glass_account_is_exempt_and_looked_at() {
    let setup = Setup { config: Some(TWO), ..Setup::default() };
    if !enter("every_break_glass_account_is_exempt_and_looked_at", &setup) {
        return;
    }
    without_delays().unwrap();
    for (who, user) in [(KON, "admin"), (JON, "kon"), (KON, "jon")] {
        for _ in 0..3 {
            assert!(!su::attempt(who, user, "wrong").unwrap().let_in);
        }
        assert_eq!(enters(who, user), user != "jon", "{user}");
    }
    let (locked, text) = run("portcullis", &["lock", "kon"]).unwrap();
    assert!(!locked && text.contains("exempt"), "{text}");
    assert_eq!(portcullis(&["explain", "kon"]).unwrap()["because"], "named by break_glass");
    let (_, text) = run("portcullis", &["status"]).unwrap();
    assert!(text.contains("admin, kon"), "{text}");
    // What keeps the second one out is told, by its name, and nothing of the file is taken over.
    let reload = |wrong: &str| {
        let (taken, text) = run("portcullis", &["reload"]).unwrap();
        assert!(
            !taken && text.contains(&format!("{FILE}:1: break_glass: kon")) && text.contains(wrong),
            "{text}"
        );
    };
    for (spoil, wrong, mend) in [
        (
            &["usermod", "-s", "/usr/sbin/nologin", "kon"][..],
            "usermod -s",
            &["usermod", "-s", "/bin/bash", "kon"][..],
        ),
        (&["chage", "-E", "1", "kon"], "has expired", &["chage", "-E", "-1", "kon"]),
        (&["passwd", "-l", "kon"], "passwd kon", &["passwd", "-u", "kon"]),
    ] {
        must(spoil[0], &spoil[1..]).unwrap();
        reload(wrong);
        must(mend[0], &mend[1..]).unwrap();
        must("portcullis", &["reload"]).unwrap();
    }
    write(Path::new(FILE), &TWO.replace("kon", "nosuch")).unwrap();
    let (taken, text) = run("portcullis", &["reload"]).unwrap();
    assert!(!taken && text.contains("no user is named nosuch"), "{text}");
    // Without a password a key will do, and it does: by ssh.
    write(Path::new(FILE), TWO).unwrap();
    must("passwd", &["-l", "kon"]).unwrap();
    make_key().unwrap();
    let (taken, text) = run("portcullis", &["config", "check"]).unwrap();
    assert!(taken && text.contains("with its key alone"), "{text}");
    assert!(Sshd::at(22).logon("kon", "publickey", "").unwrap());
    // No longer named: it counts like others.
    write(Path::new(FILE), &TWO.replace("[\"admin\", \"kon\"]", "\"admin\"")).unwrap();
    must("portcullis", &["reload"]).unwrap();
    must("portcullis", &["lock", "kon"]).unwrap();
}

#[test]
fn the_hardened_unit_starts_with_a_break_glass_account_that_has_a_key_alone() {
    let setup = Setup { config: Some(TWO), ..Setup::default() };
    let name = "the_hardened_unit_starts_with_a_break_glass_account_that_has_a_key_alone";
    if !enter_a(Kind::Systemd, name, &setup) {
        return;
    }
    make_key().unwrap();
    must("passwd", &["-l", "kon"]).unwrap();
    // The unit cannot see into homes: that it does not know is no reason to leave the host without a gate.
    must("systemctl", &["restart", "portcullis-gate.service", "portcullisd.service"]).unwrap();
    assert_eq!(portcullis(&["status"]).unwrap()["gate"], true);
    wait_for("the warning", 20, || {
        let (_, text) = run("journalctl", &["--unit", "portcullisd.service", "--quiet"])?;
        Ok(text.contains("whether it has a key cannot be seen from here"))
    })
    .unwrap();
    must("portcullis", &["reload"]).unwrap();
}

const SIEGE: &str = r#"
break_glass = "admin"
[default]
deny = 2
[break_glass_limits]
deny = 6
delay = "1s"
[filter]
enabled = true
[sc5]
guess = "drop"
deny = 4
drop_time = "10m"
"#;

#[test]
fn an_exempt_accounts_guesser_is_dropped_and_the_account_stays_usable() {
    let setup = Setup { config: Some(SIEGE), ..Setup::default() };
    if !enter("an_exempt_accounts_guesser_is_dropped_and_the_account_stays_usable", &setup) {
        return;
    }
    without_delays().unwrap();
    let siege = Siege::begin().unwrap();
    for failures in 0..4 {
        let started = Instant::now();
        assert_ne!(siege.logon(&siege.attacker, "admin", "wrong").unwrap(), Logon::LetIn);
        assert!(
            started.elapsed() >= Duration::from_secs(failures),
            "{failures} failures delay by as many seconds"
        );
    }
    siege.wait_dropped(true).unwrap();
    assert!(!siege.attacker.pings().unwrap());
    assert_eq!(siege.logon(&siege.attacker, "admin", &password("admin")).unwrap(), Logon::NoAnswer);
    // Far beyond the others' deny; usable from elsewhere, still delayed.
    let explained = portcullis(&["explain", "admin"]).unwrap();
    assert!(explained["row"]["lock"].is_null(), "{explained}");
    assert_eq!(explained["row"]["failures"], 4);
    let started = Instant::now();
    assert_eq!(siege.logon(&siege.innocent, "admin", &password("admin")).unwrap(), Logon::LetIn);
    assert!(started.elapsed() >= Duration::from_secs(4), "four failures delay by four seconds");
    assert!(enters(KON, "admin"));
}
