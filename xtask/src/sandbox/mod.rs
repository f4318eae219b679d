//! `cargo xtask sandbox`: a throw-away system, copy-on-write over this one, with Portcullis installed and running.
//!
//! Invariants: the host's files, services, network and users are not touched; everything the sandbox makes (mounts,
//! processes, BPF pins and links, network) lives in namespaces that end with it, also when this program is killed with
//! -9; the status of the command inside is the status returned. The calling process is left in the new namespaces: it
//! should do nothing but end.
//!
//! How: `run` makes the namespaces and starts itself again as process 1 in there (`init`), which lays out the root
//! (`root`) over the cached package layer (`layer`), starts the services (`services`, or `systemd` in a `cgroup` of its
//! own) and then the command.

pub mod cgroup;
pub mod init;
pub mod layer;
pub(crate) mod net;
pub mod root;
pub(crate) mod services;
pub mod signals;
pub(crate) mod syslog;
mod systemd;

use crate::error::{Error, Result};
use crate::workspace::Workspace;
use crate::{apt, build};
use nix::sched::{CloneFlags, unshare};
use std::ffi::OsString;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

/// A file or folder of the host, to be seen inside, read-only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// On the host.
    pub from: PathBuf,
    /// Inside, absolute.
    pub to: PathBuf,
}

impl std::str::FromStr for Bind {
    type Err = String;
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (from, to) = text.split_once(':').ok_or("write HOSTPATH:PATH")?;
        let from = std::fs::canonicalize(from).map_err(|error| format!("{from}: {error}"))?;
        let to = PathBuf::from(to);
        let plain = to.is_absolute() && !to.components().any(|part| part.as_os_str() == "..");
        if plain { Ok(Self { from, to }) } else { Err("PATH must be absolute, without ..".into()) }
    }
}

/// What the sandbox is like. Handed to `init` as a command line, so it is one.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Options {
    /// Start the gate and sshd, but not the agent
    #[arg(long)]
    pub no_agent: bool,
    /// Start nothing; Portcullis is installed all the same
    #[arg(long, conflicts_with = "no_agent")]
    pub bare: bool,
    /// Boot systemd, which starts what is installed
    #[arg(long, conflicts_with_all = ["no_agent", "bare", "gate_object"])]
    pub systemd: bool,
    /// Configuration to use instead of packaging/sandbox.toml
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// File or folder of the host to show inside, read-only; may be repeated
    #[arg(long, value_name = "HOSTPATH:PATH")]
    pub bind: Vec<Bind>,
    /// eBPF object to start the gate with instead of the agent's own
    #[arg(long, value_name = "FILE")]
    pub gate_object: Option<PathBuf>,
    /// Say nothing but errors
    #[arg(long)]
    pub quiet: bool,
    /// Say where the time goes
    #[arg(long)]
    pub verbose: bool,
    /// Command to run inside; a shell without one
    #[arg(last = true)]
    pub command: Vec<OsString>,
}

/// Hidden verb: process 1 of the sandbox.
pub const INIT_VERB: &str = "sandbox-init";
/// Hidden verb: makes the package layer.
pub const LAYER_VERB: &str = "sandbox-layer";

/// Opens a sandbox, runs the command in it, and returns its exit status (128 + signal when it was killed).
pub fn run(workspace: &Workspace, options: &Options) -> Result<u8> {
    if !apt::root() {
        return Err(Error::Refused {
            what: "a sandbox needs root: mounts and BPF".into(),
            advice: "run it with sudo".into(),
        });
    }
    build::refresh(workspace)?;
    // In use until this process ends.
    let layer = layer::ensure(workspace, options.quiet)?;
    let started = Instant::now();
    if options.systemd {
        cgroup::enter(workspace)?;
    }
    forget_login();
    private_namespaces(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWCGROUP)?;
    // The other end closes when this process ends, however it ends.
    let (alive, held) =
        std::io::pipe().map_err(|source| Error::File { action: "create", path: "a pipe".into(), source })?;
    let signals = signals::Signals::watch()?;
    let exe = std::env::current_exe().map_err(Error::file("find", "/proc/self/exe".as_ref()))?;
    let mut init = Command::new(exe);
    init.arg(INIT_VERB).arg("--alive").arg(keep_open(&alive)?.to_string());
    init.arg("--layer").arg(&layer.path).args(arguments(options)?);
    let mut child = signals.spawn(&mut init)?;
    drop(alive);
    let status = signals.follow(&mut child);
    drop(held);
    if options.verbose {
        eprintln!("xtask: sandbox ended after {:.1?}", started.elapsed());
    }
    status
}

/// Nobody has logged in inside: who did outside would answer for everything that is tried there.
fn forget_login() {
    /// The kernel's word for a login uid that was never set.
    const UNSET: &str = "4294967295";
    match std::fs::write("/proc/self/loginuid", UNSET) {
        // No CONFIG_AUDIT: there is none.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            eprintln!("xtask: the caller's login uid stays the actor of what is tried inside: {error}")
        }
        Ok(()) => {}
    }
}

/// Namespaces of our own: mount, pid (for the next child), ipc, uts, and `more`.
pub fn private_namespaces(more: CloneFlags) -> Result<()> {
    let flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    unshare(flags | more).map_err(|source| Error::Kernel {
        action: "make namespaces".into(),
        source,
        advice: "the kernel or a container around this forbids it: run on the host itself",
    })
}

/// The options as `init` reads them; paths made absolute.
fn arguments(options: &Options) -> Result<Vec<OsString>> {
    let absolute = |path: &PathBuf| std::fs::canonicalize(path).map_err(Error::file("find", path));
    let mut list: Vec<OsString> = Vec::new();
    list.extend(options.no_agent.then(|| "--no-agent".into()));
    list.extend(options.bare.then(|| "--bare".into()));
    list.extend(options.systemd.then(|| "--systemd".into()));
    if let Some(config) = &options.config {
        list.extend(["--config".into(), absolute(config)?.into()]);
    }
    if let Some(object) = &options.gate_object {
        list.extend(["--gate-object".into(), absolute(object)?.into()]);
    }
    for bind in &options.bind {
        let mut pair = bind.from.clone().into_os_string();
        pair.push(":");
        pair.push(&bind.to);
        list.extend(["--bind".into(), pair]);
    }
    list.extend(options.quiet.then(|| "--quiet".into()));
    list.extend(options.verbose.then(|| "--verbose".into()));
    list.push("--".into());
    list.extend(options.command.iter().cloned());
    Ok(list)
}

/// Lets the next program inherit `pipe`; returns its number there.
fn keep_open(pipe: &std::io::PipeReader) -> Result<i32> {
    use std::os::fd::AsRawFd as _;
    nix::fcntl::fcntl(pipe.as_fd(), nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))
        .map_err(|source| Error::Kernel { action: "pass on a pipe".into(), source, advice: "try again" })?;
    Ok(pipe.as_raw_fd())
}

/// A program for the inside: a clean environment, no input.
pub(crate) fn inside(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(ENVIRONMENT).stdin(Stdio::null());
    signals::unmask(&mut command);
    command
}

/// What every program inside starts with.
const ENVIRONMENT: [(&str, &str); 4] = [
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/root"),
    ("LANG", "C.UTF-8"),
    ("SHELL", "/bin/bash"),
];
