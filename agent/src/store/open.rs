//! Opens the file of the store, and refuses one that is not ours to use.
//!
//! Invariants: no symbolic link is followed at the file; a file or folder that others than root may write is not used,
//! since what it says is acted on as root; a file that another program wrote is left as it is, byte for byte.

use std::fs::{DirBuilder, Metadata, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::StoreError;

/// Version of the tables below.
const SCHEMA: i64 = 2;
/// Locks of pairs: who is shut out of which account. `id` is the bits of the actor's.
const PAIRS: &str = "
    CREATE TABLE IF NOT EXISTS pair_locks (
        uid INTEGER NOT NULL, source INTEGER NOT NULL, id INTEGER NOT NULL, locked_at INTEGER NOT NULL, until INTEGER,
        PRIMARY KEY (uid, source, id));
";
/// Marks a file as ours: "PCLS" in the header, where file(1) looks too.
const APPLICATION: i64 = 0x5043_4c53;
/// Version 1, which had no mark yet.
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
";
/// From version 1 to 2: the trips that were told, and the mark.
const TO_2: &str = "
    CREATE TABLE told (uid INTEGER PRIMARY KEY, trips INTEGER NOT NULL, until INTEGER, boot TEXT NOT NULL);
    PRAGMA application_id = 0x50434c53;
    PRAGMA user_version = 2;
";
/// What the name of a damaged file that was put aside goes on with.
const ASIDE: &str = ".damaged-";

type Outcome<T> = Result<T, StoreError>;

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

/// Opens the file, or makes it, with the tables of this version.
pub(super) fn open(path: &Path) -> Outcome<Connection> {
    guard(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(judge)?;
    connection.busy_timeout(Duration::from_secs(2)).map_err(judge)?;
    let found = version(&connection)?;
    let word: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(judge)?;
    if word != "ok" {
        return Err(StoreError::Damaged(word));
    }
    connection.pragma_update(None, "journal_mode", "WAL").map_err(judge)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(judge)?;
    let upgrade = connection.transaction().map_err(judge)?;
    if found < 1 {
        upgrade.execute_batch(TABLES).map_err(judge)?;
    }
    if found < 2 {
        upgrade.execute_batch(TO_2).map_err(judge)?;
    }
    upgrade.execute_batch(PAIRS).map_err(judge)?;
    upgrade.execute_batch(super::pairs::CLIMBS).map_err(judge)?;
    upgrade.execute_batch(super::sources::TABLE).map_err(judge)?;
    upgrade.execute_batch(super::rungs::TABLES).map_err(judge)?;
    // What cannot be written is to be known now.
    let now = Timestamp::now().as_millisecond();
    upgrade.execute("INSERT OR REPLACE INTO meta VALUES ('opened', ?1)", [now]).map_err(judge)?;
    upgrade.commit().map_err(judge)?;
    Ok(connection)
}

/// Makes folder and file where they are missing, and looks who may write them.
fn guard(path: &Path) -> Outcome<()> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(file(folder))?;
        roots_alone(folder, &folder.metadata().map_err(file(folder))?)?;
    }
    // SQLite would make it with the umask's mode, and its side files with that of the file.
    let opened = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path);
    let opened = match opened {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Err(StoreError::Unsafe {
                path: path.to_owned(),
                what: "it is a symbolic link".to_owned(),
            });
        }
        other => other.map_err(file(path))?,
    };
    let found = opened.metadata().map_err(file(path))?;
    if !found.is_file() {
        return Err(StoreError::Unsafe { path: path.to_owned(), what: "it is no plain file".to_owned() });
    }
    roots_alone(path, &found)?;
    opened.set_permissions(Permissions::from_mode(0o600)).map_err(file(path))
}

/// Refuses what others than root, or than we, may write.
fn roots_alone(path: &Path, found: &Metadata) -> Outcome<()> {
    let unsafe_for = |what| StoreError::Unsafe { path: path.to_owned(), what };
    if found.uid() != 0 && found.uid() != nix::unistd::geteuid().as_raw() {
        return Err(unsafe_for(format!("it belongs to uid {}", found.uid())));
    }
    let mode = found.mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(unsafe_for(format!("others may write it (mode {mode:04o})")));
    }
    Ok(())
}

