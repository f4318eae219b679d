//! What outlives the process: locks, shadow locks, actions, attempts. SQLite in WAL mode.
//!
//! Invariants
//! * An intent is on the disk before its action begins, a result before the next step is decided (`synchronous=FULL`).
//! * No operation fails: a store that is damaged is renamed aside, one that cannot be written is replaced by memory, and
//!   [`Store::degraded`] says so. The store never stops enforcement.
//! * A file of a later version, of another program, or one that others may write is left as it is.
//! * A damaged file that was put aside is an alarm ([`Store::set_aside`]) until somebody takes it away.
//! * Bounded: the newest [`ATTEMPTS`] attempts and [`ACTIONS`] actions are kept.
//! * File 0600, folder 0700: names, addresses and times of logons are nobody else's business.

mod db;
pub mod drops;
mod open;
mod pairs;
mod rungs;
pub mod sources;
pub mod throttles;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::api::view::Until;
use crate::shadow::Digest;
use db::Db;
pub use pairs::{StoredPair, StoredPairClimb};
pub use rungs::{StoredClimb, StoredExpiry};

/// Attempts kept.
pub const ATTEMPTS: i64 = 100_000;
/// Actions kept.
pub const ACTIONS: i64 = 10_000;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite's words.
    #[error("SQLite: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The folder or the file.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// On what.
        path: std::path::PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A check of the file found damage.
    #[error("the file is damaged: {0}")]
    Damaged(String),
    /// A later version wrote the file.
    #[error(
        "the file has schema {found}, this version knows {known}: install the version that wrote it, or move the file away"
    )]
    Newer {
        /// The file's.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// Another program wrote the file.
    #[error(
        "the file is a database of another program (application_id {application}, user_version {version}): move it away, or name another file in agent.store"
    )]
    Foreign {
        /// Its application_id.
        application: i64,
        /// Its user_version.
        version: i64,
    },
    /// Others may change the file, or it is none.
    #[error(
        "{path} is not to be trusted: {what}; look what it is, then move it away, or chown root and chmod go-w it, and restart portcullisd",
        path = path.display()
    )]
    Unsafe {
        /// File or folder.
        path: std::path::PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// No random bytes.
    #[error("no random bytes for the key of the digests: {0}")]
    Random(getrandom::Error),
}

/// Names an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActionId(i64);

/// What is about to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// When it was decided.
    pub time: Timestamp,
    /// To which account.
    pub uid: u32,
    /// Its name.
    pub name: String,
    /// `shadow_lock`, `gate_unlock`, …
    pub kind: String,
    /// End of the lock, for locks.
    pub until: Option<Until>,
    /// What a shadow lock will leave.
    pub digest: Option<Digest>,
}

/// An action whose end was never stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// Which.
    pub id: ActionId,
    /// To which account.
    pub uid: u32,
    /// Its name.
    pub name: String,
    /// `shadow_lock`, …
    pub kind: String,
    /// What a shadow lock would have left.
    pub digest: Option<Digest>,
}

/// An action of the past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastAction {
    /// When it was decided.
    pub time: Timestamp,
    /// `shadow_lock`, …
    pub kind: String,
    /// `verified`, `failed`, …; none while it is under way.
    pub result: Option<String>,
    /// Why it ended so.
    pub reason: Option<String>,
}

/// A lock of the gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLock {
    /// Which account.
    pub uid: u32,
    /// Its name, for people.
    pub name: String,
    /// Its class, for people.
    pub class: String,
    /// `trip`, `administrator`, `restored`, or [`StoredLock::SOFT`].
    pub cause: String,
    /// When it was set.
    pub locked_at: Timestamp,
    /// When it ends.
    pub until: Until,
    /// The gate's number of the trip.
    pub trips: u32,
}

impl StoredLock {
    /// Cause of a soft lock: a trip, the first.
    pub const SOFT: &str = "soft";

    /// Whether it is open to some.
    #[must_use]
    pub fn is_soft(&self) -> bool {
        self.cause == Self::SOFT
    }
}

/// A shadow lock of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShadowLock {
    /// Which account.
    pub uid: u32,
    /// The name it was locked under.
    pub name: String,
    /// What we left.
    pub digest: Digest,
}

/// The last trip that people were told of: one is told once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// The gate's number of the trip.
    pub trips: u32,
    /// End of its lock, in this boot's time (nanoseconds).
    pub until: u64,
}

