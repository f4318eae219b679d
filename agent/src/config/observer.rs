//! The table `[observer]`.
//!
//! Invariants: paths are absolute; at most [`MOST`] are watched; what can never happen is warned of.

use std::path::PathBuf;

use serde::Serialize;

use super::BreakGlass;
use super::raw::{self, Item};
use super::sc5::{Sc5, Word};
use super::values::{Reader, place, short};

/// Files that can be watched.
const MOST: usize = 64;
/// What is watched unless the file says otherwise: those of them that are there.
const USUAL: [&str; 14] = [
    "/bin/su",
    "/bin/login",
    "/usr/sbin/sshd",
    "/usr/lib/openssh/sshd-session",
    "/usr/lib/openssh/sshd-auth",
    "/usr/libexec/openssh/sshd-session",
    "/usr/libexec/openssh/sshd-auth",
    "/usr/bin/sudo",
    "/usr/bin/doas",
    "/usr/bin/pkexec",
    "/usr/bin/newgrp",
    "/usr/bin/chsh",
    "/usr/bin/passwd",
    "/usr/sbin/unix_chkpwd",
];

/// The observer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Observer {
    /// Whether anything is observed at all.
    pub enabled: bool,
    /// Programs that are watched, by path.
    pub watch: Vec<PathBuf>,
    /// Whether a failed logon that never reached the PAM line counts as a failure of the account.
    pub count_unrecorded: bool,
    /// Whether a refused local user may start no su, login or sudo.
    pub deny_exec: bool,
    /// Who may always.
    #[serde(skip)]
    pub break_glass: Option<String>,
}

impl Default for Observer {
    fn default() -> Self {
        Self {
            enabled: true,
            watch: USUAL.iter().map(PathBuf::from).collect(),
            count_unrecorded: false,
            deny_exec: false,
            break_glass: None,
        }
    }
}

impl Reader<'_, '_> {
    /// The table.
    pub(super) fn observer(&mut self, raw: &raw::Observer, break_glass: &BreakGlass, sc5: &Sc5) -> Observer {
        let default = Observer::default();
        let observer = Observer {
            enabled: self.flag(&raw.enabled, "observer.enabled", default.enabled),
            watch: self.watch(&raw.watch).unwrap_or(default.watch),
            count_unrecorded: self.flag(
                &raw.count_unrecorded,
                "observer.count_unrecorded",
                default.count_unrecorded,
            ),
            deny_exec: self.flag(&raw.deny_exec, "observer.deny_exec", default.deny_exec),
            break_glass: break_glass.names().first().cloned(),
        };
        if observer.deny_exec && break_glass.names().len() > 1 {
            let text = "keeps all but the first break_glass account from su, login and sudo, too: the kernel's part spares \
                        one; name one, or switch this off";
            self.problems.error(place(&raw.deny_exec), "observer.deny_exec", text);
        }
        if observer.deny_exec && (!observer.enabled || sc5.local == Word::Monitor) {
            let text =
                "keeps nobody from anything: it goes with observer.enabled = true and sc5.local = \"refuse\"";
            self.problems.warning(place(&raw.deny_exec), "observer.deny_exec", text);
        }
        observer
    }

    fn watch(&mut self, item: &Item) -> Option<Vec<PathBuf>> {
        let item = item.as_ref()?;
        let wrong = "must be a list of absolute paths, as in [\"/bin/su\"]";
        let Some(list) = item.get_ref().as_array().filter(|list| list.len() <= MOST) else {
            let text = format!("{wrong}, at most {MOST}");
            self.problems.error(Some(item.span()), "observer.watch", text);
            return None;
        };
        let mut paths = Vec::new();
        for value in list {
            match value.as_str().map(PathBuf::from).filter(|path| path.is_absolute()) {
                Some(path) => paths.push(path),
                None => {
                    let text = format!("{wrong}; {} is none", short(value));
                    self.problems.error(Some(item.span()), "observer.watch", text);
                }
            }
        }
        Some(paths)
    }
}
