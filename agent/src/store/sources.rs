//! What is kept of sources that tripped: repeats, and answers that still hold. In memory as well, like locks.
//!
//! Invariants: as in [`super`]; wall time, so that it means the same in another boot.

use jiff::Timestamp;
use rusqlite::params;

use super::{Store, db::Db};

/// What is kept of one source, network or local user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSource {
    /// `net 192.0.2.7` or `uid 1000`.
    pub target: String,
    /// When it tripped last.
    pub at: Timestamp,
    /// End of the answer.
    pub until: Timestamp,
    /// Answers so far.
    pub repeats: u32,
    /// `guess`, …
    pub class: String,
    /// Failures, accounts, unknown names of the last trip.
    pub counts: [u32; 3],
    /// PAM service that the last failure came by; empty: not known.
    pub service: String,
    /// Whether something was done.
    pub acted: bool,
}

pub(super) const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS sources (
        target TEXT PRIMARY KEY, at INTEGER NOT NULL, until INTEGER NOT NULL, repeats INTEGER NOT NULL,
        class TEXT NOT NULL, failures INTEGER NOT NULL, accounts INTEGER NOT NULL, names INTEGER NOT NULL,
        acted INTEGER NOT NULL, service TEXT NOT NULL) WITHOUT ROWID;
";

impl Store {
    /// Stores what is kept of a source.
    pub fn set_source(&mut self, source: &StoredSource) {
        let [failures, accounts, unknown] = source.counts;
        self.on_disk("a source", |db| {
            db.write(|connection| {
                connection
                    .prepare_cached(
                        "INSERT OR REPLACE INTO sources VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                    )?
                    .execute(params![
                        source.target,
                        source.at.as_millisecond(),
                        source.until.as_millisecond(),
                        source.repeats,
                        source.class,
                        failures,
                        accounts,
                        unknown,
                        source.acted,
                        source.service,
                    ])
            })
        });
    }

    /// Forgets a source.
    pub fn remove_source(&mut self, target: &str) {
        self.on_disk("the end of a source", |db| {
            db.write(|connection| {
                connection.prepare_cached("DELETE FROM sources WHERE target = ?1")?.execute([target])
            })
        });
    }

    /// All that is kept of sources.
    pub fn sources(&mut self) -> Vec<StoredSource> {
        self.on_disk("sources", Db::sources).unwrap_or_default()
    }
}

impl Db {
    fn sources(&mut self) -> Result<Vec<StoredSource>, super::StoreError> {
        self.all(
            "SELECT target, at, until, repeats, class, failures, accounts, names, acted, service FROM sources",
            [],
            |row| {
                Ok(StoredSource {
                    target: row.get(0)?,
                    at: time(row.get(1)?),
                    until: time(row.get(2)?),
                    repeats: row.get(3)?,
                    class: row.get(4)?,
                    counts: [row.get(5)?, row.get(6)?, row.get(7)?],
                    acted: row.get(8)?,
                    service: row.get(9)?,
                })
            },
        )
    }
}

fn time(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}
