//! Pairs: sources that are shut out of an account, in classes that count pairs.
//!
//! Invariants: the gate alone decides about a pair; here its locks are told, they and its row of trips are kept in the
//! store and given back after a reboot. The policy hears nothing of them: no rung follows the lock of a pair.

use std::collections::BTreeMap;

use portcullis_common::abi::{self, flag};
use portcullis_common::ledger::{Actor, Rule, rule_flag};
use portcullis_common::pair;

use super::{Engine, EngineError};
use crate::api::view::{AccountRow, Event, Shadow};
use crate::event::Kind;
use crate::kernel::gate::{Known, Subject};
use crate::kernel::{Slice, TableRow, Tables, gate};
use crate::rows::{self, Now};
use crate::store::{Store, StoredPair, StoredPairClimb};

/// Uid, kind and id of the source.
type Key = (u32, u32, u64);

/// What a scan found of pairs, by uid and source: locks, and rows of trips.
#[derive(Default)]
pub(super) struct Held {
    pub(super) locks: BTreeMap<Key, StoredPair>,
    pub(super) climbs: BTreeMap<Key, StoredPairClimb>,
}

/// Whether an event is of a pair's row.
pub(super) fn is_pairs(event: &abi::Event) -> bool {
    event.flags & flag::PAIR != 0
}

/// Whether an event is that of a pair and says nothing that the account's own does not say.
pub(super) fn says_nothing_new(event: &abi::Event) -> bool {
    is_pairs(event) && !matches!(Kind::of(event.kind), Kind::Refused | Kind::Busy)
}

/// The lock of a pair's row that counts: none of a class in monitor mode, or one that counts no pairs.
pub(super) fn lock_of(found: &TableRow, rule: &Rule, now: &Now) -> Option<StoredPair> {
    let uid = rows::uid_of(found.row.account)?;
    let ledger = &found.row.ledger;
    let counts = rule.flags & (rule_flag::PAIR | rule_flag::MONITOR) == rule_flag::PAIR;
    if !found.is_pair() || !counts || ledger.locked_until <= now.boot {
        return None;
    }
    let (locked_at, until) = (now.wall_of(ledger.locked_at), now.until(ledger.locked_until)?);
    Some(StoredPair { uid, actor: found.actor(), locked_at, until })
}

/// The row of trips that a pair's row is in.
pub(super) fn climb_of(found: &TableRow, rule: &Rule, now: &Now) -> Option<StoredPairClimb> {
    let uid = rows::uid_of(found.row.account)?;
    let ledger = &found.row.ledger;
    let counts = rule.flags & (rule_flag::PAIR | rule_flag::MONITOR) == rule_flag::PAIR;
    if !found.is_pair() || !counts || ledger.climb_until <= now.boot {
        return None;
    }
    let until = now.until(ledger.climb_until)?;
    Some(StoredPairClimb { uid, actor: found.actor(), until, level: ledger.level })
}

/// Gives back the locks and rows of trips of pairs that the gate lost. Returns how many locks.
pub(super) fn restore(tables: &Tables, store: &Store, now: &Now) -> Result<usize, EngineError> {
    let key = tables.settings()?.hash_key;
    let mut lost: BTreeMap<Key, Known> = BTreeMap::new();
    for lock in store.pairs() {
        let until = super::setup::end_at(lock.until, lock.locked_at, now);
        if until > now.boot {
            let known = Known { until, ..Known::default() };
            lost.insert((lock.uid, lock.actor.kind, lock.actor.id), known);
        }
    }
    for climb in store.pair_climbs() {
        let (_, rule) = tables.rule_of(u64::from(climb.uid))?;
        let held = (climb.uid, climb.actor.kind, climb.actor.id);
        // Never longer than it was meant to be, however the wall clock was set meanwhile.
        let lock = lost.get(&held).map_or(now.boot, |known| known.until);
        let end = super::rungs::row_end(climb.until, now).min(lock.saturating_add(rule.backoff_window));
        if end > now.boot && rule.backoff_window != 0 && !cfg!(feature = "mutation-forget-climb") {
            let known = lost.entry(held).or_default();
            (known.climb_until, known.level) = (end, climb.level);
        }
    }
    let mut restored = 0;
    for ((uid, kind, id), known) in lost {
        let (account, actor) = (u64::from(uid), Actor { kind, id });
        let (_, rule) = tables.rule_of(account)?;
        let there = tables.row(pair::key(key, account, actor))?.is_some();
        if there || rule.flags & rule_flag::PAIR == 0 {
            continue;
        }
        match gate::restore(Subject::Pair(account, actor), known) {
            Ok(_) => restored += usize::from(known.until != 0),
            Err(error) => log::error!("the lock of a source of uid {uid} could not be given back: {error}"),
        }
    }
    Ok(restored)
}

