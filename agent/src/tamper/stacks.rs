//! The PAM stacks, judged as the doctor judges them, whenever one of their files has changed.
//!
//! Invariants: files are read and never written; what stood open when the agent started is the doctor's to say, what
//! opens later is an alarm.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;

use super::Kind;
use super::book::Key;
use super::pins::Found;
use crate::doctor::finding::{Check, Finding};
use crate::doctor::pam::load::FOLDERS;
use crate::doctor::root::Root;
use crate::doctor::services;

/// Where the stacks are, beside [`FOLDERS`].
const SINGLE: &str = "/etc/pam.conf";

/// Name, inode, size, and both times that a write leaves behind.
type State = BTreeSet<(String, u64, u64, i64, i64)>;

/// What is open: the check, what it says, and the services it says it of.
type Open = BTreeMap<(&'static str, String), BTreeSet<String>>;

/// The stacks as they were.
pub struct Stacks {
    root: Root,
    state: State,
    at_start: Open,
    now: Open,
    changed: Option<String>,
}

/// Whether a finding says that a guess goes uncounted, or a locked account gets in.
fn matters(check: Check) -> bool {
    matches!(
        check,
        Check::AuthMissing
            | Check::AuthBelow
            | Check::AuthAround
            | Check::AuthGoesOn
            | Check::AccountMissing
            | Check::AccountAround
            | Check::AccountNoEffect
            | Check::ModulePath
    )
}

fn open(findings: &[Finding]) -> Open {
    let mut open = Open::new();
    for finding in findings.iter().filter(|finding| matters(finding.check) && finding.next.is_some()) {
        let place = finding.place.as_ref().map(|place| format!(" ({place})")).unwrap_or_default();
        let services = open.entry((finding.check.name(), format!("{}{place}", finding.what))).or_default();
        services.extend(finding.services.iter().cloned());
    }
    open
}

impl Stacks {
    /// As they are now.
    pub fn new(root: Root) -> Self {
        let state = state_of(&root);
        let now = judge(&root);
        Self { root, state, at_start: now.clone(), now, changed: None }
    }

    /// What has come open since the start.
    pub fn look(&mut self, wrong: &mut BTreeMap<Key, Found>) {
        let state = state_of(&self.root);
        if state != self.state {
            let changed = state.symmetric_difference(&self.state).map(|(path, ..)| path.clone()).next();
            self.changed = changed.or(self.changed.take());
            self.state = state;
            self.now = judge(&self.root);
        }
        for ((check, what), services) in &self.now {
            let key = (*check, what.clone());
            let before = self.at_start.get(&key);
            let news: Vec<&str> = services
                .iter()
                .filter(|service| before.is_none_or(|before| !before.contains(*service)))
                .map(String::as_str)
                .collect();
            if news.is_empty() || cfg!(feature = "mutation-stack-blind") {
                continue;
            }
            let detail = format!("{check}: {what}; services: {}", news.join(", "));
            let path = self.changed.clone().unwrap_or_else(|| "/etc/pam.d".to_owned());
            wrong.insert((Kind::PamLine, format!("{check}: {what}")), Found::new(detail, path));
        }
    }
}

fn judge(root: &Root) -> Open {
    let names: BTreeSet<String> = FOLDERS.iter().flat_map(|folder| root.list(folder)).collect();
    open(&services::judge(&names, &|path| root.read(path).ok()).findings)
}

fn state_of(root: &Root) -> State {
    let files = FOLDERS
        .iter()
        .flat_map(|folder| root.list(folder).into_iter().map(move |name| format!("{folder}/{name}")));
    let state = |path: String| {
        let data = root.metadata(&path).ok()?;
        let changed = data.ctime().wrapping_mul(1_000_000_000).wrapping_add(data.ctime_nsec());
        let modified = data.mtime().wrapping_mul(1_000_000_000).wrapping_add(data.mtime_nsec());
        Some((path, data.ino(), data.size(), changed, modified))
    };
    files.chain([SINGLE.to_owned()]).filter_map(state).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_opens_later_is_told_and_what_was_open_before_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let stacks = folder.path().join("etc/pam.d");
        std::fs::create_dir_all(&stacks).unwrap();
        let write = |name: &str, text: &str| std::fs::write(stacks.join(name), text).unwrap();
        let good = "auth requisite pam_portcullis.so\nauth required pam_unix.so\naccount required pam_portcullis.so\n";
        write("su", good);
        write("open", "auth required pam_unix.so\n");
        let mut watched = Stacks::new(Root::new(folder.path()));
        let mut look = || {
            let mut wrong = BTreeMap::new();
            watched.look(&mut wrong);
            wrong.into_values().map(|found| found.detail).collect::<Vec<_>>()
        };
        assert_eq!(look(), [""; 0], "it was open before");
        write("su", "auth required pam_unix.so\naccount required pam_portcullis.so\n");
        let found = look();
        assert!(
            found.len() == 1 && found[0].contains("auth-missing") && found[0].ends_with("services: su"),
            "{found:?}"
        );
        write("su", good);
        assert_eq!(look(), [""; 0]);
        write("back-door", "auth sufficient pam_unix.so\n");
        assert!(
            look().iter().any(|found| found.ends_with("services: back-door")),
            "a new service counts too"
        );
    }
}
