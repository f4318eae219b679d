//! The pins of gate, filter and observer: what they hold, compared with what they held.
//!
//! Invariants: a program is the same when its code is, over the same maps, so that loading the same object again is no
//! tampering; those of gate and observer are held open and put back; links of the filter are never held, or they could
//! not be let go.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use portcullis_common::abi::PIN_DIR;
use portcullis_common::filter::FILTER_DIR;
use portcullis_common::observer::OBSERVER_DIR;

use super::Kind;
use super::book::Key;
use crate::kernel::objects::{self, Code, Link, Object, On};

/// How something is mended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heal {
    /// Pin again what is held open.
    Pin(PathBuf),
    /// Mode and owner.
    Mode(PathBuf),
    /// The filter attaches itself again.
    Filter,
}

/// Something that is wrong, and where to look who did it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What, in words.
    pub detail: String,
    /// The file, pin or folder it shows in.
    pub path: String,
    /// Who did it, where that is known without a touch.
    pub who: Option<String>,
    /// How to mend it.
    pub heal: Option<Heal>,
}

impl Found {
    /// Without a way to mend it.
    pub fn new(detail: impl Into<String>, path: impl Into<String>) -> Self {
        Self { detail: detail.into(), path: path.into(), who: None, heal: None }
    }

    fn mended_by(self, heal: Option<Heal>) -> Self {
        Self { heal, ..self }
    }
}

/// What a pin held.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Held {
    Map(u32),
    Program(Code),
    Link { code: Option<Code>, on: On },
}

/// A folder of pins.
pub struct Pins {
    folder: PathBuf,
    /// Whether they are held open, to be put back.
    keeps: bool,
    inode: Option<u64>,
    held: BTreeMap<PathBuf, Held>,
    open: BTreeMap<PathBuf, Object>,
}

fn inode(folder: &Path) -> Option<u64> {
    std::fs::metadata(folder).ok().map(|data| data.ino())
}

/// The pins in a folder; names on their way to their place are none.
fn names(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| !path.to_string_lossy().ends_with("_next")).collect()
}

/// What is pinned there.
fn held(path: &Path) -> Option<(Object, Held)> {
    let object = Object::pinned(path).ok()?;
    let held = match object.kind().ok()? {
        objects::Kind::Map { id } => Held::Map(id),
        objects::Kind::Program(code) => Held::Program(code),
        objects::Kind::Link(Link { program, on, .. }) => {
            Held::Link { code: objects::code_of(program).ok(), on }
        }
    };
    Some((object, held))
}

impl Pins {
    /// Those of the gate.
    pub fn gate() -> Self {
        Self::new(Path::new(PIN_DIR), true)
    }

    /// Those of the filter.
    pub fn filter() -> Self {
        Self::new(Path::new(FILTER_DIR), false)
    }

    /// Those of the observer.
    pub fn observer() -> Self {
        Self::new(Path::new(OBSERVER_DIR), true)
    }

    fn new(folder: &Path, keeps: bool) -> Self {
        let (held, open) = (BTreeMap::new(), BTreeMap::new());
        let mut pins = Self { folder: folder.to_owned(), keeps, inode: None, held, open };
        pins.expect();
        pins
    }

    /// They are as they should be.
    pub fn expect(&mut self) {
        self.inode = inode(&self.folder);
        self.held.clear();
        self.open.clear();
        for path in names(&self.folder) {
            if let Some((object, held)) = held(&path) {
                self.keep(path, object, held);
            }
        }
        self.keep_known_maps();
    }

    /// They are as they should be the next time they are looked at.
    pub fn expect_later(&mut self) {
        self.inode = None;
    }

    /// Only maps that are pinned tell one program's maps from another's: the rest is made at each load.
    fn keep_known_maps(&mut self) {
        let pinned = self.pinned_maps();
        for held in self.held.values_mut() {
            if let Held::Program(code) | Held::Link { code: Some(code), .. } = held {
                code.maps.retain(|id| pinned.contains(id));
            }
        }
    }

    fn pinned_maps(&self) -> BTreeSet<u32> {
        let maps = self.held.values().filter_map(|held| match held {
            Held::Map(id) => Some(*id),
            _ => None,
        });
        maps.collect()
    }

    fn keep(&mut self, path: PathBuf, object: Object, held: Held) {
        if self.keeps {
            self.open.insert(path.clone(), object);
        }
        self.held.insert(path, held);
    }

