//! A cgroup of the sandbox's own, for a systemd to manage as if it were the whole tree: the root of the cgroup namespace
//! that is made after it was entered. What outlives its processes is removed by a process that stands outside.
//!
//! Invariant: nothing is left of it, however the sandbox ends; only what is below the folder made here is touched.

use super::root;
use crate::error::{Error, Result};
use crate::workspace::Workspace;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ADVICE: &str = "a sandbox with systemd needs the unified cgroup hierarchy";
/// The name; the number of the process that made it follows.
const PREFIX: &str = "portcullis-sandbox-";
/// Processes that are being killed end within this time by far.
const PATIENCE: Duration = Duration::from_secs(30);

/// The hidden verb: who removes it.
#[derive(clap::Args)]
pub struct Keeper {
    /// The cgroup
    folder: PathBuf,
}

/// Hidden verb of [`Keeper`].
pub const KEEPER_VERB: &str = "sandbox-cgroup";

/// Makes the cgroup, leaves somebody behind who removes it when this process has ended, and enters it.
pub fn enter(workspace: &Workspace) -> Result<()> {
    let refused = |action: &str, source| Error::Kernel { action: action.into(), source, advice: ADVICE };
    // The hierarchy is the machine's, this mount of it is our own: wherever the host keeps its own.
    unshare(CloneFlags::CLONE_NEWNS).map_err(|source| refused("make a mount namespace", source))?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(|source| refused("make mounts private", source))?;
    let place = workspace.target.join("sandbox/cgroup");
    std::fs::create_dir_all(&place).map_err(Error::file("create", &place))?;
    mount(Some("cgroup2"), &place, Some("cgroup2"), MsFlags::empty(), none)
        .map_err(|source| refused("mount cgroup2", source))?;
    let folder = place.join(format!("{PREFIX}{}", std::process::id()));
    std::fs::create_dir(&folder).map_err(Error::file("create", &folder))?;
    let exe = std::env::current_exe().map_err(Error::file("find", "/proc/self/exe".as_ref()))?;
    let mut keeper = Command::new(exe);
    // Ended by nothing but its work: a signal to our process group is not for it.
    keeper.arg(KEEPER_VERB).arg(&folder).stdin(Stdio::piped()).process_group(0);
    let mut keeper = super::signals::unmask(&mut keeper)
        .spawn()
        .map_err(|source| Error::Start { program: "xtask".into(), source })?;
    // Its other end closes when this process ends, however it ends: programs started from here do not have it.
    if let Some(pipe) = keeper.stdin.take() {
        std::mem::forget(pipe);
    }
    let procs = folder.join("cgroup.procs");
    std::fs::write(&procs, "0").map_err(Error::file("write", &procs))
}

/// Waits for the end of whoever made the cgroup, and of all that is in it, and removes it.
pub fn keep(keeper: &Keeper) -> Result<()> {
    let mut rest = Vec::new();
    std::io::stdin()
        .lock()
        .read_to_end(&mut rest)
        .map_err(Error::file("read", Path::new("standard input")))?;
    let path = keeper.folder.join("cgroup.events");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut events = std::fs::File::open(&path).map_err(Error::file("open", &path))?;
        let mut text = String::new();
        events.read_to_string(&mut text).map_err(Error::file("read", &path))?;
        if text.lines().any(|line| line == "populated 0") {
            return remove(&keeper.folder);
        }
        if Instant::now() > deadline {
            return Err(Error::Refused {
                what: format!("there are still processes in {}", keeper.folder.display()),
                advice: "they hang in the kernel; remove the folder when they are gone".into(),
            });
        }
        // The kernel tells a change of this file so.
        let mut wait = [nix::poll::PollFd::new(events.as_fd(), nix::poll::PollFlags::POLLPRI)];
        nix::poll::poll(&mut wait, nix::poll::PollTimeout::from(1000_u16)).map_err(|source| {
            Error::Kernel { action: "wait for a cgroup's end".into(), source, advice: "try again" }
        })?;
    }
}

/// Removes a cgroup and those in it: folders only, their files are the kernel's.
fn remove(folder: &Path) -> Result<()> {
    for entry in folder.read_dir().map_err(Error::file("list", folder))?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path())?;
        }
    }
    std::fs::remove_dir(folder).map_err(Error::file("remove", folder))
}

/// Shows the cgroup inside, as the whole tree.
pub fn show() -> Result<()> {
    root::mount_kind("cgroup2", Path::new("/sys/fs/cgroup"))
}
