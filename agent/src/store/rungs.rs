//! What the store knows of the rungs above the shadow lock: expiries of ours with the former value, and rows of trips.
//!
//! Invariants: a former expiry is on the disk before ours is set; bounded like the policy.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::params;

use super::db::{Db, Outcome, end, time};
use super::{Store, Until};
use crate::expiry::Former;

/// The tables.
pub(super) const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS expiries (
        uid INTEGER PRIMARY KEY, name TEXT NOT NULL, former TEXT NOT NULL, sure INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS climbs (
        uid INTEGER PRIMARY KEY, trips INTEGER NOT NULL, until INTEGER, sessions_ended INTEGER NOT NULL,
        level INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS modes (class TEXT PRIMARY KEY, monitor INTEGER NOT NULL, boot TEXT NOT NULL);
";

/// An expiry of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredExpiry {
    /// Which account.
    pub uid: u32,
    /// The name it was set under.
    pub name: String,
    /// What was there before.
    pub former: Former,
    /// It was read back; else it is only meant to be.
    pub sure: bool,
}

/// A row of trips.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredClimb {
    /// Which account.
    pub uid: u32,
    /// How many.
    pub trips: u32,
    /// Until when one more counts as such.
    pub until: Until,
    /// Sessions were ended at the last.
    pub sessions_ended: bool,
    /// Trips before the last, as the gate counts them: how often the lock was doubled.
    pub level: u32,
}

/// What is held in memory as well.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) expiries: BTreeMap<u32, StoredExpiry>,
    pub(super) climbs: BTreeMap<u32, StoredClimb>,
    /// Modes set at run time, by class: whether it is monitor.
    pub(super) modes: BTreeMap<String, bool>,
}

impl Held {
    pub(super) fn read(db: &Db, boot: &str) -> Outcome<Self> {
        let expiries = db.all("SELECT uid, name, former, sure FROM expiries", [], |row| {
            Ok(StoredExpiry {
                uid: row.get(0)?,
                name: row.get(1)?,
                former: Former(row.get(2)?),
                sure: row.get(3)?,
            })
        })?;
        let climbs = db.all("SELECT uid, trips, until, sessions_ended, level FROM climbs", [], |row| {
            Ok(StoredClimb {
                uid: row.get(0)?,
                trips: row.get(1)?,
                until: row.get::<_, Option<i64>>(2)?.map_or(Until::Never, |end| Until::At(time(end))),
                sessions_ended: row.get(3)?,
                level: row.get(4)?,
            })
        })?;
        let modes = db.all("SELECT class, monitor FROM modes WHERE boot = ?1", [boot], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
        Ok(Self {
            expiries: expiries.into_iter().map(|held| (held.uid, held)).collect(),
            climbs: climbs.into_iter().map(|held| (held.uid, held)).collect(),
            modes: modes.into_iter().collect(),
        })
    }
}

impl Store {
    /// Stores an expiry that is meant to be set, or that was.
    pub fn set_expiry(&mut self, held: StoredExpiry) {
        self.on_disk("an expiry", |db| {
            let Some(connection) = db.connection() else { return Ok(()) };
            connection
                .prepare_cached("INSERT OR REPLACE INTO expiries VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![held.uid, held.name, held.former.0, held.sure])?;
            Ok(())
        });
        self.rungs.expiries.insert(held.uid, held);
    }

    /// Forgets an expiry.
    pub fn remove_expiry(&mut self, uid: u32) {
        if self.rungs.expiries.remove(&uid).is_some() {
            self.on_disk("the end of an expiry", |db| {
                let Some(connection) = db.connection() else { return Ok(()) };
                connection.prepare_cached("DELETE FROM expiries WHERE uid = ?1")?.execute([uid])?;
                Ok(())
            });
        }
    }

    /// The expiry of an account, sure or not.
    #[must_use]
    pub fn expiry(&self, uid: u32) -> Option<StoredExpiry> {
        self.rungs.expiries.get(&uid).cloned()
    }

    /// All expiries of ours that were read back.
    #[must_use]
    pub fn expiries(&self) -> Vec<u32> {
        self.rungs.expiries.values().filter(|held| held.sure).map(|held| held.uid).collect()
    }

    /// Stores a row of trips.
    pub fn set_climb(&mut self, climb: StoredClimb) {
        if self.rungs.climbs.len() >= portcullis_policy::MAX_ACCOUNTS
            && !self.rungs.climbs.contains_key(&climb.uid)
        {
            self.forget_climbs(Timestamp::now());
            if self.rungs.climbs.len() >= portcullis_policy::MAX_ACCOUNTS {
                return;
            }
        }
        self.rungs.climbs.insert(climb.uid, climb);
        self.on_disk("a row of trips", |db| {
            let Some(connection) = db.connection() else { return Ok(()) };
            connection.prepare_cached("INSERT OR REPLACE INTO climbs VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(
                params![climb.uid, climb.trips, end(climb.until), climb.sessions_ended, climb.level],
            )?;
            Ok(())
        });
    }

    /// Notes that the sessions of an account were ended.
    pub fn sessions_ended(&mut self, uid: u32) {
        if let Some(climb) = self.rungs.climbs.get(&uid).copied() {
            self.set_climb(StoredClimb { sessions_ended: true, ..climb });
        }
    }

    /// Forgets a row of trips.
    pub fn remove_climb(&mut self, uid: u32) {
        if self.rungs.climbs.remove(&uid).is_some() {
            self.on_disk("the end of a row of trips", |db| {
                let Some(connection) = db.connection() else { return Ok(()) };
                connection.prepare_cached("DELETE FROM climbs WHERE uid = ?1")?.execute([uid])?;
                Ok(())
            });
        }
    }

    /// Forgets the rows of trips that are over.
    pub fn forget_climbs(&mut self, now: Timestamp) {
        let over = |climb: &&StoredClimb| matches!(climb.until, Until::At(until) if until <= now);
        let over: Vec<u32> = self.rungs.climbs.values().filter(over).map(|climb| climb.uid).collect();
        over.into_iter().for_each(|uid| self.remove_climb(uid));
    }

    /// All rows of trips.
    #[must_use]
    pub fn climbs(&self) -> Vec<StoredClimb> {
        self.rungs.climbs.values().copied().collect()
    }

    /// Modes set at run time in this boot, by class: whether it is monitor.
    #[must_use]
    pub fn modes(&self) -> &BTreeMap<String, bool> {
        &self.rungs.modes
    }

    /// Stores the modes set at run time.
    pub fn set_modes(&mut self, modes: BTreeMap<String, bool>) {
        let boot = self.boot.clone();
        self.on_disk("the modes set at run time", |db| {
            let Some(connection) = db.connection() else { return Ok(()) };
            connection.execute("DELETE FROM modes", [])?;
            for (class, monitor) in &modes {
                connection.execute("INSERT INTO modes VALUES (?1, ?2, ?3)", params![class, monitor, boot])?;
            }
            Ok(())
        });
        self.rungs.modes = modes;
    }
}