/// An attempt to log on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// When.
    pub time: Timestamp,
    /// To which account.
    pub uid: u32,
    /// `fail`, `refused`, …
    pub outcome: String,
    /// PAM service, escaped.
    pub service: String,
    /// Terminal, escaped.
    pub tty: String,
    /// Remote address, where there is one.
    pub source: Option<String>,
    /// Real uid of a local actor.
    pub actor: Option<u32>,
    /// PAM status.
    pub status: i32,
}

/// The store. Locks and shadow locks are held in memory as well, so that they survive a disk that does not.
#[derive(Debug)]
pub struct Store {
    db: Db,
    key: [u8; 16],
    locks: BTreeMap<u32, StoredLock>,
    pairs: pairs::Held,
    rungs: rungs::Held,
    shadow_locks: BTreeMap<u32, ShadowLock>,
    /// Trips told in this boot.
    told: BTreeMap<u32, Told>,
    /// This boot; empty where its name cannot be read: then what was told is known until the end of the process.
    boot: String,
    aside: Vec<PathBuf>,
    degraded: Option<String>,
}

impl Store {
    /// Opens the store at `path`, makes it, or stands in for it: see [`Store::degraded`].
    #[must_use]
    pub fn open(path: &Path) -> Self {
        match Self::read(path) {
            Ok(store) => store,
            Err(error) => {
                let why = format!("{}: {error}", path.display());
                log::error!(
                    "the store stands in memory, what happens from now on is not kept over a restart: {why}"
                );
                Self { aside: open::aside(path), ..Self::in_memory(why) }
            }
        }
    }

    fn read(path: &Path) -> Result<Self, StoreError> {
        let db = match Db::open(path) {
            Err(error @ StoreError::Damaged(_)) => {
                let aside = open::set_aside(path)?;
                log::error!(
                    "{}: {error}; it was renamed to {} and a new one begun: locks and shadow locks of before are not known any more, see passwd --status",
                    path.display(),
                    aside.display()
                );
                Db::open(path)?
            }
            other => other?,
        };
        let locks = db.locks()?.into_iter().map(|lock| (lock.uid, lock)).collect();
        let pairs = pairs::Held::read(&db)?;
        let shadow_locks = db.shadow_locks()?.into_iter().map(|lock| (lock.uid, lock)).collect();
        let boot = boot_id();
        let told = db.told(&boot)?.into_iter().collect();
        let rungs = rungs::Held::read(&db, &boot)?;
        let aside = open::aside(path);
        Ok(Self { key: db.key()?, db, locks, pairs, rungs, shadow_locks, told, boot, aside, degraded: None })
    }

    fn in_memory(why: String) -> Self {
        let mut key = [0; 16];
        // A digest with a known key is still one of ours; without random bytes nothing else works either.
        if let Err(error) = getrandom::fill(&mut key) {
            log::error!("{}", StoreError::Random(error));
        }
        let (locks, shadow_locks, told) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (boot, aside) = (String::new(), Vec::new());
        Self {
            db: Db::none(),
            key,
            locks,
            pairs: pairs::Held::default(),
            rungs: rungs::Held::default(),
            shadow_locks,
            told,
            boot,
            aside,
            degraded: Some(why),
        }
    }

    /// Why the store stands in memory; none while it is on the disk.
    #[must_use]
    pub fn degraded(&self) -> Option<&str> {
        self.degraded.as_deref()
    }

    /// Damaged files that were put aside and still lie there: what they knew of locks is not known any more.
    #[must_use]
    pub fn set_aside(&self) -> Vec<PathBuf> {
        self.aside.iter().filter(|file| file.exists()).cloned().collect()
    }

    /// Key of the digests of password fields.
    #[must_use]
    pub fn digest_key(&self) -> [u8; 16] {
        self.key
    }

    /// Does one thing on the disk; when that fails, memory stands in from then on.
    fn on_disk<T>(&mut self, what: &str, work: impl FnOnce(&mut Db) -> Result<T, StoreError>) -> Option<T> {
        match work(&mut self.db) {
            Ok(done) => Some(done),
            Err(error) => {
                let why = format!("{what}: {error}");
                if self.degraded.is_none() {
                    log::error!(
                        "the store stands in memory from now on; restart portcullisd when that is mended: {why}"
                    );
                    self.degraded = Some(why);
                }
                None
            }
        }
    }

    /// Stores an intent.
    pub fn begin(&mut self, intent: &Intent) -> ActionId {
        ActionId(self.on_disk("an intent", |db| db.begin(intent)).unwrap_or(0))
    }

