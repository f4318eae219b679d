//! The drop table in the kernel: the one interface to it (insert, remove, read, walk), with the kernel's maps behind.
//!
//! Invariants: a source has one entry; what the kernel skips where there is nothing (networks, the allow-list) is counted
//! up before an entry is made and down after it is gone; an entry is replaced in one step, never taken out first.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, Map, MapData, MapError, PerCpuArray};
use portcullis_common::filter::{self, FILTER_DIR, Net, Settings, map, record, stat};

use super::command::FilterError;
use super::hosts::Hosts;

/// Counters of the filter, summed over all processors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// By index, see [`stat`].
    pub counters: [u64; stat::ENTRIES as usize],
}

impl Default for Stats {
    fn default() -> Self {
        Self { counters: [0; stat::ENTRIES as usize] }
    }
}

impl Stats {
    /// One counter.
    #[must_use]
    pub fn get(&self, index: u32) -> u64 {
        self.counters.get(index as usize).copied().unwrap_or(0)
    }
}

/// The drop table: the one interface to it, whatever drops.
pub trait DropTable: Send {
    /// Puts a lease in, in the place of the one the network has.
    ///
    /// # Errors
    /// No room, or the kernel says no; nothing has changed then.
    fn insert(&mut self, net: Net, lease: &record::Lease) -> Result<(), FilterError>;
    /// Takes the lease of a network out; whether there was one.
    ///
    /// # Errors
    /// The kernel says no.
    fn remove(&mut self, net: Net) -> Result<bool, FilterError>;
    /// The lease of exactly this network.
    ///
    /// # Errors
    /// The kernel says no.
    fn get(&self, net: Net) -> Result<Option<record::Lease>, FilterError>;
    /// All leases. Entries that come and go meanwhile may be missed.
    ///
    /// # Errors
    /// The kernel says no.
    fn each(&self, see: &mut dyn FnMut(Net, record::Lease)) -> Result<(), FilterError>;
    /// Makes the allow-list these networks: new ones first, so that a source on both lists is never off.
    ///
    /// # Errors
    /// Too many, or the kernel says no.
    fn allow(&mut self, nets: &[Net]) -> Result<(), FilterError>;
    /// The allow-list as the kernel has it.
    ///
    /// # Errors
    /// The kernel says no.
    fn allowed(&self) -> Result<BTreeSet<Net>, FilterError>;
    /// How many samples a second and processor.
    ///
    /// # Errors
    /// The kernel says no.
    fn pace(&mut self, samples: u32) -> Result<(), FilterError>;
    /// The counters.
    ///
    /// # Errors
    /// The kernel says no.
    fn stats(&self) -> Result<Stats, FilterError>;
    /// Makes all that was changed take effect, where it did not at once. On an error nothing since the last commit has.
    ///
    /// # Errors
    /// The kernel says no, or does not show what was written.
    fn commit(&mut self) -> Result<(), FilterError>;
}

/// Open handles of the filter's maps.
pub struct Table {
    hosts: Hosts,
    nets_4: LpmTrie<MapData, [u8; 8], record::Lease>,
    nets_6: LpmTrie<MapData, [u8; 16], record::Lease>,
    allow_4: LpmTrie<MapData, [u8; 8], u64>,
    allow_6: LpmTrie<MapData, [u8; 16], u64>,
    settings: Array<MapData, Settings>,
    stats: PerCpuArray<MapData, u64>,
    /// IPv6 networks by length: the filter looks at so many lengths only.
    lengths: BTreeMap<u8, u32>,
}

/// A failed operation on a map.
pub(super) fn failed(what: &str, map: &str) -> impl FnOnce(MapError) -> FilterError {
    let what = format!("cannot {what} the filter's table {map}");
    move |error| FilterError::Kernel(format!("{what}: {}", crate::text::chain(&error)))
}

pub(super) fn open(name: &str) -> Result<MapData, FilterError> {
    MapData::from_pin(Path::new(FILTER_DIR).join(name)).map_err(failed("open", name))
}

macro_rules! open_as {
    ($kind:ident, $name:expr) => {
        Map::$kind(open($name)?).try_into().map_err(failed("use", $name))?
    };
}

pub(super) const fn key_4(address: u32) -> [u8; 8] {
    ((address as u64) << 32).to_be_bytes()
}

/// Whether the map says that it is full.
pub(super) fn is_full(error: &MapError) -> bool {
    let code = match error {
        MapError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    };
    matches!(code, Some(libc::E2BIG | libc::ENOSPC))
}

