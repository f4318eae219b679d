//! What must go on when the agent or the gate does not: the hours of a soft lock without an agent, a row of trips over a
//! gate that was lost.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use std::process::Child;

use portcullis_tests::agent;
use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::ledger;
use portcullis_tests::ssh::Sshd;
use portcullis_tests::stack::{must, without_delays};
use portcullis_tests::su::{self, JON, KON};
use portcullis_tests::system::{number, password, portcullis, run, wait_for, write};

const GROWING: &str = r#"
break_glass = "admin"
[default]
deny = 2
unlock_time = "2s"
backoff_window = "10m"
max_unlock_time = "1h"
"#;

/// Seconds of the lock that jon has, as it was set.
fn trip() -> u64 {
    for _ in 0..2 {
        assert!(!su::attempt(KON, "jon", "wrong").unwrap().let_in);
    }
    let now = ledger::of(JON).unwrap();
    assert!(now.locked_until != 0, "two failures lock");
    (now.locked_until - now.now).div_ceil(1_000_000_000)
}

fn released() {
    wait_for("the end of the lock", 20, || Ok(portcullis(&["explain", "jon"])?["row"]["lock"].is_null()))
        .unwrap();
}

#[test]
fn a_row_of_trips_goes_on_in_a_gate_that_was_lost() {
    let setup = Setup { config: Some(GROWING), ..Setup::default() };
    if !enter("a_row_of_trips_goes_on_in_a_gate_that_was_lost", &setup) {
        return;
    }
    without_delays().unwrap();
    assert!((1..=2).contains(&trip()));
    released();
    assert!((3..=4).contains(&trip()));
    released();
    // Between two locks.
    let lose = |before: Option<Child>| {
        match before {
            Some(mut agent) => {
                agent.kill().unwrap();
                agent.wait().unwrap();
            }
            None => agent::kill_9().unwrap(),
        }
        must("rm", &["-r", "/sys/fs/bpf/portcullis"]).unwrap();
        agent::start().unwrap()
    };
    let second = lose(None);
    assert_eq!(number("jon", "trips").unwrap(), 0, "the gate is a new one");
    assert!((7..=8).contains(&trip()), "the third of a row");
    // And during one: it comes back as long as it was, and so does the row.
    let third = lose(Some(second));
    assert!(ledger::locked(JON).unwrap());
    released();
    assert!((15..=16).contains(&trip()), "the fourth of a row");
    // An administrator ends the row, for good.
    must("portcullis", &["unlock", "jon"]).unwrap();
    let mut fourth = lose(Some(third));
    assert!((1..=2).contains(&trip()), "the first of a new row");
    fourth.kill().unwrap();
    fourth.wait().unwrap();
}

/// Sets the local time: a minute of it ends `seconds` from now. Time zones may differ by seconds (RFC 9636), and did.
fn minute_ends_in(seconds: u32) {
    let now: u32 = must("date", &["-u", "+%S"]).unwrap().trim().parse().unwrap();
    let ahead = (120 - seconds - now) % 60;
    write("/root/zone".as_ref(), &format!("Zone Here 0:00:{ahead} - HERE\n")).unwrap();
    must("zic", &["-d", "/root/zones", "/root/zone"]).unwrap();
    // A link to another zone until now.
    must("rm", &["-f", "/etc/localtime"]).unwrap();
    must("cp", &["/root/zones/Here", "/etc/localtime"]).unwrap();
    let left = 60 - must("date", &["+%S"]).unwrap().trim().parse::<u32>().unwrap();
    assert!((seconds.saturating_sub(5)..=seconds).contains(&left), "{left} s are left of this minute");
}