    /// Stores how an action ended.
    pub fn finish(&mut self, id: ActionId, result: &str, reason: Option<&str>) {
        self.on_disk("a result", |db| db.finish(id.0, result, reason));
    }

    /// Intents without a result, oldest first.
    pub fn unfinished(&mut self) -> Vec<Unfinished> {
        self.on_disk("unfinished actions", |db| db.unfinished()).unwrap_or_default()
    }

    /// Stores a lock, in the place of an older one of the account.
    pub fn set_lock(&mut self, lock: &StoredLock) {
        self.locks.insert(lock.uid, lock.clone());
        self.on_disk("a lock", |db| db.set_lock(lock));
    }

    /// Removes the lock of an account.
    pub fn remove_lock(&mut self, uid: u32) {
        self.locks.remove(&uid);
        self.on_disk("the end of a lock", |db| db.remove("locks", uid));
    }

    /// All locks.
    #[must_use]
    pub fn locks(&self) -> Vec<StoredLock> {
        self.locks.values().cloned().collect()
    }

    /// The last trip of an account that was told.
    #[must_use]
    pub fn told(&self, uid: u32) -> Option<Told> {
        self.told.get(&uid).copied()
    }

    /// Notes that a trip was told.
    pub fn set_told(&mut self, uid: u32, told: Told) {
        if self.told.len() >= portcullis_policy::MAX_ACCOUNTS && !self.told.contains_key(&uid) {
            // The one whose lock ended first is the least likely to be told again.
            let oldest = self.told.iter().min_by_key(|(_, told)| told.until).map(|(uid, _)| *uid);
            oldest.into_iter().for_each(|oldest| self.forget_told(oldest));
        }
        self.told.insert(uid, told);
        let boot = self.boot.clone();
        if !boot.is_empty() {
            self.on_disk("a trip that was told", |db| db.set_told(uid, told, &boot));
        }
    }

    /// Forgets what was told of an account: the gate may count its trips anew.
    pub fn forget_told(&mut self, uid: u32) {
        if self.told.remove(&uid).is_some() {
            self.on_disk("a trip that was told", |db| db.remove("told", uid));
        }
    }

    /// Stores a shadow lock of ours.
    pub fn set_shadow_lock(&mut self, uid: u32, name: &str, digest: &Digest) {
        let lock = ShadowLock { uid, name: name.to_owned(), digest: *digest };
        self.on_disk("a shadow lock", |db| db.set_shadow_lock(&lock));
        self.shadow_locks.insert(uid, lock);
    }

    /// Forgets a shadow lock.
    pub fn remove_shadow_lock(&mut self, uid: u32) {
        self.shadow_locks.remove(&uid);
        self.on_disk("the end of a shadow lock", |db| db.remove("shadow_locks", uid));
    }

    /// The shadow lock of an account.
    #[must_use]
    pub fn shadow_lock(&self, uid: u32) -> Option<ShadowLock> {
        self.shadow_locks.get(&uid).cloned()
    }

    /// All shadow locks of ours.
    #[must_use]
    pub fn shadow_locks(&self) -> Vec<ShadowLock> {
        self.shadow_locks.values().cloned().collect()
    }

    /// Stores attempts.
    pub fn attempts(&mut self, attempts: &[Attempt]) {
        if !attempts.is_empty() {
            self.on_disk("attempts", |db| db.attempts(attempts));
        }
    }

    /// Time, account and outcome of the newest attempts at all, newest first; none where memory stands in for the store.
    pub fn newest_attempts(&mut self, limit: u32) -> Vec<(Timestamp, u32, String)> {
        self.on_disk("attempts", |db| db.newest(limit)).unwrap_or_default()
    }

    /// The last attempts at an account, newest first.
    pub fn history(&mut self, uid: u32, limit: u32) -> Vec<Attempt> {
        self.on_disk("the history", |db| db.history(uid, limit)).unwrap_or_default()
    }

    /// The last actions on an account, newest first.
    pub fn actions_of(&mut self, uid: u32, limit: u32) -> Vec<PastAction> {
        self.on_disk("past actions", |db| db.actions_of(uid, limit)).unwrap_or_default()
    }
}

/// The name of this boot; empty where it cannot be read.
fn boot_id() -> String {
    crate::clock::boot_id().unwrap_or_else(|error| {
        log::warn!("a trip may be told again after a restart of portcullisd: {error}");
        String::new()
    })
}

#[cfg(test)]
mod tests;
