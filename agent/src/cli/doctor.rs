//! `portcullis doctor`: looks for what is missing or open, and says what to do about it.
//!
//! Invariants: changes nothing; each finding names what was looked at.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aya::programs::links::PinnedLink;
use portcullis_common::abi;
use serde::Serialize;

use super::client::Client;
use super::direct;
use super::table::Table;
use crate::api::view::Status;
use crate::config;
use crate::kernel;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it should be.
    Good,
    /// Worth a look.
    Warning,
    /// Something does not work or stands open.
    Bad,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How it is.
    pub state: State,
    /// What was found, and what to do.
    pub detail: String,
}

fn good(check: &'static str, detail: impl Into<String>) -> Finding {
    Finding { check, state: State::Good, detail: detail.into() }
}

fn warning(check: &'static str, detail: impl Into<String>) -> Finding {
    Finding { check, state: State::Warning, detail: detail.into() }
}

fn bad(check: &'static str, detail: impl Into<String>) -> Finding {
    Finding { check, state: State::Bad, detail: detail.into() }
}

/// Looks at everything.
pub async fn examine(client: &Client) -> Vec<Finding> {
    let mut findings = vec![switch(), bpffs(), versions(), pins(), gate(), exit_link(), module()];
    findings.push(auth());
    findings.push(account());
    findings.push(configuration());
    findings.push(agent(client).await);
    findings
}

/// The findings as a table.
#[must_use]
pub fn render(findings: &[Finding]) -> String {
    let mut table = Table::new(["CHECK", "", "FOUND"]);
    for finding in findings {
        let state = match finding.state {
            State::Good => "good",
            State::Warning => "WARNING",
            State::Bad => "BAD",
        };
        table.row([finding.check.to_owned(), state.to_owned(), finding.detail.clone()]);
    }
    table.render()
}

fn switch() -> Finding {
    if kernel::switched_off() {
        return bad(
            "kernel command line",
            format!("`{}` is set: nothing is loaded or refused", abi::OFF_WORD),
        );
    }
    good("kernel command line", format!("no `{}`", abi::OFF_WORD))
}

fn bpffs() -> Finding {
    match nix::sys::statfs::statfs("/sys/fs/bpf") {
        Ok(found) if found.filesystem_type() == nix::sys::statfs::BPF_FS_MAGIC => {
            good("bpffs", "mounted at /sys/fs/bpf")
        }
        _ => bad("bpffs", kernel::KernelError::NoBpffs.to_string()),
    }
}

fn versions() -> Finding {
    match kernel::other_versions() {
        Ok(found) => match found.into_iter().next() {
            None => good("other versions", "no pins of another version"),
            Some(path) => bad("other versions", kernel::KernelError::OtherVersion { path }.to_string()),
        },
        Err(error) => bad("other versions", error.to_string()),
    }
}

fn pins() -> Finding {
    for folder in [abi::PIN_ROOT, abi::PIN_DIR] {
        match fs::metadata(folder) {
            Ok(data) if data.mode() & 0o7777 == 0o700 && data.uid() == 0 => {}
            Ok(data) => {
                let mode = data.mode() & 0o7777;
                return bad(
                    "pins",
                    format!("{folder} is {mode:04o} of uid {}: chmod 0700, chown root", data.uid()),
                );
            }
            Err(error) => return bad("pins", format!("{folder}: {error}; start portcullis-gate.service")),
        }
    }
    match kernel::pin_states() {
        Ok(states) => match states.iter().find(|pin| pin.mode != 0o600 || pin.uid != 0) {
            None => good("pins", format!("{} pins, 0600 in a 0700 folder, root's", states.len())),
            Some(pin) => bad(
                "pins",
                format!(
                    "{} is {:04o} of uid {}: chmod 0600, chown root",
                    pin.path.display(),
                    pin.mode,
                    pin.uid
                ),
            ),
        },
        Err(error) => bad("pins", error.to_string()),
    }
}

fn gate() -> Finding {
    match direct::probe() {
        Ok(()) => good("gate", "answers"),
        Err(error) => bad("gate", error.to_string()),
    }
}

fn exit_link() -> Finding {
    match PinnedLink::from_pin(abi::PIN_EXIT_LINK) {
        Ok(_) => good("exit program", "attached, its link is pinned"),
        Err(error) => warning(
            "exit program",
            format!(
                "no link at {} ({error}): attempts of killed processes count only at their maximum age; run `portcullisd gate`",
                abi::PIN_EXIT_LINK
            ),
        ),
    }
}

/// Folders in which libpam looks for modules: next to pam_unix.so.
fn module_folders() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for base in ["/lib", "/usr/lib", "/lib64", "/usr/lib64"] {
        folders.push(Path::new(base).join("security"));
        if let Ok(entries) = fs::read_dir(base) {
            folders.extend(entries.flatten().map(|entry| entry.path().join("security")));
        }
    }
    folders.retain(|folder| folder.join("pam_unix.so").exists());
    folders
}

fn module() -> Finding {
    let folders = module_folders();
    match folders.iter().map(|folder| folder.join("pam_portcullis.so")).find(|path| path.exists()) {
        Some(path) => match fs::metadata(&path) {
            Ok(data) if data.uid() == 0 && data.mode() & 0o022 == 0 => {
                good("module", path.display().to_string())
            }
            _ => bad("module", format!("{} can be changed by others than root", path.display())),
        },
        None => bad("module", "pam_portcullis.so is not beside pam_unix.so: install the package"),
    }
}

