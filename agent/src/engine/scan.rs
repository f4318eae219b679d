//! What no event tells: the scan of the gate's tables.
//!
//! Invariants: an event that was lost is made up for at the next scan; the scan reads, and asks the gate itself to let
//! come due what is due; its calls of the gate are bounded, the rest has its turn at the next scan.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use portcullis_common::abi;
use portcullis_common::ledger::{Rule, rule_flag};
use portcullis_policy::{Boot, Input};
use tokio::time::Instant;

use super::{Engine, EngineError};
use crate::accounts::{Directory, Nss};
use crate::api::view::Event;
use crate::clock;
use crate::config::{CLASS_DEFAULT, Config};
use crate::kernel::gate::Subject;
use crate::kernel::{Slice, TableRow, gate};
use crate::rows::{self, Now};
use crate::unreachable::News;

/// Gate calls of one scan.
const CALLS: usize = 1_024;
/// How long a row that means nothing any more is kept, so that its trips stay to be seen.
const IDLE: u64 = 300_000_000_000;
/// How often groups are looked up again.
const MEMBERS: Duration = Duration::from_secs(60);

/// What the gate is to be asked about a row.
enum Ask {
    Check(Subject),
    Forget(Subject),
    Unlock(Subject),
}

/// What a scan found about one row.
#[derive(Default)]
struct Found {
    seen: Vec<Input>,
    ask: Vec<Ask>,
    locked: std::collections::BTreeSet<u32>,
    pairs: super::pairs::Held,
}

/// What people were told about the store.
#[derive(Default)]
pub(super) struct StoreTold {
    degraded: bool,
    aside: usize,
}

impl Engine {
    /// One scan.
    pub(super) fn scan(&mut self) -> Result<(), EngineError> {
        // What the events say comes first: they know more.
        self.drain_ring()?;
        self.tell_lost()?;
        self.scan_sources()?;
        self.tell_unreachable()?;
        self.look_at_gate()?;
        if self.last_members.elapsed() >= MEMBERS {
            self.last_members = Instant::now();
            if let Err(error) = self.adopt(self.config.clone()) {
                log::warn!("groups could not be looked up again, the classes stay as they are: {error}");
            }
        }
        let now = Now::read()?;
        let mut rows = Vec::new();
        for slice in [Slice::Accounts, Slice::Unknown, Slice::Pairs] {
            self.tables.each_row(slice, |row| rows.push(row))?;
        }
        let mut found = Found::default();
        for row in &rows {
            self.look(row, &now, &mut found)?;
        }
        self.count_population(rows.iter().filter(|row| !row.is_pair()).count());
        // Rows are as old as the scan; a lock set since is not gone.
        let gone: Vec<u32> =
            self.policy.locked().map(|(uid, _)| uid).filter(|uid| !found.locked.contains(uid)).collect();
        self.look_ahead(&found.locked)?;
        for input in found.seen {
            self.step(input)?;
        }
        for account in gone {
            if self.tables.row(u64::from(account))?.is_none_or(|row| row.ledger.locked_until == 0) {
                self.step(Input::NoLockSeen { account })?;
            }
        }
        self.align_pairs(&found.pairs, &now)?;
        for ask in found.ask.into_iter().take(CALLS) {
            let asked = match ask {
                Ask::Check(subject) => gate::check(subject),
                Ask::Forget(subject) => gate::forget(subject),
                Ask::Unlock(subject) => gate::unlock(subject),
            };
            if let Err(error) = asked {
                log::error!("{error}");
                break;
            }
        }
        self.step(Input::Tick)?;
        self.look_at_breaker()?;
        self.metrics.stats(self.tables.stats()?);
        self.metrics.tables(self.tables.occupancy()?);
        Ok(())
    }

