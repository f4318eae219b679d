//! systemd as process 1 of a pid namespace within the sandbox's: it starts what is installed, as a machine's boot does.
//! The command runs beside it, in the same namespaces, and is no unit of its.
//!
//! Invariants: no unit of the host's is started but those named here; what in /proc belongs to the whole machine is for
//! reading only, so no unit changes the host's kernel.

use super::{cgroup, inside, root, services};
use crate::error::{Error, Result};
use crate::run;
use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sched::{CloneFlags, unshare};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

const SYSTEMD: &str = "/lib/systemd/systemd";
const UNITS: &str = "/etc/systemd/system";
/// What is enabled: ours as `cargo xtask install` says, and who serves logons.
const ENABLED: [&str; 3] = ["portcullis-gate.service", "portcullisd.service", "ssh.service"];
/// What would deal with the machine's hardware or kernel, or only costs time.
const MASKED: [&str; 17] = [
    "systemd-sysctl.service",
    "systemd-modules-load.service",
    "systemd-udevd.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udev-trigger.service",
    "systemd-remount-fs.service",
    "systemd-binfmt.service",
    "systemd-random-seed.service",
    "systemd-hwdb-update.service",
    "proc-sys-fs-binfmt_misc.automount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "sys-fs-fuse-connections.mount",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "ldconfig.service",
];
const PATIENCE: Duration = Duration::from_secs(90);
const ADVICE: &str = "a sandbox with systemd needs nested pid namespaces and devpts";

fn refused(action: &str) -> impl FnOnce(nix::Error) -> Error {
    let action = action.to_owned();
    move |source| Error::Kernel { action, source, advice: ADVICE }
}

/// Boots it and waits until it has started everything. From here on this process's children are in its pid namespace.
pub fn boot(quiet: bool) -> Result<()> {
    if !Path::new(SYSTEMD).exists() {
        return Err(Error::Missing { what: SYSTEMD.into(), advice: "install systemd".into() });
    }
    cgroup::show()?;
    units()?;
    services::configure_sshd()?;
    console()?;
    unshare(CloneFlags::CLONE_NEWPID).map_err(refused("make a pid namespace"))?;
    let mut systemd = inside(SYSTEMD);
    systemd.args(["--log-target=journal", "--show-status=0"]).env("container", "portcullis-sandbox");
    systemd.stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: between fork and exec of a process with one thread: mount(2), and memory for paths.
    unsafe { systemd.pre_exec(|| root::processes(Path::new("/")).map_err(std::io::Error::other)) };
    systemd.spawn().map_err(|source| Error::Start { program: SYSTEMD.into(), source })?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = run::output(inside("systemctl").args(["is-system-running", "--wait"]))?;
        match String::from_utf8_lossy(&answer.stdout).trim() {
            "running" => return Ok(()),
            "degraded" => {
                if !quiet {
                    let failed =
                        run::output(inside("systemctl").args(["--failed", "--no-legend", "--plain"]))?;
                    eprint!("xtask: units that failed:\n{}", String::from_utf8_lossy(&failed.stdout));
                }
                return Ok(());
            }
            // It does not listen yet.
            other if Instant::now() > deadline => {
                return Err(Error::Refused {
                    what: format!("systemd is \"{other}\" after {} s", PATIENCE.as_secs()),
                    advice: "try `cargo xtask sandbox --systemd --verbose -- true`".into(),
                });
            }
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Enables ours and nothing of the host's.
fn units() -> Result<()> {
    let folder = Path::new(UNITS);
    for entry in folder.read_dir().map_err(Error::file("list", folder))?.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|end| end == "wants" || end == "requires") {
            std::fs::remove_dir_all(&path).map_err(Error::file("remove", &path))?;
        }
    }
    let links = MASKED.iter().map(|unit| (*unit, "/dev/null"));
    for (unit, target) in links.chain([("default.target", "/lib/systemd/system/multi-user.target")]) {
        let path = folder.join(unit);
        // Not there, or the host's own word on it.
        let _ = std::fs::remove_file(&path);
        symlink(target, &path).map_err(Error::file("link", &path))?;
    }
    let mut enable = inside("systemctl");
    enable.arg("enable").args(ENABLED);
    run::quietly(&mut enable, "systemd says above what is wrong with the units").map(drop)
}

/// A terminal as /dev/console, so that a getty waits for logons there.
fn console() -> Result<()> {
    let terminal = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)
        .map_err(refused("open a terminal"))?;
    grantpt(&terminal).map_err(refused("give a terminal away"))?;
    unlockpt(&terminal).map_err(refused("unlock a terminal"))?;
    let name = ptsname_r(&terminal).map_err(refused("name a terminal"))?;
    root::bind_writable(Path::new(&name), Path::new("/dev/console"))?;
    // It hangs up when this process ends.
    std::mem::forget(terminal);
    Ok(())
}