impl Engine {
    /// What an event of a pair's row leads to.
    pub(super) fn decide_pair(&mut self, event: &abi::Event, now: &Now) -> Result<(), EngineError> {
        let Some(uid) = rows::uid_of(event.entry.account) else { return Ok(()) };
        let actor = Actor::of(&event.entry.detail);
        if event.locked_until <= now.boot {
            self.store.remove_pair(uid, actor);
        } else if event.flags & flag::MONITORED == 0
            && let Some(until) = now.until(event.locked_until)
            && (event.flags & flag::TRIPPED != 0 || Kind::of(event.kind) == Kind::Locked)
        {
            let locked_at = now.wall_of(event.time);
            self.store.set_pair(StoredPair { uid, actor, locked_at, until });
            self.note_climb(event.entry.account, actor, now)?;
        }
        if Kind::of(event.kind) == Kind::Unlocked {
            self.store.remove_pair_climb(uid, actor);
        }
        self.metrics.pairs(self.store.pairs().len());
        Ok(())
    }

    /// What the gate has of a pair: by `of`, from its row and the rule of its account.
    fn of_pair<T>(
        &self,
        account: u64,
        actor: Actor,
        of: impl FnOnce(&TableRow, &Rule) -> Option<T>,
    ) -> Result<Option<T>, EngineError> {
        let key = pair::key(self.tables.settings()?.hash_key, account, actor);
        let (_, rule) = self.tables.rule_of(account)?;
        let row = self.tables.row(key)?;
        Ok(row.and_then(|row| of(&TableRow { account: row.key, row }, &rule)))
    }

    /// Stores the row of trips of a pair, as the gate has it.
    fn note_climb(&mut self, account: u64, actor: Actor, now: &Now) -> Result<(), EngineError> {
        if let Some(climb) = self.of_pair(account, actor, |found, rule| climb_of(found, rule, now))? {
            self.store.set_pair_climb(climb);
        }
        Ok(())
    }

    /// Brings the store in line with what a scan found, and tells what no event told.
    pub(super) fn align_pairs(&mut self, held: &Held, now: &Now) -> Result<(), EngineError> {
        let Held { locks: locked, climbs } = held;
        for climb in climbs.values() {
            self.store.set_pair_climb(*climb);
        }
        for lock in locked.values() {
            if self.store.set_pair(*lock) {
                // The event that told of the trip was lost.
                self.metrics.pair_trip(false);
                self.tell_pair("pair_lock_noted", lock, now);
            }
        }
        for lock in self.store.pairs() {
            if locked.contains_key(&(lock.uid, lock.actor.kind, lock.actor.id)) {
                continue;
            }
            // Rows are as old as the scan; a lock set since is not gone.
            let there =
                self.of_pair(u64::from(lock.uid), lock.actor, |found, rule| lock_of(found, rule, now))?;
            if there.is_none() && self.store.remove_pair(lock.uid, lock.actor) {
                self.tell_pair("pair_released", &lock, now);
            }
        }
        for climb in self.store.pair_climbs() {
            if climbs.contains_key(&(climb.uid, climb.actor.kind, climb.actor.id)) {
                continue;
            }
            let there =
                self.of_pair(u64::from(climb.uid), climb.actor, |found, rule| climb_of(found, rule, now))?;
            if there.is_none() {
                self.store.remove_pair_climb(climb.uid, climb.actor);
            }
        }
        self.metrics.pairs(self.store.pairs().len());
        Ok(())
    }

    fn tell_pair(&mut self, what: &str, lock: &StoredPair, now: &Now) {
        let mut event = Event::new(now.wall, what);
        event.account = Some(rows::account(u64::from(lock.uid), &mut self.names));
        event.actor = Some(rows::pair_actor(lock.actor, &mut self.names));
        event.locked_until = (what != "pair_released").then_some(lock.until);
        self.publish(log::Level::Info, event);
    }

    /// The pairs of an account.
    pub(super) fn pairs_of(&self, uid: u32) -> Result<Vec<TableRow>, EngineError> {
        let mut found = Vec::new();
        self.tables.each_row(Slice::Pairs, |row| {
            if row.row.account == u64::from(uid) {
                found.push(row);
            }
        })?;
        Ok(found)
    }

    /// The pairs of an account that have failures, guesses out or a lock, as they are shown.
    pub(super) fn pairs_shown(&mut self, uid: u32, now: &Now) -> Result<Vec<AccountRow>, EngineError> {
        let mut shown = Vec::new();
        for found in self.pairs_of(uid)? {
            shown.push(self.view_pair(&found, now)?);
        }
        shown.retain(|row| row.failures != 0 || row.reservations != 0 || row.lock.is_some());
        Ok(shown)
    }

    /// A pair's row as it is shown.
    pub(super) fn view_pair(&mut self, found: &TableRow, now: &Now) -> Result<AccountRow, EngineError> {
        let (class, rule) = self.tables.rule_of_row(found)?;
        let account = rows::account(found.row.account, &mut self.names);
        let class = self.class_name(class);
        let mut row = rows::view(account, Some(&found.row), &rule, class, Shadow::None, now);
        row.source = Some(rows::pair_actor(found.actor(), &mut self.names));
        Ok(row)
    }

