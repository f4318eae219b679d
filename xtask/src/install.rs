//! Puts Portcullis into a system, and takes it out again. Never edits common-auth: `pam-auth-update` does that, when the
//! administrator says so. Invariant of `uninstall`: the PAM line is gone before the module is.

use crate::error::{Error, Result};
use crate::run;
use crate::workspace::Workspace;
use portcullis_common::abi::PIN_ROOT;
use portcullis_common::filter::clsact;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const CONFIG: &str = "etc/portcullis/portcullis.toml";
const PROFILE: &str = "usr/share/pam-configs/portcullis";
const UNITS: [&str; 2] = ["portcullis-gate.service", "portcullisd.service"];
/// Man pages, with the sections they belong to.
const PAGES: [(&str, u32); 4] =
    [("portcullis.1", 1), ("portcullis.toml.5", 5), ("portcullisd.8", 8), ("pam_portcullis.8", 8)];
/// Shells, and where their completions go.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/portcullis"),
    ("zsh", "usr/share/zsh/vendor-completions/_portcullis"),
    ("fish", "usr/share/fish/vendor_completions.d/portcullis.fish"),
];
const MODULE: &str = "pam_portcullis.so";
/// Where distributions keep PAM modules; `*` is the multiarch folder.
const SECURITY: [&str; 6] = [
    "lib/*/security",
    "usr/lib/*/security",
    "lib64/security",
    "usr/lib64/security",
    "lib/security",
    "usr/lib/security",
];

/// What was done with the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Config {
    /// The sample was put in its place.
    Fresh,
    /// There is one already: the sample lies beside it, as `.new`.
    Kept,
}

/// Installs the release build below `root`.
pub fn install(workspace: &Workspace, root: &Path) -> Result<Config> {
    let security = security(root)?;
    let packaging = workspace.root.join("packaging");
    put(&workspace.program("portcullisd"), &root.join("usr/sbin/portcullisd"), 0o755)?;
    put(&workspace.program("portcullis"), &root.join("usr/bin/portcullis"), 0o755)?;
    put(&workspace.module(), &security.join(MODULE), 0o644)?;
    for unit in UNITS {
        put(&packaging.join(unit), &root.join("lib/systemd/system").join(unit), 0o644)?;
    }
    put(&packaging.join("pam-configs/portcullis"), &root.join(PROFILE), 0o644)?;
    for (page, section) in PAGES {
        put(&packaging.join("man").join(page), &man(root, page, section), 0o644)?;
    }
    for (shell, place) in COMPLETIONS {
        let mut make = Command::new(workspace.program("portcullis"));
        make.args(["completions", shell]);
        let script = run::quietly(&mut make, "run `cargo xtask build`")?;
        write(script.as_bytes(), &root.join(place), 0o644)?;
    }
    let sample = packaging.join("portcullis.toml");
    let config = root.join(CONFIG);
    if config.exists() {
        let mut beside = config.into_os_string();
        beside.push(".new");
        put(&sample, Path::new(&beside), 0o644)?;
        return Ok(Config::Kept);
    }
    put(&sample, &config, 0o644)?;
    Ok(Config::Fresh)
}

/// What the administrator does next, and how to get out again.
pub fn next_steps(config: Config) -> String {
    let config = match config {
        Config::Fresh => "1. Edit /etc/portcullis/portcullis.toml: name the break_glass account.",
        Config::Kept => {
            "1. /etc/portcullis/portcullis.toml was kept; the new sample is portcullis.toml.new beside it."
        }
    };
    format!(
        "{config}
   Then: portcullis config check
2. systemctl daemon-reload && systemctl enable --now portcullis-gate portcullisd
3. Keep this terminal open as root, then: pam-auth-update --enable portcullis
4. Try it from a second terminal before you close this one: su - USER, ssh USER@localhost
The way out again:
   pam-auth-update --remove portcullis       takes the PAM line out
   rm -r /sys/fs/bpf/portcullis              stops enforcement at once (stop portcullisd first)
   portcullis=off on the kernel command line keeps it from loading and refusing"
    )
}

/// Takes Portcullis out of `root`; the PAM line first. `purge`: the configuration and the store too. What works in the
/// running kernel goes with it, since nobody could end it afterwards.
pub fn uninstall(root: &Path, purge: bool) -> Result<()> {
    let running = root == Path::new("/");
    if running {
        shadow_locks_are_undone()?;
    }
    take_line_out(root)?;
    for unit in UNITS {
        if running && Path::new("/run/systemd/system").is_dir() {
            let mut disable = Command::new("systemctl");
            disable.args(["disable", "--now", unit]);
            run::quietly(&mut disable, "stop the unit by hand, then run uninstall again")?;
        }
        remove(&root.join("lib/systemd/system").join(unit))?;
    }
    if running {
        let_go()?;
    }
    remove(&root.join(PROFILE))?;
    for (page, section) in PAGES {
        remove(&man(root, page, section))?;
    }
    for (_, place) in COMPLETIONS {
        remove(&root.join(place))?;
    }
    remove(&root.join("usr/bin/portcullis"))?;
    remove(&root.join("usr/sbin/portcullisd"))?;
    remove(&security(root)?.join(MODULE))?;
    if purge {
        for folder in ["etc/portcullis", "var/lib/portcullis"] {
            let folder = root.join(folder);
            if folder.exists() {
                std::fs::remove_dir_all(&folder).map_err(Error::file("remove", &folder))?;
            }
        }
    }
    Ok(())
}

