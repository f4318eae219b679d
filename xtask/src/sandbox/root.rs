//! The sandbox's file system: two overlays (host and package layer, then a fresh upper layer in memory), fresh /proc,
//! /sys, /dev and bpffs, the host's own places masked. Every mount is private to the sandbox.

use super::Bind;
use crate::error::{Error, Result};
use crate::workspace::Workspace;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

const ADVICE: &str = "a sandbox needs overlayfs, tmpfs and bpffs, and a root that is no overlay of overlays";

/// Flags of a mount that holds neither programs nor devices.
const PLAIN: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// One overlay.
pub struct Overlay<'a> {
    /// What is below.
    pub lower: &'a Path,
    /// What lies over it.
    pub upper: &'a Path,
    /// Scratch folder beside `upper`.
    pub work: &'a Path,
    /// Whether `upper` stays as it is.
    pub read_only: bool,
    /// Where the result is seen; created.
    pub at: &'a Path,
}

/// Makes mounts private, and a tmpfs for the sandbox's own folders. Returns the tmpfs.
pub fn scratch(workspace: &Workspace) -> Result<PathBuf> {
    attach(None, Path::new("/"), None, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None)?;
    let scratch = workspace.target.join("sandbox/mnt");
    tmpfs(&scratch, "mode=0700")?;
    Ok(scratch)
}

/// Lays out the whole root below `scratch` and returns it.
pub fn assemble(workspace: &Workspace, scratch: &Path, layer: &Path, binds: &[Bind]) -> Result<PathBuf> {
    let system = scratch.join("root");
    let base = scratch.join("base");
    {
        // The kernel empties `work` as it mounts: two sandboxes at the same moment would trip over each other.
        let _turn = lock(&layer.join("lock"))?;
        overlay(&Overlay {
            lower: Path::new("/"),
            upper: &layer.join("upper"),
            work: &layer.join("work"),
            read_only: true,
            at: &base,
        })?;
    }
    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
    create(&upper)?;
    create(&work)?;
    // The root's own mode is the upper layer's.
    set_mode(&upper, 0o755)?;
    overlay(&Overlay { lower: &base, upper: &upper, work: &work, read_only: false, at: &system })?;
    devices(&system)?;
    processes(&system)?;
    attach(Some("sysfs"), &system.join("sys"), Some("sysfs"), PLAIN | MsFlags::MS_RDONLY, None)?;
    attach(Some("bpf"), &system.join("sys/fs/bpf"), Some("bpf"), PLAIN, Some("mode=0700"))?;
    tmpfs(&system.join("run"), "mode=0755")?;
    tmpfs(&system.join("tmp"), "mode=1777")?;
    tmpfs(&system.join("var/tmp"), "mode=1777")?;
    tmpfs(&system.join("root"), "mode=0700")?;
    tmpfs(&system.join("home"), "mode=0755")?;
    for place in [&workspace.root, &workspace.target] {
        // The target folder may be masked by what is above it.
        if system.join(place.strip_prefix("/").unwrap_or(place)).is_dir() {
            tmpfs(&below(&system, place), "mode=0755")?;
        }
    }
    for pair in binds {
        bind(&pair.from, &below(&system, &pair.to))?;
    }
    Ok(system)
}

/// A /proc of this process's pid namespace; what in there belongs to the whole machine is for reading only.
pub fn processes(system: &Path) -> Result<()> {
    attach(Some("proc"), &system.join("proc"), Some("proc"), PLAIN, None)?;
    for shared in ["proc/sys/kernel", "proc/sys/vm", "proc/sys/fs", "proc/sysrq-trigger"] {
        let path = system.join(shared);
        if path.exists() {
            bind(&path, &path)?;
        }
    }
    Ok(())
}

/// Mounts a file system without a device.
pub fn mount_kind(kind: &str, at: &Path) -> Result<()> {
    attach(Some(kind), at, Some(kind), PLAIN, None)
}