/// The version of the tables in the file; 0 where there are none.
fn version(connection: &Connection) -> Outcome<i64> {
    let number = |statement| connection.query_row(statement, [], |row| row.get::<_, i64>(0)).map_err(judge);
    let application = number("PRAGMA application_id")?;
    let version = number("PRAGMA user_version")?;
    let ours = "SELECT count(*) FROM sqlite_schema WHERE type = 'table'
        AND name IN ('meta', 'actions', 'locks', 'shadow_locks', 'attempts')";
    match (application, version) {
        (APPLICATION, found) if found > SCHEMA => Err(StoreError::Newer { found, known: SCHEMA }),
        (APPLICATION, found) => Ok(found),
        (0, 0) if number("SELECT count(*) FROM sqlite_schema")? == 0 => Ok(0),
        (0, 1) if number(ours)? == 5 => Ok(1),
        _ => Err(StoreError::Foreign { application, version }),
    }
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Renames a damaged file and what belongs to it.
pub(super) fn set_aside(path: &Path) -> Outcome<PathBuf> {
    let time = Timestamp::now().as_second();
    let free = |number: &i64| !with(path, &format!("{ASIDE}{number}")).exists();
    let time = (time..).find(free).unwrap_or(time);
    let aside = with(path, &format!("{ASIDE}{time}"));
    std::fs::rename(path, &aside).map_err(file(path))?;
    for suffix in ["-wal", "-shm"] {
        let part = with(path, suffix);
        if part.exists() {
            std::fs::rename(&part, with(path, &format!("{ASIDE}{time}{suffix}"))).map_err(file(&part))?;
        }
    }
    Ok(aside)
}

/// The damaged files that lie beside `path`, by name. A folder that cannot be read holds none that we know of.
pub(super) fn aside(path: &Path) -> Vec<PathBuf> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Vec::new() };
    let start = format!("{}{ASIDE}", name.to_string_lossy());
    let ours = |found: &PathBuf| {
        let name = found.file_name().unwrap_or_default().to_string_lossy();
        name.strip_prefix(&start).is_some_and(|time| time.parse::<i64>().is_ok())
    };
    let Ok(entries) = folder.read_dir() else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(ours).collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::Store;
    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// Why the store does not use what is at `path`.
    fn refused(path: &Path) -> String {
        let store = Store::open(path);
        assert!(store.set_aside().is_empty());
        store.degraded().unwrap().to_owned()
    }

    #[test]
    fn what_others_may_write_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        let path = inner.join("portcullis.db");
        drop(Store::open(&path));
        let before = std::fs::read(&path).unwrap();
        for (place, mode) in [(&path, 0o620), (&path, 0o602), (&inner, 0o770), (&inner, 0o1777)] {
            let usual = if *place == path { 0o600 } else { 0o700 };
            set_mode(place, mode);
            let why = refused(&path);
            assert!(why.contains("others may write") && why.contains("chmod"), "{why}");
            set_mode(place, usual);
        }
        if nix::unistd::geteuid().is_root() {
            for place in [&path, &inner] {
                std::os::unix::fs::chown(place, Some(65_534), None).unwrap();
                assert!(refused(&path).contains("belongs to uid 65534"));
                std::os::unix::fs::chown(place, Some(0), None).unwrap();
            }
        }
        assert_eq!(std::fs::read(&path).unwrap(), before);
        assert_eq!(Store::open(&path).degraded(), None);
    }

    #[test]
    fn links_and_what_is_no_file_are_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        std::fs::write(&target, "precious").unwrap();
        let path = folder.path().join("portcullis.db");
        symlink(&target, &path).unwrap();
        assert!(refused(&path).contains("symbolic link"));
        symlink(folder.path().join("absent"), folder.path().join("dangling.db")).unwrap();
        assert!(refused(&folder.path().join("dangling.db")).contains("symbolic link"));
        assert!(!folder.path().join("absent").exists());
        nix::unistd::mkfifo(&folder.path().join("fifo.db"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(refused(&folder.path().join("fifo.db")).contains("no plain file"));
        assert_eq!(std::fs::read(&target).unwrap(), b"precious");
    }

    #[test]
    fn a_file_of_another_program_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("portcullis.db");
        for words in [
            "CREATE TABLE mail (body TEXT); INSERT INTO mail VALUES ('dear');",
            "CREATE TABLE meta (name TEXT); PRAGMA user_version = 1;",
            "PRAGMA application_id = 7; PRAGMA user_version = 2;",
        ] {
            let other = Connection::open(&path).unwrap();
            other.execute_batch(words).unwrap();
            drop(other);
            let before = std::fs::read(&path).unwrap();
            let mut store = Store::open(&path);
            let why = store.degraded().unwrap().to_owned();
            assert!(why.contains("another program") && why.contains("agent.store"), "{why}");
            store.remove_lock(7);
            drop(store);
            assert_eq!(std::fs::read(&path).unwrap(), before, "{words}");
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_file_of_version_1_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("portcullis.db");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(TABLES).unwrap();
        old.execute_batch("INSERT INTO locks VALUES (7, 'jon', 'strict', 'trip', 1000, NULL, 2)").unwrap();
        old.pragma_update(None, "user_version", 1).unwrap();
        drop(old);
        let store = Store::open(&path);
        assert_eq!(store.degraded(), None);
        assert_eq!(store.locks().len(), 1);
        drop(store);
        let header = std::fs::read(&path).unwrap();
        assert_eq!(&header[68..72], b"PCLS");
        assert_eq!(Store::open(&path).locks().len(), 1);
    }
}
