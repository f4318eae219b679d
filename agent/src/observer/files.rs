//! The watched binaries as the kernel knows them: inode and device.
//!
//! Invariants: a path is resolved as exec would (links are followed); the device is that of the mount, from mountinfo,
//! since stat(2) tells another one on overlayfs and btrfs; a path without a file is no error, it may come later.

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use portcullis_common::observer::File;

/// A watched program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// Where it was looked for.
    pub path: PathBuf,
    /// What is there.
    pub file: Option<File>,
}

impl Watched {
    /// Its name: the last part of its path.
    #[must_use]
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Its name as a task has it: 15 bytes at most, filled up with zeros.
    #[must_use]
    pub fn comm(&self) -> [u8; 16] {
        let mut comm = [0; 16];
        for (to, from) in comm.iter_mut().take(15).zip(self.name().bytes()) {
            *to = from;
        }
        comm
    }
}

/// Looks where the files are now.
#[must_use]
pub fn resolve(paths: &[PathBuf]) -> Vec<Watched> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    paths.iter().map(|path| Watched { path: path.clone(), file: file_at(path, &mounts) }).collect()
}

fn file_at(path: &Path, mounts: &str) -> Option<File> {
    let open = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path).ok()?;
    let inode = open.metadata().ok().filter(std::fs::Metadata::is_file)?.ino();
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", open.as_raw_fd())).ok()?;
    let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim();
    Some(File { inode, device: device_of(mount, mounts)?, pad: 0 })
}

/// The device of a mount in the kernel's form.
fn device_of(mount: &str, mounts: &str) -> Option<u32> {
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        if words.next()? != mount {
            return None;
        }
        let (major, minor) = words.nth(1)?.split_once(':')?;
        kernel_device(major.parse().ok()?, minor.parse().ok()?)
    })
}

/// A device number in the kernel's form.
#[must_use]
pub fn kernel_device(major: u32, minor: u32) -> Option<u32> {
    (major < 1 << 12 && minor < 1 << 20).then_some((major << 20) | minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_the_mounts() {
        let mounts = "29 1 254:1 / / rw - ext4 /dev/vda1 rw\n31 29 0:27 /sub /mnt rw - overlay o rw\n";
        assert_eq!(device_of("29", mounts), Some((254 << 20) | 1));
        assert_eq!(device_of("31", mounts), Some(27));
        assert_eq!(device_of("3", mounts), None);
    }

    #[test]
    fn links_are_followed_and_folders_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link, none) =
            (folder.path().join("real"), folder.path().join("link"), folder.path().join("none"));
        std::fs::write(&real, "").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let found = resolve(&[real.clone(), link, none, folder.path().to_path_buf()]);
        assert_eq!(found[0].file.unwrap().inode, std::fs::metadata(&real).unwrap().ino());
        assert_eq!(found[1].file, found[0].file);
        assert_eq!((found[2].file, found[3].file), (None, None));
    }

    #[test]
    fn names_are_cut_as_the_kernel_cuts_them() {
        let one = Watched { path: "/usr/lib/a-name-that-is-long".into(), file: None };
        assert_eq!(&one.comm(), b"a-name-that-is-\0");
    }
}
