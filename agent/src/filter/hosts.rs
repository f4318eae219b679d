//! Leases of single sources: those for all ports in the fast table, those for some ports, and the few that the fast table
//! has no room for, in the kernel's hash table.
//!
//! Invariants: a source that is listed is never off while its lease changes or moves from one to the other: it is put in
//! where it shall be before it is taken out where it was; a change is one process's at a time.

use std::cell::RefCell;
use std::collections::HashSet;

use aya::maps::{HashMap, Map, MapData, MapError};
use portcullis_common::filter::{self, Net, fast::spared, map, net, record::Lease};

use super::command::FilterError;
use super::fast::{self, Elsewhere, Fast, Folder, Turn};
use super::table::{failed, is_full, open};

/// Leases of single sources.
pub(super) struct Hosts {
    drops_4: HashMap<MapData, [u8; 4], Lease>,
    drops_6: HashMap<MapData, [u8; 8], Lease>,
    fast: RefCell<Fast>,
    folder: Folder,
}

impl Hosts {
    /// Opens the pinned tables.
    pub(super) fn open() -> Result<Self, FilterError> {
        let folder = Folder::open()?;
        let turn = folder.turn()?;
        let hash = |name| Ok::<_, FilterError>(Map::HashMap(open(name)?));
        let hosts = Self {
            drops_4: hash(map::DROPS_4)?.try_into().map_err(failed("use", map::DROPS_4))?,
            drops_6: hash(map::DROPS_6)?.try_into().map_err(failed("use", map::DROPS_6))?,
            fast: RefCell::new(Fast::open(&turn)?),
            folder,
        };
        hosts.adopt(&turn)?;
        Ok(hosts)
    }

    fn adopt(&self, turn: &Turn) -> Result<(), FilterError> {
        let most = filter::MAX_HOSTS as usize;
        let mut elsewhere = Elsewhere { four: HashSet::new(), six: HashSet::new() };
        for key in self.drops_4.keys().take(most) {
            let key = key.map_err(failed("read", map::DROPS_4))?;
            elsewhere.four.insert(u64::from(u32::from_be_bytes(key)));
        }
        for key in self.drops_6.keys().take(most) {
            elsewhere.six.insert(u64::from_be_bytes(key.map_err(failed("read", map::DROPS_6))?));
        }
        self.fast.borrow_mut().adopt(turn, elsewhere);
        Ok(())
    }

    /// Reads the tables anew where another process has changed them.
    fn refresh(&self) -> Result<(), FilterError> {
        if !self.fast.borrow().is_stale() {
            return Ok(());
        }
        self.adopt(&self.folder.turn()?)
    }

    /// The right to change the tables, which are as this process knows them.
    fn turn(&self) -> Result<Turn, FilterError> {
        let turn = self.folder.turn()?;
        if self.fast.borrow().is_stale() {
            self.adopt(&turn)?;
        }
        self.fast.borrow_mut().changing(&turn);
        Ok(turn)
    }

    /// Puts a lease in, in the place of the one the source has.
    pub(super) fn insert(&mut self, net: Net, lease: &Lease) -> Result<(), FilterError> {
        let Some(key) = fast::key_of(net) else { return Ok(()) };
        let now = crate::clock::boot().map_err(|error| FilterError::Kernel(error.to_string()))?.0;
        let _turn = self.turn()?;
        let fast = self.fast.get_mut();
        if lease.ports == [0; filter::PORTS] && fast.put(key, lease, now) {
            if fast.is_elsewhere(key) {
                hash_remove(&mut self.drops_4, &mut self.drops_6, net)?;
                fast.set_elsewhere(key, false);
            }
            return Ok(());
        }
        hash_insert(&mut self.drops_4, &mut self.drops_6, net, lease)?;
        fast.set_elsewhere(key, true);
        fast.remove(key);
        Ok(())
    }

    /// Takes the lease of a source out; whether there was one.
    pub(super) fn remove(&mut self, net: Net) -> Result<bool, FilterError> {
        let Some(key) = fast::key_of(net) else { return Ok(false) };
        let _turn = self.turn()?;
        let fast = self.fast.get_mut();
        let mut there = false;
        if fast.is_elsewhere(key) {
            there = hash_remove(&mut self.drops_4, &mut self.drops_6, net)?;
            fast.set_elsewhere(key, false);
        }
        Ok(fast.remove(key) || there)
    }

