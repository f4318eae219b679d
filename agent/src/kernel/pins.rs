//! The folder of the pins: its mode is the whole guard of the gate, so it is made and checked here and nowhere else.
//!
//! Invariants: /sys/fs/bpf/portcullis and the folder of the ABI version are root's and 0700 before anything is pinned in
//! them; a pin is replaced by rename(2), never removed first.

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aya::maps::MapType;
use portcullis_common::abi::{self, map};
use portcullis_common::ledger::Rule;
use portcullis_common::sources::{BUCKETS, Bucket, SourceRule};

use super::{KernelError, Maps, Shape, bytes, file, upgrade};

/// Mount point of bpffs.
const BPFFS: &str = "/sys/fs/bpf";

/// Every pinned map of the gate.
pub(super) const MAPS: Maps = Maps {
    folder: abi::PIN_DIR,
    shapes: &SHAPES,
    removed: "counts and locks in the gate are lost, the store restores locks",
};
const SHAPES: [Shape; 13] = [
    hash(map::ACCOUNTS, bytes::<abi::Row>(), abi::MAX_ACCOUNTS),
    hash(map::UNKNOWN, bytes::<abi::Row>(), abi::MAX_UNKNOWN),
    hash(map::PAIRS, bytes::<abi::Row>(), abi::MAX_PAIRS),
    hash(map::TASKS, bytes::<abi::Entry>(), abi::MAX_TASKS),
    hash(map::MEMBERS, 4, abi::MAX_MEMBERS),
    Shape::new(map::PLACES, MapType::LpmTrie, 4 + bytes::<abi::Place>(), 4, abi::MAX_PLACES),
    Shape::array(map::CLASSES, bytes::<Rule>(), 4 * abi::MAX_CLASSES),
    Shape::array(map::SETTINGS, bytes::<abi::Settings>(), 1),
    Shape::array(map::SOURCES, bytes::<Bucket>(), BUCKETS),
    Shape::array(map::SOURCE_RULE, bytes::<SourceRule>(), 1),
    hash(map::ACTORS, 8, abi::MAX_ACTORS),
    Shape::array(map::STATS, 8, abi::stat::ENTRIES),
    Shape::ring(map::EVENTS, abi::EVENTS_BYTES),
];

const fn hash(name: &'static str, value: u32, entries: u32) -> Shape {
    Shape::new(name, MapType::Hash, 8, value, entries)
}

/// Path of a map's pin.
pub(super) fn pin(name: &str) -> PathBuf {
    Path::new(abi::PIN_DIR).join(name)
}

/// Whether the kernel command line says `portcullis=off`. An unreadable command line says nothing.
pub fn switched_off() -> bool {
    fs::read_to_string("/proc/cmdline")
        .is_ok_and(|line| line.split_whitespace().any(|word| word == abi::OFF_WORD))
}

/// Whether a gate is pinned.
pub fn gate_pinned() -> bool {
    fs::symlink_metadata(abi::PIN_GATE).is_ok()
}

/// Folders of ABI versions beside ours that this one does not take over from.
///
/// # Errors
/// The folder of the pins cannot be read.
pub fn other_versions() -> Result<Vec<PathBuf>, KernelError> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(abi::PIN_ROOT) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(file("read", abi::PIN_ROOT)(error)),
    };
    for entry in entries {
        let path = entry.map_err(file("read", abi::PIN_ROOT))?.path();
        // Filter and observer have versions of their own.
        let others = path
            .file_name()
            .map(|name| name.to_string_lossy())
            .is_some_and(|name| name.starts_with("filter-") || name.starts_with("observer-"));
        if path != Path::new(abi::PIN_DIR) && !others && !upgrade::is_predecessor(&path) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Makes the folders of the pins, or says why nothing can be pinned.
///
/// # Errors
/// Not root, `portcullis=off`, no bpffs, pins of another version, or a folder that cannot be made.
pub fn prepare() -> Result<(), KernelError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(KernelError::NotRoot);
    }
    if switched_off() {
        return Err(KernelError::SwitchedOff);
    }
    let bpffs = nix::sys::statfs::statfs(BPFFS)
        .is_ok_and(|found| found.filesystem_type() == nix::sys::statfs::BPF_FS_MAGIC);
    if !bpffs {
        return Err(KernelError::NoBpffs);
    }
    if let Some(path) = other_versions()?.into_iter().next() {
        return Err(KernelError::OtherVersion { path });
    }
    for folder in [abi::PIN_ROOT, abi::PIN_DIR] {
        match DirBuilder::new().mode(0o700).create(folder) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(file("make the folder", folder)(error)),
        }
        // bpffs may ignore the mode given to mkdir(2), and an older folder may have been opened up.
        fs::set_permissions(folder, Permissions::from_mode(0o700))
            .map_err(file("set the mode 0700 of", folder))?;
    }
    Ok(())
}

/// Puts a fresh pin at `fresh` in the place of `path` in one step.
pub(super) fn replace(fresh: &Path, path: &Path) -> Result<(), KernelError> {
    fs::set_permissions(fresh, Permissions::from_mode(0o600)).map_err(file("set the mode 0600 of", fresh))?;
    fs::rename(fresh, path).map_err(file("put the new pin in place at", path))
}

/// Takes away a pin left by a start that was interrupted.
pub(super) fn remove_left_over(path: &Path) -> Result<(), KernelError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(file("remove the left-over pin", path)(error)),
    }
}

/// Brings the modes of all pins to 0600.
pub(super) fn tighten() -> Result<(), KernelError> {
    for state in pin_states()? {
        if state.mode != 0o600 {
            fs::set_permissions(&state.path, Permissions::from_mode(0o600))
                .map_err(file("set the mode 0600 of", &state.path))?;
        }
    }
    Ok(())
}

/// A pin as it is on the file system.
#[derive(Debug, Clone)]
pub struct PinState {
    /// Where.
    pub path: PathBuf,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
}

/// All pins of this version.
///
/// # Errors
/// The folder cannot be read.
pub fn pin_states() -> Result<Vec<PinState>, KernelError> {
    let mut states = Vec::new();
    for entry in fs::read_dir(abi::PIN_DIR).map_err(file("read", abi::PIN_DIR))? {
        let path = entry.map_err(file("read", abi::PIN_DIR))?.path();
        let data = fs::symlink_metadata(&path).map_err(file("look at", &path))?;
        states.push(PinState { path, mode: data.mode() & 0o7777, uid: data.uid() });
    }
    states.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(states)
}