impl Table {
    /// Opens the pinned maps.
    ///
    /// # Errors
    /// They are not there, or something else is.
    pub fn open() -> Result<Self, FilterError> {
        let mut table = Self {
            hosts: Hosts::open()?,
            nets_4: open_as!(LpmTrie, map::NETS_4),
            nets_6: open_as!(LpmTrie, map::NETS_6),
            allow_4: open_as!(LpmTrie, map::ALLOW_4),
            allow_6: open_as!(LpmTrie, map::ALLOW_6),
            settings: open_as!(Array, map::SETTINGS),
            stats: open_as!(PerCpuArray, map::STATS),
            lengths: BTreeMap::new(),
        };
        let mut lengths = BTreeMap::new();
        for key in table.nets_6.keys().take(filter::MAX_NETS as usize) {
            let key = key.map_err(failed("read", map::NETS_6))?;
            *lengths.entry(key.prefix_len() as u8).or_default() += 1;
        }
        table.lengths = lengths;
        Ok(table)
    }

    /// How many leases the fast table holds: IPv4, IPv6. The rest of those of single sources is in the hash tables.
    ///
    /// # Errors
    /// The kernel says no.
    pub fn fast(&self) -> Result<(usize, usize), FilterError> {
        self.hosts.fast_len()
    }

    /// The settings as the kernel has them.
    ///
    /// # Errors
    /// The kernel says no.
    pub fn settings(&self) -> Result<Settings, FilterError> {
        self.settings.get(&0, 0).map_err(failed("read", map::SETTINGS))
    }

    fn set_settings(&mut self, settings: Settings) -> Result<(), FilterError> {
        self.settings.set(0, settings, 0).map_err(failed("write", map::SETTINGS))
    }

    fn count_nets(&mut self, net: Net, change: i32) -> Result<(), FilterError> {
        if let Net::V6(_, length) = net {
            let count = self.lengths.entry(length).or_default();
            *count = count.saturating_add_signed(change);
            self.lengths.retain(|_, count| *count != 0);
        }
        let mut settings = self.settings()?;
        settings.nets = settings.nets.saturating_add_signed(change);
        self.set_settings(settings)
    }

