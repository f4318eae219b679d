//! The files of a system: this one's, or one below a folder.
//!
//! Invariants: below a folder nothing outside it is read, absolute symbolic links included; no file is read beyond a
//! bound, and none that would block.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

/// Largest file looked at.
const LARGEST: u64 = 1 << 20;

/// A root folder.
#[derive(Clone, Debug)]
pub struct Root {
    path: PathBuf,
}

impl Root {
    /// The root at this folder.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is the system that runs.
    #[must_use]
    pub fn is_this(&self) -> bool {
        self.path == Path::new("/")
    }

    fn open(&self, path: &str, flags: OFlag) -> io::Result<OwnedFd> {
        let root = open(&self.path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_IN_ROOT);
        Ok(openat2(&root, path.trim_start_matches('/'), how)?)
    }

    /// The bytes of a regular file.
    ///
    /// # Errors
    /// It cannot be opened or read, or is no regular file.
    pub fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        let file = File::from(self.open(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no regular file"));
        }
        let mut bytes = Vec::new();
        file.take(LARGEST).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// The text of a regular file; other bytes than text are replaced.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn text(&self, path: &str) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&self.read(path)?).into_owned())
    }

    /// Metadata of what is there, links followed within the root.
    ///
    /// # Errors
    /// Nothing is there.
    pub fn metadata(&self, path: &str) -> io::Result<std::fs::Metadata> {
        File::from(self.open(path, OFlag::O_PATH)?).metadata()
    }

    /// Names in a folder, sorted; none where there is no such folder. Names that are no text are left out.
    #[must_use]
    pub fn list(&self, path: &str) -> Vec<String> {
        let Ok(folder) = self.open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY) else {
            return Vec::new();
        };
        let entries = std::fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd()));
        let names =
            entries.into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        std::fs::create_dir_all(folder.path().join("etc/pam.d")).unwrap();
        std::fs::write(folder.path().join("etc/real"), "inside").unwrap();
        for (target, name) in [("/etc/real", "a"), ("../../../../../../etc/real", "b"), ("/etc/passwd", "c")]
        {
            std::os::unix::fs::symlink(target, folder.path().join("etc/pam.d").join(name)).unwrap();
        }
        assert_eq!(root.read("/etc/pam.d/a").unwrap(), b"inside");
        assert_eq!(root.read("/etc/pam.d/b").unwrap(), b"inside");
        assert_eq!(root.read("/etc/pam.d/c").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(root.list("/etc/pam.d"), ["a", "b", "c"]);
        assert!(root.metadata("/etc/pam.d/a").unwrap().is_file() && root.metadata("/etc/pam.d/c").is_err());
        assert!(root.read("/etc/pam.d").is_err() && root.list("/nowhere").is_empty());
    }
}
