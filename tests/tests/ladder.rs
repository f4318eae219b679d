//! The lower rungs: delay, locks that grow, monitor mode, with the real su.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use portcullis_tests::crowd::Crowd;
use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::stack::{must, without_delays};
use portcullis_tests::su::{self, KON};
use portcullis_tests::system::{
    Counter, Hold, number, password, portcullis, run, shadow_locked, wait_for, write,
};
use serde_json::Value;

const CONFIG: &str = r#"
break_glass = "admin"
[default]
mode = "monitor"
deny = 3
unlock_time = "10m"
shadow_lock = true
"#;

fn metric(line: &str) -> bool {
    let (_, page) = run("curl", &["-s", "http://127.0.0.1:9456/metrics"]).unwrap();
    page.lines().any(|found| found == line)
}

#[test]
fn monitor_mode_computes_tells_and_refuses_nothing() {
    let setup = Setup { config: Some(CONFIG), ..Setup::default() };
    if !enter("monitor_mode_computes_tells_and_refuses_nothing", &setup) {
        return;
    }
    without_delays().unwrap();
    let right = password("jon");
    for _ in 0..3 {
        assert!(!su::attempt(KON, "jon", "wrong").unwrap().let_in);
    }
    assert!(su::attempt(KON, "jon", &right).unwrap().let_in, "would be refused");
    wait_for("what would have been done", 10, || {
        Ok(metric("portcullis_would_trip_total 1")
            && metric("portcullis_attempts_total{outcome=\"would_refuse\",service=\"su\"} 2"))
    })
    .unwrap();
    assert!(metric("portcullis_trips_total 0"));
    assert!(!shadow_locked("jon").unwrap());
    let (_, text) = run("portcullis", &["explain", "jon"]).unwrap();
    assert!(text.contains("monitor mode"), "{text}");
    assert!(!run("portcullis", &["lock", "jon"]).unwrap().0, "nothing to be refused by a lock");
    // Enforcing begins with a clean slate: a lock that was only computed is none.
    let file = Path::new("/etc/portcullis/portcullis.toml");
    write(file, &CONFIG.replace("monitor", "enforce")).unwrap();
    must("portcullis", &["reload"]).unwrap();
    assert!(su::attempt(KON, "jon", &right).unwrap().let_in);
    for _ in 0..3 {
        assert!(!su::attempt(KON, "jon", "wrong").unwrap().let_in);
    }
    assert!(!su::attempt(KON, "jon", &right).unwrap().let_in, "locked");
    wait_for("the shadow lock", 10, || shadow_locked("jon")).unwrap();
    // And back: the lock is released, exactly as it was set.
    write(file, CONFIG).unwrap();
    must("portcullis", &["reload"]).unwrap();
    wait_for("the release", 10, || Ok(!shadow_locked("jon")?)).unwrap();
    assert!(su::attempt(KON, "jon", &right).unwrap().let_in);
}

const AT_ONCE: &str = r#"
break_glass = "admin"
[default]
mode = "monitor"
deny = 3
"#;

#[test]
fn in_monitor_mode_each_of_many_guesses_at_once_is_told() {
    let setup = Setup { config: Some(AT_ONCE), ..Setup::default() };
    if !enter("in_monitor_mode_each_of_many_guesses_at_once_is_told", &setup) {
        return;
    }
    without_delays().unwrap();
    let counter = Counter::install(Hold::WAIT).unwrap();
    let hold = Hold::begin().unwrap();
    let mut crowd = Crowd::at_the_prompt(10).unwrap();
    crowd.submit("wrong").unwrap();
    wait_for("all ten in the check: nobody waits and nobody is refused", 20, || Ok(counter.guesses()? == 10))
        .unwrap();
    hold.end().unwrap();
    assert_eq!(crowd.let_in().unwrap(), 0);
    // kon may have two guesses out at once: the other eight would not have come this far. Each is told by its result, too;
    // on the books are the two.
    let told = || -> Vec<Value> {
        let (_, text) = run("portcullis", &["events", "--json"]).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let would = |event: &&Value| {
        event["detail"].as_str().is_some_and(|detail| detail.contains("monitor: would have"))
    };
    let fails = |event: &&Value| event["event"] == "fail";
    wait_for("ten guesses to be told", 20, || Ok(told().iter().filter(fails).count() >= 10)).unwrap();
    let all = told();
    let count = |name: &str| all.iter().filter(|event| event["event"] == name).count();
    assert_eq!((count("busy"), count("fail"), count("refused")), (8, 10, 0), "{all:?}");
    assert_eq!(all.iter().filter(would).count(), 8);
    assert!(metric("portcullis_attempts_total{outcome=\"would_busy\",service=\"su\"} 8"));
    assert!(metric("portcullis_attempts_total{outcome=\"fail\",service=\"su\"} 10"));
    assert_eq!(number("jon", "failures").unwrap(), 2);
    // One after the other they count on: the next one would have locked.
    assert!(!su::attempt(KON, "jon", "wrong").unwrap().let_in);
    wait_for("the trip", 10, || Ok(metric("portcullis_would_trip_total 1"))).unwrap();
}

const GROWING: &str = r#"
break_glass = "admin"
[default]
deny = 2
unlock_time = "1s"
backoff_window = "10m"
max_unlock_time = "3s"
"#;

#[test]
fn locks_grow_with_each_trip_up_to_their_cap() {
    let setup = Setup { config: Some(GROWING), no_agent: false, bare: false };
    if !enter("locks_grow_with_each_trip_up_to_their_cap", &setup) {
        return;
    }
    without_delays().unwrap();
    for _ in 0..4 {
        for _ in 0..2 {
            assert!(!su::attempt(KON, "jon", "wrong").unwrap().let_in);
        }
        wait_for("the end of the lock", 10, || {
            Ok(portcullis(&["explain", "jon"])?.pointer("/row/lock").is_some_and(Value::is_null))
        })
        .unwrap();
    }
    assert_eq!(number("jon", "trips").unwrap(), 4);
    let (_, events) = run("portcullis", &["events", "--json"]).unwrap();
    let events = events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let trips: Vec<Value> = events.filter(|event| event["tripped"] == true).collect();
    let milliseconds = |event: &Value, field: &str| {
        let (_, text) = run("date", &["-d", event[field].as_str().unwrap(), "+%s%3N"]).unwrap();
        text.trim().parse::<u64>().unwrap()
    };
    let lengths: Vec<u64> = trips
        .iter()
        .map(|trip| (milliseconds(trip, "locked_until") - milliseconds(trip, "time") + 500) / 1000)
        .collect();
    assert_eq!(lengths, [1, 2, 3, 3], "seconds of the four locks");
}

const DELAYED: &str = r#"
break_glass = "admin"
[default]
deny = 5
delay = "1s"
delay_growth = "exponential"
max_delay = "3s"
"#;

#[test]
fn failures_on_the_books_delay_the_next_guess() {
    let setup = Setup { config: Some(DELAYED), ..Setup::default() };
    if !enter("failures_on_the_books_delay_the_next_guess", &setup) {
        return;
    }
    without_delays().unwrap();
    // admin is exempt: not locked, still delayed.
    for (user, count) in [("jon", 4), ("admin", 6)] {
        for n in 0..count {
            let started = Instant::now();
            assert!(!su::attempt(KON, user, "wrong").unwrap().let_in);
            let least = [0, 1, 2, 3, 3, 3].get(n).copied().unwrap_or(3);
            assert!(started.elapsed() >= Duration::from_secs(least), "{user}, guess {n}");
        }
    }
    assert!(su::attempt(KON, "admin", &password("admin")).unwrap().let_in, "never locked");
}
