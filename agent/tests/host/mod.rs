//! A host to check configurations against: its users and groups, and a root folder with what is looked at in one.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use portcullis_agent::accounts::{AccountsError, Directory, Group, User};
use portcullis_agent::config::{ConfigError, Host, Loaded, parse_on};

/// Some users and groups.
pub struct Town(BTreeMap<&'static str, User>);

impl Town {
    /// The town.
    pub fn new() -> Self {
        let user = |name: &'static str, uid, gid, shell: &str| {
            (
                name,
                User {
                    uid,
                    gid,
                    name: name.to_owned(),
                    home: format!("/home/{name}").into(),
                    shell: shell.into(),
                },
            )
        };
        Self(BTreeMap::from([
            user("root", 0, 0, "/bin/sh"),
            user("admin", 1000, 1000, "/bin/sh"),
            user("jon", 1001, 1001, "/bin/sh"),
            user("kon", 1002, 500, "/bin/sh"),
            user("ron", 1003, 1003, "/bin/sh"),
            user("robot", 1004, 1004, "/usr/sbin/nologin"),
            user("locked", 1005, 1005, ""),
            user("empty", 1006, 1006, ""),
            user("remote", 1007, 1007, ""),
            user("odd", 1008, 1008, "/bin/odd"),
            user("gone", 1009, 1009, "/bin/gone"),
            user("expired", 1010, 1010, "/bin/sh"),
            user("daemon", 7, 7, "/usr/sbin/nologin"),
        ]))
    }
}

impl Directory for Town {
    fn user(&self, name: &str) -> Result<Option<User>, AccountsError> {
        Ok(self.0.get(name).cloned())
    }
    fn user_by_uid(&self, uid: u32) -> Result<Option<User>, AccountsError> {
        Ok(self.0.values().find(|user| user.uid == uid).cloned())
    }
    fn group(&self, name: &str) -> Result<Option<Group>, AccountsError> {
        Ok(match name {
            "staff" => Some(Group { gid: 500, members: vec!["jon".to_owned(), "absent".to_owned()] }),
            "wheel" => Some(Group { gid: 501, members: vec!["ron".to_owned(), "admin".to_owned()] }),
            _ => None,
        })
    }
    fn groups_of(&self, user: &User) -> Result<Vec<u32>, AccountsError> {
        let mut groups = vec![user.gid];
        for (name, gid) in [("staff", 500), ("wheel", 501)] {
            if self.group(name)?.is_some_and(|group| group.members.contains(&user.name)) {
                groups.push(gid);
            }
        }
        Ok(groups)
    }
    fn listed(&self) -> Result<Vec<User>, AccountsError> {
        Ok(self.0.values().cloned().collect())
    }
}

/// A root folder with what is looked at in one.
pub fn root() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for folder in ["etc", "bin"] {
        std::fs::create_dir(root.path().join(folder)).unwrap();
    }
    for shell in ["sh", "odd"] {
        std::fs::write(root.path().join("bin").join(shell), "").unwrap();
    }
    // What the sample tells.
    let sbin = root.path().join("usr/local/sbin");
    std::fs::create_dir_all(&sbin).unwrap();
    std::fs::write(sbin.join("page"), "").unwrap();
    std::fs::set_permissions(sbin.join("page"), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(root.path().join("etc/shells"), "# shells\n/bin/sh\n/bin/gone\n").unwrap();
    let mut shadow = String::from("locked:!$6$x:1::::::\nempty::1::::::\nexpired:$6$x:1:::::1:\n");
    for name in ["root", "admin", "jon", "robot", "odd", "gone"] {
        shadow.push_str(&format!("{name}:$6$salt$hash:1::::::\n"));
    }
    std::fs::write(root.path().join("etc/shadow"), shadow).unwrap();
    root
}

pub fn parse(text: &str) -> Result<Loaded, ConfigError> {
    let root = root();
    let town = Town::new();
    parse_on(Path::new("p.toml"), text, &Host { directory: &town, root: root.path() })
}

/// The error, as a person sees it.
pub fn error(text: &str) -> String {
    match parse(text) {
        Ok(loaded) => panic!("accepted: {text}\n{:?}", loaded.config),
        Err(error) => error.to_string(),
    }
}

pub fn warnings(text: &str) -> Vec<String> {
    parse(text).unwrap().warnings.iter().map(ToString::to_string).collect()
}
