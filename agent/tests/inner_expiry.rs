//! Expiry with the real chage(1), in a root folder of its own (`chage --root`).
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod town;

use std::path::Path;
use std::time::Duration;

use portcullis_agent::expiry::{Change, Expiry, Former, today};

/// A root folder with users of several expiries; none where we are not root.
fn town() -> Option<(tempfile::TempDir, Expiry)> {
    let users = [("jon", ""), ("kon", "30000"), ("gone", "100"), ("odd", "soon")];
    let root =
        town::root("chage", users.map(|(name, date)| (name, format!("$6$x:19000:0:99999:7::{date}:"))))?;
    let expiry = Expiry::new(root.path(), Duration::from_secs(20));
    Some((root, expiry))
}

fn line(root: &Path, name: &str) -> String {
    let text = std::fs::read_to_string(root.join("etc/shadow")).unwrap();
    text.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap().to_owned()
}

#[tokio::test]
async fn an_expiry_is_read_back_and_the_former_date_comes_back() {
    let Some((root, expiry)) = town() else { return };
    for name in ["jon", "kon"] {
        let (before, former) = (line(root.path(), name), expiry.read(name).unwrap());
        assert_eq!(expiry.set(name).await.unwrap(), Change::Verified);
        assert!(expiry.holds(name).unwrap());
        // A second time it is not ours.
        assert_eq!(expiry.set(name).await.unwrap(), Change::Theirs);
        assert_eq!(expiry.restore(name, &former).await.unwrap(), Change::Verified);
        assert_eq!(line(root.path(), name), before);
    }
}

#[tokio::test]
async fn what_is_not_ours_is_left_alone() {
    let Some((root, expiry)) = town() else { return };
    let before = line(root.path(), "gone");
    assert_eq!(expiry.set("gone").await.unwrap(), Change::Theirs, "it had expired before");
    assert_eq!(line(root.path(), "gone"), before);
    // Changed by an administrator since.
    assert_eq!(expiry.restore("kon", &Former(String::new())).await.unwrap(), Change::Theirs);
    assert_eq!(expiry.read("kon").unwrap(), Former("30000".to_owned()));
}

#[tokio::test]
async fn odd_names_and_dates_are_refused_and_not_tried_again() {
    let Some((_root, expiry)) = town() else { return };
    for name in ["odd", "-E", "nobody-here", "a:b"] {
        assert!(!expiry.set(name).await.unwrap_err().retry(), "{name}");
    }
    assert!(Expiry::over(&Former(today().to_string()), today()));
    assert!(!Expiry::over(&Former(String::new()), today()));
}
