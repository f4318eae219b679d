//! Locks of pairs: which source is shut out of which account.
//!
//! Invariant: no more than the gate has rows for.

use std::collections::BTreeMap;

use jiff::Timestamp;
use portcullis_common::abi::MAX_PAIRS;
use portcullis_common::ledger::Actor;
use rusqlite::params;

use super::db::{Db, Outcome, end, time};
use super::{Store, Until};

/// Uid, kind and id of the source.
pub(super) type Key = (u32, u32, u64);
/// What is held, by key.
pub(super) type Held = BTreeMap<Key, StoredPair>;

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
        let known = self.pairs.get(&lock.key());
        // The end is told by two clocks: the same lock's end differs by what lies between their readings.
        let same = known.is_some_and(|known| match (known.until, lock.until) {
            (Until::At(a), Until::At(b)) => a.duration_since(b).unsigned_abs().as_secs() < 2,
            (a, b) => a == b,
        });
        if same || (known.is_none() && self.pairs.len() >= MAX_PAIRS as usize) {
            return false;
        }
        self.pairs.insert(lock.key(), lock);
        self.on_disk("the lock of a pair", |db| db.set_pair(&lock));
        true
    }

    /// Removes the lock of a pair. Returns whether there was one.
    pub fn remove_pair(&mut self, uid: u32, actor: Actor) -> bool {
        let key = (uid, actor.kind, actor.id);
        if self.pairs.remove(&key).is_none() {
            return false;
        }
        self.on_disk("the end of a pair's lock", |db| db.remove_pair(key));
        true
    }

    /// All locks of pairs.
    #[must_use]
    pub fn pairs(&self) -> Vec<StoredPair> {
        self.pairs.values().copied().collect()
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

    fn remove_pair(&mut self, (uid, source, id): Key) -> Outcome<()> {
        let Some(connection) = self.connection() else { return Ok(()) };
        connection
            .prepare_cached("DELETE FROM pair_locks WHERE uid = ?1 AND source = ?2 AND id = ?3")?
            .execute(params![uid, source, id.cast_signed()])?;
        Ok(())
    }

    pub(super) fn pair_locks(&self) -> Outcome<Vec<StoredPair>> {
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
