//! Takes over from the gate of the ABI version before, while logons go on.
//!
//! 1. The new gate is pinned frozen: it answers MOVED, and the module asks the old one.
//! 2. The old gate is frozen, and every call that began before is waited for: its counts stand still.
//! 3. Counts, guesses under way and counters are copied; the new gate is thawed, in one store.
//! 4. The old gate stays pinned, and frozen, until an agent serves the programs that still carry the old module.
//!
//! Invariants: never two gates that answer something else than MOVED; nothing is copied before the old gate stands still,
//! nothing after the new one was thawed; each step can be done again, so whoever is interrupted goes on where he was.

use std::fs;
use std::io;
use std::path::Path;

use portcullis_common::abi::{self, Settings, Version, map};

use super::sources::SourceTables;
use super::tables::{Slice, Tables};
use super::{KernelError, bpf, file, pins};

/// MEMBARRIER_CMD_GLOBAL (membarrier(2)): returns when every processor has been outside of RCU sections, in which all
/// BPF programs run.
const MEMBARRIER_CMD_GLOBAL: libc::c_long = 1;

/// The older version whose counts are to be taken over, if there is one.
pub(super) fn predecessor() -> Option<&'static Version> {
    let [_, older @ ..] = &abi::VERSIONS;
    older.iter().find(|version| fs::symlink_metadata(Path::new(version.folder).join(map::SETTINGS)).is_ok())
}

/// Whether `path` is the folder of a version this one takes over from.
pub(super) fn is_predecessor(path: &Path) -> bool {
    let [_, older @ ..] = &abi::VERSIONS;
    older.iter().any(|version| Path::new(version.folder) == path)
}

/// Whether the gate over these tables has taken its place: configured, and not frozen.
fn is_live(settings: &Settings) -> bool {
    settings.generation != 0 && settings.frozen == 0
}

/// Step 1: settings and configuration as the old gate has them, frozen. Before the new gate is pinned.
pub(super) fn seal(old: &Version) -> Result<(), KernelError> {
    let mut tables = Tables::open()?;
    if tables.settings()?.generation != 0 {
        return Ok(());
    }
    let before = open(old)?;
    let mut settings = before.settings()?;
    if settings.generation == 0 {
        // It was never told a rule, so it has counted nothing.
        return tables.ensure_settings();
    }
    tables.copy_config(&before)?;
    settings.frozen = 1;
    tables.set_settings(settings)
}

/// Steps 2 and 3. Returns whether there was something left to do.
pub(super) fn take_over(old: &Version) -> Result<bool, KernelError> {
    let mut tables = Tables::open()?;
    let mut settings = tables.settings()?;
    if is_live(&settings) {
        return Ok(false);
    }
    let mut before = open(old)?;
    // Where the kernel cannot tell, the old gate goes on.
    calls_have_ended()?;
    let mut olds = before.settings()?;
    olds.frozen = 1;
    before.set_settings(olds)?;
    calls_have_ended()?;
    tables.copy_counts(&before)?;
    SourceTables::open()?.take_over(&SourceTables::open_in(Path::new(old.folder))?)?;
    if before.settings()?.frozen == 0 {
        return Err(KernelError::Gate {
            what: format!(
                "that of ABI {} was thawed while its counts were copied: stop the other portcullisd, then start again",
                old.abi
            ),
        });
    }
    settings.frozen = 0;
    tables.set_settings(settings)?;
    // Its deaths are this gate's now.
    for link in old.exit_links {
        pins::remove_left_over(Path::new(link))?;
    }
    Ok(true)
}

/// Takes away the pins of older versions once this one's gate has their counts. Returns how many versions went.
///
/// # Errors
/// The tables cannot be read or the pins not be removed.
pub fn retire_predecessors() -> Result<usize, KernelError> {
    let [_, older @ ..] = &abi::VERSIONS;
    if older.is_empty() || !is_live(&Tables::open()?.settings()?) {
        return Ok(0);
    }
    let mut gone = 0;
    for version in older {
        match fs::remove_dir_all(version.folder) {
            Ok(()) => gone += 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(file("take away the old pins in", version.folder)(error)),
        }
    }
    Ok(gone)
}

/// The old gate's tables. They are laid out as ours are, which is checked.
fn open(old: &Version) -> Result<Tables, KernelError> {
    let folder = Path::new(old.folder);
    pins::MAPS.check_in(folder)?;
    Tables::open_in(folder)
}

/// Returns when no program runs that began before this call.
fn calls_have_ended() -> Result<(), KernelError> {
    // SAFETY: integers only.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(bpf("wait for calls of the old gate, which goes on")(io::Error::last_os_error()))
    }
}

impl Tables {
    /// Copies classes and members of `before`.
    fn copy_config(&mut self, before: &Self) -> Result<(), KernelError> {
        for class in 0..4 * abi::MAX_CLASSES {
            self.set_class(class, before.class(class)?)?;
        }
        for (bits, place) in before.all_places()? {
            self.set_place(bits, place)?;
        }
        before.each_member(|key, class| self.set_member(key, class))
    }

    /// Copies rows, guesses under way and counters of `before`, which stands still. What is here already stays: it was
    /// copied before, and may have gone on since.
    fn copy_counts(&mut self, before: &Self) -> Result<(), KernelError> {
        before.each_task(|task, entry| self.add_task(task, entry))?;
        for slice in [Slice::Accounts, Slice::Unknown, Slice::Pairs] {
            let mut rows = Vec::new();
            before.each_row(slice, |row| rows.push(row))?;
            for row in rows {
                self.add_row(row)?;
            }
        }
        self.copy_stats(before)
    }
}
