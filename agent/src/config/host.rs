//! What of a configuration depends on the host: that the break-glass account can log on, that members exist.
//!
//! Invariants: what cannot be found out is a warning, what is found to be a lock-out trap is an error.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Config;
use super::problem::Problems;
use super::raw;
use super::values::place;
use crate::accounts::{Directory, Nss, User};
use crate::expiry::{Expiry, today};
use crate::shadow::{self, Field};

/// What can be found out about an account's keys for ssh.
enum Keys {
    Some,
    None,
    Hidden,
}

/// A host to check against.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    /// Its users and groups.
    pub directory: &'a dyn Directory,
    /// Its root folder.
    pub root: &'a Path,
}

impl Host<'static> {
    /// The host we run on.
    #[must_use]
    pub fn this() -> Self {
        Self { directory: &Nss, root: Path::new("/") }
    }
}

impl Host<'_> {
    pub(super) fn check(&self, config: &Config, file: &raw::File, problems: &mut Problems<'_>) {
        for name in config.break_glass.names() {
            self.check_break_glass(name, file, problems);
        }
        self.check_commands(config, file, problems);
        let mut user_in: BTreeMap<&str, &str> = BTreeMap::new();
        for (class, raw) in config.classes.iter().zip(&file.class) {
            let raw = raw.get_ref();
            let key = format!("class \"{}\".users", class.name);
            for user in &class.users {
                match self.directory.user(user) {
                    Ok(Some(_)) => {}
                    Ok(None) => problems.warning(
                        place(&raw.users),
                        &key,
                        format_args!("no user is named {user}: correct the name, or leave it if the user is yet to come"),
                    ),
                    Err(error) => problems.warning(place(&raw.users), &key, error),
                }
                if config.break_glass.holds(user) {
                    let text = format!(
                        "{user} is a break_glass account and can be in no class that locks: take it out of here"
                    );
                    problems.error(place(&raw.users), &key, text);
                }
                if let Some(other) = user_in.insert(user, &class.name) {
                    user_in.insert(user, other);
                    let text = format!("{user} is in the class \"{other}\" above already; the first counts");
                    problems.warning(place(&raw.users), &key, text);
                }
            }
            let key = format!("class \"{}\".groups", class.name);
            for group in &class.groups {
                match self.directory.group(group) {
                    Ok(Some(_)) => {}
                    Ok(None) => problems.warning(
                        place(&raw.groups),
                        &key,
                        format_args!(
                            "no group is named {group}: correct the name, or leave it if it is yet to come"
                        ),
                    ),
                    Err(error) => problems.warning(place(&raw.groups), &key, error),
                }
            }
        }
    }

    /// The programs of `[[notify.command]]` are there.
    fn check_commands(&self, config: &Config, file: &raw::File, problems: &mut Problems<'_>) {
        for (command, raw) in config.notify.commands.iter().zip(&file.notify.command) {
            let Some(program) = command.argv.first() else { continue };
            let found = std::fs::metadata(self.under_root(Path::new(program)));
            let wrong = match found {
                Ok(meta) if meta.is_file() && meta.permissions().mode() & 0o111 != 0 => continue,
                Ok(_) => "is no program that may be executed: chmod 755 it, or name another".to_owned(),
                Err(error) => {
                    format!(
                        "is not there ({error}), nobody will be told: install it, or name another program"
                    )
                }
            };
            problems.warning(
                place(&raw.get_ref().argv),
                "notify.command.argv",
                format_args!("{program} {wrong}"),
            );
        }
    }

    fn under_root(&self, path: &Path) -> PathBuf {
        path.strip_prefix("/").map_or_else(|_| path.to_owned(), |path| self.root.join(path))
    }

    /// A break-glass account must be able to log on, with a password or with a key.
    fn check_break_glass(&self, name: &str, file: &raw::File, problems: &mut Problems<'_>) {
        let key = "break_glass";
        let at = place(&file.break_glass);
        let user = match self.directory.user(name) {
            Ok(Some(user)) => user,
            Ok(None) => {
                let text =
                    format!("no user is named {name}: create it (adduser {name}) or name another account");
                return problems.error(at, key, text);
            }
            Err(error) => return problems.error(at, key, error),
        };
        if let Some(wrong) = self.shell_problem(&user) {
            problems.error(at.clone(), key, wrong);
        }
        let expired = Expiry::new(self.root, std::time::Duration::ZERO).read(name);
        if expired.is_ok_and(|date| Expiry::over(&date, today())) {
            let text = format!(
                "{name} has expired and could not get in: chage -E -1 {name}, or name another account"
            );
            problems.error(at.clone(), key, text);
        }
        match shadow::field(self.root, name) {
            Ok(Some(Field::Locked)) => match self.keys(&user) {
                Keys::Some => problems.warning(
                    at,
                    key,
                    format_args!(
                        "{name} has no usable password and gets in by ssh with its key alone: set one (passwd {name}) to \
                         have a way in without the network"
                    ),
                ),
                Keys::Hidden => problems.warning(
                    at,
                    key,
                    format_args!(
                        "{name} has no usable password, and whether it has a key cannot be seen from here: \
                         portcullis config check tells"
                    ),
                ),
                Keys::None => problems.error(
                    at,
                    key,
                    format_args!(
                        "{name} has a locked or no usable password, and no key in ~/.ssh/authorized_keys, and could not \
                         get in: set one (passwd {name}) or name another account"
                    ),
                ),
            },
            Ok(Some(Field::Empty)) => {
                problems.error(at, key, format_args!("{name} has an empty password: set one (passwd {name})"));
            }
            Ok(Some(Field::Usable)) => {}
            Ok(None) => problems.warning(
                at,
                key,
                format_args!("{name} has no line in /etc/shadow: make sure that it can log on without the network"),
            ),
            Err(error) => {
                let text = format!("whether {name} has a password could not be checked: {error}");
                problems.warning(at, key, text);
            }
        }
    }

    /// Whether the user has a key for ssh where sshd_config(5) looks by default.
    fn keys(&self, user: &User) -> Keys {
        let home = self.under_root(&user.home);
        // The agent's unit sees homes as empty folders that nobody may enter: ProtectHome= of systemd.exec(5).
        let shut = |folder: &Path| folder.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o777 == 0);
        if home.ancestors().any(shut) {
            return Keys::Hidden;
        }
        for file in ["authorized_keys", "authorized_keys2"] {
            match std::fs::read(home.join(".ssh").join(file)) {
                Ok(text) => {
                    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
                    if lines.into_iter().any(|line| !line.is_empty() && !line.starts_with(b"#")) {
                        return Keys::Some;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(_) => return Keys::Hidden,
            }
        }
        Keys::None
    }

    /// Why the user's shell lets nobody in, if so.
    fn shell_problem(&self, user: &User) -> Option<String> {
        let shell: PathBuf =
            if user.shell.as_os_str().is_empty() { "/bin/sh".into() } else { user.shell.clone() };
        let name = &user.name;
        let shown = shell.display();
        let fix = format!("give it a shell (usermod -s /bin/sh {name}) or name another account");
        let refuses = shell.file_name().is_some_and(|file| file == "nologin" || file == "false");
        if refuses {
            return Some(format!("{name} cannot log on, its shell is {shown}: {fix}"));
        }
        if !self.under_root(&shell).exists() {
            return Some(format!("{name} cannot log on, its shell {shown} does not exist: {fix}"));
        }
        let shells = std::fs::read_to_string(self.root.join("etc/shells")).ok()?;
        let listed = shells.lines().any(|line| Path::new(line.trim()) == shell);
        (!listed).then(|| {
            format!("{name} cannot log on everywhere, its shell {shown} is not in /etc/shells: {fix}")
        })
    }
}
