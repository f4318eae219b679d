//! Throttles in the store, beside the drops and by the same connection.
//!
//! Invariants: as in [`super::drops`].

use jiff::Timestamp;
use rusqlite::params;

use super::StoreError;
use super::drops::{DropStore, time};

/// A throttle as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredThrottle {
    /// What it is for, in words.
    pub target: String,
    /// `packets`, …
    pub unit: String,
    /// Units a second.
    pub rate: u64,
    /// Units at once.
    pub burst: u64,
    /// Since when.
    pub since: Timestamp,
    /// Until when; none: until taken away.
    pub until: Option<Timestamp>,
    /// `administrator`, …
    pub cause: String,
    /// Why, in words.
    pub reason: String,
}

pub(super) const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS throttles (
        target TEXT NOT NULL, unit TEXT NOT NULL, rate INTEGER NOT NULL, burst INTEGER NOT NULL,
        since INTEGER NOT NULL, until INTEGER, cause TEXT NOT NULL, reason TEXT NOT NULL,
        PRIMARY KEY (target, unit)) WITHOUT ROWID;
";

impl DropStore {
    /// All throttles; those that cannot be read are left out.
    pub fn throttles(&mut self) -> Vec<StoredThrottle> {
        let Some(connection) = self.connection() else { return Vec::new() };
        let read = || -> Result<Vec<StoredThrottle>, StoreError> {
            let mut statement = connection
                .prepare("SELECT target, unit, rate, burst, since, until, cause, reason FROM throttles")?;
            let rows = statement.query_map([], |row| {
                Ok(StoredThrottle {
                    target: row.get(0)?,
                    unit: row.get(1)?,
                    rate: u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0),
                    burst: u64::try_from(row.get::<_, i64>(3)?).unwrap_or(0),
                    since: time(row.get(4)?),
                    until: row.get::<_, Option<i64>>(5)?.map(time),
                    cause: row.get(6)?,
                    reason: row.get(7)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        };
        match read() {
            Ok(found) => found,
            Err(error) => {
                self.note("read throttles", &error);
                Vec::new()
            }
        }
    }

    /// Stores a throttle, in the place of the one for the same.
    pub fn set_throttle(&mut self, throttle: &StoredThrottle) {
        self.write("store a throttle", |connection| {
            connection.execute(
                "INSERT OR REPLACE INTO throttles VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![
                    throttle.target,
                    throttle.unit,
                    i64::try_from(throttle.rate).unwrap_or(i64::MAX),
                    i64::try_from(throttle.burst).unwrap_or(i64::MAX),
                    throttle.since.as_millisecond(),
                    throttle.until.map(Timestamp::as_millisecond),
                    throttle.cause,
                    throttle.reason,
                ],
            )?;
            Ok(())
        });
    }

    /// Removes a throttle.
    pub fn remove_throttle(&mut self, target: &str, unit: &str) {
        self.write("remove a throttle", |connection| {
            connection
                .execute("DELETE FROM throttles WHERE target = ?1 AND unit = ?2", params![target, unit])?;
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throttles_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("portcullis.db");
        drop(super::super::Store::open(&path));
        let stored = StoredThrottle {
            target: "192.0.2.0/24".to_owned(),
            unit: "packets".to_owned(),
            rate: 1_000,
            burst: 250,
            since: Timestamp::from_second(1).unwrap(),
            until: None,
            cause: "administrator".to_owned(),
            reason: "it's \"odd\"".to_owned(),
        };
        let mut store = DropStore::open(&path);
        store.set_throttle(&stored);
        store.set_throttle(&StoredThrottle { unit: "bytes".to_owned(), ..stored.clone() });
        drop(store);
        let mut store = DropStore::open(&path);
        assert_eq!(store.problem(), None);
        assert_eq!(store.throttles().len(), 2);
        store.remove_throttle("192.0.2.0/24", "bytes");
        assert_eq!(store.throttles(), [stored]);
    }
}
