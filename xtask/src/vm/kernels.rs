//! Kernels to try: Debian's own, fetched with an apt root of their own and unpacked below the target folder. Nothing is
//! installed, and the host's apt is neither read nor written.
//!
//! Invariant: a folder with its final name is complete; what was interrupted is made anew.

use super::cache;
use crate::error::{Error, Result};
use crate::run;
use crate::sandbox::root;
use crate::workspace::Workspace;
use std::cmp::Ordering;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Signs Debian's archive; package debian-archive-keyring.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const ARCHIVE: &str = "http://deb.debian.org/debian";
const SECURITY: &str = "http://deb.debian.org/debian-security";
/// The kernels for virtual machines: small, and everything that is needed here is in them.
const FLAVOUR: &str = "-cloud-amd64";
/// What a guest inserts, in this order; what is built in has no file.
const MODULES: [&str; 8] = [
    "virtio",
    "virtio_ring",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "fuse",
    "virtiofs",
    "overlay",
];

/// A kernel that can be asked for.
#[derive(Debug)]
pub struct Kernel {
    /// As on the command line: `6.1`.
    pub version: &'static str,
    /// Whether it is tried when none is named.
    pub usual: bool,
    archive: &'static str,
    suite: &'static str,
}

/// Oldest first.
pub const KERNELS: [Kernel; 4] = [
    Kernel { version: "5.10", usual: false, archive: SECURITY, suite: "bullseye-security" },
    Kernel { version: "6.1", usual: true, archive: ARCHIVE, suite: "bookworm" },
    Kernel { version: "6.12", usual: true, archive: ARCHIVE, suite: "trixie" },
    Kernel { version: "6.18", usual: true, archive: ARCHIVE, suite: "trixie-backports" },
];

/// The kernel's image in an unpacked folder.
pub const IMAGE: &str = "vmlinuz";
/// The folder of its modules, decompressed and numbered in their order.
pub const LOADED: &str = "modules";

/// The folder with image and modules of `kernel`; fetched when it is not there.
///
/// # Errors
/// No network, no such package any more, no room.
pub fn ensure(workspace: &Workspace, kernel: &Kernel) -> Result<PathBuf> {
    let cache = cache(workspace);
    std::fs::create_dir_all(&cache).map_err(Error::file("create", &cache))?;
    let _turn = root::lock(&cache.join("lock"))?;
    let place = cache.join(kernel.version);
    if place.is_dir() {
        return Ok(place);
    }
    let work = cache.join("unfinished");
    remove(&work)?;
    fetch(kernel, &work)?;
    let ready = work.join("ready");
    pick(&work.join("unpacked"), &ready)?;
    std::fs::rename(&ready, &place).map_err(Error::file("rename", &ready))?;
    remove(&work)?;
    Ok(place)
}

/// Downloads the newest package of the series and unpacks it in `work/unpacked`.
fn fetch(kernel: &Kernel, work: &Path) -> Result<()> {
    for folder in ["lists/partial", "archives/partial"] {
        let folder = work.join(folder);
        std::fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
    }
    let list = work.join("sources.list");
    let source = format!("deb [arch=amd64 signed-by={KEYRING}] {} {} main\n", kernel.archive, kernel.suite);
    std::fs::write(&list, source).map_err(Error::file("write", &list))?;
    eprintln!("xtask: Linux {}: from {} {}", kernel.version, kernel.archive, kernel.suite);
    let advice = "is there a network, and has Debian moved this suite?";
    run::quietly(apt("apt-get", work).args(["-qq", "update"]), advice)?;
    let names = run::quietly(apt("apt-cache", work).args(["pkgnames", "linux-image-"]), advice)?;
    let Some(name) = newest(&names, kernel.version) else {
        return Err(Error::Missing {
            what: format!("a package linux-image-{}.*{FLAVOUR} in {}", kernel.version, kernel.suite),
            advice: "Debian may have moved on: name another kernel".into(),
        });
    };
    run::quietly(apt("apt-get", work).args(["-qq", "download", &name]).current_dir(work), advice)?;
    let entries = work.read_dir().map_err(Error::file("read", work))?;
    let package =
        entries.flatten().map(|entry| entry.path()).find(|path| path.extension() == Some("deb".as_ref()));
    let package = package.ok_or_else(|| Error::Missing {
        what: format!("the downloaded package {name}"),
        advice: "try again".into(),
    })?;
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("--extract").arg(package).arg(work.join("unpacked"));
    run::quietly(&mut unpack, "is there room in the target folder?").map(drop)
}

