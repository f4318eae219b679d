//! Drops in the store, over a connection of their own: the filter works beside the engine.
//!
//! Invariants: as in [`super`]: nothing here fails; where the file cannot be used, [`DropStore::problem`] says so and
//! drops are kept by the kernel alone, until the next reboot.

use std::path::Path;

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::{StoreError, open};

/// A drop as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDrop {
    /// The network.
    pub net: String,
    /// Since when.
    pub since: Timestamp,
    /// Until when; none: until taken away.
    pub until: Option<Timestamp>,
    /// Destination ports.
    pub ports: Vec<u16>,
    /// `administrator`, …
    pub cause: String,
    /// Why, in words.
    pub reason: String,
    /// Its number.
    pub rule: u32,
}

/// The drops in the store.
#[derive(Debug)]
pub struct DropStore {
    connection: Option<Connection>,
    problem: Option<String>,
}

const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS drops (
        net TEXT PRIMARY KEY, since INTEGER NOT NULL, until INTEGER, ports TEXT NOT NULL, cause TEXT NOT NULL,
        reason TEXT NOT NULL, rule INTEGER NOT NULL) WITHOUT ROWID;
";

impl DropStore {
    /// Opens the store at `path`, after [`super::Store::open`] has made it.
    #[must_use]
    pub fn open(path: &Path) -> Self {
        let opened = open::open(path).and_then(|connection| {
            connection.execute_batch(TABLE)?;
            connection.execute_batch(super::throttles::TABLE)?;
            Ok(connection)
        });
        match opened {
            Ok(connection) => Self { connection: Some(connection), problem: None },
            Err(error) => {
                let mut store = Self { connection: None, problem: None };
                store.note("open the store", &error);
                store
            }
        }
    }

    /// Why drops are not kept over a reboot.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    pub(super) fn connection(&self) -> Option<&Connection> {
        self.connection.as_ref()
    }

    pub(super) fn note(&mut self, what: &str, error: &StoreError) {
        let why = format!("cannot {what}: {error}");
        if self.problem.is_none() {
            log::error!("drops are not kept over a reboot from now on: {why}");
        }
        self.problem = Some(why);
    }

    /// All drops; those that cannot be read are left out.
    pub fn all(&mut self) -> Vec<StoredDrop> {
        let Some(connection) = &self.connection else { return Vec::new() };
        let read = || -> Result<Vec<StoredDrop>, StoreError> {
            let mut statement =
                connection.prepare("SELECT net, since, until, ports, cause, reason, rule FROM drops")?;
            let rows = statement.query_map([], |row| {
                Ok(StoredDrop {
                    net: row.get(0)?,
                    since: time(row.get(1)?),
                    until: row.get::<_, Option<i64>>(2)?.map(time),
                    ports: row.get::<_, String>(3)?.split(',').filter_map(|port| port.parse().ok()).collect(),
                    cause: row.get(4)?,
                    reason: row.get(5)?,
                    rule: row.get(6)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        };
        match read() {
            Ok(found) => found,
            Err(error) => {
                self.note("read drops", &error);
                Vec::new()
            }
        }
    }

    /// Stores drops, all in one step.
    pub fn set(&mut self, drops: &[StoredDrop]) {
        self.write("store drops", |connection| {
            let transaction = connection.transaction()?;
            {
                let mut statement = transaction
                    .prepare_cached("INSERT OR REPLACE INTO drops VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
                for drop in drops {
                    let ports: Vec<String> = drop.ports.iter().map(u16::to_string).collect();
                    statement.execute(params![
                        drop.net,
                        drop.since.as_millisecond(),
                        drop.until.map(Timestamp::as_millisecond),
                        ports.join(","),
                        drop.cause,
                        drop.reason,
                        drop.rule,
                    ])?;
                }
            }
            Ok(transaction.commit()?)
        });
    }

    /// Removes drops, all in one step.
    pub fn remove(&mut self, nets: &[String]) {
        self.write("remove drops", |connection| {
            let transaction = connection.transaction()?;
            {
                let mut statement = transaction.prepare_cached("DELETE FROM drops WHERE net = ?1")?;
                for net in nets {
                    statement.execute([net])?;
                }
            }
            Ok(transaction.commit()?)
        });
    }

    pub(super) fn write(&mut self, what: &str, work: impl FnOnce(&mut Connection) -> Result<(), StoreError>) {
        if let Some(connection) = &mut self.connection
            && let Err(error) = work(connection)
        {
            self.note(what, &error);
        }
    }
}

/// Milliseconds since 1970; what is no time is the beginning of it.
pub(super) fn time(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("portcullis.db");
        drop(super::super::Store::open(&path));
        let stored = StoredDrop {
            net: "192.0.2.0/24".to_owned(),
            since: Timestamp::from_second(1).unwrap(),
            until: None,
            ports: vec![22, 443],
            cause: "administrator".to_owned(),
            reason: "it's \"odd\"; DROP TABLE drops".to_owned(),
            rule: 7,
        };
        let mut store = DropStore::open(&path);
        assert_eq!(store.problem(), None);
        store.set(&[stored.clone(), StoredDrop { net: "2001:db8::/64".to_owned(), ..stored.clone() }]);
        drop(store);
        let mut store = DropStore::open(&path);
        assert_eq!(store.all().len(), 2);
        store.remove(&["2001:db8::/64".to_owned()]);
        assert_eq!(store.all(), [stored]);
    }

    #[test]
    fn a_file_that_cannot_be_used_is_no_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = DropStore::open(folder.path());
        assert!(store.problem().is_some());
        store.remove(&["192.0.2.7".to_owned()]);
        assert!(store.all().is_empty());
    }
}
