//! What outlives the process: locks, shadow locks, actions, attempts. SQLite in WAL mode.
//!
//! Invariants
//! * An intent is on the disk before its action begins, a result before the next step is decided (`synchronous=FULL`).
//! * No operation fails: a store that is damaged is renamed aside, one that cannot be written is replaced by memory, and
//!   [`Store::degraded`] says so. The store never stops enforcement.
//! * A file of a later version is left as it is.
//! * Bounded: the newest [`ATTEMPTS`] attempts and [`ACTIONS`] actions are kept.
//! * File 0600, folder 0700: names, addresses and times of logons are nobody else's business.

mod db;

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;

use crate::api::view::Until;
use crate::shadow::Digest;
use db::Db;

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
    /// `trip`, `administrator`, `restored`.
    pub cause: String,
    /// When it was set.
    pub locked_at: Timestamp,
    /// When it ends.
    pub until: Until,
    /// The gate's number of the trip.
    pub trips: u32,
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
    shadow_locks: BTreeMap<u32, ShadowLock>,
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
                Self::in_memory(why)
            }
        }
    }

    fn read(path: &Path) -> Result<Self, StoreError> {
        let db = match Db::open(path) {
            Err(error @ StoreError::Damaged(_)) => {
                let aside = db::set_aside(path)?;
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
        let shadow_locks = db.shadow_locks()?.into_iter().map(|lock| (lock.uid, lock)).collect();
        Ok(Self { key: db.key()?, db, locks, shadow_locks, degraded: None })
    }

    fn in_memory(why: String) -> Self {
        let mut key = [0; 16];
        // A digest with a known key is still one of ours; without random bytes nothing else works either.
        if let Err(error) = getrandom::fill(&mut key) {
            log::error!("{}", StoreError::Random(error));
        }
        let (locks, shadow_locks) = (BTreeMap::new(), BTreeMap::new());
        Self { db: Db::none(), key, locks, shadow_locks, degraded: Some(why) }
    }

    /// Why the store stands in memory; none while it is on the disk.
    #[must_use]
    pub fn degraded(&self) -> Option<&str> {
        self.degraded.as_deref()
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

    /// The last attempts at an account, newest first.
    pub fn history(&mut self, uid: u32, limit: u32) -> Vec<Attempt> {
        self.on_disk("the history", |db| db.history(uid, limit)).unwrap_or_default()
    }

    /// The last actions on an account, newest first.
    pub fn actions_of(&mut self, uid: u32, limit: u32) -> Vec<PastAction> {
        self.on_disk("past actions", |db| db.actions_of(uid, limit)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn lock(uid: u32, until: Until) -> StoredLock {
        let (name, class, cause) = ("jon".to_owned(), "strict".to_owned(), "trip".to_owned());
        StoredLock { uid, name, class, cause, locked_at: at(1_000), until, trips: 2 }
    }

    fn intent(kind: &str, digest: Option<Digest>) -> Intent {
        Intent { time: at(5), uid: 7, name: "jon".to_owned(), kind: kind.to_owned(), until: None, digest }
    }

    fn attempt(second: i64, tty: &str) -> Attempt {
        Attempt {
            time: at(second),
            uid: 7,
            outcome: "fail".to_owned(),
            service: "su".to_owned(),
            tty: tty.to_owned(),
            source: Some("192.0.2.7".to_owned()),
            actor: None,
            status: 7,
        }
    }

    #[test]
    fn what_was_stored_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/portcullis.db");
        let (never, ends) = (lock(1, Until::Never), lock(2, Until::At(at(2_000))));
        let (key, id);
        {
            let mut store = Store::open(&path);
            assert_eq!(store.degraded(), None);
            key = store.digest_key();
            store.set_lock(&never);
            store.set_lock(&ends);
            store.set_lock(&lock(3, Until::Never));
            store.remove_lock(3);
            store.set_shadow_lock(7, "jon", &Digest([9; 16]));
            id = store.begin(&intent("shadow_lock", Some(Digest([9; 16]))));
            let done = store.begin(&intent("gate_lock", None));
            store.finish(done, "failed", Some("because"));
            store.attempts(&[attempt(1, "a"), attempt(2, "b")]);
        }
        let mut store = Store::open(&path);
        assert_eq!(store.digest_key(), key);
        assert_ne!(key, [0; 16]);
        assert_eq!(store.locks(), [never, ends]);
        assert_eq!(store.shadow_lock(7).unwrap().digest, Digest([9; 16]));
        let open = store.unfinished();
        assert_eq!(open.len(), 1);
        assert_eq!((open[0].id, open[0].digest), (id, Some(Digest([9; 16]))));
        assert_eq!(store.history(7, 10), [attempt(2, "b"), attempt(1, "a")]);
        assert_eq!(store.history(7, 1), [attempt(2, "b")]);
        assert_eq!(store.actions_of(7, 1)[0].reason.as_deref(), Some("because"));
        store.remove_shadow_lock(7);
        assert_eq!(store.shadow_locks(), []);
    }

    #[test]
    fn nobody_else_can_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/portcullis.db");
        let mut store = Store::open(&path);
        store.attempts(&[attempt(1, "a")]);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder.path().join("new")), 0o700);
        for file in std::fs::read_dir(folder.path().join("new")).unwrap() {
            let file = file.unwrap().path();
            assert_eq!(mode(&file), 0o600, "{}", file.display());
        }
    }

    #[test]
    fn a_damaged_file_is_kept_aside_and_a_new_one_begun() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("portcullis.db");
        for damage in [&b"this was a database once, it is not any more"[..], &[0xff; 8192]] {
            std::fs::write(&path, damage).unwrap();
            let mut store = Store::open(&path);
            assert_eq!(store.degraded(), None);
            store.set_lock(&lock(1, Until::Never));
            drop(store);
            assert_eq!(Store::open(&path).locks().len(), 1);
            let kept = std::fs::read_dir(folder.path())
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .any(|file| std::fs::read(file).unwrap() == damage);
            assert!(kept);
        }
    }

    #[test]
    fn a_file_of_a_later_version_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("portcullis.db");
        drop(Store::open(&path));
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        drop(connection);
        let before = std::fs::read(&path).unwrap();
        let mut store = Store::open(&path);
        let why = store.degraded().unwrap().to_owned();
        assert!(why.contains("99") && why.contains('1'), "{why}");
        store.set_lock(&lock(1, Until::Never));
        assert_eq!(store.locks().len(), 1);
        drop(store);
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    #[test]
    fn where_nothing_can_be_written_memory_stands_in() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "no folder").unwrap();
        let mut store = Store::open(&file.join("portcullis.db"));
        assert!(store.degraded().is_some());
        store.set_lock(&lock(1, Until::Never));
        store.set_shadow_lock(1, "jon", &Digest([1; 16]));
        assert_eq!(store.locks().len(), 1);
        assert!(store.shadow_lock(1).is_some());
        assert_ne!(store.digest_key(), [0; 16]);
    }

    #[test]
    fn a_store_that_breaks_while_it_runs_keeps_its_locks_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("portcullis.db");
        let mut store = Store::open(&path);
        store.set_lock(&lock(1, Until::Never));
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.execute_batch("DROP TABLE locks").unwrap();
        store.set_lock(&lock(2, Until::Never));
        assert!(store.degraded().unwrap().contains("a lock"));
        assert_eq!(store.locks().len(), 2);
    }

    #[test]
    fn history_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join("portcullis.db"));
        let many: Vec<Attempt> = (0..ATTEMPTS + 5).map(|second| attempt(second, "a")).collect();
        store.attempts(&many);
        let kept = store.history(7, u32::MAX);
        assert_eq!(kept.len(), 100_000);
        assert_eq!(kept.last().unwrap().time, at(5));
    }
}
