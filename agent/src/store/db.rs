//! The SQL side of the store.
//!
//! Invariants: every statement has parameters, none is put together from text; one writer (the agent's lock file).

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, params};

use super::{
    ACTIONS, ATTEMPTS, ActionId, Attempt, Intent, PastAction, ShadowLock, StoreError, StoredLock, Unfinished,
};
use crate::api::view::Until;
use crate::shadow::Digest;

/// Version of the tables below.
const SCHEMA: i64 = 1;
const TABLES: &str = "
    CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL);
    CREATE TABLE actions (
        id INTEGER PRIMARY KEY AUTOINCREMENT, time INTEGER NOT NULL, uid INTEGER NOT NULL, name TEXT NOT NULL,
        kind TEXT NOT NULL, until INTEGER, digest BLOB, result TEXT, reason TEXT);
    CREATE INDEX actions_uid ON actions (uid, id);
    CREATE INDEX actions_open ON actions (id) WHERE result IS NULL;
    CREATE TABLE locks (
        uid INTEGER PRIMARY KEY, name TEXT NOT NULL, class TEXT NOT NULL, cause TEXT NOT NULL,
        locked_at INTEGER NOT NULL, until INTEGER, trips INTEGER NOT NULL);
    CREATE TABLE shadow_locks (uid INTEGER PRIMARY KEY, name TEXT NOT NULL, digest BLOB NOT NULL);
    CREATE TABLE attempts (
        id INTEGER PRIMARY KEY AUTOINCREMENT, time INTEGER NOT NULL, uid INTEGER NOT NULL, outcome TEXT NOT NULL,
        service TEXT NOT NULL, tty TEXT NOT NULL, source TEXT, actor INTEGER, status INTEGER NOT NULL);
    CREATE INDEX attempts_uid ON attempts (uid, id);
    PRAGMA user_version = 1;
";

type Outcome<T> = Result<T, StoreError>;

/// An open database, or none where memory stands in: then nothing is kept and nothing is found.
#[derive(Debug)]
pub(super) struct Db {
    connection: Option<Connection>,
}

/// Renames a damaged file and what belongs to it.
pub(super) fn set_aside(path: &Path) -> Outcome<PathBuf> {
    let time = Timestamp::now().as_second();
    let with = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let aside = with(&format!(".damaged-{time}"));
    std::fs::rename(path, &aside).map_err(file(path))?;
    for suffix in ["-wal", "-shm"] {
        let part = with(suffix);
        if part.exists() {
            std::fs::rename(&part, with(&format!(".damaged-{time}{suffix}"))).map_err(file(&part))?;
        }
    }
    Ok(aside)
}

fn file(path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::File { path, source }
}

/// SQLite's word for damage, told apart from a disk that is full or read-only.
fn judge(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Damaged(error.to_string()),
        _ => StoreError::Sqlite(error),
    }
}

impl Db {
    pub(super) const fn none() -> Self {
        Self { connection: None }
    }

    pub(super) fn open(path: &Path) -> Outcome<Self> {
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(file(folder))?;
        }
        // SQLite would make it with the umask's mode, and its side files with that of the file.
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)
            .map_err(file(path))?;
        std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(file(path))?;
        let connection = Connection::open(path).map_err(judge)?;
        connection.busy_timeout(Duration::from_secs(2)).map_err(judge)?;
        let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(judge)?;
        if found > SCHEMA {
            return Err(StoreError::Newer { found, known: SCHEMA });
        }
        let word: String =
            connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(judge)?;
        if word != "ok" {
            return Err(StoreError::Damaged(word));
        }
        connection.pragma_update(None, "journal_mode", "WAL").map_err(judge)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(judge)?;
        if found == 0 {
            connection.execute_batch(&format!("BEGIN IMMEDIATE;{TABLES}COMMIT;")).map_err(judge)?;
        }
        // What cannot be written is to be known now.
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('opened', ?1)", [now()]).map_err(judge)?;
        Ok(Self { connection: Some(connection) })
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

    /// Removes an account's row of `locks` or `shadow_locks`.
    pub(super) fn remove(&mut self, table: &'static str, uid: u32) -> Outcome<()> {
        let Some(connection) = &self.connection else { return Ok(()) };
        let statement = match table {
            "locks" => "DELETE FROM locks WHERE uid = ?1",
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

    fn all<T, P: rusqlite::Params>(
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

fn now() -> i64 {
    Timestamp::now().as_millisecond()
}

/// Milliseconds since 1970 as stored; what no clock can mean is the beginning of time.
fn time(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn end(until: Until) -> Option<i64> {
    match until {
        Until::Never => None,
        Until::At(time) => Some(time.as_millisecond()),
    }
}
