//! The SQL side of the store.
//!
//! Invariants: every statement has parameters, none is put together from text; one writer (the agent's lock file).

use std::path::Path;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    ACTIONS, ATTEMPTS, ActionId, Attempt, Intent, PastAction, ShadowLock, StoreError, StoredLock, Told,
    Unfinished,
};
use crate::api::view::Until;
use crate::shadow::Digest;

pub(super) type Outcome<T> = Result<T, StoreError>;

/// An open database, or none where memory stands in: then nothing is kept and nothing is found.
#[derive(Debug)]
pub(super) struct Db {
    connection: Option<Connection>,
}

impl Db {
    pub(super) const fn none() -> Self {
        Self { connection: None }
    }

    pub(super) fn open(path: &Path) -> Outcome<Self> {
        Ok(Self { connection: Some(super::open::open(path)?) })
    }

    /// The open database, where there is one.
    pub(super) fn connection(&self) -> Option<&Connection> {
        self.connection.as_ref()
    }

    /// The key of the digests, made when it is first asked for.
    pub(super) fn key(&self) -> Outcome<[u8; 16]> {
        let mut key = [0; 16];
        let Some(connection) = &self.connection else { return Ok(key) };
        let found: Option<[u8; 16]> = connection
            .query_row("SELECT value FROM meta WHERE name = 'digest_key'", [], |row| row.get(0))
            .optional()?;
        if let Some(found) = found {
            return Ok(found);
        }
        getrandom::fill(&mut key).map_err(StoreError::Random)?;
        connection.execute("INSERT INTO meta VALUES ('digest_key', ?1)", [key])?;
        Ok(key)
    }