/// Refuses while accounts are locked in /etc/shadow by us: only the agent knows which of them are ours.
fn shadow_locks_are_undone() -> Result<()> {
    let mut status = Command::new("/usr/bin/portcullis");
    let Ok(output) = status.args(["status", "--json"]).output() else { return Ok(()) };
    let text = String::from_utf8_lossy(&output.stdout);
    let number = text.split_once("\"shadow_locked\":").map(|(_, rest)| rest.trim_start());
    let number =
        number.map(|rest| rest.split(|sign: char| !sign.is_ascii_digit()).next().unwrap_or_default());
    if number.is_none_or(|number| number.is_empty() || number == "0") {
        return Ok(());
    }
    Err(Error::Refused {
        what: "accounts are locked in /etc/shadow by Portcullis, and would stay so".into(),
        advice: "see `portcullis accounts`, `portcullis unlock` each of them, then run uninstall again"
            .into(),
    })
}

/// Ends what the kernel does for us: counting, dropping, observing.
fn let_go() -> Result<()> {
    let pins = Path::new(PIN_ROOT);
    let filters = pins.read_dir().into_iter().flatten().flatten();
    let filters = filters.filter(|entry| entry.file_name().to_string_lossy().starts_with("filter-"));
    for pin in filters.flat_map(|folder| folder.path().read_dir().into_iter().flatten().flatten()) {
        // A classifier of clsact hangs on no pin.
        let name = pin.file_name().to_string_lossy().into_owned();
        let Some(interface) = name.strip_prefix("clsact-").and_then(interface) else { continue };
        let mut filter = Command::new("tc");
        let (priority, handle) = (clsact::PRIORITY.to_string(), format!("{:#x}", clsact::HANDLE));
        filter.args(["filter", "del", "dev", &interface, "ingress"]);
        filter.args(["pref", &priority, "handle", &handle, "bpf"]);
        if let Err(error) = run::quietly(&mut filter, "packets may be dropped there until the next reboot") {
            eprintln!("xtask: {error}");
        }
    }
    if run::works("nft", "--version") {
        // There is none unless a host without eBPF hooks was filtered.
        let _ = Command::new("nft").args(["delete", "table", "inet", "portcullis"]).output();
    }
    match std::fs::remove_dir_all(pins) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file("remove", pins)(error)),
        _ => Ok(()),
    }
}

/// The name of the interface with that index.
fn interface(index: &str) -> Option<String> {
    let entries = Path::new("/sys/class/net").read_dir().into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            std::fs::read_to_string(entry.path().join("ifindex")).is_ok_and(|found| found.trim() == index)
        })
        .find_map(|entry| entry.file_name().into_string().ok())
}

/// The PAM files of `root` that name our module, with the lines.
pub fn lines(root: &Path) -> Result<Vec<(PathBuf, String)>> {
    let folder = root.join("etc/pam.d");
    let mut found = Vec::new();
    if !folder.is_dir() {
        return Ok(found);
    }
    for entry in folder.read_dir().map_err(Error::file("list", &folder))? {
        let path = entry.map_err(Error::file("list", &folder))?.path();
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let ours = text.lines().filter(|line| line.contains(MODULE) && !line.trim_start().starts_with('#'));
        found.extend(ours.map(|line| (path.clone(), line.to_string())));
    }
    found.sort();
    Ok(found)
}

fn take_line_out(root: &Path) -> Result<()> {
    if root.join("usr/sbin/pam-auth-update").exists() && root.join(PROFILE).exists() {
        let mut update = if root == Path::new("/") {
            Command::new("/usr/sbin/pam-auth-update")
        } else {
            let mut chroot = Command::new("chroot");
            chroot.arg(root).arg("/usr/sbin/pam-auth-update");
            chroot
        };
        update.args(["--package", "--remove", "portcullis"]).env("DEBIAN_FRONTEND", "noninteractive");
        run::quietly(&mut update, "take the line out with `pam-auth-update`, then run uninstall again")?;
    }
    let left = lines(root)?;
    if left.is_empty() {
        return Ok(());
    }
    let list: Vec<String> =
        left.iter().map(|(path, line)| format!("{}: {}", path.display(), line.trim())).collect();
    Err(Error::Refused {
        what: format!(
            "PAM still uses the module, removing it now would break logons:\n  {}",
            list.join("\n  ")
        ),
        advice: "delete these lines, then run uninstall again".into(),
    })
}

