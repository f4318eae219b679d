//! Feeds the breaker, and tells policy and people what it decides.
//!
//! Invariants: opening and closing are told once each; while it is open the locks of the gate hold all the same.

use portcullis_common::abi;
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

    /// Looks whether rungs are to be withheld, and says so when that changed.
    pub(super) fn look_at_breaker(&mut self) -> Result<(), EngineError> {
        let locked = u32::try_from(self.policy.locked().count()).unwrap_or(u32::MAX);
        self.breaker.locked(locked, self.population);
        let now = Now::read()?;
        let why = self.breaker.withheld(Boot(now.boot));
        self.metrics.breaker(why.is_some());
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

const WITHHELD: &str = "locks of the gate hold, the rungs above them are withheld; see portcullis breaker";

fn words(why: Why) -> String {
    match why {
        Why::Failing(count) => {
            format!(
                "{count} accounts fail and none succeeds: is what checks the passwords (a directory) down?"
            )
        }
        Why::Locked(count) => {
            format!("{count} accounts are locked at once, more than breaker.locked_percent")
        }
        Why::Administrator => "an administrator opened it".to_owned(),
    }
}