    pub(super) fn begin(&mut self, intent: &Intent) -> Outcome<i64> {
        let Some(connection) = &self.connection else { return Ok(0) };
        connection
            .execute("DELETE FROM actions WHERE id <= (SELECT max(id) FROM actions) - ?1", [ACTIONS])?;
        connection
            .prepare_cached(
                "INSERT INTO actions (time, uid, name, kind, until, digest) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                intent.time.as_millisecond(),
                intent.uid,
                intent.name,
                intent.kind,
                intent.until.and_then(end),
                intent.digest.map(|digest| digest.0),
            ])?;
        Ok(connection.last_insert_rowid())
    }

    pub(super) fn finish(&mut self, id: i64, result: &str, reason: Option<&str>) -> Outcome<()> {
        let Some(connection) = &self.connection else { return Ok(()) };
        connection
            .prepare_cached("UPDATE actions SET result = ?2, reason = ?3 WHERE id = ?1")?
            .execute(params![id, result, reason])?;
        Ok(())
    }

    pub(super) fn unfinished(&self) -> Outcome<Vec<Unfinished>> {
        self.all(
            "SELECT id, uid, name, kind, digest FROM actions WHERE result IS NULL ORDER BY id",
            [],
            |row| {
                Ok(Unfinished {
                    id: ActionId(row.get(0)?),
                    uid: row.get(1)?,
                    name: row.get(2)?,
                    kind: row.get(3)?,
                    digest: row.get::<_, Option<[u8; 16]>>(4)?.map(Digest),
                })
            },
        )
    }

    pub(super) fn set_lock(&mut self, lock: &StoredLock) -> Outcome<()> {
        let Some(connection) = &self.connection else { return Ok(()) };
        connection
            .prepare_cached("INSERT OR REPLACE INTO locks VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
            .execute(params![
                lock.uid,
                lock.name,
                lock.class,
                lock.cause,
                lock.locked_at.as_millisecond(),
                end(lock.until),
                lock.trips,
            ])?;
        Ok(())
    }

    pub(super) fn locks(&self) -> Outcome<Vec<StoredLock>> {
        self.all(
            "SELECT uid, name, class, cause, locked_at, until, trips FROM locks ORDER BY uid",
            [],
            |row| {
                Ok(StoredLock {
                    uid: row.get(0)?,
                    name: row.get(1)?,
                    class: row.get(2)?,
                    cause: row.get(3)?,
                    locked_at: time(row.get(4)?),
                    until: row.get::<_, Option<i64>>(5)?.map_or(Until::Never, |end| Until::At(time(end))),
                    trips: row.get(6)?,
                })
            },
        )
    }

    pub(super) fn set_shadow_lock(&mut self, lock: &ShadowLock) -> Outcome<()> {
        let Some(connection) = &self.connection else { return Ok(()) };
        connection
            .prepare_cached("INSERT OR REPLACE INTO shadow_locks VALUES (?1, ?2, ?3)")?
            .execute(params![lock.uid, lock.name, lock.digest.0])?;
        Ok(())
    }

    pub(super) fn shadow_locks(&self) -> Outcome<Vec<ShadowLock>> {
        self.all("SELECT uid, name, digest FROM shadow_locks ORDER BY uid", [], |row| {
            Ok(ShadowLock { uid: row.get(0)?, name: row.get(1)?, digest: Digest(row.get(2)?) })
        })
    }

    /// Stores the last trip that was told of an account.
    pub(super) fn set_told(&mut self, uid: u32, told: Told, boot: &str) -> Outcome<()> {
        let Some(connection) = &self.connection else { return Ok(()) };
        connection
            .prepare_cached("INSERT OR REPLACE INTO told VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![uid, told.trips, i64::try_from(told.until).ok(), boot])?;
        Ok(())
    }

    /// The last trips told in this boot; those of other boots are forgotten.
    pub(super) fn told(&self, boot: &str) -> Outcome<Vec<(u32, Told)>> {
        if let Some(connection) = &self.connection {
            connection.execute("DELETE FROM told WHERE boot <> ?1", [boot])?;
        }
        self.all("SELECT uid, trips, until FROM told", [], |row| {
            let until =
                row.get::<_, Option<i64>>(2)?.map_or(u64::MAX, |until| u64::try_from(until).unwrap_or(0));
            Ok((row.get(0)?, Told { trips: row.get(1)?, until }))
        })
    }

    /// Removes an account's row of `locks`, `told` or `shadow_locks`.
    pub(super) fn remove(&mut self, table: &'static str, uid: u32) -> Outcome<()> {
        let Some(connection) = &self.connection else { return Ok(()) };
        let statement = match table {
            "locks" => "DELETE FROM locks WHERE uid = ?1",
            "told" => "DELETE FROM told WHERE uid = ?1",
            _ => "DELETE FROM shadow_locks WHERE uid = ?1",
        };
        connection.prepare_cached(statement)?.execute([uid])?;
        Ok(())
    }

    /// One transaction for a batch; a power cut may take the last attempts, never what was decided by them.
    pub(super) fn attempts(&mut self, attempts: &[Attempt]) -> Outcome<()> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        let transaction = connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached("INSERT INTO attempts (time, uid, outcome, service, tty, source, actor, status) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?;
            for attempt in attempts {
                insert.execute(params![
                    attempt.time.as_millisecond(),
                    attempt.uid,
                    attempt.outcome,
                    attempt.service,
                    attempt.tty,
                    attempt.source,
                    attempt.actor,
                    attempt.status,
                ])?;
            }
            transaction
                .prepare_cached("DELETE FROM attempts WHERE id <= (SELECT max(id) FROM attempts) - ?1")?
                .execute([ATTEMPTS])?;
        }
        transaction.commit()?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        Ok(())
    }

    /// Time, account and outcome of the newest attempts, newest first.
    pub(super) fn newest(&self, limit: u32) -> Outcome<Vec<(Timestamp, u32, String)>> {
        self.all("SELECT time, uid, outcome FROM attempts ORDER BY id DESC LIMIT ?1", [limit], |row| {
            Ok((time(row.get(0)?), row.get(1)?, row.get(2)?))
        })
    }

    pub(super) fn history(&self, uid: u32, limit: u32) -> Outcome<Vec<Attempt>> {
        self.all(
            "SELECT time, uid, outcome, service, tty, source, actor, status FROM attempts WHERE uid = ?1 ORDER BY id DESC LIMIT ?2",
            [uid, limit],
            |row| {
                Ok(Attempt {
                    time: time(row.get(0)?),
                    uid: row.get(1)?,
                    outcome: row.get(2)?,
                    service: row.get(3)?,
                    tty: row.get(4)?,
                    source: row.get(5)?,
                    actor: row.get(6)?,
                    status: row.get(7)?,
                })
            },
        )
    }

    pub(super) fn actions_of(&self, uid: u32, limit: u32) -> Outcome<Vec<PastAction>> {
        self.all(
            "SELECT time, kind, result, reason FROM actions WHERE uid = ?1 ORDER BY id DESC LIMIT ?2",
            [uid, limit],
            |row| {
                Ok(PastAction {
                    time: time(row.get(0)?),
                    kind: row.get(1)?,
                    result: row.get(2)?,
                    reason: row.get(3)?,
                })
            },
        )
    }

    /// One statement that writes.
    pub(super) fn write(&mut self, work: impl FnOnce(&Connection) -> rusqlite::Result<usize>) -> Outcome<()> {
        let Some(connection) = &self.connection else { return Ok(()) };
        work(connection)?;
        Ok(())
    }

    pub(super) fn all<T, P: rusqlite::Params>(
        &self,
        statement: &str,
        values: P,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Outcome<Vec<T>> {
        let Some(connection) = &self.connection else { return Ok(Vec::new()) };
        let mut statement = connection.prepare_cached(statement)?;
        let rows = statement.query_map(values, read)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

/// Milliseconds since 1970 as stored; what no clock can mean is the beginning of time.
pub(super) fn time(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

pub(super) fn end(until: Until) -> Option<i64> {
    match until {
        Until::Never => None,
        Until::At(time) => Some(time.as_millisecond()),
    }
}
