//! Files that must stay as they are: the module, the configuration, the store.
//!
//! Invariants: a file is read again only when its inode, size or times have changed; contents are compared by a keyed hash
//! whose key never leaves this process.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use siphasher::sip128::{Hasher128, SipHasher24};

use super::Kind;
use super::book::Key;
use super::pins::Found;

/// Largest file hashed.
const LARGEST: u64 = 64 << 20;

/// What tells a file that was written from one that was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

fn stamp(path: &Path) -> Option<Stamp> {
    let data = std::fs::metadata(path).ok()?;
    let changed = (data.ctime(), data.ctime_nsec());
    Some(Stamp { device: data.dev(), inode: data.ino(), size: data.size(), changed })
}

/// A file whose content is known.
pub struct Content {
    path: PathBuf,
    kind: Kind,
    what: &'static str,
    key: [u8; 16],
    wanted: Option<u128>,
    stamp: Option<Stamp>,
    now: Option<u128>,
}

impl Content {
    /// As it is now. `what`: what it is, for people.
    pub fn new(path: PathBuf, kind: Kind, what: &'static str) -> Self {
        let mut key = [0; 16];
        // Without random bytes two contents that are meant to collide may: they must be known beforehand for that.
        if let Err(error) = getrandom::fill(&mut key) {
            log::warn!("no random key for the hashes of watched files: {error}");
        }
        let mut content = Self { path, kind, what, key, wanted: None, stamp: None, now: None };
        content.expect();
        content
    }

    /// It is as it should be.
    pub fn expect(&mut self) {
        self.stamp = stamp(&self.path);
        self.now = self.hash();
        self.wanted = self.now;
    }

    fn hash(&self) -> Option<u128> {
        let mut file = std::fs::File::open(&self.path).ok()?.take(LARGEST);
        let mut hasher = SipHasher24::new_with_key(&self.key);
        let mut bytes = [0; 8192];
        loop {
            match file.read(&mut bytes).ok()? {
                0 => return Some(hasher.finish128().as_u128()),
                length => hasher.write(bytes.get(..length)?),
            }
        }
    }

    /// Whether it is another now.
    pub fn look(&mut self, wrong: &mut BTreeMap<Key, Found>) {
        let stamp = stamp(&self.path);
        if stamp != self.stamp {
            self.stamp = stamp;
            self.now = self.hash();
        }
        if self.now == self.wanted {
            return;
        }
        let name = self.path.display().to_string();
        let name = crate::text::escape(name.as_bytes());
        let detail = match self.now {
            None => format!("{name} ({}) is gone or cannot be read", self.what),
            Some(_) => format!("{name} ({}) is not what it was", self.what),
        };
        wrong.insert((self.kind, name.clone()), Found::new(detail, name));
    }
}

/// The store: the same file as long as it is open, and written by us alone.
pub struct StoreFile {
    path: PathBuf,
    inode: Option<(u64, u64)>,
}

impl StoreFile {
    /// As it is now.
    pub fn new(path: PathBuf) -> Self {
        let inode = inode(&path);
        Self { path, inode }
    }

    /// The folder that it is in.
    pub fn folder(&self) -> Option<&Path> {
        self.path.parent()
    }

    /// Whether a file of that name in its folder is the store or one that SQLite keeps beside it.
    pub fn is_its(&self, name: &[u8]) -> bool {
        let own = self.path.file_name().unwrap_or_default().as_encoded_bytes();
        name.strip_prefix(own).is_some_and(|rest| [&b""[..], b"-wal", b"-journal"].contains(&rest))
    }

    /// Says once when it was replaced or removed.
    pub fn replaced(&mut self) -> Option<(Key, Found)> {
        let now = inode(&self.path);
        if now == self.inode {
            return None;
        }
        // Made when it was first needed.
        let was = std::mem::replace(&mut self.inode, now);
        was?;
        let name = self.name();
        let what = if now.is_some() { "was replaced" } else { "was removed" };
        Some(((Kind::StoreChanged, format!("{name} {what}")), Found::new(format!("{name} {what}"), name)))
    }

    /// Its path for people.
    pub fn name(&self) -> String {
        crate::text::escape(self.path.as_os_str().as_encoded_bytes())
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|data| (data.dev(), data.ino()))
}

/// Where libpam looks for modules on this host: beside pam_unix.so.
pub fn module_folders() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for base in ["/lib", "/usr/lib", "/lib64", "/usr/lib64"] {
        let below = std::fs::read_dir(base).into_iter().flatten().flatten();
        let triples = below.filter(|entry| entry.file_name().to_string_lossy().contains("-linux-"));
        folders.push(PathBuf::from(base).join("security"));
        folders.extend(triples.map(|entry| entry.path().join("security")));
    }
    // /lib is /usr/lib on most hosts.
    let mut real: Vec<PathBuf> = folders
        .into_iter()
        .filter(|folder| folder.join("pam_unix.so").exists())
        .filter_map(|folder| folder.canonicalize().ok())
        .collect();
    real.sort();
    real.dedup();
    real
}
