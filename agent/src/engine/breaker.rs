//! Feeds the breaker, and tells policy and people what it decides.
//!
//! Invariants: opening and closing are told once each; while it is open the locks of the gate hold all the same.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use portcullis_common::abi;
use portcullis_common::abi::flag;
use portcullis_policy::breaker::{Override, Why};
use portcullis_policy::{Boot, Input};

use super::pairs::is_pairs;
use super::{Engine, EngineError};
use crate::accounts::{Directory, Nss};
use crate::api::view::{BreakerView, Event};
use crate::event::Kind;
use crate::rows::{self, Now};

impl Engine {
    /// What an event says of whoever checks the passwords.
    pub(super) fn breaker_event(&mut self, event: &abi::Event) {
        if is_pairs(event) {
            return;
        }
        let at = Boot(event.time);
        match Kind::of(event.kind) {
            // Names no user has prove nothing about a directory.
            Kind::Fail => {
                if let Some(uid) = rows::uid_of(event.entry.account) {
                    self.breaker.failed(at, uid);
                }
            }
            Kind::Pass => self.breaker.succeeded(at),
            _ => {}
        }
    }

    /// What the store knows of the time before this start: while a directory is down, a restart lets nobody climb.
    pub(super) fn remember_failing(&mut self, now: &Now) {
        let window = Duration::from_nanos(self.breaker.window());
        let newest = self.store.newest_attempts(REMEMBERED).into_iter();
        let since = newest.take_while(|(time, _, outcome)| {
            outcome != Kind::Pass.name() && now.wall.duration_since(*time).unsigned_abs() < window
        });
        let mut failed: Vec<(Timestamp, u32)> = since
            .filter(|(_, _, outcome)| outcome == Kind::Fail.name())
            .map(|(time, uid, _)| (time, uid))
            .collect();
        failed.reverse();
        for (time, uid) in failed {
            let age =
                u64::try_from(now.wall.duration_since(time).unsigned_abs().as_nanos()).unwrap_or(u64::MAX);
            self.breaker.failed(Boot(now.boot.saturating_sub(age)), uid);
        }
    }

    /// The accounts that these events locked.
    pub(super) fn tripped_by(events: &[abi::Event]) -> BTreeSet<u32> {
        let locks = |event: &&abi::Event| {
            event.flags & flag::TRIPPED != 0 && event.flags & flag::MONITORED == 0 && !is_pairs(event)
        };
        events.iter().filter(locks).filter_map(|event| rows::uid_of(event.entry.account)).collect()
    }

    /// Looks whether rungs are to be withheld, and says so when that changed.
    pub(super) fn look_at_breaker(&mut self) -> Result<(), EngineError> {
        self.look_ahead(&BTreeSet::new())
    }

    /// The same before the policy hears of these accounts, which are locked in the gate: of many at once none is to climb
    /// that would not have, had they come one after the other.
    pub(super) fn look_ahead(&mut self, news: &BTreeSet<u32>) -> Result<(), EngineError> {
        let news = news.iter().filter(|uid| !self.policy.is_locked(**uid)).count();
        let locked = self.policy.locked().count().saturating_add(news);
        self.breaker.locked(u32::try_from(locked).unwrap_or(u32::MAX), self.population);
        let now = Now::read()?;
        let why = self.breaker.withheld(Boot(now.boot));
        self.metrics.breaker(why.is_some(), self.breaker.failing(), self.population);
        if why.is_some() == self.withheld.is_some() {
            self.withheld = why;
            return Ok(());
        }
        self.withheld = why;
        let (name, level, detail) = match why {
            Some(why) => ("breaker_open", log::Level::Error, format!("{}; {WITHHELD}", words(why))),
            None => ("breaker_closed", log::Level::Warn, "rungs above the lock are climbed again".to_owned()),
        };
        let mut event = Event::new(now.wall, name);
        event.detail = Some(detail);
        self.publish(level, event);
        self.step(Input::Withhold(why.is_some()))
    }

    /// An administrator's word.
    pub(super) fn set_breaker(&mut self, wish: Override) -> Result<BreakerView, EngineError> {
        self.breaker.set_override(wish);
        self.look_at_breaker()?;
        Ok(self.breaker_view())
    }

    /// The breaker for people.
    pub(super) fn breaker_view(&self) -> BreakerView {
        BreakerView {
            open: self.withheld.is_some(),
            by: match self.breaker.wish() {
                Override::Auto => "auto",
                Override::Open => "open",
                Override::Closed => "close",
            }
            .to_owned(),
            why: self.withheld.map(words),
            failing: self.breaker.failing(),
            locked: u32::try_from(self.policy.locked().count()).unwrap_or(u32::MAX),
            accounts: self.population,
        }
    }

    /// Counts the accounts that could be locked: local users who can log on, or those that were seen, if more.
    pub(super) fn count_population(&mut self, seen: usize) {
        let refuses = |shell: &std::path::Path| {
            shell.file_name().is_some_and(|file| file == "nologin" || file == "false" || file == "sync")
        };
        let listed =
            Nss.listed().map_or(0, |users| users.iter().filter(|user| !refuses(&user.shell)).count());
        self.population = u32::try_from(listed.max(seen)).unwrap_or(u32::MAX);
    }
}

/// Attempts that are looked at after a start.
const REMEMBERED: u32 = 20_000;

const WITHHELD: &str = "locks of the gate hold, the rungs above them are withheld; see portcullis breaker";

fn words(why: Why) -> String {
    match why {
        Why::Failing(count) => {
            format!(
                "{count} accounts fail and none succeeds: is what checks the passwords (a directory) down?"
            )
        }
        Why::Locked(count, of) => {
            format!("{count} of {of} accounts are locked at once, more than breaker.locked_percent")
        }
        Why::Administrator => "an administrator opened it".to_owned(),
    }
}
