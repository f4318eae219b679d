//! Debian's packages: what is there, and installing what is not. Only build tools are ever installed on the host.

use crate::error::{Error, Result};
use crate::run;
use std::path::Path;
use std::process::Command;

/// Whether this program runs as root.
pub fn root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Whether the system is Debian or derived from it, with apt-get.
pub fn here() -> bool {
    Path::new("/usr/bin/apt-get").exists() && Path::new("/var/lib/dpkg/status").exists()
}

/// Those of `packages` that are not installed.
pub fn missing<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    packages.iter().copied().filter(|package| !installed(package)).collect()
}

fn installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["-W", "-f=${db:Status-Abbrev}", package]);
    run::output(&mut query).is_ok_and(|output| output.status.success() && output.stdout.starts_with(b"ii"))
}

/// Whether apt knows all of `packages`, after an update when it does not at first.
pub fn available(packages: &[&str]) -> bool {
    let known = || {
        packages.iter().all(|package| {
            let mut policy = Command::new("apt-cache");
            policy.args(["policy", package]).env("LC_ALL", "C");
            run::output(&mut policy).is_ok_and(|output| {
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                text.contains("Candidate:") && !text.contains("Candidate: (none)")
            })
        })
    };
    here() && (known() || (root() && update().is_ok() && known()))
}

/// Fetches apt's lists.
pub fn update() -> Result<()> {
    eprintln!("xtask: apt-get update");
    let mut update = Command::new("apt-get");
    update.args(["-qq", "update"]);
    run::quietly(&mut update, "see what apt-get says above").map(drop)
}

/// Installs those of `packages` that are missing, or says exactly which ones are.
pub fn ensure(packages: &[&str], purpose: &str) -> Result<()> {
    if !here() {
        return Ok(());
    }
    let wanted = missing(packages);
    if wanted.is_empty() {
        return Ok(());
    }
    let list = wanted.join(" ");
    if !root() {
        return Err(Error::Missing {
            what: format!("{purpose}: {list}"),
            advice: format!("run `sudo apt-get install {list}`"),
        });
    }
    eprintln!("xtask: {purpose}: apt-get install {list}");
    if install(&wanted).is_err() {
        update()?;
        install(&wanted)?;
    }
    Ok(())
}

fn install(packages: &[&str]) -> Result<()> {
    let mut install = Command::new("apt-get");
    install.args(["-qq", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120", "install"]);
    install.args(packages).env("DEBIAN_FRONTEND", "noninteractive");
    run::quietly(&mut install, "see what apt-get says above").map(drop)
}