#[test]
fn a_pairs_row_of_trips_goes_on_in_a_gate_that_was_lost() {
    let config = GROWING.replace("deny = 2", "deny = 2\naccount_deny = 16\nscope = \"pair\"");
    let setup = Setup { config: Some(&config), ..Setup::default() };
    if !enter("a_pairs_row_of_trips_goes_on_in_a_gate_that_was_lost", &setup) {
        return;
    }
    without_delays().unwrap();
    // Seconds of the lock of kon at jon, as it was set, when the store knows of it.
    let trip = || {
        for _ in 0..2 {
            assert!(!su::attempt(KON, "jon", "wrong").unwrap().let_in);
        }
        let pair = pair_of_kon();
        let time = |field: &str| -> i64 {
            let text = pair["lock"][field].as_str().unwrap().to_owned();
            run("date", &["-d", &text, "+%s%3N"]).unwrap().1.trim().parse().unwrap()
        };
        (time("until") - time("since") + 500) / 1000
    };
    let released = || wait_for("the end of the lock", 20, || Ok(pair_of_kon()["lock"].is_null())).unwrap();
    assert_eq!(trip(), 2);
    released();
    assert_eq!(trip(), 4);
    released();
    agent::kill_9().unwrap();
    must("rm", &["-r", "/sys/fs/bpf/portcullis"]).unwrap();
    let mut second = agent::start().unwrap();
    assert_eq!(trip(), 8, "the third of a row, in a new gate");
    // An administrator ends it, for good.
    must("portcullis", &["unlock", "jon"]).unwrap();
    second.kill().unwrap();
    second.wait().unwrap();
    must("rm", &["-r", "/sys/fs/bpf/portcullis"]).unwrap();
    let mut third = agent::start().unwrap();
    assert_eq!(trip(), 2, "the first of a new row");
    third.kill().unwrap();
    third.wait().unwrap();
}

/// What `portcullis explain jon` says of kon as a source; null: nothing.
fn pair_of_kon() -> serde_json::Value {
    let answer = portcullis(&["explain", "jon"]).unwrap();
    let pairs = answer["pairs"].as_array().cloned().unwrap_or_default();
    pairs.into_iter().find(|pair| pair["source"]["uid"] == KON).unwrap_or_default()
}

#[test]
fn the_hours_of_restrict_begin_and_end_without_an_agent() {
    // Programs read the zone when they start.
    let setup = Setup { config: Some("break_glass = \"admin\"\n"), no_agent: true, bare: false };
    if !enter("the_hours_of_restrict_begin_and_end_without_an_agent", &setup) {
        return;
    }
    without_delays().unwrap();
    let at = |when: &str| run("date", &["-d", when, "+%H:%M"]).unwrap().1.trim().to_owned();
    minute_ends_in(30);
    let mut agent = agent::start().unwrap();
    let (past, next, later) = (at("-1 hour"), at("+1 minute"), at("+1 hour"));
    let class = |user: &str, hours: String| {
        format!(
            "[[class]]\nname = \"{user}s\"\nusers = [\"{user}\"]\ndeny = 2\n\
             restrict = {{ networks = [\"127.0.0.0/8\"], hours = \"{hours}\" }}\n"
        )
    };
    let text = format!(
        "break_glass = \"admin\"\n{}{}",
        class("jon", format!("{next}-{later}")),
        class("kon", format!("{past}-{next}"))
    );
    write("/etc/portcullis/portcullis.toml".as_ref(), &text).unwrap();
    must("portcullis", &["reload"]).unwrap();
    let sshd = Sshd::start(2222, "PasswordAuthentication yes").unwrap();
    for (from, user) in [(KON, "jon"), (JON, "kon")] {
        for _ in 0..2 {
            assert!(!su::attempt(from, user, "wrong").unwrap().let_in);
        }
    }
    agent.kill().unwrap();
    agent.wait().unwrap();
    let open = |user: &str| sshd.logon(user, "password", &password(user));
    assert!(!open("jon").unwrap(), "not yet");
    assert!(open("kon").unwrap(), "still");
    wait_for("the next minute", 60, || open("jon")).unwrap();
    assert!(!open("kon").unwrap(), "over");
    assert!(agent::pid().unwrap().is_none(), "no agent runs");
}
