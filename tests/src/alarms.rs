//! Alarms of tampering: one thing is really done, and its alarm waited for.
//!
//! These fail the test themselves: nothing goes on without the alarm.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "this is how a test fails, in its helpers too"
)]

use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::stack::must;
use crate::system::{portcullis, run, wait_for};

/// Seconds an alarm may take here: a second is promised of a machine that is not busy.
const SOON: u64 = 5;

/// Those that are open.
#[must_use]
pub fn all() -> Vec<Value> {
    portcullis(&["alarms"]).unwrap().as_array().unwrap().clone()
}

/// One of a kind.
#[must_use]
pub fn find(kind: &str) -> Option<Value> {
    all().into_iter().find(|alarm| alarm["kind"] == kind)
}

/// Does it, and waits for its alarm.
pub fn alarm(kind: &str, act: impl FnOnce()) -> Value {
    assert_eq!(find(kind), None, "not before");
    let begun = SystemTime::now();
    act();
    wait_for(kind, SOON, || Ok(find(kind).is_some())).unwrap();
    let found = find(kind).unwrap();
    let since = must("date", &["-d", found["since"].as_str().unwrap(), "+%s%3N"]).unwrap();
    let since = Duration::from_millis(since.trim().parse().unwrap());
    let begun = begun.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    println!("{kind} after {} ms: {found}", since.saturating_sub(begun).as_millis());
    found
}

/// Waits until no alarm of the kind is open, and its end has been told.
pub fn ended(kind: &str) {
    wait_for("the alarm's end", 2 * SOON, || Ok(find(kind).is_none())).unwrap();
    assert!(told("alarm_ended", kind), "its end is told");
}

/// Whether an event was told whose detail has this in it.
#[must_use]
pub fn told(event: &str, detail: &str) -> bool {
    let (_, text) = run("portcullis", &["events", "--json"]).unwrap();
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut of_it = events.filter(|other| other["event"] == event);
    of_it.any(|other| other["detail"].as_str().is_some_and(|text| text.contains(detail)))
}

/// The alarm names this very process, where the kernel tells.
pub fn by_me(alarm: &Value) {
    let who = format!("process {} ", std::process::id());
    assert!(alarm["who"].as_str().is_some_and(|text| text.contains(&who)), "{alarm}");
}
