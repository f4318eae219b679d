//! What the store keeps, and what it does when it cannot.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed step is a failed test")]

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
        let before = Store::open(&folder.path().join("other.db")).set_aside().len();
        assert_eq!(before, 0, "another store's");
        let mut store = Store::open(&path);
        assert_eq!(store.degraded(), None);
        store.set_lock(&lock(1, Until::Never));
        let aside = store.set_aside();
        drop(store);
        let again = Store::open(&path);
        assert_eq!(again.locks().len(), 1);
        // The alarm stays over restarts, until somebody takes the file away.
        assert!(!aside.is_empty());
        assert_eq!(again.set_aside(), aside);
        let kept = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .any(|file| std::fs::read(file).unwrap() == damage);
        assert!(kept);
    }
    let store = Store::open(&path);
    assert_eq!(store.set_aside().len(), 2);
    store.set_aside().iter().for_each(|file| std::fs::remove_file(file).unwrap());
    assert!(store.set_aside().is_empty());
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
    assert!(why.contains("99") && why.contains("knows 2"), "{why}");
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
