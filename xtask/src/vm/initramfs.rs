//! Writes an initramfs: a cpio archive ("newc"), not compressed: it never leaves this machine.

use crate::error::{Error, Result};
use crate::run;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
/// Marks the end.
const TRAILER: &str = "TRAILER!!!";

/// An archive under way.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
    entries: u32,
}

impl Archive {
    /// A file of the host at the absolute path `to`.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn file(&mut self, from: &Path, to: &str) -> Result<()> {
        let content = std::fs::read(from).map_err(Error::file("read", from))?;
        self.content(to, &content);
        Ok(())
    }

    /// A file with this content at the absolute path `to`.
    pub fn content(&mut self, to: &str, content: &[u8]) {
        if let Some((folder, _)) = to.rsplit_once('/') {
            self.folder(folder);
        }
        self.entry(to, PROGRAM, content);
    }

    /// A folder at the absolute path `to`, with those above it.
    pub fn folder(&mut self, to: &str) {
        if to.is_empty() || self.folders.contains(to) {
            return;
        }
        if let Some((above, _)) = to.rsplit_once('/') {
            self.folder(above);
        }
        self.folders.insert(to.to_owned());
        self.entry(to, FOLDER, &[]);
    }

    /// A program of the host, with the libraries that it loads where it looks for them.
    ///
    /// # Errors
    /// It cannot be read, or ldd does not know what it loads.
    pub fn program(&mut self, from: &Path, to: &str) -> Result<()> {
        self.file(from, to)?;
        let mut ask = Command::new("ldd");
        ask.arg(from);
        let answer = run::quietly(&mut ask, "ldd (package libc-bin) must tell what a program loads")?;
        for library in answer.split_whitespace().filter(|word| word.starts_with('/')) {
            self.file(Path::new(library), library)?;
        }
        Ok(())
    }

    /// The finished archive.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.entry(&format!("/{TRAILER}"), 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        let name = path.trim_start_matches('/');
        self.entries += 1;
        let mut head = String::from("070701");
        // inode, mode, uid, gid, links, time, size, device (2), its own device (2), length of the name, checksum.
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        for number in [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0] {
            // Writing to a string cannot fail.
            let _ = write!(head, "{number:08x}");
        }
        self.bytes.extend(head.bytes());
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_its_folders_before_its_files_and_an_end() {
        let mut archive = Archive::default();
        archive.content("/a/b/c", b"text!");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        let places: Vec<_> =
            ["a\0", "a/b\0", "a/b/c\0", "text!", TRAILER].iter().map(|part| text.find(part)).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}");
        assert_eq!(text.matches("070701").count(), 4);
    }
}
