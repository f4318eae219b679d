//! One by one, what an older gate hands over: see `kernel::upgrade`.
//!
//! Invariant: a row or task that is there already is never written over.

use aya::Pod;
use aya::maps::{HashMap, MapData, MapError};
use portcullis_common::abi::{self, Entry, Settings, map};
use portcullis_common::ledger::Rule;

use super::{TableRow, Tables, keys, table};
use crate::kernel::KernelError;
use crate::kernel::load::absent;

/// Make an element, change none.
const BPF_NOEXIST: u64 = 1;

impl Tables {
    /// Writes the settings, in one store.
    pub(in crate::kernel) fn set_settings(&mut self, settings: Settings) -> Result<(), KernelError> {
        self.settings.set(0, settings, 0).map_err(table("write", map::SETTINGS))
    }

    /// The rule at an index of `CLASSES`.
    pub(in crate::kernel) fn class(&self, index: u32) -> Result<Rule, KernelError> {
        self.classes.get(&index, 0).map_err(table("read", map::CLASSES))
    }

    /// Writes the rule at an index of `CLASSES`.
    pub(in crate::kernel) fn set_class(&mut self, index: u32, rule: Rule) -> Result<(), KernelError> {
        self.classes.set(index, rule, 0).map_err(table("write", map::CLASSES))
    }

    /// Shows key and class of each member.
    pub(in crate::kernel) fn each_member(
        &self,
        mut see: impl FnMut(u64, u32) -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        for (key, class) in all(&self.members, abi::MAX_MEMBERS, map::MEMBERS)? {
            see(key, class)?;
        }
        Ok(())
    }

    /// Writes one member.
    pub(in crate::kernel) fn set_member(&mut self, key: u64, class: u32) -> Result<(), KernelError> {
        self.members.insert(key, class, 0).map_err(table("write", map::MEMBERS))
    }

    /// Shows each guess under way, by its task.
    pub(in crate::kernel) fn each_task(
        &self,
        mut see: impl FnMut(u64, Entry) -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        for (task, entry) in all(&self.tasks, abi::MAX_TASKS, map::TASKS)? {
            see(task, entry)?;
        }
        Ok(())
    }

    /// Adds a guess under way.
    pub(in crate::kernel) fn add_task(&mut self, task: u64, entry: Entry) -> Result<(), KernelError> {
        add(&mut self.tasks, task, entry, map::TASKS)
    }

    /// Adds a row.
    pub(in crate::kernel) fn add_row(&mut self, row: TableRow) -> Result<(), KernelError> {
        let (rows, name) = if row.account & abi::UNKNOWN != 0 {
            (&mut self.unknown, map::UNKNOWN)
        } else if row.is_pair() {
            (&mut self.pairs, map::PAIRS)
        } else {
            (&mut self.accounts, map::ACCOUNTS)
        };
        add(rows, row.account, row.row, name)
    }

    /// Sets the counters to those of `before`.
    pub(in crate::kernel) fn copy_stats(&mut self, before: &Self) -> Result<(), KernelError> {
        for index in 0..abi::stat::ENTRIES {
            let count = before.stats.get(&index, 0).map_err(table("read", map::STATS))?;
            self.stats.set(index, count, 0).map_err(table("write", map::STATS))?;
        }
        Ok(())
    }
}

/// Every element there is; one that goes while they are collected is left out.
fn all<V: Pod>(
    map: &HashMap<MapData, u64, V>,
    limit: u32,
    name: &'static str,
) -> Result<Vec<(u64, V)>, KernelError> {
    let mut found = Vec::new();
    for key in keys(map, limit).map_err(table("read", name))? {
        match map.get(&key, 0) {
            Ok(value) => found.push((key, value)),
            Err(error) if absent(&error) => {}
            Err(error) => return Err(table("read", name)(error)),
        }
    }
    Ok(found)
}

/// Makes an element, unless there is one.
fn add<V: Pod>(
    map: &mut HashMap<MapData, u64, V>,
    key: u64,
    value: V,
    name: &'static str,
) -> Result<(), KernelError> {
    match map.insert(key, value, BPF_NOEXIST) {
        Err(error) if !exists(&error) => Err(table("write", name)(error)),
        _ => Ok(()),
    }
}

fn exists(error: &MapError) -> bool {
    matches!(error, MapError::SyscallError(error) if error.io_error.raw_os_error() == Some(libc::EEXIST))
}
