//! The pinned tables: the configuration is written here, accounts and counters are read.
//!
//! Invariants: a configuration takes effect in one store (`Settings::generation`) after everything it consists of was
//! written beside the running one; rows are read under their spin lock (`BPF_F_LOCK`) and never changed or deleted here:
//! the gate alone does that. New rows come from an older gate alone ([`handover`]), while nobody is answered.

mod handover;
mod places;

use std::collections::BTreeSet;
use std::path::Path;

use aya::Pod;
use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{Array, HashMap, Map, MapData, MapError};
use portcullis_common::abi::{self, Entry, Place, Row, Settings, map, stat};
use portcullis_common::ledger::{Actor, Rule};
use portcullis_common::pair::PAIR;

use super::KernelError;
use super::load::absent;

/// Read a value under its spin lock.
pub(super) const BPF_F_LOCK: u64 = 4;

/// Open handles of the pinned tables.
pub struct Tables {
    accounts: HashMap<MapData, u64, Row>,
    unknown: HashMap<MapData, u64, Row>,
    pairs: HashMap<MapData, u64, Row>,
    tasks: HashMap<MapData, u64, Entry>,
    members: HashMap<MapData, u64, u32>,
    places: LpmTrie<MapData, Place, u32>,
    classes: Array<MapData, Rule>,
    settings: Array<MapData, Settings>,
    stats: Array<MapData, u64>,
}

/// Which table of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slice {
    /// Accounts of users.
    Accounts,
    /// Names no user has, and their pairs.
    Unknown,
    /// Pairs of users and sources.
    Pairs,
}

/// A row as it was at one moment.
#[derive(Debug, Clone, Copy)]
pub struct TableRow {
    /// Account key; of a pair, its own key.
    pub account: u64,
    /// The row.
    pub row: Row,
}

impl TableRow {
    /// Whether it is a pair's.
    #[must_use]
    pub fn is_pair(&self) -> bool {
        self.account & PAIR != 0
    }

    /// The source of a pair.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor { kind: self.row.source, id: self.row.actor }
    }
}

/// The gate's counters, summed since the gate was first loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events that found no room in the ring buffer.
    pub lost_events: u64,
    /// Rows that could not be made because a table was full.
    pub no_row: u64,
    /// Reservations without an entry in `TASKS`.
    pub no_task: u64,
    /// Rows deleted or reused again and again under a caller.
    pub row_race: u64,
    /// Calls by op.
    pub calls: [u64; 8],
    /// Calls by floor(log2(nanoseconds)).
    pub latency: [u64; 32],
    /// Events of sources that found no place in their bucket.
    pub no_source: u64,
    /// Times a source tripped.
    pub source_trips: u64,
    /// Reports of other programs.
    pub reports: u64,
    /// Nanoseconds of all calls together.
    pub latency_sum: u64,
}

/// How full a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occupancy {
    /// Name of the map.
    pub table: &'static str,
    /// Entries in use.
    pub used: u64,
    /// Entries it can hold.
    pub limit: u64,
}

/// Opens a pinned map.
fn open(folder: &Path, name: &'static str) -> Result<MapData, KernelError> {
    let path = folder.join(name);
    if std::fs::symlink_metadata(&path).is_err() {
        return Err(KernelError::NoGate { path });
    }
    MapData::from_pin(path).map_err(|source| KernelError::Table { what: "open", table: name, source })
}

pub(super) fn hash<V: Pod>(
    folder: &Path,
    name: &'static str,
) -> Result<HashMap<MapData, u64, V>, KernelError> {
    HashMap::try_from(Map::HashMap(open(folder, name)?)).map_err(|source| KernelError::Table {
        what: "use",
        table: name,
        source,
    })
}

pub(super) fn array<V: Pod>(folder: &Path, name: &'static str) -> Result<Array<MapData, V>, KernelError> {
    Array::try_from(Map::Array(open(folder, name)?)).map_err(|source| KernelError::Table {
        what: "use",
        table: name,
        source,
    })
}

/// A failed operation on a table.
pub(super) fn table(what: &'static str, table: &'static str) -> impl FnOnce(MapError) -> KernelError {
    move |source| KernelError::Table { what, table, source }
}

/// All keys of a hash table. Rows deleted meanwhile can make the kernel start over, so keys are collected once each and
/// the walk is bounded.
pub(super) fn keys<V: Pod>(map: &HashMap<MapData, u64, V>, limit: u32) -> Result<BTreeSet<u64>, MapError> {
    let mut found = BTreeSet::new();
    for key in map.keys().take(4 * limit as usize) {
        found.insert(key?);
    }
    Ok(found)
}