    /// What is not as it was. `wanted`: whether the configuration wants what they are of.
    pub fn look(&mut self, wanted: bool, wrong: &mut BTreeMap<Key, Found>) {
        let now = inode(&self.folder);
        let folder = self.folder.display().to_string();
        let whole = now.is_none() || (!self.held.is_empty() && names(&self.folder).is_empty());
        if whole {
            // The way out: nothing of it is held any longer, or what hangs on a link would go on.
            self.open.clear();
            if !self.held.is_empty() && wanted {
                let detail =
                    format!("all pins in {folder} are gone: taken away as a whole, nothing is put back");
                wrong.insert((Kind::PinGone, folder.clone()), Found::new(detail, folder));
            }
            return;
        }
        if now != self.inode {
            // Made anew by gate or filter.
            return self.expect();
        }
        let gone = self.held.keys().filter(|path| !path.exists()).count();
        let mends = gone * 2 < self.held.len();
        let interfaces = crate::filter::links::list().ok();
        let pinned = self.pinned_maps();
        let mut ended = Vec::new();
        let mut same = Vec::new();
        for (path, before) in &self.held {
            let shown = path.display().to_string();
            let index = index_of(path);
            let here = index.is_none_or(|index| {
                interfaces.as_ref().is_none_or(|all| all.iter().any(|other| other.index == index))
            });
            if !here {
                // Its interface is gone: what hung on it went with it.
                ended.push(path.clone());
                continue;
            }
            let heal = if self.keeps {
                self.open.contains_key(path).then(|| Heal::Pin(path.clone()))
            } else {
                index.map(|_| Heal::Filter)
            };
            let heal = heal.filter(|_| mends);
            let Some((object, mut found)) = held(path) else {
                let (kind, what) = if path.exists() {
                    (Kind::PinReplaced, "holds something that is not of Portcullis")
                } else {
                    (Kind::PinGone, "was removed")
                };
                let found = Found::new(format!("the pin {shown} {what}"), shown.clone());
                wrong.insert((kind, shown), found.mended_by(heal));
                continue;
            };
            if let Held::Program(code) | Held::Link { code: Some(code), .. } = &mut found {
                code.maps.retain(|id| pinned.contains(id));
            }
            if let Held::Link { on: On::Interface(0), .. } = found {
                let detail = format!("the link {shown} hangs on no interface any more");
                wrong.insert((Kind::Detached, shown.clone()), Found::new(detail, shown).mended_by(heal));
                continue;
            }
            if found != *before && !cfg!(feature = "mutation-any-pin") {
                let detail = format!("the pin {shown} holds another object than it did");
                wrong.insert((Kind::PinReplaced, shown.clone()), Found::new(detail, shown).mended_by(heal));
                continue;
            }
            same.push((path.clone(), object));
            if let Ok(data) = std::fs::symlink_metadata(path)
                && (data.mode() & 0o077 != 0 || data.uid() != 0)
            {
                let detail = format!(
                    "the pin {shown} has mode {:04o} and uid {}: others than root can reach it",
                    data.mode() & 0o7777,
                    data.uid()
                );
                let heal = Some(Heal::Mode(path.clone()));
                wrong.insert((Kind::PinMode, shown.clone()), Found::new(detail, shown).mended_by(heal));
            }
        }
        for path in ended {
            self.held.remove(&path);
        }
        if self.keeps {
            // Loaded again: the older one is not kept alive.
            self.open.extend(same);
        }
        self.adopt_new();
    }

    /// Pins that were not there before: interfaces that came.
    fn adopt_new(&mut self) {
        for path in names(&self.folder) {
            if !self.held.contains_key(&path)
                && let Some((object, held)) = held(&path)
            {
                self.keep(path, object, held);
                self.keep_known_maps();
            }
        }
    }

    /// Puts a pin back.
    ///
    /// # Errors
    /// The kernel's words.
    pub fn put_back(&self, path: &Path) -> std::io::Result<()> {
        let object = self.open.get(path).ok_or(std::io::ErrorKind::NotFound)?;
        let fresh = path.with_file_name("mended_next");
        let _ = std::fs::remove_file(&fresh);
        object.pin(&fresh)?;
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&fresh, path)
    }
}

/// Mode and owner of a pin as they must be.
///
/// # Errors
/// The system's words.
pub fn tighten(path: &Path) -> std::io::Result<()> {
    std::os::unix::fs::lchown(path, Some(0), Some(0))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}

/// The interface that a pin of the filter is for.
fn index_of(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?;
    let (kind, index) = name.rsplit_once('-')?;
    ["tc", "xdp", "skb", "clsact"].contains(&kind).then(|| index.parse().ok())?
}
