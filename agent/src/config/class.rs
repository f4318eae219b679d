//! Which class an account belongs to.
//!
//! Invariants: the first that matches counts, in the order break-glass, root, the classes of the file, default; of an
//! uid that several names share, the first class that one of them is in.

use std::collections::BTreeMap;

use portcullis_common::abi::NOBODY;
use portcullis_policy::Class as PolicyClass;

use super::{CLASS_BREAK_GLASS, CLASS_DEFAULT, CLASS_FIRST, CLASS_ROOT, Config, Limits, Mode};
use crate::accounts::{AccountsError, Directory, User};

/// What others must know of a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassInfo {
    /// Its name: of the file, or `default`, `root`, `break_glass`.
    pub name: String,
    /// Never locked.
    pub exempt: bool,
    /// Nothing is refused or done in its name.
    pub monitor: bool,
    /// A lock is followed by `passwd -l`.
    pub shadow_lock: bool,
    /// From where and when a locked account stays usable.
    pub restrict: Option<String>,
    /// See [`Limits::expire_after_trips`].
    pub expire_after_trips: u32,
    /// See [`Limits::end_sessions_after_trips`].
    pub end_sessions_after_trips: u32,
    /// Nanoseconds, see [`Limits::backoff_window`].
    pub backoff_window: u64,
}

impl ClassInfo {
    /// What the policy must know of it.
    #[must_use]
    pub fn policy(&self) -> PolicyClass {
        // What is only computed is nothing for the policy to act on.
        PolicyClass {
            exempt: self.exempt || self.monitor,
            shadow_lock: self.shadow_lock,
            expire_after: self.expire_after_trips,
            end_sessions_after: self.end_sessions_after_trips,
            backoff_window: self.backoff_window,
        }
    }
}

impl Config {
    /// All classes by index, in the order of [`Config::rules`].
    #[must_use]
    pub fn class_infos(&self) -> Vec<ClassInfo> {
        let info = |name: &str, limits: &Limits, exempt, rungs: bool| ClassInfo {
            name: name.to_owned(),
            exempt,
            monitor: limits.mode == Mode::Monitor,
            restrict: limits.restrict.as_ref().filter(|_| !exempt).map(ToString::to_string),
            shadow_lock: rungs && limits.shadow_lock,
            expire_after_trips: if rungs { limits.expire_after_trips } else { 0 },
            end_sessions_after_trips: if rungs { limits.end_sessions_after_trips } else { 0 },
            backoff_window: limits.backoff_window.nanoseconds(),
        };
        let own = &self.default;
        let mut infos = vec![
            info("default", own, false, true),
            // root's password is never locked, nor does it expire: it is the way back in.
            info("root", &self.root.limits, !self.root.even_deny_root, false),
            info("break_glass", &self.break_glass_limits, true, false),
        ];
        let classes = self.classes.iter();
        infos.extend(classes.map(|class| info(&class.name, &class.limits, false, true)));
        infos
    }

    /// The class of an uid, now. An uid that no user has is in the default class.
    ///
    /// # Errors
    /// The user database cannot be asked.
    pub fn class_of(&self, directory: &dyn Directory, uid: u32) -> Result<u32, AccountsError> {
        for name in self.break_glass.names() {
            if directory.user(name)?.is_some_and(|user| user.uid == uid) {
                return Ok(CLASS_BREAK_GLASS);
            }
        }
        if uid == 0 {
            return Ok(CLASS_ROOT);
        }
        if uid == NOBODY {
            return Ok(self.class_of_unknown());
        }
        let Some(user) = directory.user_by_uid(uid)? else { return Ok(CLASS_DEFAULT) };
        let groups = directory.groups_of(&user)?;
        for (index, class) in (CLASS_FIRST..).zip(&self.classes) {
            if class.users.contains(&user.name) || (class.system && is_system(directory, uid)) {
                return Ok(index);
            }
            for name in &class.groups {
                if directory.group(name)?.is_some_and(|group| groups.contains(&group.gid)) {
                    return Ok(index);
                }
            }
        }
        Ok(CLASS_DEFAULT)
    }

    /// Why an uid is in its class, in words.
    #[must_use]
    pub fn because(&self, directory: &dyn Directory, uid: u32) -> String {
        let class = match self.class_of(directory, uid) {
            Ok(class) => class,
            Err(error) => return format!("not known: {error}"),
        };
        match class {
            CLASS_BREAK_GLASS => "named by break_glass".to_owned(),
            CLASS_ROOT => "uid 0".to_owned(),
            CLASS_DEFAULT => "no class of the file names it".to_owned(),
            class if uid == NOBODY => {
                let number = class.saturating_sub(CLASS_FIRST).saturating_add(1);
                format!("class {number} of the file takes names no user has")
            }
            _ => {
                let at = class.saturating_sub(CLASS_FIRST);
                let class = usize::try_from(at).ok().and_then(|at| self.classes.get(at));
                let user = directory.user_by_uid(uid).ok().flatten();
                let (Some(class), Some(user)) = (class, user) else { return String::new() };
                let number = at.saturating_add(1);
                if class.users.contains(&user.name) {
                    return format!("class {number} of the file names the user");
                }
                let groups = directory.groups_of(&user).unwrap_or_default();
                let member = class.groups.iter().find(|name| {
                    directory.group(name).ok().flatten().is_some_and(|group| groups.contains(&group.gid))
                });
                match member {
                    Some(group) => format!("class {number} of the file names the group {group}"),
                    None => format!("class {number} of the file takes system accounts"),
                }
            }
        }
    }

    /// Everybody who is not in the default class, as far as the user database can list: uid and class, by uid.
    ///
    /// # Errors
    /// The user database cannot be asked.
    pub fn members(&self, directory: &dyn Directory) -> Result<Vec<(u32, u32)>, AccountsError> {
        let listed = directory.listed()?;
        let mut members = BTreeMap::new();
        for name in self.break_glass.names() {
            if let Some(user) = directory.user(name)? {
                members.insert(user.uid, CLASS_BREAK_GLASS);
            }
        }
        members.entry(0).or_insert(CLASS_ROOT);
        if self.class_of_unknown() != CLASS_DEFAULT {
            members.insert(NOBODY, self.class_of_unknown());
        }
        for (index, class) in (CLASS_FIRST..).zip(&self.classes) {
            for name in &class.users {
                if let Some(user) = directory.user(name)? {
                    members.entry(user.uid).or_insert(index);
                }
            }
            if class.system {
                for user in listed.iter().filter(|user| is_system(directory, user.uid)) {
                    members.entry(user.uid).or_insert(index);
                }
            }
            for name in &class.groups {
                for uid in group_members(directory, &listed, name)? {
                    members.entry(uid).or_insert(index);
                }
            }
        }
        Ok(members.into_iter().collect())
    }
}

/// Whether an uid is that of a system account.
fn is_system(directory: &dyn Directory, uid: u32) -> bool {
    (1..=directory.system_uid_max()).contains(&uid)
}

/// Uids of the members of a group, primary and supplementary.
fn group_members(directory: &dyn Directory, listed: &[User], name: &str) -> Result<Vec<u32>, AccountsError> {
    let Some(group) = directory.group(name)? else { return Ok(Vec::new()) };
    let mut members: Vec<u32> =
        listed.iter().filter(|user| user.gid == group.gid).map(|user| user.uid).collect();
    for member in &group.members {
        members.extend(directory.user(member)?.map(|user| user.uid));
    }
    Ok(members)
}