impl Tables {
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
            accounts: hash(folder, map::ACCOUNTS)?,
            unknown: hash(folder, map::UNKNOWN)?,
            pairs: hash(folder, map::PAIRS)?,
            tasks: hash(folder, map::TASKS)?,
            members: hash(folder, map::MEMBERS)?,
            places: LpmTrie::try_from(Map::LpmTrie(open(folder, map::PLACES)?))
                .map_err(table("use", map::PLACES))?,
            classes: array(folder, map::CLASSES)?,
            settings: array(folder, map::SETTINGS)?,
            stats: array(folder, map::STATS)?,
        })
    }

    /// The gate's settings.
    ///
    /// # Errors
    /// The table cannot be read.
    pub fn settings(&self) -> Result<Settings, KernelError> {
        self.settings.get(&0, 0).map_err(table("read", map::SETTINGS))
    }

    /// Sets the random key and the first generation when there is none yet: with faillock's defaults in every class.
    pub(super) fn ensure_settings(&mut self) -> Result<(), KernelError> {
        let mut settings = self.settings()?;
        if settings.generation != 0 {
            return Ok(());
        }
        for half in &mut settings.hash_key {
            *half = getrandom::u64().map_err(|source| KernelError::Random { source })?;
        }
        for class in 0..4 * abi::MAX_CLASSES {
            self.classes.set(class, Rule::DEFAULT, 0).map_err(table("write", map::CLASSES))?;
        }
        settings.generation = 1;
        self.settings.set(0, settings, 0).map_err(table("write", map::SETTINGS))
    }

    /// Writes a configuration beside the running one and switches over. Returns its generation.
    ///
    /// `rules[0]` is the class of every account that is not in `members` (uid, class).
    ///
    /// # Errors
    /// More classes or members than fit, or a table that cannot be written; the running configuration then stays.
    pub fn write_config(&mut self, rules: &[Rule], members: &[(u32, u32)]) -> Result<u32, KernelError> {
        self.write_all(rules, members, &[])
    }

    /// The same, with the places to which soft locks are open.
    ///
    /// # Errors
    /// As [`Tables::write_config`].
    pub fn write_all(
        &mut self,
        rules: &[Rule],
        members: &[(u32, u32)],
        places: &[(u32, Place)],
    ) -> Result<u32, KernelError> {
        if rules.len() > abi::MAX_CLASSES as usize {
            let (count, limit) = (rules.len(), abi::MAX_CLASSES);
            return Err(KernelError::TooMany { what: "classes", count, limit });
        }
        let limit = abi::MAX_MEMBERS / 2;
        if members.len() > limit as usize {
            return Err(KernelError::TooMany { what: "class members", count: members.len(), limit });
        }
        let mut settings = self.settings()?;
        let next = settings.generation.wrapping_add(1).max(1);
        self.remove_members(|generation| generation != settings.generation)?;
        for class in 0..abi::MAX_CLASSES {
            // Classes that are not in use repeat the default, so that no index can mean "no limit".
            let rule = rules.get(class as usize).or(rules.first()).copied().unwrap_or(Rule::DEFAULT);
            for (index, rule) in
                [(abi::class_index(next, class), rule), (abi::pair_index(next, class), rule.of_pairs())]
            {
                self.classes.set(index, rule, 0).map_err(table("write", map::CLASSES))?;
            }
        }
        for (uid, class) in members {
            self.members
                .insert(abi::member_key(next, *uid), class, 0)
                .map_err(table("write", map::MEMBERS))?;
        }
        self.remove_places(|generation| generation != settings.generation)?;
        self.write_places(next, places)?;
        settings.generation = next;
        self.settings.set(0, settings, 0).map_err(table("write", map::SETTINGS))?;
        self.remove_members(|generation| generation != next)?;
        self.remove_places(|generation| generation != next)?;
        Ok(next)
    }

    /// Whether what runs is exactly this configuration.
    ///
    /// # Errors
    /// A table cannot be read.
    pub fn has_config(&self, rules: &[Rule], members: &[(u32, u32)]) -> Result<bool, KernelError> {
        let generation = self.settings()?.generation;
        for class in 0..abi::MAX_CLASSES {
            let rule = rules.get(class as usize).or(rules.first()).copied().unwrap_or(Rule::DEFAULT);
            let index = abi::class_index(generation, class);
            let found = self.classes.get(&index, 0).map_err(table("read", map::CLASSES))?;
            if !super::hours::same(&found, &rule) {
                return Ok(false);
            }
        }
        for (uid, class) in members {
            match self.members.get(&abi::member_key(generation, *uid), 0) {
                Ok(found) if found == *class => {}
                Ok(_) => return Ok(false),
                Err(error) if absent(&error) => return Ok(false),
                Err(error) => return Err(table("read", map::MEMBERS)(error)),
            }
        }
        let found = keys(&self.members, abi::MAX_MEMBERS).map_err(table("read", map::MEMBERS))?;
        Ok(found.len() == members.len())
    }

    /// Class and rule that hold for an account key now.
    ///
    /// # Errors
    /// A table cannot be read.
    pub fn rule_of(&self, account: u64) -> Result<(u32, Rule), KernelError> {
        let generation = self.settings()?.generation;
        let class = match self.members.get(&abi::member_key(generation, abi::member_of(account)), 0) {
            Ok(found) => found,
            Err(error) if absent(&error) => 0,
            Err(error) => return Err(table("read", map::MEMBERS)(error)),
        };
        let index = abi::class_index(generation, class);
        let rule = self.classes.get(&index, 0).map_err(table("read", map::CLASSES))?;
        Ok((class, rule))
    }

    /// Class and rule that hold for a row, of an account or of a pair.
    ///
    /// # Errors
    /// A table cannot be read.
    pub fn rule_of_row(&self, found: &TableRow) -> Result<(u32, Rule), KernelError> {
        let (class, rule) = self.rule_of(found.row.account)?;
        Ok((class, if found.is_pair() { rule.of_pairs() } else { rule }))
    }

    /// Puts one user into a class of the running configuration.
    ///
    /// # Errors
    /// The table is full or cannot be written.
    pub fn add_member(&mut self, uid: u32, class: u32) -> Result<(), KernelError> {
        let generation = self.settings()?.generation;
        self.members.insert(abi::member_key(generation, uid), class, 0).map_err(table("write", map::MEMBERS))
    }

    /// Deletes the members of the generations that `old` picks.
    fn remove_members(&mut self, old: impl Fn(u32) -> bool) -> Result<(), KernelError> {
        for key in keys(&self.members, abi::MAX_MEMBERS).map_err(table("read", map::MEMBERS))? {
            if old((key >> 32) as u32) {
                match self.members.remove(&key) {
                    Ok(()) => {}
                    Err(error) if absent(&error) => {}
                    Err(error) => return Err(table("clean", map::MEMBERS)(error)),
                }
            }
        }
        Ok(())
    }

    /// The row of one account key.
    ///
    /// # Errors
    /// The table cannot be read.
    pub fn row(&self, account: u64) -> Result<Option<Row>, KernelError> {
        let (map, name) = if account & abi::UNKNOWN != 0 {
            (&self.unknown, map::UNKNOWN)
        } else if account & PAIR != 0 {
            (&self.pairs, map::PAIRS)
        } else {
            (&self.accounts, map::ACCOUNTS)
        };
        match map.get(&account, BPF_F_LOCK) {
            Ok(row) if row.alive == 1 && row.key == account => Ok(Some(row)),
            Ok(_) => Ok(None),
            Err(error) if absent(&error) => Ok(None),
            Err(error) => Err(table("read", name)(error)),
        }
    }

    /// Shows each live row to `see`. Returns how many there were.
    ///
    /// # Errors
    /// The table cannot be read.
    pub fn each_row(&self, slice: Slice, mut see: impl FnMut(TableRow)) -> Result<u64, KernelError> {
        let (map, limit, name) = match slice {
            Slice::Accounts => (&self.accounts, abi::MAX_ACCOUNTS, map::ACCOUNTS),
            Slice::Unknown => (&self.unknown, abi::MAX_UNKNOWN, map::UNKNOWN),
            Slice::Pairs => (&self.pairs, abi::MAX_PAIRS, map::PAIRS),
        };
        let mut count = 0;
        for account in keys(map, limit).map_err(table("read", name))? {
            if let Some(row) = self.row(account)? {
                count += 1;
                see(TableRow { account, row });
            }
        }
        Ok(count)
    }

    /// The gate's counters.
    ///
    /// # Errors
    /// The table cannot be read.
    pub fn stats(&self) -> Result<Stats, KernelError> {
        let read = |index: u32| self.stats.get(&index, 0).map_err(table("read", map::STATS));
        let mut stats = Stats {
            lost_events: read(stat::LOST_EVENTS)?,
            no_row: read(stat::NO_ROW)?,
            no_task: read(stat::NO_TASK)?,
            row_race: read(stat::ROW_RACE)?,
            no_source: read(stat::NO_SOURCE)?,
            source_trips: read(stat::SOURCE_TRIPS)?,
            reports: read(stat::REPORTS)?,
            latency_sum: read(stat::LATENCY_SUM)?,
            ..Stats::default()
        };
        for (index, count) in (stat::CALLS..).zip(&mut stats.calls) {
            *count = read(index)?;
        }
        for (index, count) in (stat::LATENCY..).zip(&mut stats.latency) {
            *count = read(index)?;
        }
        Ok(stats)
    }

    /// How full the tables are.
    ///
    /// # Errors
    /// A table cannot be read.
    pub fn occupancy(&self) -> Result<Vec<Occupancy>, KernelError> {
        Ok(vec![
            Self::used(&self.accounts, map::ACCOUNTS, abi::MAX_ACCOUNTS)?,
            Self::used(&self.unknown, map::UNKNOWN, abi::MAX_UNKNOWN)?,
            Self::used(&self.pairs, map::PAIRS, abi::MAX_PAIRS)?,
            Self::used(&self.tasks, map::TASKS, abi::MAX_TASKS)?,
            Self::used(&self.members, map::MEMBERS, abi::MAX_MEMBERS)?,
        ])
    }

    fn used<V: Pod>(
        map: &HashMap<MapData, u64, V>,
        name: &'static str,
        limit: u32,
    ) -> Result<Occupancy, KernelError> {
        let used = keys(map, limit).map_err(table("read", name))?.len() as u64;
        Ok(Occupancy { table: name, used, limit: u64::from(limit) })
    }
}
