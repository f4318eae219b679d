//! Pairs: which source is shut out of which account, and their rows of trips.
//!
//! Invariant: no more of either than the gate has rows for.

use std::collections::BTreeMap;

use jiff::Timestamp;
use portcullis_common::abi::MAX_PAIRS;
use portcullis_common::ledger::Actor;
use rusqlite::params;

use super::db::{Db, Outcome, end, time};
use super::{Store, Until};

/// Uid, kind and id of the source.
pub(super) type Key = (u32, u32, u64);
/// The table of rows of trips; `id` is the bits of the actor's.
pub(super) const CLIMBS: &str = "
    CREATE TABLE IF NOT EXISTS pair_climbs (
        uid INTEGER NOT NULL, source INTEGER NOT NULL, id INTEGER NOT NULL, until INTEGER, level INTEGER NOT NULL,
        PRIMARY KEY (uid, source, id));
";

const DELETE_LOCK: &str = "DELETE FROM pair_locks WHERE uid = ?1 AND source = ?2 AND id = ?3";
const DELETE_CLIMB: &str = "DELETE FROM pair_climbs WHERE uid = ?1 AND source = ?2 AND id = ?3";

/// What is held, by key.
#[derive(Debug, Default)]
pub(super) struct Held {
    locks: BTreeMap<Key, StoredPair>,
    climbs: BTreeMap<Key, StoredPairClimb>,
}

impl Held {
    pub(super) fn read(db: &Db) -> Outcome<Self> {
        Ok(Self {
            locks: db.pair_locks()?.into_iter().map(|lock| (lock.key(), lock)).collect(),
            climbs: db.pair_climbs()?.into_iter().map(|climb| (climb.key(), climb)).collect(),
        })
    }
}

/// A row of trips of a source at an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredPairClimb {
    /// Which account.
    pub uid: u32,
    /// Which source.
    pub actor: Actor,
    /// Until when one more trip is one more of the row.
    pub until: Until,
    /// Trips before the last: how often the lock was doubled.
    pub level: u32,
}

impl StoredPairClimb {
    /// What it is held by.
    pub(super) fn key(&self) -> Key {
        (self.uid, self.actor.kind, self.actor.id)
    }
}

/// Whether two ends are the same: they are told by two clocks, and differ by what lies between their readings.
fn same_end(a: Until, b: Until) -> bool {
    match (a, b) {
        (Until::At(a), Until::At(b)) => a.duration_since(b).unsigned_abs().as_secs() < 2,
        (a, b) => a == b,
    }
}

/// A source that is shut out of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredPair {
    /// Which account.
    pub uid: u32,
    /// Which source.
    pub actor: Actor,
    /// When it was shut out.
    pub locked_at: Timestamp,
    /// When that ends.
    pub until: Until,
}

impl StoredPair {
    /// What it is held by.
    pub(super) fn key(&self) -> Key {
        (self.uid, self.actor.kind, self.actor.id)
    }
}

impl Store {
    /// Stores the lock of a pair, in the place of an older one. Returns whether that is news.
    pub fn set_pair(&mut self, lock: StoredPair) -> bool {
        let known = self.pairs.locks.get(&lock.key());
        let same = known.is_some_and(|known| same_end(known.until, lock.until));
        if same || (known.is_none() && self.pairs.locks.len() >= MAX_PAIRS as usize) {
            return false;
        }
        self.pairs.locks.insert(lock.key(), lock);
        self.on_disk("the lock of a pair", |db| db.set_pair(&lock));
        true
    }

    /// Removes the lock of a pair. Returns whether there was one.
    pub fn remove_pair(&mut self, uid: u32, actor: Actor) -> bool {
        let key = (uid, actor.kind, actor.id);
        if self.pairs.locks.remove(&key).is_none() {
            return false;
        }
        self.on_disk("the end of a pair's lock", |db| db.remove_of_pair(DELETE_LOCK, key));
        true
    }

    /// All locks of pairs.
    #[must_use]
    pub fn pairs(&self) -> Vec<StoredPair> {
        self.pairs.locks.values().copied().collect()
    }

    /// Stores a pair's row of trips, in the place of what was known of it.
    pub fn set_pair_climb(&mut self, climb: StoredPairClimb) {
        let known = self.pairs.climbs.get(&climb.key());
        let same =
            known.is_some_and(|known| known.level == climb.level && same_end(known.until, climb.until));
        if same || (known.is_none() && self.pairs.climbs.len() >= MAX_PAIRS as usize) {
            return;
        }
        self.pairs.climbs.insert(climb.key(), climb);
        self.on_disk("a pair's row of trips", |db| db.set_pair_climb(&climb));
    }

    /// Forgets a pair's row of trips.
    pub fn remove_pair_climb(&mut self, uid: u32, actor: Actor) {
        let key = (uid, actor.kind, actor.id);
        if self.pairs.climbs.remove(&key).is_some() {
            self.on_disk("the end of a pair's row of trips", |db| db.remove_of_pair(DELETE_CLIMB, key));
        }
    }

    /// All rows of trips of pairs.
    #[must_use]
    pub fn pair_climbs(&self) -> Vec<StoredPairClimb> {
        self.pairs.climbs.values().copied().collect()
    }
}

impl Db {
    fn set_pair(&mut self, lock: &StoredPair) -> Outcome<()> {
        let Some(connection) = self.connection() else { return Ok(()) };
        let (uid, source, id) = lock.key();
        connection.prepare_cached("INSERT OR REPLACE INTO pair_locks VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(
            params![uid, source, id.cast_signed(), lock.locked_at.as_millisecond(), end(lock.until)],
        )?;
        Ok(())
    }

    /// `statement`: one of the two above.
    fn remove_of_pair(&mut self, statement: &str, (uid, source, id): Key) -> Outcome<()> {
        let Some(connection) = self.connection() else { return Ok(()) };
        connection.prepare_cached(statement)?.execute(params![uid, source, id.cast_signed()])?;
        Ok(())
    }

    fn set_pair_climb(&mut self, climb: &StoredPairClimb) -> Outcome<()> {
        let Some(connection) = self.connection() else { return Ok(()) };
        let (uid, source, id) = climb.key();
        connection
            .prepare_cached("INSERT OR REPLACE INTO pair_climbs VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![uid, source, id.cast_signed(), end(climb.until), climb.level])?;
        Ok(())
    }

    fn pair_climbs(&self) -> Outcome<Vec<StoredPairClimb>> {
        self.all("SELECT uid, source, id, until, level FROM pair_climbs", [], |row| {
            Ok(StoredPairClimb {
                uid: row.get(0)?,
                actor: Actor { kind: row.get(1)?, id: row.get::<_, i64>(2)?.cast_unsigned() },
                until: row.get::<_, Option<i64>>(3)?.map_or(Until::Never, |end| Until::At(time(end))),
                level: row.get(4)?,
            })
        })
    }

    fn pair_locks(&self) -> Outcome<Vec<StoredPair>> {
        self.all("SELECT uid, source, id, locked_at, until FROM pair_locks", [], |row| {
            Ok(StoredPair {
                uid: row.get(0)?,
                actor: Actor { kind: row.get(1)?, id: row.get::<_, i64>(2)?.cast_unsigned() },
                locked_at: time(row.get(3)?),
                until: row.get::<_, Option<i64>>(4)?.map_or(Until::Never, |end| Until::At(time(end))),
            })
        })
    }
}