    /// Lets every source in again that was shut out of an account, and forgets their failures. Returns how many were shut
    /// out.
    pub(super) fn release_pairs(&mut self, uid: u32, now: &Now) -> Result<usize, EngineError> {
        let mut released = 0;
        for found in self.pairs_of(uid)? {
            let (_, rule) = self.tables.rule_of_row(&found)?;
            released += usize::from(lock_of(&found, &rule, now).is_some());
            gate::unlock(Subject::of(&found))?;
            self.store.remove_pair(uid, found.actor());
            self.store.remove_pair_climb(uid, found.actor());
        }
        Ok(released)
    }
}

#[cfg(test)]
mod tests {
    use portcullis_common::abi::{Row, UNKNOWN, source};
    use portcullis_common::ledger::Ledger;

    use super::*;

    fn found(account: u64, locked_until: u64) -> TableRow {
        let ledger = Ledger { locked_until, locked_at: 1, ..Ledger::EMPTY };
        let actor = Actor { kind: source::LOCAL, id: 2001 };
        let key = pair::key([1, 2], account, actor);
        let row = Row {
            lock: 0,
            alive: 1,
            key,
            events: 1,
            scratch: 0,
            account,
            actor: actor.id,
            source: actor.kind,
            pad: 0,
            ledger,
        };
        TableRow { account: key, row }
    }

    #[test]
    fn a_pairs_lock_counts_while_its_class_enforces_pairs() {
        let now = Now { boot: 100, wall: jiff::Timestamp::UNIX_EPOCH };
        let rule = Rule { flags: rule_flag::PAIR, pair_deny: 3, ..Rule::DEFAULT };
        let lock = lock_of(&found(2002, 200), &rule, &now).unwrap();
        assert_eq!((lock.uid, lock.actor.id), (2002, 2001));
        assert_eq!(lock_of(&found(2002, 100), &rule, &now), None, "over");
        assert_eq!(lock_of(&found(2002, 200), &Rule::DEFAULT, &now), None, "the class counts no pairs");
        let monitor = Rule { flags: rule_flag::PAIR | rule_flag::MONITOR, ..rule };
        assert_eq!(lock_of(&found(2002, 200), &monitor, &now), None, "nothing is enforced");
        assert_eq!(lock_of(&found(UNKNOWN | 2002, 200), &rule, &now), None, "no such user");
    }

    #[test]
    fn locks_of_pairs_outlive_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("portcullis.db");
        let mut store = Store::open(&path);
        let now = Now { boot: 100, wall: jiff::Timestamp::UNIX_EPOCH };
        let rule = Rule { flags: rule_flag::PAIR, pair_deny: 3, ..Rule::DEFAULT };
        let mut lock = lock_of(&found(2002, 20_000_000_000), &rule, &now).unwrap();
        assert!(store.set_pair(lock));
        assert!(!store.set_pair(lock), "no news");
        lock.actor = Actor { kind: source::IPV6, id: u64::MAX };
        assert!(store.set_pair(lock));
        drop(store);
        let mut store = Store::open(&path);
        assert_eq!(store.pairs().len(), 2);
        assert!(store.pairs().iter().any(|held| held.actor == lock.actor), "every bit of the id is kept");
        assert!(store.remove_pair(2002, lock.actor));
        assert!(!store.remove_pair(2002, lock.actor));
        assert_eq!(Store::open(&path).pairs().len(), 1);
    }

    #[test]
    fn rows_of_trips_of_pairs_outlive_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("portcullis.db");
        let now = Now { boot: 100, wall: jiff::Timestamp::UNIX_EPOCH };
        let rule = Rule { flags: rule_flag::PAIR, pair_deny: 3, ..Rule::DEFAULT };
        let mut row = found(2002, 0);
        assert_eq!(climb_of(&row, &rule, &now), None, "no row");
        (row.row.ledger.climb_until, row.row.ledger.level) = (20_000_000_000, 3);
        let mut climb = climb_of(&row, &rule, &now).unwrap();
        assert_eq!((climb.uid, climb.actor.id, climb.level), (2002, 2001, 3));
        assert_eq!(climb_of(&row, &Rule::DEFAULT, &now), None, "the class counts no pairs");
        let mut store = Store::open(&path);
        store.set_pair_climb(climb);
        climb.actor = Actor { kind: source::IPV6, id: u64::MAX };
        store.set_pair_climb(climb);
        climb.level = 4;
        store.set_pair_climb(climb);
        drop(store);
        let mut store = Store::open(&path);
        assert_eq!(store.pair_climbs().len(), 2);
        assert!(store.pair_climbs().contains(&climb));
        store.remove_pair_climb(2002, climb.actor);
        assert_eq!(Store::open(&path).pair_climbs().len(), 1);
    }
}