/// The folder of PAM modules: where pam_unix.so is.
fn security(root: &Path) -> Result<PathBuf> {
    for pattern in SECURITY {
        let candidates = match pattern.split_once("/*/") {
            None => vec![root.join(pattern)],
            Some((parent, rest)) => {
                let Ok(entries) = root.join(parent).read_dir() else { continue };
                let mut folders: Vec<_> = entries.flatten().map(|entry| entry.path().join(rest)).collect();
                folders.sort();
                folders
            }
        };
        if let Some(found) = candidates.into_iter().find(|folder| folder.join("pam_unix.so").exists()) {
            return Ok(found);
        }
    }
    Err(Error::Missing {
        what: format!("pam_unix.so below {}", root.display()),
        advice: "install PAM there first, or give another --root".into(),
    })
}

/// Where a man page goes.
fn man(root: &Path, page: &str, section: u32) -> PathBuf {
    root.join(format!("usr/share/man/man{section}")).join(page)
}

/// Copies in one step: whoever opens `to` sees the old or the new file whole.
fn put(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let bytes = std::fs::read(from).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => {
            Error::Missing { what: from.display().to_string(), advice: "run `cargo xtask build`".into() }
        }
        _ => Error::File { action: "read", path: from.to_path_buf(), source },
    })?;
    write(&bytes, to, mode)
}

/// Writes in one step.
fn write(bytes: &[u8], to: &Path, mode: u32) -> Result<()> {
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder).map_err(Error::file("create", folder))?;
    }
    let mut fresh = to.as_os_str().to_owned();
    fresh.push(".xtask-new");
    let fresh = PathBuf::from(fresh);
    remove(&fresh)?;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&fresh)
        .map_err(Error::file("create", &fresh))?;
    file.write_all(bytes).map_err(Error::file("write", &fresh))?;
    std::fs::set_permissions(&fresh, std::os::unix::fs::PermissionsExt::from_mode(mode))
        .map_err(Error::file("set the mode of", &fresh))?;
    std::fs::rename(&fresh, to).map_err(Error::file("write", to))
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::File { action: "remove", path: path.to_path_buf(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A work tree and a system, as far as `install` looks at them.
    fn fixture() -> (tempfile::TempDir, Workspace, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf();
        let workspace = Workspace { root: repository, target: folder.path().join("target") };
        let root = folder.path().join("root");
        let touch = |path: PathBuf| {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        };
        touch(workspace.program("portcullisd"));
        // It is asked for the completions.
        std::os::unix::fs::symlink("/bin/echo", workspace.program("portcullis")).unwrap();
        touch(workspace.module());
        touch(root.join("lib/x86_64-linux-gnu/security/pam_unix.so"));
        std::fs::create_dir_all(root.join("etc/pam.d")).unwrap();
        (folder, workspace, root)
    }

    /// Every file below `folder`.
    fn left(folder: &Path) -> Vec<PathBuf> {
        let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { left(&path) } else { vec![path] }).collect()
    }

    #[test]
    fn what_is_installed_is_removed_and_the_configuration_kept() {
        let (_folder, workspace, root) = fixture();
        assert_eq!(install(&workspace, &root).unwrap(), Config::Fresh);
        let module = root.join("lib/x86_64-linux-gnu/security/pam_portcullis.so");
        assert!(module.exists() && root.join(PROFILE).exists());
        let page = root.join("usr/share/man/man5/portcullis.toml.5");
        assert!(page.exists());
        let completions = root.join("usr/share/zsh/vendor-completions/_portcullis");
        assert_eq!(std::fs::read_to_string(&completions).unwrap(), "completions zsh\n");
        uninstall(&root, false).unwrap();
        assert!(!module.exists() && !root.join(PROFILE).exists() && root.join(CONFIG).exists());
        assert!(!page.exists() && !completions.exists());
        let left = left(&root);
        assert_eq!(left.len(), 2, "the configuration and what was there before: {left:?}");
        uninstall(&root, true).unwrap();
        assert!(!root.join(CONFIG).exists());
    }

    #[test]
    fn a_configuration_is_never_overwritten() {
        let (_folder, workspace, root) = fixture();
        install(&workspace, &root).unwrap();
        std::fs::write(root.join(CONFIG), "mine").unwrap();
        assert_eq!(install(&workspace, &root).unwrap(), Config::Kept);
        assert_eq!(std::fs::read_to_string(root.join(CONFIG)).unwrap(), "mine");
        assert!(root.join("etc/portcullis/portcullis.toml.new").exists());
    }

    #[test]
    fn a_module_that_pam_uses_is_not_removed() {
        let (_folder, workspace, root) = fixture();
        install(&workspace, &root).unwrap();
        std::fs::write(root.join("etc/pam.d/common-auth"), "auth requisite pam_portcullis.so\n").unwrap();
        let error = uninstall(&root, false).unwrap_err().to_string();
        assert!(error.contains("common-auth: auth requisite pam_portcullis.so"), "{error}");
        assert!(root.join("lib/x86_64-linux-gnu/security/pam_portcullis.so").exists());
    }
}