    /// What one row asks for.
    fn look(&mut self, found: &TableRow, now: &Now, out: &mut Found) -> Result<(), EngineError> {
        let (_, rule) = self.tables.rule_of_row(found)?;
        let mut ledger = found.row.ledger;
        let due = ledger.settle(now.boot, &rule).flags != 0;
        if due {
            out.ask.push(Ask::Check(Subject::of(found)));
        } else if ledger.idle(now.boot, &rule)
            && now.boot.saturating_sub(ledger.newest) >= idle_time(found)
            && (ledger.climb_until <= now.boot || invented(found))
        {
            out.ask.push(Ask::Forget(Subject::of(found)));
        }
        if found.is_pair() {
            if let Some(climb) = super::pairs::climb_of(found, &rule, now) {
                out.pairs.climbs.insert((climb.uid, climb.actor.kind, climb.actor.id), climb);
            }
            if let Some(lock) = super::pairs::lock_of(found, &rule, now) {
                out.pairs.locks.insert((lock.uid, lock.actor.kind, lock.actor.id), lock);
            } else if found.row.ledger.locked() && rule.flags & rule_flag::PAIR == 0 {
                // Left over from when the class counted pairs.
                out.ask.push(Ask::Unlock(Subject::of(found)));
            }
            return Ok(());
        }
        // What came due is told by the event that the check leads to.
        let raw = &found.row.ledger;
        if raw.locked_until > now.boot
            && let Some(account) = rows::uid_of(found.account)
        {
            out.locked.insert(account);
            out.seen.push(Input::LockSeen {
                account,
                class: self.policy_class(account)?,
                trips: raw.trips,
                locked_until: Boot(raw.locked_until),
                cause: super::events::by(raw.cause),
            });
        }
        Ok(())
    }

    /// Says when events were lost since the last scan.
    fn tell_lost(&mut self) -> Result<(), EngineError> {
        let lost = self.tables.stats()?.lost_events;
        let since = lost.saturating_sub(self.last_lost);
        self.last_lost = lost;
        if since != 0 {
            let mut event = Event::new(Now::read()?.wall, "events_lost");
            event.detail = Some(format!(
                "{since} events found no room; locks are made up for by this scan, their attempts are not in the history"
            ));
            self.publish(log::Level::Warn, event);
        }
        Ok(())
    }

    /// Says what the module decided without the gate since the last scan.
    fn tell_unreachable(&mut self) -> Result<(), EngineError> {
        let news = match self.unreachable.news() {
            Ok(news) => news,
            Err(error) => {
                log::error!("what the PAM module did without the gate cannot be read: {error}");
                return Ok(());
            }
        };
        if news != News::default() {
            self.metrics.unreachable(news);
            let mut event = Event::new(Now::read()?.wall, "gate_unreachable");
            event.detail = Some(format!(
                "{} attempts let through uncounted and {} refused without the gate, by on_error; the PAM log says why",
                news.ignored, news.refused
            ));
            self.publish(log::Level::Error, event);
        }
        Ok(())
    }

    /// Whether the gate answers; says when it is gone or back. It is not loaded again: taking the pins away is the way
    /// to stop enforcement.
    pub(super) fn look_at_gate(&mut self) -> Result<Option<String>, EngineError> {
        let problem = gate::probe().err().map(|error| format!("nothing is counted or refused: {error}"));
        self.metrics.gate(problem.is_none());
        if problem.is_none() != self.gate_answers {
            self.gate_answers = problem.is_none();
            let (name, level) = match problem {
                None => ("gate_back", log::Level::Info),
                Some(_) => ("gate_gone", log::Level::Error),
            };
            let mut event = Event::new(Now::read()?.wall, name);
            event.detail.clone_from(&problem);
            self.publish(level, event);
        }
        Ok(problem)
    }

