//! Users and groups, as the name service knows them.
//!
//! Invariants: names are looked up as they are, never patterns, never by a shell; nothing is cached, so a change of the
//! user database counts at the next look.

use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group as NixGroup, Uid, User as NixUser, getgrouplist};

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Uid.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Login name.
    pub name: String,
    /// Home directory.
    pub home: PathBuf,
    /// Login shell; empty: /bin/sh.
    pub shell: PathBuf,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Gid.
    pub gid: u32,
    /// Names of its supplementary members.
    pub members: Vec<String>,
}

/// Why a look-up failed (not: found nothing).
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    /// The name service failed.
    #[error("the name service cannot look up {what}: {source}; try `getent {database}`")]
    Lookup {
        /// What was looked up.
        what: String,
        /// The database.
        database: &'static str,
        /// Why.
        source: nix::Error,
    },
    /// The local users could not be listed.
    #[error("cannot read {path}: {source}; the agent must run as root in the host's own file system")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// SYS_UID_MAX of login.defs(5) where that file does not say.
const SYS_UID_MAX: u32 = 999;

/// A user database.
pub trait Directory {
    /// The user of that name.
    ///
    /// # Errors
    /// The database cannot be asked.
    fn user(&self, name: &str) -> Result<Option<User>, AccountsError>;
    /// The user of that uid; if several have it, the first.
    ///
    /// # Errors
    /// The database cannot be asked.
    fn user_by_uid(&self, uid: u32) -> Result<Option<User>, AccountsError>;
    /// The group of that name.
    ///
    /// # Errors
    /// The database cannot be asked.
    fn group(&self, name: &str) -> Result<Option<Group>, AccountsError>;
    /// Gids of all groups of a user, the primary one included.
    ///
    /// # Errors
    /// The database cannot be asked.
    fn groups_of(&self, user: &User) -> Result<Vec<u32>, AccountsError>;
    /// The highest uid of a system account.
    fn system_uid_max(&self) -> u32 {
        SYS_UID_MAX
    }
    /// The users that can be listed: those of /etc/passwd. Others (LDAP, SSSD) are known once they are looked up.
    ///
    /// # Errors
    /// The list cannot be read.
    fn listed(&self) -> Result<Vec<User>, AccountsError>;
}

/// The host's user database.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nss;

impl Directory for Nss {
    fn user(&self, name: &str) -> Result<Option<User>, AccountsError> {
        if !askable(name) {
            return Ok(None);
        }
        let found = NixUser::from_name(name).map_err(|source| lookup("user", name, "passwd", source))?;
        Ok(found.map(User::from))
    }

    fn user_by_uid(&self, uid: u32) -> Result<Option<User>, AccountsError> {
        let found = NixUser::from_uid(Uid::from_raw(uid))
            .map_err(|source| lookup("uid", &uid.to_string(), "passwd", source))?;
        Ok(found.map(User::from))
    }

    fn group(&self, name: &str) -> Result<Option<Group>, AccountsError> {
        if !askable(name) {
            return Ok(None);
        }
        let found = NixGroup::from_name(name).map_err(|source| lookup("group", name, "group", source))?;
        Ok(found.map(|group| Group { gid: group.gid.as_raw(), members: group.mem }))
    }

    fn groups_of(&self, user: &User) -> Result<Vec<u32>, AccountsError> {
        let failed = |source| lookup("groups of", &user.name, "initgroups", source);
        let name = std::ffi::CString::new(user.name.as_str()).map_err(|_| failed(nix::Error::EINVAL))?;
        let groups = getgrouplist(&name, Gid::from_raw(user.gid)).map_err(failed)?;
        Ok(groups.into_iter().map(Gid::as_raw).collect())
    }

    fn system_uid_max(&self) -> u32 {
        let text = std::fs::read_to_string("/etc/login.defs").unwrap_or_default();
        login_def(&text, "SYS_UID_MAX").unwrap_or(SYS_UID_MAX)
    }

    fn listed(&self) -> Result<Vec<User>, AccountsError> {
        let path = Path::new("/etc/passwd");
        let text =
            std::fs::read(path).map_err(|source| AccountsError::Read { path: path.to_owned(), source })?;
        Ok(text.split(|byte| *byte == b'\n').filter_map(user_of_line).collect())
    }
}

impl From<NixUser> for User {
    fn from(user: NixUser) -> Self {
        let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
        Self { uid, gid, name: user.name, home: user.dir, shell: user.shell }
    }
}

/// A line of passwd(5); none where it is no user's (comments, `+` lines, damage).
pub(crate) fn user_of_line(line: &[u8]) -> Option<User> {
    let line = std::str::from_utf8(line).ok()?;
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| askable(name) && !name.starts_with(['+', '-', '#']))?;
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let home = fields.nth(1)?;
    let shell = fields.next()?;
    Some(User { uid, gid, name: name.to_owned(), home: home.into(), shell: shell.into() })
}

/// A number of login.defs(5).
fn login_def(text: &str, name: &str) -> Option<u32> {
    let mut words = text.lines().map(str::split_whitespace);
    words.find_map(|mut words| (words.next() == Some(name)).then(|| words.next()?.parse().ok()).flatten())
}

/// Names that no database can hold are not looked up.
fn askable(name: &str) -> bool {
    !name.is_empty() && name.len() <= 256 && !name.contains(['\0', '\n', ':'])
}

fn lookup(kind: &str, name: &str, database: &'static str, source: nix::Error) -> AccountsError {
    AccountsError::Lookup {
        what: format!("{kind} {}", crate::text::escape(name.as_bytes())),
        database,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::{Directory, Nss, user_of_line};

    #[test]
    fn root_is_known() {
        let root = Nss.user("root").unwrap().unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(Nss.user_by_uid(0).unwrap().unwrap().name, "root");
        assert!(Nss.groups_of(&root).unwrap().contains(&0));
        assert!(Nss.listed().unwrap().contains(&root));
        assert_eq!(Nss.group("root").unwrap().unwrap().gid, 0);
    }

    #[test]
    fn odd_names_are_nobody() {
        for name in ["", "no\0body", "a:b", "a\nb", &"x".repeat(300)] {
            assert_eq!(Nss.user(name).unwrap(), None);
            assert_eq!(Nss.group(name).unwrap(), None);
        }
    }

    #[test]
    fn login_defs_are_read() {
        let text = "# SYS_UID_MAX 5\nUID_MIN\t1000\nSYS_UID_MAX\t\t  499\n";
        assert_eq!(super::login_def(text, "SYS_UID_MAX"), Some(499));
        assert_eq!(super::login_def("SYS_UID_MAX many", "SYS_UID_MAX"), None);
    }

    #[test]
    fn odd_lines_are_no_users() {
        let user = user_of_line(b"jon:x:1001:1002:Jon,,,:/home/jon:/bin/bash").unwrap();
        assert_eq!((user.uid, user.gid, user.name.as_str()), (1001, 1002, "jon"));
        for line in [&b""[..], b"# jon", b"+::::::", b"jon:x:-1:1::/:/bin/sh", b"jon:x:1", b"j\xff:x:1:1::/:"]
        {
            assert_eq!(user_of_line(line), None);
        }
    }
}
