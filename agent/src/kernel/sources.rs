//! The gate's tables of sources: what they did is read, the rule and refused local users are written.
//!
//! Invariants: buckets are read under their spin lock and never changed here, but for an older gate's that are handed
//! over while nobody is answered.

use std::path::Path;

use aya::maps::{Array, HashMap, MapData, MapType};
use portcullis_common::abi::{self, map};
use portcullis_common::sources::{BUCKETS, Bucket, Source, SourceRule, bucket_of};

use super::load::absent;
use super::tables::{BPF_F_LOCK, Tables, array, hash, keys, table};
use super::{KernelError, Maps, Shape};

/// The table of refused local users, for the observer, which asks it as well.
pub const USERS: Maps = Maps {
    folder: abi::PIN_DIR,
    shapes: &[Shape::new(map::ACTORS, MapType::Hash, 8, 8, abi::MAX_ACTORS)],
    removed: "counts and locks in the gate are lost, the store restores locks",
};

/// Open handles of the pinned tables of sources.
pub struct SourceTables {
    buckets: Array<MapData, Bucket>,
    rule: Array<MapData, SourceRule>,
    actors: HashMap<MapData, u64, u64>,
}

impl SourceTables {
    /// Opens the pinned tables.
    ///
    /// # Errors
    /// [`KernelError::NoGate`] when nothing is pinned, else what the kernel says.
    pub fn open() -> Result<Self, KernelError> {
        Self::open_in(Path::new(abi::PIN_DIR))
    }

    /// Opens the tables pinned in a version's folder.
    pub(super) fn open_in(folder: &Path) -> Result<Self, KernelError> {
        Ok(Self {
            buckets: array(folder, map::SOURCES)?,
            rule: array(folder, map::SOURCE_RULE)?,
            actors: hash(folder, map::ACTORS)?,
        })
    }

    /// Writes the rule of all sources.
    ///
    /// # Errors
    /// The table cannot be written.
    pub fn set_rule(&mut self, rule: SourceRule) -> Result<(), KernelError> {
        self.rule.set(0, rule, 0).map_err(table("write", map::SOURCE_RULE))
    }

    /// The rule of all sources.
    ///
    /// # Errors
    /// The table cannot be read.
    pub fn rule(&self) -> Result<SourceRule, KernelError> {
        let rule = self.rule.get(&0, 0).map_err(table("read", map::SOURCE_RULE))?;
        Ok(if rule.deny == 0 { SourceRule::DEFAULT } else { rule })
    }

    /// What is known of a source.
    ///
    /// # Errors
    /// The table cannot be read.
    pub fn source(&self, tables: &Tables, kind: u32, id: u64) -> Result<Option<Source>, KernelError> {
        let index = bucket_of(tables.settings()?.hash_key, kind, id);
        let bucket = self.bucket(index)?;
        Ok(bucket.ways.into_iter().find(|way| way.kind == kind && way.id == id))
    }

    /// Shows each source that is known.
    ///
    /// # Errors
    /// The table cannot be read.
    pub fn each(&self, mut see: impl FnMut(&Source)) -> Result<(), KernelError> {
        for index in 0..BUCKETS {
            self.bucket(index)?.ways.iter().filter(|way| way.kind != 0).for_each(&mut see);
        }
        Ok(())
    }

    fn bucket(&self, index: u32) -> Result<Bucket, KernelError> {
        self.buckets.get(&index, BPF_F_LOCK).map_err(table("read", map::SOURCES))
    }

    /// Refuses a local user until then (boot time, nanoseconds).
    ///
    /// # Errors
    /// The table is full or cannot be written.
    pub fn refuse(&mut self, uid: u32, until: u64) -> Result<(), KernelError> {
        self.actors.insert(u64::from(uid), until, 0).map_err(table("write", map::ACTORS))
    }

    /// Lets a local user try again.
    ///
    /// # Errors
    /// The table cannot be written.
    pub fn allow(&mut self, uid: u32) -> Result<(), KernelError> {
        match self.actors.remove(&u64::from(uid)) {
            Ok(()) => Ok(()),
            Err(error) if absent(&error) => Ok(()),
            Err(error) => Err(table("clean", map::ACTORS)(error)),
        }
    }

    /// Until when a local user is refused; none: he is not.
    ///
    /// # Errors
    /// The table cannot be read.
    pub fn refused(&self, uid: u32) -> Result<Option<u64>, KernelError> {
        match self.actors.get(&u64::from(uid), 0) {
            Ok(until) => Ok(Some(until)),
            Err(error) if absent(&error) => Ok(None),
            Err(error) => Err(table("read", map::ACTORS)(error)),
        }
    }

    /// Takes over what `before` knows. The keys of the hash are the same, so the buckets are.
    pub(super) fn take_over(&mut self, before: &Self) -> Result<(), KernelError> {
        for index in 0..BUCKETS {
            let bucket = before.bucket(index)?;
            if bucket != Bucket::EMPTY {
                self.buckets.set(index, bucket, BPF_F_LOCK).map_err(table("write", map::SOURCES))?;
            }
        }
        let actors = keys(&before.actors, abi::MAX_ACTORS).map_err(table("read", map::ACTORS))?;
        for uid in actors.into_iter().filter_map(|uid| u32::try_from(uid).ok()) {
            if let Some(until) = before.refused(uid)? {
                self.refuse(uid, until)?;
            }
        }
        self.set_rule(before.rule()?)
    }
}