    /// Says when memory stands in for the store, and that a damaged one was put aside: after each start, as long as it
    /// lies there.
    pub(super) fn look_at_store(&mut self) -> Result<(), EngineError> {
        let aside = self.store.set_aside();
        let degraded = self.store.degraded();
        self.metrics.store(degraded.is_some(), aside.len());
        let mut news = Vec::new();
        if let Some(why) = degraded.filter(|_| !self.store_told.degraded) {
            news.push((
                "store_degraded",
                format!("memory stands in for the store, nothing is kept over a restart: {why}"),
            ));
        }
        if aside.len() > self.store_told.aside {
            let files: Vec<String> =
                aside.iter().map(|file| crate::text::escape(file.as_os_str().as_bytes())).collect();
            news.push((
                "store_set_aside",
                format!(
                    "a damaged store was put aside, the locks and shadow locks in it are not known any more \
                     (see passwd --status); take it away to end this alarm: {}",
                    files.join(", ")
                ),
            ));
        }
        self.store_told = StoreTold { degraded: degraded.is_some(), aside: aside.len() };
        for (name, detail) in news {
            let mut event = Event::new(Now::read()?.wall, name);
            event.detail = Some(detail);
            self.publish(log::Level::Error, event);
        }
        Ok(())
    }

    /// A lock that was only computed does not begin to lock because its class leaves monitor mode.
    fn drop_monitored_locks(
        &mut self,
        rules: &[Rule],
        members: &BTreeMap<u32, u32>,
    ) -> Result<(), EngineError> {
        let mut computed = Vec::new();
        for slice in [Slice::Accounts, Slice::Unknown, Slice::Pairs] {
            self.tables.each_row(slice, |found| {
                if found.row.ledger.locked() {
                    computed.push(found);
                }
            })?;
        }
        for found in computed {
            let account = found.row.account;
            let (_, before) = self.tables.rule_of(account)?;
            let class = members.get(&abi::member_of(account)).unwrap_or(&CLASS_DEFAULT);
            let enforced =
                rules.get(*class as usize).is_some_and(|rule| rule.flags & rule_flag::MONITOR == 0);
            if before.flags & rule_flag::MONITOR != 0 && enforced {
                gate::unlock(Subject::of(&found))?;
            }
        }
        Ok(())
    }

    /// Takes over a configuration: the gate first, then everything here. On an error nothing has changed.
    pub(super) fn adopt(&mut self, config: Config) -> Result<(), EngineError> {
        let mut members: BTreeMap<u32, u32> = config.members(&Nss)?.into_iter().collect();
        // Users no list shows (directories) that were seen before.
        for uid in self.classes.keys().filter(|uid| self.classes.get(uid) != Some(&CLASS_DEFAULT)) {
            if !members.contains_key(uid) {
                let class = config.class_of(&Nss as &dyn Directory, *uid)?;
                if class != CLASS_DEFAULT {
                    members.insert(*uid, class);
                }
            }
        }
        let rules = config.rules(clock::midnight()?);
        let places = config.places();
        let list: Vec<(u32, u32)> = members.iter().map(|(uid, class)| (*uid, *class)).collect();
        if !self.tables.has_config(&rules, &list)? || !self.tables.has_places(&places)? {
            self.drop_monitored_locks(&rules, &members)?;
            self.tables.write_all(&rules, &list, &places)?;
        }
        self.infos = config.class_infos();
        let rules_of_sources = self.config.sc5 != config.sc5;
        if self.config.agent.passwd_timeout != config.agent.passwd_timeout {
            // A run of passwd under way keeps its own.
            self.shadow = super::setup::shadow_of(&config, &self.store);
            self.expiry = super::setup::expiry_of(&config);
        }
        self.breaker.set_rules(config.breaker.rules());
        self.config = config;
        self.classes = members.into_iter().collect();
        if rules_of_sources {
            self.adopt_sources()?;
        }
        Ok(())
    }
}

/// How long an idle row is kept. Names no user has, and pairs, leave at once: their tables are small and anybody can fill
/// them.
fn idle_time(found: &TableRow) -> u64 {
    if found.is_pair() || invented(found) { 0 } else { IDLE }
}

/// Whether it is of a name no user has: the row of its trips is worth no room.
fn invented(found: &TableRow) -> bool {
    found.account & abi::UNKNOWN != 0
}