    /// Says which sources the allow-list may hold: the kernel looks for no others there.
    pub(super) fn spare<'a>(&mut self, nets: impl IntoIterator<Item = &'a Net>) {
        self.fast.get_mut().spare(spared(nets));
    }

    /// After removals: tightens what they left loose.
    pub(super) fn settle(&mut self) -> Result<(), FilterError> {
        if self.fast.get_mut().is_loose() {
            let turn = self.turn()?;
            self.fast.get_mut().settle(&turn);
        }
        Ok(())
    }

    /// The lease of a source.
    pub(super) fn get(&self, net: Net) -> Result<Option<Lease>, FilterError> {
        let Some(key) = fast::key_of(net) else { return Ok(None) };
        self.refresh()?;
        let fast = self.fast.borrow();
        if fast.has(key) {
            return Ok(fast.get(key));
        }
        if !fast.is_elsewhere(key) {
            return Ok(None);
        }
        let (found, name) = match net {
            Net::V4(address, _) => (self.drops_4.get(&address.to_be_bytes(), 0), map::DROPS_4),
            Net::V6(address, _) => (self.drops_6.get(&host_6(address), 0), map::DROPS_6),
        };
        match found {
            Ok(lease) => Ok(Some(lease)),
            Err(error) if crate::kernel::absent(&error) => Ok(None),
            Err(error) => Err(failed("read", name)(error)),
        }
    }

    /// How many leases are in the fast table: IPv4, IPv6.
    pub(super) fn fast_len(&self) -> Result<(usize, usize), FilterError> {
        self.refresh()?;
        Ok(self.fast.borrow().len())
    }

    /// All leases.
    pub(super) fn each(&self, see: &mut dyn FnMut(Net, Lease)) -> Result<(), FilterError> {
        self.refresh()?;
        let fast = self.fast.borrow();
        fast.each(see);
        let mut other = |net: Net, lease| {
            // In both where a process was killed between the two: the fast one counts.
            if fast::key_of(net).is_some_and(|key| !fast.has(key)) {
                see(net, lease);
            }
        };
        for entry in self.drops_4.iter().take(filter::MAX_HOSTS as usize) {
            let (key, lease) = entry.map_err(failed("read", map::DROPS_4))?;
            other(Net::V4(u32::from_be_bytes(key), net::HOST_4), lease);
        }
        for entry in self.drops_6.iter().take(filter::MAX_HOSTS as usize) {
            let (key, lease) = entry.map_err(failed("read", map::DROPS_6))?;
            other(Net::V6(u128::from(u64::from_be_bytes(key)) << 64, net::HOST_6), lease);
        }
        Ok(())
    }
}

const fn host_6(address: u128) -> [u8; 8] {
    ((address >> 64) as u64).to_be_bytes()
}

type Hash<K> = HashMap<MapData, K, Lease>;

fn hash_insert(
    four: &mut Hash<[u8; 4]>,
    six: &mut Hash<[u8; 8]>,
    net: Net,
    lease: &Lease,
) -> Result<(), FilterError> {
    let (done, table) = match net {
        Net::V4(address, _) => (four.insert(address.to_be_bytes(), lease, 0), map::DROPS_4),
        Net::V6(address, _) => (six.insert(host_6(address), lease, 0), map::DROPS_6),
    };
    match done {
        Ok(()) => Ok(()),
        Err(error) if is_full(&error) => Err(FilterError::Full { table, limit: filter::MAX_HOSTS }),
        Err(error) => Err(failed("write", table)(error)),
    }
}

fn hash_remove(four: &mut Hash<[u8; 4]>, six: &mut Hash<[u8; 8]>, net: Net) -> Result<bool, FilterError> {
    let (done, table): (Result<(), MapError>, _) = match net {
        Net::V4(address, _) => (four.remove(&address.to_be_bytes()), map::DROPS_4),
        Net::V6(address, _) => (six.remove(&host_6(address)), map::DROPS_6),
    };
    match done {
        Ok(()) => Ok(true),
        Err(error) if crate::kernel::absent(&error) => Ok(false),
        Err(error) => Err(failed("remove from", table)(error)),
    }
}
