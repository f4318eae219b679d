//! Kernels to try: the distributions' own, unpacked below the target folder. Nothing is installed.
//!
//! Invariant: a folder with its final name is complete; what was interrupted is made anew.

use super::apt_root::AptRoot;
use super::cache;
use crate::error::{Error, Result};
use crate::run;
use crate::sandbox::root;
use crate::workspace::Workspace;
use std::cmp::Ordering;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where kernels come from.
#[derive(Debug)]
struct Archive {
    url: &'static str,
    /// Signs it.
    keyring: &'static str,
    /// The kernels that are small and have what is needed here.
    flavour: &'static str,
    /// The packages of a kernel, without release and flavour; the image first.
    parts: &'static [&'static str],
}

const DEBIAN: Archive = Archive {
    url: "http://deb.debian.org/debian",
    keyring: "/usr/share/keyrings/debian-archive-keyring.gpg",
    flavour: "-cloud-amd64",
    parts: &["linux-image-"],
};
const DEBIAN_SECURITY: Archive = Archive { url: "http://deb.debian.org/debian-security", ..DEBIAN };
const UBUNTU: Archive = Archive {
    url: "http://archive.ubuntu.com/ubuntu",
    keyring: "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
    flavour: "-generic",
    parts: &["linux-image-", "linux-modules-"],
};
/// Debian's copy of Ubuntu's keyring, for hosts that do not have it, and a suite that has the package.
const KEYRING_PACKAGE: &str = "ubuntu-keyring";
const KEYRING_SUITE: &str = "trixie";
/// Debian's own.
pub const DEBIAN_KEYRING_PACKAGE: &str = "debian-archive-keyring";
/// What a guest inserts, in this order; what is built in has no file.
const MODULES: [&str; 16] = [
    "virtio",
    "virtio_ring",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "fuse",
    "virtiofs",
    "overlay",
    "veth",
    "llc",
    "stp",
    "garp",
    "mrp",
    "8021q",
    "sch_ingress",
    "cls_bpf",
];

/// A kernel that can be asked for.
#[derive(Debug)]
pub struct Kernel {
    /// As on the command line: `6.1`.
    pub version: &'static str,
    /// Whether it is tried when none is named.
    pub usual: bool,
    archive: Archive,
    suite: &'static str,
}

/// Oldest first.
pub const KERNELS: [Kernel; 6] = [
    Kernel { version: "5.10", usual: false, archive: DEBIAN_SECURITY, suite: "bullseye-security" },
    Kernel { version: "5.15", usual: true, archive: UBUNTU, suite: "jammy-updates" },
    Kernel { version: "6.1", usual: true, archive: DEBIAN, suite: "bookworm" },
    Kernel { version: "6.8", usual: true, archive: UBUNTU, suite: "noble-updates" },
    Kernel { version: "6.12", usual: true, archive: DEBIAN, suite: "trixie" },
    Kernel { version: "6.18", usual: true, archive: DEBIAN, suite: "trixie-backports" },
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
    // With another list of modules it is fetched again.
    let place = cache.join(format!("{}-{}", kernel.version, MODULES.len()));
    if place.is_dir() {
        return Ok(place);
    }
    let work = cache.join("unfinished");
    remove(&work)?;
    let unpacked = fetch(kernel, &work)?;
    let ready = work.join("ready");
    pick(&unpacked, &ready)?;
    std::fs::rename(&ready, &place).map_err(Error::file("rename", &ready))?;
    remove(&work)?;
    Ok(place)
}

/// Downloads the newest kernel of the series and unpacks it. Returns the folder.
fn fetch(kernel: &Kernel, work: &Path) -> Result<PathBuf> {
    let Archive { url, keyring, flavour, parts } = kernel.archive;
    let mut keyring = PathBuf::from(keyring);
    if !keyring.is_file() && url == UBUNTU.url {
        let root = AptRoot::open(&work.join("keyring"), DEBIAN.url, KEYRING_SUITE, DEBIAN.keyring.as_ref())?;
        let unpacked = root.unpack(&[KEYRING_PACKAGE.to_owned()])?;
        keyring = root::below(&unpacked, &keyring);
    }
    eprintln!("xtask: Linux {}: from {url} {}", kernel.version, kernel.suite);
    let root = AptRoot::open(&work.join("apt"), url, kernel.suite, &keyring)?;
    let Some(release) = newest(&root.names("linux-image-")?, kernel.version, flavour) else {
        return Err(Error::Missing {
            what: format!("a package linux-image-{}.*{flavour} in {}", kernel.version, kernel.suite),
            advice: "the distribution may have moved on: name another kernel".into(),
        });
    };
    let packages: Vec<_> = parts.iter().map(|part| format!("{part}{release}")).collect();
    root.unpack(&packages)
}

/// The release of the newest of `names` (image packages, one a line) that is a kernel of this series.
fn newest(names: &str, version: &str, flavour: &str) -> Option<String> {
    let series = format!("{version}.");
    let releases = names.lines().filter_map(|name| name.strip_prefix("linux-image-"));
    let ours = releases.filter(|release| release.starts_with(&series) && release.ends_with(flavour));
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
        let place = modules.join(format!("{order:02}-{module}.ko"));
        let unpacker = match file.extension().and_then(|extension| extension.to_str()) {
            Some("xz") => Some("xz"),
            Some("zst") => Some("zstd"),
            _ => None,
        };
        if let Some(program) = unpacker {
            let mut unpack = Command::new(program);
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
        let newest = |version| newest(names, version, "-cloud-amd64");
        assert_eq!(newest("6.1").as_deref(), Some("6.1.0-47-cloud-amd64"));
        assert_eq!(newest("6.12").as_deref(), Some("6.12.117+deb13-cloud-amd64"));
        assert_eq!(newest("6.18"), None);
    }

    #[test]
    fn a_module_is_known_by_its_name_compressed_or_not() {
        assert_eq!(stem(Path::new("/m/overlay.ko.xz")), Some("overlay"));
        assert_eq!(stem(Path::new("/m/virtio.ko")), Some("virtio"));
        assert_ne!(stem(Path::new("/m/virtio_ring.ko")), Some("virtio"));
    }
}
