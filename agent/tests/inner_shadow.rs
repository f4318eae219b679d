//! The shadow lock with the real passwd(1), in a root folder of its own (`passwd --root`).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step is a failed test"
)]

mod town;

use std::path::Path;
use std::time::Duration;

use portcullis_agent::shadow::{Field, Locked, Prepared, Shadow, ShadowError, Unlocked, field};

const HASH: &str = "$6$saltsalt$1HlcYFzT4YHiXZsDtYcfa1";

/// A root folder with users, and the shadow locks over it; none where we are not root.
fn town() -> Option<(tempfile::TempDir, Shadow)> {
    let users = [("jon", HASH), ("kon", "!$6$old$lock"), ("star", "*"), ("open", "")];
    let root =
        town::root("passwd", users.map(|(name, password)| (name, format!("{password}:19000:0:99999:7:::"))))?;
    let locks = Shadow::new(root.path(), [3; 16], Duration::from_secs(20));
    Some((root, locks))
}

fn password(root: &Path, name: &str) -> String {
    let text = std::fs::read_to_string(root.join("etc/shadow")).unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap();
    line.split(':').nth(1).unwrap().to_owned()
}

fn set_password(root: &Path, old: &str, new: &str) {
    let file = root.join("etc/shadow");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(old));
    std::fs::write(file, text.replace(old, new)).unwrap();
}

#[tokio::test]
async fn a_lock_is_read_back_and_undone() {
    let Some((root, shadow)) = town() else { return };
    let Prepared::Ready(expected) = shadow.prepare("jon").unwrap() else { panic!("jon is locked") };
    assert!(!shadow.holds("jon", &expected).unwrap());
    let Locked::Verified(digest) = shadow.lock("jon").await.unwrap() else { panic!("jon was locked") };
    assert_eq!(digest, expected);
    assert!(shadow.holds("jon", &digest).unwrap());
    assert_eq!(password(root.path(), "jon"), format!("!{HASH}"));
    assert_eq!(field(root.path(), "jon").unwrap(), Some(Field::Locked));
    // A second one is not ours.
    assert_eq!(shadow.lock("jon").await.unwrap(), Locked::AlreadyLocked);
    assert_eq!(shadow.unlock("jon", &digest).await.unwrap(), Unlocked::Verified);
    assert_eq!(password(root.path(), "jon"), HASH);
}

#[tokio::test]
async fn what_an_administrator_locked_is_left_alone() {
    let Some((root, shadow)) = town() else { return };
    for name in ["kon", "star", "root"] {
        let before = password(root.path(), name);
        assert_eq!(shadow.prepare(name).unwrap(), Prepared::AlreadyLocked);
        assert_eq!(shadow.lock(name).await.unwrap(), Locked::AlreadyLocked);
        assert_eq!(password(root.path(), name), before);
    }
}

#[tokio::test]
async fn what_was_changed_since_is_left_alone() {
    let Some((root, shadow)) = town() else { return };
    let Locked::Verified(digest) = shadow.lock("jon").await.unwrap() else { panic!("jon was locked") };
    // A new password that an administrator locked at once; and one that he unlocked.
    for (old, new) in [(format!("!{HASH}"), "!$6$new"), ("!$6$new".to_owned(), "$6$new")] {
        set_password(root.path(), &old, new);
        assert_eq!(shadow.unlock("jon", &digest).await.unwrap(), Unlocked::Foreign);
        assert_eq!(password(root.path(), "jon"), new);
    }
}

#[tokio::test]
async fn what_could_not_be_undone_is_not_done() {
    let Some((root, shadow)) = town() else { return };
    for error in [shadow.prepare("open").unwrap_err(), shadow.lock("open").await.unwrap_err()] {
        assert!(matches!(error, ShadowError::Empty(_)) && !error.retry(), "{error}");
    }
    assert_eq!(password(root.path(), "open"), "");
}

#[tokio::test]
async fn odd_and_unknown_names_are_refused() {
    let Some((_root, shadow)) = town() else { return };
    for name in ["-l", "", "jon:x", "jon kon", "jon\nkon", "../jon"] {
        let error = shadow.lock(name).await.unwrap_err();
        assert!(matches!(error, ShadowError::Name(_)) && !error.retry(), "{name:?}: {error}");
    }
    let error = shadow.lock("nobody-here").await.unwrap_err();
    assert!(matches!(error, ShadowError::NoLine { .. }) && !error.retry(), "{error}");
}

#[tokio::test]
async fn a_program_that_does_not_end_is_stopped() {
    let Some((root, _)) = town() else { return };
    // passwd waits up to 15 s for this lock, which this process holds.
    let file = std::fs::File::create(root.path().join("etc/.pwd.lock")).unwrap();
    let lock = nix::libc::flock {
        l_type: nix::libc::F_WRLCK as i16,
        l_whence: nix::libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETLK(&lock)).unwrap();
    let shadow = Shadow::new(root.path(), [3; 16], Duration::from_secs(1));
    let error = shadow.lock("jon").await.unwrap_err();
    assert!(matches!(error, ShadowError::Timeout(_)) && error.retry(), "{error}");
    assert_eq!(password(root.path(), "jon"), HASH);
    drop(file);
    let shadow = Shadow::new(root.path(), [3; 16], Duration::from_secs(20));
    assert!(matches!(shadow.lock("jon").await.unwrap(), Locked::Verified(_)));
}
