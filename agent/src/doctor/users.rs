//! The users of another root: its passwd(5) and group(5), nothing else.

use super::root::Root;
use crate::accounts::{AccountsError, Directory, Group, Nss, User, user_of_line};

/// Users of a root: this system's own, or those in the files below a folder.
#[derive(Clone, Debug)]
pub struct Users {
    root: Root,
}

impl Users {
    /// Of this root.
    #[must_use]
    pub const fn new(root: Root) -> Self {
        Self { root }
    }

    fn file(&self, path: &'static str) -> Result<Vec<u8>, AccountsError> {
        self.root.read(path).map_err(|source| AccountsError::Read { path: path.into(), source })
    }

    fn groups(&self) -> Result<Vec<(String, Group)>, AccountsError> {
        let text = self.file("/etc/group")?;
        Ok(String::from_utf8_lossy(&text).lines().filter_map(group_of_line).collect())
    }

    fn find(&self, wanted: impl Fn(&User) -> bool) -> Result<Option<User>, AccountsError> {
        Ok(self.listed()?.into_iter().find(|user| wanted(user)))
    }
}

fn group_of_line(line: &str) -> Option<(String, Group)> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, gid, members] = fields.as_slice() else {
        return None;
    };
    let gid = gid.parse().ok()?;
    let members = members.split(',').filter(|member| !member.is_empty()).map(str::to_owned).collect();
    Some(((*name).to_owned(), Group { gid, members }))
}

impl Directory for Users {
    fn user(&self, name: &str) -> Result<Option<User>, AccountsError> {
        if self.root.is_this() { Nss.user(name) } else { self.find(|user| user.name == name) }
    }

    fn user_by_uid(&self, uid: u32) -> Result<Option<User>, AccountsError> {
        if self.root.is_this() { Nss.user_by_uid(uid) } else { self.find(|user| user.uid == uid) }
    }

    fn group(&self, name: &str) -> Result<Option<Group>, AccountsError> {
        if self.root.is_this() {
            return Nss.group(name);
        }
        Ok(self.groups()?.into_iter().find(|(of, _)| of == name).map(|(_, group)| group))
    }

    fn groups_of(&self, user: &User) -> Result<Vec<u32>, AccountsError> {
        if self.root.is_this() {
            return Nss.groups_of(user);
        }
        let groups = self.groups()?.into_iter().filter(|(_, group)| group.members.contains(&user.name));
        Ok(std::iter::once(user.gid).chain(groups.map(|(_, group)| group.gid)).collect())
    }

    fn listed(&self) -> Result<Vec<User>, AccountsError> {
        if self.root.is_this() {
            return Nss.listed();
        }
        let text = self.file("/etc/passwd")?;
        Ok(text.split(|byte| *byte == b'\n').filter_map(user_of_line).collect())
    }
}