/// The shared stacks of Debian and of the others.
const AUTH: [&str; 2] = ["/etc/pam.d/common-auth", "/etc/pam.d/system-auth"];
const ACCOUNT: [&str; 2] = ["/etc/pam.d/common-account", "/etc/pam.d/system-auth"];

fn first(files: [&'static str; 2]) -> Option<(&'static str, String)> {
    files.into_iter().find_map(|file| fs::read_to_string(file).ok().map(|text| (file, text)))
}

fn auth() -> Finding {
    const CHECK: &str = "PAM auth line";
    let Some((file, text)) = first(AUTH) else {
        return warning(CHECK, format!("neither {} nor {} is there", AUTH[0], AUTH[1]));
    };
    match auth_line(&text) {
        AuthLine::Good => good(CHECK, format!("in {file}, above pam_unix")),
        AuthLine::Missing => bad(
            CHECK,
            format!(
                "{file} has none: pam-auth-update --enable portcullis, or put `auth requisite pam_portcullis.so` above pam_unix"
            ),
        ),
        AuthLine::Below => bad(CHECK, format!("in {file} below pam_unix: it must stand above it")),
        AuthLine::NotRequisite => {
            bad(CHECK, format!("in {file} it is not `requisite`: a refused password would reach pam_unix"))
        }
    }
}

fn account() -> Finding {
    const CHECK: &str = "PAM account line";
    match first(ACCOUNT) {
        Some((file, text)) if lines(&text, "account").any(|(_, module)| ours(&module)) => {
            good(CHECK, format!("in {file}"))
        }
        Some((file, _)) => {
            warning(CHECK, format!("{file} has none: locked accounts can still log in by public key"))
        }
        None => warning(CHECK, format!("neither {} nor {} is there", ACCOUNT[0], ACCOUNT[1])),
    }
}

/// What was found about the auth line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AuthLine {
    Good,
    Missing,
    Below,
    NotRequisite,
}

fn auth_line(text: &str) -> AuthLine {
    let mut unix = false;
    for (control, module) in lines(text, "auth") {
        if ours(&module) {
            return match (unix, control.as_str()) {
                (true, _) => AuthLine::Below,
                (false, "requisite") => AuthLine::Good,
                (false, _) => AuthLine::NotRequisite,
            };
        }
        unix |= module.rsplit('/').next() == Some("pam_unix.so");
    }
    AuthLine::Missing
}

fn ours(module: &str) -> bool {
    module.rsplit('/').next() == Some("pam_portcullis.so")
}

/// Control and module of each line of one type. See pam.conf(5); a control may be `[…]`.
fn lines<'a>(text: &'a str, kind: &'a str) -> impl Iterator<Item = (String, String)> + 'a {
    text.lines().filter_map(move |line| {
        let line = line.trim().trim_start_matches('-');
        let rest = line.strip_prefix(kind)?;
        if !rest.starts_with(char::is_whitespace) {
            return None;
        }
        let rest = rest.trim_start();
        let (control, rest) =
            if rest.starts_with('[') { rest.split_once(']')? } else { rest.split_once(char::is_whitespace)? };
        let module = rest.split_whitespace().next()?;
        Some((control.to_owned(), module.to_owned()))
    })
}

fn configuration() -> Finding {
    const CHECK: &str = "configuration";
    match config::load(Path::new(config::PATH)) {
        Ok(loaded) => match loaded.warnings.first() {
            None => good(CHECK, config::PATH),
            Some(first) => warning(CHECK, first.to_string()),
        },
        Err(error) => bad(CHECK, error.to_string().replace('\n', " ")),
    }
}

async fn agent(client: &Client) -> Finding {
    match client.get::<Status>("/v1/status").await {
        Ok(Status { store_degraded: Some(why), .. }) => {
            bad("agent", format!("the store is in memory only: {why}"))
        }
        Ok(Status { break_glass: None, .. }) => {
            warning("agent", "runs; there is no break-glass account (break_glass = false)")
        }
        Ok(Status { break_glass: Some(name), .. }) => {
            good("agent", format!("runs; break-glass account {name}"))
        }
        Err(error) => warning("agent", error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_auth_line_is_found_where_it_works() {
        let good = "# c\nauth\trequisite\t\t\tpam_portcullis.so\nauth\t[success=1 default=ignore]\tpam_unix.so nullok\n";
        assert_eq!(auth_line(good), AuthLine::Good);
        assert_eq!(
            auth_line("auth requisite /lib/security/pam_portcullis.so on_error=deny\n"),
            AuthLine::Good
        );
    }

    #[test]
    fn a_line_that_does_not_protect_is_told() {
        assert_eq!(auth_line("auth [success=1 default=ignore] pam_unix.so\n"), AuthLine::Missing);
        assert_eq!(
            auth_line("#auth requisite pam_portcullis.so\nauth required pam_unix.so"),
            AuthLine::Missing
        );
        assert_eq!(
            auth_line("auth required pam_unix.so\nauth requisite pam_portcullis.so\n"),
            AuthLine::Below
        );
        assert_eq!(
            auth_line("auth required pam_portcullis.so\nauth required pam_unix.so\n"),
            AuthLine::NotRequisite
        );
        assert_eq!(auth_line("account required pam_portcullis.so\n"), AuthLine::Missing);
    }
}