    /// Whether a lease would drop packets of this address now; networks on the allow-list do not count.
    ///
    /// # Errors
    /// The kernel says no.
    pub fn drops(&self, address: IpAddr, now: u64) -> Result<bool, FilterError> {
        let address = address.to_canonical();
        let most = if address.is_ipv4() { 32 } else { 128 };
        for length in 0..=most {
            if self.get(Net::around(address, length))?.is_some_and(|lease| lease.until > now) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl DropTable for Table {
    fn insert(&mut self, net: Net, lease: &record::Lease) -> Result<(), FilterError> {
        let lease = record::Lease { length: u16::from(net.length()), ..*lease };
        if net.is_host() {
            return self.hosts.insert(net, &lease);
        }
        let fresh = self.get(net)?.is_none();
        if fresh && let Net::V6(_, length) = net {
            let most = filter::MAX_LENGTHS as usize;
            if !self.lengths.contains_key(&length) && self.lengths.len() >= most {
                return Err(FilterError::Lengths { net, most });
            }
        }
        if fresh {
            self.count_nets(net, 1)?;
        }
        let (done, name) = match net {
            Net::V4(address, length) => {
                (self.nets_4.insert(&Key::new(u32::from(length), key_4(address)), lease, 0), map::NETS_4)
            }
            Net::V6(address, length) => {
                let key = Key::new(u32::from(length), address.to_be_bytes());
                (self.nets_6.insert(&key, lease, 0), map::NETS_6)
            }
        };
        let Err(error) = done else { return Ok(()) };
        if fresh {
            self.count_nets(net, -1)?;
        }
        if is_full(&error) {
            return Err(FilterError::Full { table: name, limit: filter::MAX_NETS });
        }
        Err(failed("write", name)(error))
    }

    fn remove(&mut self, net: Net) -> Result<bool, FilterError> {
        if net.is_host() {
            return self.hosts.remove(net);
        }
        let (done, name) = match net {
            Net::V4(address, length) => {
                (self.nets_4.remove(&Key::new(u32::from(length), key_4(address))), map::NETS_4)
            }
            Net::V6(address, length) => {
                (self.nets_6.remove(&Key::new(u32::from(length), address.to_be_bytes())), map::NETS_6)
            }
        };
        match done {
            Ok(()) => {
                self.count_nets(net, -1)?;
                Ok(true)
            }
            Err(error) if crate::kernel::absent(&error) => Ok(false),
            Err(error) => Err(failed("remove from", name)(error)),
        }
    }

    fn get(&self, net: Net) -> Result<Option<record::Lease>, FilterError> {
        if net.is_host() {
            return self.hosts.get(net);
        }
        let (found, name) = match net {
            // A lookup finds the longest prefix of at most that length: it is ours if it is as long.
            Net::V4(address, length) => {
                (self.nets_4.get(&Key::new(u32::from(length), key_4(address)), 0), map::NETS_4)
            }
            Net::V6(address, length) => {
                (self.nets_6.get(&Key::new(u32::from(length), address.to_be_bytes()), 0), map::NETS_6)
            }
        };
        match found {
            Ok(lease) => Ok(Some(lease).filter(|lease| lease.length == u16::from(net.length()))),
            Err(error) if crate::kernel::absent(&error) => Ok(None),
            Err(error) => Err(failed("read", name)(error)),
        }
    }

    fn each(&self, see: &mut dyn FnMut(Net, record::Lease)) -> Result<(), FilterError> {
        self.hosts.each(see)?;
        for entry in self.nets_4.iter().take(filter::MAX_NETS as usize) {
            let (key, lease) = entry.map_err(failed("read", map::NETS_4))?;
            let address = u64::from_be_bytes(key.data()) >> 32;
            see(Net::V4(address as u32, key.prefix_len() as u8), lease);
        }
        for entry in self.nets_6.iter().take(filter::MAX_NETS as usize) {
            let (key, lease) = entry.map_err(failed("read", map::NETS_6))?;
            see(Net::V6(u128::from_be_bytes(key.data()), key.prefix_len() as u8), lease);
        }
        Ok(())
    }

    fn allow(&mut self, nets: &[Net]) -> Result<(), FilterError> {
        let wanted: BTreeSet<Net> = nets.iter().copied().collect();
        let before = self.allowed()?;
        let mut settings = self.settings()?;
        settings.allowed = u32::try_from(wanted.len() + before.len()).unwrap_or(u32::MAX);
        self.set_settings(settings)?;
        self.hosts.spare(wanted.union(&before));
        for net in wanted.iter().filter(|net| !before.contains(net)) {
            let (done, name) = match *net {
                Net::V4(address, length) => {
                    (self.allow_4.insert(&Key::new(u32::from(length), key_4(address)), 1, 0), map::ALLOW_4)
                }
                Net::V6(address, length) => {
                    let key = Key::new(u32::from(length), address.to_be_bytes());
                    (self.allow_6.insert(&key, 1, 0), map::ALLOW_6)
                }
            };
            if let Err(error) = done {
                if is_full(&error) {
                    return Err(FilterError::Full { table: name, limit: filter::MAX_ALLOW });
                }
                return Err(failed("write", name)(error));
            }
        }
        for net in before.iter().filter(|net| !wanted.contains(net)) {
            let done = match *net {
                Net::V4(address, length) => self.allow_4.remove(&Key::new(u32::from(length), key_4(address))),
                Net::V6(address, length) => {
                    self.allow_6.remove(&Key::new(u32::from(length), address.to_be_bytes()))
                }
            };
            done.map_err(failed("remove from", "ALLOW"))?;
        }
        self.hosts.spare(&wanted);
        settings.allowed = u32::try_from(wanted.len()).unwrap_or(u32::MAX);
        self.set_settings(settings)
    }

    fn allowed(&self) -> Result<BTreeSet<Net>, FilterError> {
        let mut found = BTreeSet::new();
        for key in self.allow_4.keys().take(filter::MAX_ALLOW as usize) {
            let key = key.map_err(failed("read", map::ALLOW_4))?;
            found.insert(Net::V4((u64::from_be_bytes(key.data()) >> 32) as u32, key.prefix_len() as u8));
        }
        for key in self.allow_6.keys().take(filter::MAX_ALLOW as usize) {
            let key = key.map_err(failed("read", map::ALLOW_6))?;
            found.insert(Net::V6(u128::from_be_bytes(key.data()), key.prefix_len() as u8));
        }
        Ok(found)
    }

    fn pace(&mut self, samples: u32) -> Result<(), FilterError> {
        let settings = self.settings()?;
        self.set_settings(Settings { samples, ..settings })
    }

    fn stats(&self) -> Result<Stats, FilterError> {
        let mut stats = Stats::default();
        for (index, counter) in (0..).zip(stats.counters.iter_mut()) {
            let values = self.stats.get(&index, 0).map_err(failed("read", map::STATS))?;
            *counter = values.iter().sum();
        }
        Ok(stats)
    }

    fn commit(&mut self) -> Result<(), FilterError> {
        self.hosts.settle()
    }
}
