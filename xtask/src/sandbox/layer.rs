//! The package layer: what the sandbox needs and the host may lack, installed once into a folder that overlayfs lays
//! over the host's root. Cached under a key of everything it depends on.
//!
//! Invariant: a layer is made under a lock, in a folder with another name, and renamed when it is complete; one whose
//! making was interrupted is never used.

use super::root::{self, Overlay};
use crate::error::{Error, Result};
use crate::run;
use crate::workspace::Workspace;
use nix::sched::CloneFlags;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Programs that the sandbox and the tests use.
const PACKAGES: [&str; 10] =
    ["openssh-server", "sudo", "cron", "pamtester", "sshpass", "curl", "passwd", "login", "procps", "vlock"];
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

/// The folder of the layer for this machine as it is now; made first when there is none.
pub fn ensure(workspace: &Workspace, quiet: bool) -> Result<PathBuf> {
    let cache = workspace.target.join("sandbox");
    std::fs::create_dir_all(&cache).map_err(Error::file("create", &cache))?;
    let layer = cache.join(format!("layer-{:016x}", key(workspace)?));
    if layer.is_dir() {
        return Ok(layer);
    }
    let _turn = root::lock(&cache.join("lock"))?;
    if layer.is_dir() {
        return Ok(layer);
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
    Ok(layer)
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