/// Makes `system` the root; the host's root is gone from this mount namespace.
pub fn enter(system: &Path) -> Result<()> {
    std::env::set_current_dir(system).map_err(Error::file("enter", system))?;
    nix::unistd::pivot_root(".", ".").map_err(|source| refused("change the root", system, source))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(|source| refused("leave the old root", system, source))?;
    std::env::set_current_dir("/").map_err(Error::file("enter", Path::new("/")))
}

/// Mounts one overlay.
pub fn overlay(overlay: &Overlay<'_>) -> Result<()> {
    create(overlay.at)?;
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        escape(overlay.lower),
        escape(overlay.upper),
        escape(overlay.work)
    );
    let flags = if overlay.read_only { MsFlags::MS_RDONLY } else { MsFlags::empty() };
    attach(Some("overlay"), overlay.at, Some("overlay"), flags, Some(&options))
}

/// A tmpfs at `at`, created when missing.
pub fn tmpfs(at: &Path, options: &str) -> Result<()> {
    create(at)?;
    attach(Some("tmpfs"), at, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options))
}

/// A /dev with what programs expect, and terminals of its own.
pub fn devices(system: &Path) -> Result<()> {
    let dev = system.join("dev");
    create(&dev)?;
    attach(Some("tmpfs"), &dev, Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=0755"))?;
    let nodes =
        [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
    for (name, major, minor) in nodes {
        let path = dev.join(name);
        mknod(&path, SFlag::S_IFCHR, Mode::empty(), makedev(major, minor))
            .map_err(|source| refused("create", &path, source))?;
        set_mode(&path, 0o666)?;
    }
    let links = [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ];
    for (name, target) in links {
        let path = dev.join(name);
        symlink(target, &path).map_err(Error::file("link", &path))?;
    }
    let pts = dev.join("pts");
    create(&pts)?;
    let options = Some("newinstance,gid=5,mode=0620,ptmxmode=0666");
    attach(Some("devpts"), &pts, Some("devpts"), MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, options)?;
    tmpfs(&dev.join("shm"), "mode=1777")
}

/// Shows `from` at `to`, read-only.
pub fn bind(from: &Path, to: &Path) -> Result<()> {
    bind_writable(from, to)?;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    attach(None, to, None, flags, None)
}

/// Shows `from` at `to`.
pub fn bind_writable(from: &Path, to: &Path) -> Result<()> {
    if from.is_dir() {
        create(to)?;
    } else if !to.exists() {
        if let Some(folder) = to.parent() {
            create(folder)?;
        }
        std::fs::File::create(to).map_err(Error::file("create", to))?;
    }
    attach_from(Some(from), to, None, MsFlags::MS_BIND, None)
}

/// Waits for the lock on `path`, which is created; it ends with the value, or with the process.
pub fn lock(path: &Path) -> Result<Flock<std::fs::File>> {
    let file = std::fs::File::create(path).map_err(Error::file("create", path))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| Error::File {
        action: "lock",
        path: path.to_path_buf(),
        source: error.into(),
    })
}

/// `path`, which is absolute, seen from the root `system`.
pub fn below(system: &Path, path: &Path) -> PathBuf {
    system.join(path.strip_prefix("/").unwrap_or(path))
}

fn attach(
    source: Option<&str>,
    at: &Path,
    kind: Option<&str>,
    flags: MsFlags,
    options: Option<&str>,
) -> Result<()> {
    attach_from(source.map(Path::new), at, kind, flags, options)
}

fn attach_from(
    source: Option<&Path>,
    at: &Path,
    kind: Option<&str>,
    flags: MsFlags,
    options: Option<&str>,
) -> Result<()> {
    mount(source, at, kind, flags, options).map_err(|error| refused("mount", at, error))
}

/// Commas and colons mean something in overlayfs's options.
fn escape(path: &Path) -> String {
    let mut text = String::new();
    for letter in path.to_string_lossy().chars() {
        if matches!(letter, ',' | ':' | '\\') {
            text.push('\\');
        }
        text.push(letter);
    }
    text
}

fn create(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(Error::file("create", folder))
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode))
        .map_err(Error::file("set the mode of", path))
}

fn refused(action: &str, path: &Path, source: nix::Error) -> Error {
    Error::Kernel { action: format!("{action} {}", path.display()), source, advice: ADVICE }
}
