//! The pinned maps of an object: their folder, how each must look, and where it is pinned.
//!
//! Invariants: a folder of pins is 0700 and its maps are 0600; maps that are pinned already are used again only when they
//! have this version's shape, because aya would take them as they are.

use std::fs::{self, DirBuilder, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use aya::EbpfLoader;
use aya::maps::{MapInfo, MapType};

use super::{KernelError, file};

/// A map that an object needs, as this version makes it; sizes in bytes.
pub struct Shape {
    /// Name of map and pin.
    pub name: &'static str,
    kind: MapType,
    key: u32,
    value: u32,
    entries: u32,
}

impl Shape {
    /// A map with keys and values.
    pub const fn new(name: &'static str, kind: MapType, key: u32, value: u32, entries: u32) -> Self {
        Self { name, kind, key, value, entries }
    }

    /// An array.
    pub const fn array(name: &'static str, value: u32, entries: u32) -> Self {
        Self::new(name, MapType::Array, 4, value, entries)
    }

    /// A ring buffer of `bytes`.
    pub const fn ring(name: &'static str, bytes: u32) -> Self {
        Self::new(name, MapType::RingBuf, 0, 0, bytes)
    }
}

/// Bytes of a key or value as the kernel tells them.
pub const fn bytes<T>() -> u32 {
    size_of::<T>() as u32
}

/// The pinned maps of an object.
pub struct Maps {
    /// Folder of their pins.
    pub folder: &'static str,
    /// Every one of them.
    pub shapes: &'static [Shape],
    /// What becomes of their contents when an administrator removes the folder.
    pub removed: &'static str,
}

impl Maps {
    /// Makes the folder and brings its mode to 0700, after [`super::prepare`]; refuses pins of another shape.
    ///
    /// # Errors
    /// See [`Maps::check`]; the system's words.
    pub fn prepare(&self) -> Result<(), KernelError> {
        let folder = Path::new(self.folder);
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(file("make the folder", folder)(error));
            }
            _ => {}
        }
        // bpffs may ignore the mode given to mkdir(2), and an older folder may have been opened up.
        fs::set_permissions(folder, Permissions::from_mode(0o700))
            .map_err(file("set the mode 0700 of", folder))?;
        self.check()
    }

    /// Whether every one of them is pinned.
    #[must_use]
    pub fn pinned(&self) -> bool {
        self.shapes.iter().all(|shape| Path::new(self.folder).join(shape.name).exists())
    }

    /// Refuses pins that have another shape.
    ///
    /// # Errors
    /// [`KernelError::WrongPin`].
    pub fn check(&self) -> Result<(), KernelError> {
        self.check_in(Path::new(self.folder))
    }

    /// The same for another folder than its own.
    ///
    /// # Errors
    /// [`KernelError::WrongPin`].
    pub fn check_in(&self, folder: &Path) -> Result<(), KernelError> {
        for shape in self.shapes {
            let path = folder.join(shape.name);
            if fs::symlink_metadata(&path).is_err() {
                continue;
            }
            let wrong = |what: String| KernelError::WrongPin {
                path: path.clone(),
                what,
                folder: folder.to_owned(),
                removed: self.removed,
            };
            let info = MapInfo::from_pin(&path).map_err(|error| wrong(format!("not a map: {error}")))?;
            let kind = info.map_type().map_err(|error| wrong(error.to_string()))?;
            let found = (kind, info.key_size(), info.value_size(), info.max_entries());
            let wanted = (shape.kind, shape.key, shape.value, shape.entries);
            if found != wanted {
                return Err(wrong(format!(
                    "{:?}, key {} bytes, value {} bytes, {} entries; wanted {:?}, {}, {}, {}",
                    found.0, found.1, found.2, found.3, wanted.0, wanted.1, wanted.2, wanted.3
                )));
            }
        }
        Ok(())
    }

    /// Makes the loader use the pins, or pin what it makes.
    pub fn pin(&self, loader: &mut EbpfLoader<'_>) {
        for shape in self.shapes {
            loader.map_pin_path(shape.name, Path::new(self.folder).join(shape.name));
        }
    }

    /// Brings the pins' modes to 0600.
    ///
    /// # Errors
    /// The system's words.
    pub fn tighten(&self) -> Result<(), KernelError> {
        for shape in self.shapes {
            let path = Path::new(self.folder).join(shape.name);
            fs::set_permissions(&path, Permissions::from_mode(0o600))
                .map_err(file("set the mode 0600 of", &path))?;
        }
        Ok(())
    }
}