/// An apt program that knows nothing but `work`.
fn apt(program: &str, work: &Path) -> Command {
    let mut apt = Command::new(program);
    let option = |name: &str, place: &Path| format!("{name}={}", place.display());
    for setting in [
        option("Dir::Etc::sourcelist", &work.join("sources.list")),
        option("Dir::State::lists", &work.join("lists")),
        option("Dir::Cache", work),
        "Dir::Etc::sourceparts=-".into(),
        "Dir::State::status=/dev/null".into(),
        "APT::Architecture=amd64".into(),
        "APT::Architectures=amd64".into(),
        // Its own user may not write into the target folder.
        "APT::Sandbox::User=root".into(),
        "Acquire::Languages=none".into(),
    ] {
        apt.args(["-o", &setting]);
    }
    apt.env("LC_ALL", "C");
    apt
}

/// The newest of `names` (one a line) that is a kernel of this series.
fn newest(names: &str, version: &str) -> Option<String> {
    let series = format!("linux-image-{version}.");
    let ours = names.lines().filter(|name| name.starts_with(&series) && name.ends_with(FLAVOUR));
    ours.max_by(|a, b| by_numbers(a, b)).map(str::to_owned)
}

/// Compares the numbers in two names, one after the other.
fn by_numbers(a: &str, b: &str) -> Ordering {
    let numbers = |name: &str| -> Vec<u64> {
        name.split(|letter: char| !letter.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
    };
    numbers(a).cmp(&numbers(b))
}

/// Takes the image and the modules out of an unpacked package.
fn pick(unpacked: &Path, ready: &Path) -> Result<()> {
    let modules = ready.join(LOADED);
    std::fs::create_dir_all(&modules).map_err(Error::file("create", &modules))?;
    let mut files = Vec::new();
    collect(unpacked, &mut files)?;
    let image = files.iter().find(|path| stem(path).is_some_and(|name| name.starts_with("vmlinuz-")));
    let image = image.ok_or_else(|| Error::Missing {
        what: format!("a kernel image in {}", unpacked.display()),
        advice: "the package has another layout than expected: name another kernel".into(),
    })?;
    std::fs::copy(image, ready.join(IMAGE)).map_err(Error::file("copy", image))?;
    for (order, module) in MODULES.iter().enumerate() {
        let Some(file) = files.iter().find(|path| stem(path) == Some(module)) else { continue };
        let place = modules.join(format!("{order}-{module}.ko"));
        if file.extension() == Some("xz".as_ref()) {
            let mut unpack = Command::new("xz");
            unpack.args(["--decompress", "--stdout"]).arg(file);
            let output = run::output(&mut unpack)?;
            std::fs::write(&place, output.stdout).map_err(Error::file("write", &place))?;
        } else {
            std::fs::copy(file, &place).map_err(Error::file("copy", file))?;
        }
    }
    Ok(())
}

/// A file's name up to `.ko`.
fn stem(path: &Path) -> Option<&str> {
    let name = path.file_name()?.to_str()?;
    Some(name.split_once(".ko").map_or(name, |(stem, _)| stem))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in folder.read_dir().map_err(Error::file("read", folder))?.flatten() {
        let kind = entry.file_type().map_err(Error::file("look at", &entry.path()))?;
        if kind.is_dir() {
            collect(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::file("remove", folder)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_a_series_is_found_by_its_numbers() {
        let names = "linux-image-6.1.0-9-cloud-amd64\nlinux-image-6.1.0-50-cloud-amd64-dbg\n\
                     linux-image-6.1.0-47-cloud-amd64\nlinux-image-6.12.117+deb13-cloud-amd64\n\
                     linux-image-6.1.0-48-amd64";
        assert_eq!(newest(names, "6.1").as_deref(), Some("linux-image-6.1.0-47-cloud-amd64"));
        assert_eq!(newest(names, "6.12").as_deref(), Some("linux-image-6.12.117+deb13-cloud-amd64"));
        assert_eq!(newest(names, "6.18"), None);
    }

    #[test]
    fn a_module_is_known_by_its_name_compressed_or_not() {
        assert_eq!(stem(Path::new("/m/overlay.ko.xz")), Some("overlay"));
        assert_eq!(stem(Path::new("/m/virtio.ko")), Some("virtio"));
        assert_ne!(stem(Path::new("/m/virtio_ring.ko")), Some("virtio"));
    }
}
