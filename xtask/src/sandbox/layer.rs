//! The package layer: what the sandbox needs and the host may lack, installed once into a folder that overlayfs lays
//! over the host's root. Cached under a key of everything it depends on.
//!
//! Invariant: a layer is made under a lock, in a folder with another name, and renamed when it is complete; one whose
//! making was interrupted is never used. Who uses a layer holds a shared lock on it ([`Layer`]); older layers of other
//! keys are deleted when a new one was made, each only under its exclusive lock.

use super::root::{self, Overlay};
use crate::error::{Error, Result};
use crate::run;
use crate::workspace::Workspace;
use nix::fcntl::{Flock, FlockArg};
use nix::sched::CloneFlags;
use std::fs::{File, OpenOptions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Programs that the sandbox and the tests use.
const PACKAGES: [&str; 20] = [
    "libpam-oath",
    "oathtool",
    "openssh-server",
    "sudo",
    "cron",
    "pamtester",
    "sshpass",
    "curl",
    "passwd",
    "login",
    "procps",
    "vlock",
    "iputils-ping",
    "nftables",
    "iptables",
    "nmap",
    "medusa",
    "python3-scapy",
    "fail2ban",
    "iperf3",
];
/// Runs in the layer's root, as process 1 of a pid namespace. $@: the packages.
const SCRIPT: &str = r#"
set -eu
printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
wanted=
for package in "$@"; do
    dpkg-query -W -f='${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q ^ii || wanted="$wanted $package"
done
if [ -n "$wanted" ]; then
    echo "installing:$wanted"
    install="apt-get -qq -y --no-install-recommends -o Dpkg::Options::=--force-confold -o Dpkg::Options::=--force-unsafe-io install $wanted"
    $install || { apt-get -qq update; $install; }
    apt-get clean
fi
rm /usr/sbin/policy-rc.d
echo "users kon, jon and admin, host keys, PAM profile"
for user in kon:2001 jon:2002 admin:2003; do
    id "${user%:*}" >/dev/null 2>&1 && userdel "${user%:*}"
    useradd --uid "${user#*:}" --user-group --no-create-home --home-dir "/home/${user%:*}" --shell /bin/bash "${user%:*}"
done
usermod --append --groups sudo admin
ssh-keygen -A >/dev/null
pam-auth-update --package --enable portcullis
grep -q pam_portcullis.so /etc/pam.d/common-auth || {
    echo "pam-auth-update left common-auth alone: it was edited by hand on this machine" >&2
    exit 1
}
"#;

/// Name of a layer that is being deleted.
const STALE: &str = "stale-layer";
/// Lock of a layer's users, in its folder.
const IN_USE: &str = "in-use";
/// What the name of a layer starts with; its key follows as 16 hexadecimal digits.
const PREFIX: &str = "layer-";

/// A layer that cannot be deleted as long as this lives.
#[derive(Debug)]
pub struct Layer {
    /// Its folder.
    pub path: PathBuf,
    _in_use: Flock<File>,
}

impl Layer {
    /// Takes the layer into use; None: it was deleted meanwhile, or there is none.
    fn take(path: &Path) -> Result<Option<Self>> {
        let place = path.join(IN_USE);
        loop {
            let file = match OpenOptions::new().create(true).truncate(false).write(true).open(&place) {
                Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                file => file.map_err(Error::file("open", &place))?,
            };
            let number = file.metadata().map_err(Error::file("look at", &place))?.ino();
            let locked = Flock::lock(file, FlockArg::LockShared).map_err(|(_, error)| Error::File {
                action: "lock",
                path: place.clone(),
                source: error.into(),
            })?;
            // Whoever deletes it moves it away first.
            if place.metadata().is_ok_and(|found| found.ino() == number) {
                return Ok(Some(Self { path: path.to_path_buf(), _in_use: locked }));
            }
        }
    }
}

/// The layer for this machine as it is now; made first when there is none.
pub fn ensure(workspace: &Workspace, quiet: bool) -> Result<Layer> {
    let cache = workspace.target.join("sandbox");
    std::fs::create_dir_all(&cache).map_err(Error::file("create", &cache))?;
    let layer = cache.join(format!("{PREFIX}{:016x}", key(workspace)?));
    if let Some(taken) = Layer::take(&layer)? {
        return Ok(taken);
    }
    let _turn = root::lock(&cache.join("lock"))?;
    if let Some(taken) = Layer::take(&layer)? {
        return Ok(taken);
    }
    let started = Instant::now();
    if !quiet {
        eprintln!("xtask: making the sandbox's package layer (about 15 s, once)");
    }
    let fresh = cache.join("layer-unfinished");
    if fresh.exists() {
        std::fs::remove_dir_all(&fresh).map_err(Error::file("remove", &fresh))?;
    }
    for folder in ["upper", "work"] {
        let folder = fresh.join(folder);
        std::fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
    }
    let profile = fresh.join("upper/usr/share/pam-configs/portcullis");
    let folder = fresh.join("upper/usr/share/pam-configs");
    std::fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
    let source = workspace.root.join("packaging/pam-configs/portcullis");
    std::fs::copy(&source, &profile).map_err(Error::file("copy", &source))?;
    // A process of its own: its namespaces end with it.
    let exe = std::env::current_exe().map_err(Error::file("find", "/proc/self/exe".as_ref()))?;
    let mut make = Command::new(exe);
    make.arg(super::LAYER_VERB).arg(&fresh);
    let output = run::quietly(&mut make, "see the messages above; apt-get needs its sources")?;
    std::fs::rename(&fresh, &layer).map_err(Error::file("rename", &fresh))?;
    if !quiet {
        for line in output.lines().filter(|line| line.starts_with("installing:")) {
            eprintln!("xtask: {line}");
        }
        eprintln!("xtask: package layer made in {:.1} s", started.elapsed().as_secs_f64());
    }
    let taken = Layer::take(&layer)?.ok_or_else(|| Error::Missing {
        what: layer.display().to_string(),
        advice: "another program deletes what is in the target folder: start it again".into(),
    })?;
    for gone in delete_older(&cache, &layer)? {
        if !quiet {
            eprintln!("xtask: deleted the old package layer {}", gone.display());
        }
    }
    Ok(taken)
}

/// Deletes the layers of other keys that are older than `current` and that nobody uses. Call it under the cache's lock.
fn delete_older(cache: &Path, current: &Path) -> Result<Vec<PathBuf>> {
    let made = |path: &Path| {
        path.metadata().and_then(|found| found.modified()).map_err(Error::file("look at", path))
    };
    let limit = made(current)?;
    let mut deleted = Vec::new();
    for entry in cache.read_dir().map_err(Error::file("list", cache))? {
        let path = entry.map_err(Error::file("list", cache))?.path();
        let stale = path.file_name().is_some_and(|name| name == STALE);
        if !stale && (path == current || !is_layer(&path) || made(&path)? > limit) {
            continue;
        }
        let mut doomed = path.clone();
        if !stale {
            let place = path.join(IN_USE);
            let file = File::create(&place).map_err(Error::file("create", &place))?;
            let Ok(_alone) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { continue };
            // Whoever waits for the lock sees that it is gone; what is deleted half is never used.
            doomed = cache.join(STALE);
            std::fs::rename(&path, &doomed).map_err(Error::file("rename", &path))?;
        }
        std::fs::remove_dir_all(&doomed).map_err(Error::file("delete", &doomed))?;
        deleted.push(path);
    }
    Ok(deleted)
}

/// Whether a folder's name is that of a complete layer.
fn is_layer(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let key = name.strip_prefix(PREFIX).unwrap_or_default();
    key.len() == 16 && key.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// The hidden verb: mounts `layer` over the host's root, in namespaces of its own but with the host's network, and runs
/// the script in there.
pub fn make(workspace: &Workspace, layer: &Path) -> Result<()> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(|source| Error::Kernel {
        action: "tie the layer's maker to its parent".into(),
        source,
        advice: "try again",
    })?;
    super::private_namespaces(CloneFlags::empty())?;
    let scratch = root::scratch(workspace)?;
    let system = scratch.join("layer");
    let upper = layer.join("upper");
    let resolver = Path::new("/etc/resolv.conf");
    root::overlay(&Overlay {
        lower: Path::new("/"),
        upper: &upper,
        work: &layer.join("work"),
        read_only: false,
        at: &system,
    })?;
    root::devices(&system)?;
    for folder in ["run", "tmp", "root", "home"] {
        root::tmpfs(&system.join(folder), "mode=0755")?;
    }
    std::fs::set_permissions(system.join("tmp"), PermissionsExt::from_mode(0o1777))
        .map_err(Error::file("set the mode of", &system.join("tmp")))?;
    if let Ok(target) = resolver.canonicalize()
        && target.starts_with("/run")
    {
        root::bind(&target, &root::below(&system, &target))?;
    }
    // Process 1 of the new pid namespace mounts its own /proc: one of the host's would show the host's processes.
    let script = format!("mount -t proc proc /proc\n{SCRIPT}");
    let mut shell = super::inside("chroot");
    shell.arg(&system).args(["/bin/sh", "-c", &script, "layer"]).args(PACKAGES);
    shell.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
    run::run(&mut shell, "see the messages above")
}

/// Changes with everything that the layer copied or was made from.
fn key(workspace: &Workspace) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    PACKAGES.hash(&mut hasher);
    SCRIPT.hash(&mut hasher);
    let profile = workspace.root.join("packaging/pam-configs/portcullis");
    std::fs::read(&profile).map_err(Error::file("read", &profile))?.hash(&mut hasher);
    let host = [
        "/etc/os-release",
        "/var/lib/dpkg/status",
        "/etc/passwd",
        "/etc/group",
        "/etc/shadow",
        "/etc/pam.d/common-auth",
        "/etc/pam.d/common-account",
    ];
    for file in host {
        // A file that the host lacks is a fact like any other.
        std::fs::read(file).ok().hash(&mut hasher);
    }
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    fn layer(cache: &Path, name: &str, age: u64) -> PathBuf {
        let path = cache.join(name);
        std::fs::create_dir_all(path.join("upper/etc")).unwrap();
        let time = SystemTime::now() - Duration::from_secs(age);
        File::open(&path).unwrap().set_modified(time).unwrap();
        path
    }

    #[test]
    fn older_layers_that_nobody_uses_are_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path();
        let current = layer(cache, "layer-00000000000000aa", 100);
        let used = layer(cache, "layer-00000000000000bb", 300);
        let old = layer(cache, "layer-00000000000000cc", 300);
        let newer = layer(cache, "layer-00000000000000dd", 10);
        let other = layer(cache, "layer-unfinished", 300);
        let half = layer(cache, STALE, 300);
        let in_use = Layer::take(&used).unwrap().unwrap();
        // The lock's file made it newer.
        File::open(&used).unwrap().set_modified(SystemTime::now() - Duration::from_secs(300)).unwrap();
        let mut gone = delete_older(cache, &current).unwrap();
        gone.sort();
        assert_eq!(gone, [old.clone(), half]);
        assert!(!old.exists() && current.exists() && newer.exists() && other.exists());
        assert!(used.join("upper/etc").exists(), "a sandbox uses it");
        assert!(Layer::take(&old).unwrap().is_none());
        File::open(&used).unwrap().set_modified(SystemTime::now() - Duration::from_secs(300)).unwrap();
        drop(in_use);
        assert_eq!(delete_older(cache, &current).unwrap(), [used]);
    }
}
