//! `cargo xtask test vm [KERNEL]`: Portcullis on other kernels, in qemu by emulation (no KVM needed).
//!
//! Each kernel boots twice, on the root file system of a sandbox: the object is loaded by the real portcullisd, the gate
//! is called by the real client, a task dies with a guess out, and the demo's story is played with the real su. Then the
//! machine is switched off with locks set, and boots again with the same /etc and store.
//!
//! Invariants: everything runs inside a sandbox (`boot`), so nothing of qemu, virtiofsd, sockets or files outlives it,
//! however it ends; the guest sees the root read-only, with a layer of its own memory over it.

mod apt_root;
mod boot;
mod calls;
mod guest;
mod initramfs;
mod kernels;
mod programs;
mod report;

pub use boot::{Boot, boot};
pub use guest::{Guest, run as guest};

use crate::count::Count;
use crate::error::{Error, Result};
use crate::stages::Stages;
use crate::workspace::Workspace;
use crate::{apt, build, demo, run};
use kernels::{KERNELS, Kernel};
use report::Report;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Hidden verb: starts qemu; runs in the sandbox.
pub const BOOT_VERB: &str = "vm-boot";
/// Hidden verb: process 1 of the guest.
pub const GUEST_VERB: &str = "vm-guest";

const QEMU: &str = "qemu-system-x86_64";
const PACKAGES: [&str; 4] = ["qemu-system-x86", "xz-utils", "zstd", kernels::DEBIAN_KEYRING_PACKAGE];
/// Of Debian 13 and later; up to Debian 12 it comes with qemu.
const VIRTIOFSD_PACKAGE: &str = "virtiofsd";
const VIRTIOFSD: [&str; 2] = ["/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"];
/// Where the sandbox shows this program, the kernel and the story.
const XTASK_INSIDE: &str = "/opt/portcullis-xtask";
const KERNEL_INSIDE: &str = "/opt/portcullis-kernel";
/// What is played around the reboot: a program of the tests, and where the sandbox shows it.
const REBOOT: &str = "portcullis-reboot";
const REBOOT_INSIDE: &str = "/opt/portcullis-reboot";

/// Tries one kernel, or all usual ones. Returns the exit status.
///
/// # Errors
/// An unknown kernel is asked for, or Portcullis cannot be built.
pub fn test(workspace: &Workspace, only: Option<&str>) -> Result<u8> {
    let chosen: Vec<&Kernel> = match only {
        None => KERNELS.iter().filter(|kernel| kernel.usual).collect(),
        Some(version) => KERNELS.iter().filter(|kernel| kernel.version == version).collect(),
    };
    if chosen.is_empty() {
        let known: Vec<_> = KERNELS.iter().map(|kernel| kernel.version).collect();
        return Err(Error::Refused {
            what: format!("no kernel of the name {}", only.unwrap_or_default()),
            advice: format!("known are {}", known.join(", ")),
        });
    }
    let mut stages = Stages::default();
    let tools = match tools() {
        Ok(virtiofsd) => virtiofsd,
        Err(reason) => {
            for kernel in chosen {
                stages.skip(&format!("Linux {}", kernel.version), &reason);
            }
            return Ok(stages.report());
        }
    };
    build::refresh(workspace)?;
    let played = [
        (demo::program(workspace, demo::STORY)?, demo::STORY_INSIDE),
        (demo::program(workspace, REBOOT)?, REBOOT_INSIDE),
    ];
    for kernel in chosen {
        let name = format!("Linux {}", kernel.version);
        match kernels::ensure(workspace, kernel) {
            Ok(folder) => one(workspace, &name, &folder, &tools, &played, &mut stages)?,
            Err(error) => stages.skip(&name, &format!("its image cannot be had: {error}")),
        }
    }
    Ok(stages.report())
}

/// Installs what is missing where that is possible. Where virtiofsd is, or why nothing can be tried.
fn tools() -> std::result::Result<PathBuf, String> {
    if std::env::consts::ARCH != "x86_64" {
        return Err("the kernels and qemu are named for x86-64 only".into());
    }
    if !apt::root() {
        return Err("the guest's root is a sandbox, which needs root: sudo -E cargo xtask test vm".into());
    }
    apt::ensure(&PACKAGES, "virtual machines").map_err(|error| error.to_string())?;
    let find = || VIRTIOFSD.iter().map(PathBuf::from).find(|path| path.is_file());
    if find().is_none() && apt::available(&[VIRTIOFSD_PACKAGE]) {
        apt::ensure(&[VIRTIOFSD_PACKAGE], "virtual machines").map_err(|error| error.to_string())?;
    }
    for program in [QEMU, "xz", "zstd", "dpkg-deb", "apt-get"] {
        if !run::works(program, "--version") {
            return Err(format!("{program} is missing: install it"));
        }
    }
    find().ok_or_else(|| format!("virtiofsd is missing: install it as {}", VIRTIOFSD.join(" or ")))
}

/// Where kernels are kept.
fn cache(workspace: &Workspace) -> PathBuf {
    workspace.target.join("vm")
}

fn one(
    workspace: &Workspace,
    name: &str,
    kernel: &Path,
    virtiofsd: &Path,
    played: &[(PathBuf, &str)],
    stages: &mut Stages,
) -> Result<()> {
    println!("== {name}");
    let started = Instant::now();
    let exe = std::env::current_exe().map_err(Error::file("find", "/proc/self/exe".as_ref()))?;
    let bind = |from: &Path, to: &str| format!("{}:{to}", from.display());
    // A process of its own: the one that opens a sandbox is left in its namespaces.
    let mut sandbox = Command::new(&exe);
    sandbox.args(["sandbox", "--bare", "--quiet", "--config"]).arg(workspace.root.join("tests/demo.toml"));
    sandbox.args(["--bind", &bind(&exe, XTASK_INSIDE), "--bind", &bind(kernel, KERNEL_INSIDE)]);
    for (program, place) in played {
        sandbox.args(["--bind", &bind(program, place)]);
    }
    sandbox.args(["--", XTASK_INSIDE, BOOT_VERB]);
    sandbox.arg("--kernel").arg(KERNEL_INSIDE).arg("--virtiofsd").arg(virtiofsd);
    let output = run::tied(&mut sandbox).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|source| Error::Start { program: exe.display().to_string(), source })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let report = Report::read(&text);
    let mut count = report.count();
    if !output.status.success() && count.failed == 0 {
        count = Count { failed: 1, ..count };
    }
    if count.failed > 0 {
        println!("{text}");
    }
    println!("{}: {}", report.kernel.as_deref().unwrap_or(name), report.summary());
    stages.add(name, count, started.elapsed());
    Ok(())
}
