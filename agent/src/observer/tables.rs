//! The observer's maps: the watched files and their names, whose programs are observed, what was counted.
//!
//! Invariant: a file that is watched before and after a change is watched meanwhile.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

use aya::maps::{Array, HashMap, Map, MapData};
use portcullis_common::observer::{File, Scope, Sieve, Watch, denial::scope, map, stat};
use portcullis_policy::observer::Program;

use super::ObserverError;
use super::files::Watched;
use super::load::pin;
use super::process::program_of;

/// What the kernel's side counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Starts told.
    pub starts: u64,
    /// Ends told.
    pub ends: u64,
    /// Starts and ends that found no room in the ring buffer, and programs that found none in `RUNNING`.
    pub lost: u64,
    /// Programs that locked-out users were kept from running.
    pub denied: u64,
}

/// The maps.
pub struct Tables {
    watched: HashMap<MapData, File, Watch>,
    names: HashMap<MapData, [u8; 16], u32>,
    sieve: Array<MapData, Sieve>,
    scope: Array<MapData, Scope>,
    stats: Array<MapData, u64>,
}

fn failed<E: std::error::Error + 'static>(what: &'static str) -> impl FnOnce(E) -> ObserverError {
    move |error| ObserverError::Kernel(format!("cannot {what}: {}", crate::text::chain(&error)))
}

fn open(name: &'static str) -> Result<MapData, ObserverError> {
    MapData::from_pin(pin(name)).map_err(failed("open a map of the observer"))
}

impl Tables {
    /// Opens the pinned maps.
    ///
    /// # Errors
    /// They are not there.
    pub fn open() -> Result<Self, ObserverError> {
        let wrong = "use a map of the observer";
        Ok(Self {
            watched: HashMap::try_from(Map::HashMap(open(map::WATCHED)?)).map_err(failed(wrong))?,
            names: HashMap::try_from(Map::HashMap(open(map::NAMES)?)).map_err(failed(wrong))?,
            sieve: Array::try_from(Map::Array(open(map::SIEVE)?)).map_err(failed(wrong))?,
            scope: Array::try_from(Map::Array(open(map::SCOPE)?)).map_err(failed(wrong))?,
            stats: Array::try_from(Map::Array(open(map::STATS)?)).map_err(failed(wrong))?,
        })
    }

    /// Watches these files and no others; programs are numbered from 1 in the order of the list.
    ///
    /// # Errors
    /// The maps cannot be written.
    pub fn watch(&mut self, list: &[Watched]) -> Result<(), ObserverError> {
        let mut files = BTreeMap::new();
        let mut names = BTreeMap::new();
        for (number, one) in (1..).zip(list) {
            if let Some(file) = one.file {
                let program = program_of(&one.name());
                let guarded = matches!(program, Program::Su | Program::Sudo | Program::Login);
                files.entry(file).or_insert(Watch { program: number, guarded: u32::from(guarded) });
            }
            names.insert(one.comm(), number);
        }
        let mut sieve = Sieve::EMPTY;
        files.keys().for_each(|file| sieve.add_file(file.inode));
        names.keys().for_each(|name| sieve.add_name(name));
        let before = self.sieve.get(&0, 0).map_err(failed("read what is watched"))?;
        self.sieve.set(0, before.or(&sieve), 0).map_err(failed("watch files and names"))?;
        for (file, watch) in &files {
            self.watched.insert(file, watch, 0).map_err(failed("watch a file"))?;
        }
        for (name, number) in &names {
            self.names.insert(name, number, 0).map_err(failed("watch a name"))?;
        }
        let old: Vec<File> = self.watched.keys().flatten().filter(|file| !files.contains_key(file)).collect();
        for file in old {
            self.watched.remove(&file).map_err(failed("watch a file no more"))?;
        }
        let old: Vec<[u8; 16]> =
            self.names.keys().flatten().filter(|name| !names.contains_key(name)).collect();
        for name in old {
            self.names.remove(&name).map_err(failed("watch a name no more"))?;
        }
        self.sieve.set(0, sieve, 0).map_err(failed("watch files and names"))
    }

    /// Observes programs of the agent's pid namespace, in the mount namespaces of it and of process 1; or nothing.
    /// `deny`: and keeps who is locked out from guarded ones, all but root and this uid (0: nobody else).
    ///
    /// # Errors
    /// The namespaces cannot be read, or the map not written.
    pub fn observe(&mut self, on: bool, deny: Option<u32>) -> Result<(), ObserverError> {
        let pids = std::fs::metadata("/proc/self/ns/pid").map_err(failed("read the pid namespace"))?;
        let mount = |path: &str| std::fs::metadata(path).map(|found| u32::try_from(found.ino()).unwrap_or(0));
        let own = mount("/proc/self/ns/mnt").map_err(failed("read the mount namespace"))?;
        // Without the right to look at process 1 the agent's own is all there is.
        let first = mount("/proc/1/ns/mnt").unwrap_or(own);
        let scope = Scope {
            // nsfs has no major number: its device is the same in every form.
            device: pids.dev(),
            pids: pids.ino(),
            mounts: [first, own],
            on: u32::from(on) * (scope::OBSERVE + u32::from(deny.is_some()) * scope::DENY),
            spared: deny.unwrap_or(0),
        };
        self.scope.set(0, scope, 0).map_err(failed("say whose programs are observed"))
    }

    /// What was counted.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn counts(&self) -> Result<Counts, ObserverError> {
        let get = |index| self.stats.get(&index, 0).map_err(failed("read the observer's counters"));
        Ok(Counts {
            starts: get(stat::STARTS)?,
            ends: get(stat::ENDS)?,
            lost: get(stat::LOST_STARTS)?
                .saturating_add(get(stat::LOST_ENDS)?)
                .saturating_add(get(stat::NO_ROOM)?),
            denied: get(stat::DENIED)?,
        })
    }
}
