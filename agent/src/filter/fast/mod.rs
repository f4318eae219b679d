//! The fast table from user space: sources that are dropped for all ports, in mapped memory.
//!
//! Invariants: one process at a time changes it (a lock on the folder of the pins, which the kernel lets go when the process
//! ends); whoever finds that another has changed it reads it anew first.

mod half;
mod memory;

use std::collections::HashSet;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};

use portcullis_common::filter::fast::{Family, Four, Heads, Six};
use portcullis_common::filter::record::Lease;
use portcullis_common::filter::{FILTER_DIR, Net, map, net};
use rustix::fs::{FlockOperation, flock};

use self::half::{Half, Names};
use self::memory::Mapped;
use super::command::FilterError;

/// Word of the head that counts up with each change.
const CHANGES: usize = 9;

/// First word of what the allow-list may spare: four of IPv4, one of IPv6.
const SPARED: usize = 10;
const _: () = assert!(std::mem::offset_of!(Heads, changes) == CHANGES * 8);
const _: () = assert!(std::mem::offset_of!(Heads, spared_4) == SPARED * 8);
const _: () = assert!(std::mem::offset_of!(Heads, spared_6) == (SPARED + 4) * 8);

/// The fast table of both families.
pub(super) struct Fast {
    head: Arc<Mapped>,
    four: Half<Four>,
    six: Half<Six>,
    /// The change that was seen last.
    seen: Option<u64>,
}

/// The keys of the hash table of each family.
pub(super) struct Elsewhere {
    pub(super) four: HashSet<u64>,
    pub(super) six: HashSet<u64>,
}

/// The folder of the pins, by which processes take turns.
#[derive(Clone)]
pub(super) struct Folder(Arc<File>);

/// The right to change the table.
pub(super) struct Turn(Folder);

impl Folder {
    /// Opens it: once, each lock is then one call of the kernel's.
    pub(super) fn open() -> Result<Self, FilterError> {
        let failed = |error| FilterError::Kernel(format!("cannot open {FILTER_DIR}: {error}"));
        Ok(Self(Arc::new(File::open(FILTER_DIR).map_err(failed)?)))
    }

    /// Waits for the right to change the table.
    pub(super) fn turn(&self) -> Result<Turn, FilterError> {
        let failed = |error| FilterError::Kernel(format!("cannot lock {FILTER_DIR}: {error}"));
        flock(&*self.0, FlockOperation::LockExclusive).map_err(failed)?;
        Ok(Turn(self.clone()))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Err(error) = flock(&*self.0.0, FlockOperation::Unlock) {
            log::error!("cannot unlock {FILTER_DIR}: {error}");
        }
    }
}

/// The source of a network that is one.
pub(super) fn key_of(net: Net) -> Option<(bool, u64)> {
    match net {
        Net::V4(address, net::HOST_4) => Some((true, u64::from(address))),
        Net::V6(address, net::HOST_6) => Some((false, (address >> 64) as u64)),
        _ => None,
    }
}

macro_rules! each_family {
    ($self:ident, $four:expr, $half:ident => $done:expr) => {
        if $four {
            let $half = &mut $self.four;
            $done
        } else {
            let $half = &mut $self.six;
            $done
        }
    };
}

impl Fast {
    /// Maps the pinned table. Call it with a [`Turn`].
    pub(super) fn open(_turn: &Turn) -> Result<Self, FilterError> {
        let head = Arc::new(Mapped::open(map::FAST, size_of::<Heads>() / 8)?);
        let four = Names {
            head: 0,
            lines: map::FAST_LINES_4,
            bits: map::FAST_BITS_4,
            index: map::FAST_INDEX_4,
            rows: map::FAST_ROWS_4,
            places: Four::LANES,
        };
        let six = Names {
            head: 4,
            lines: map::FAST_LINES_6,
            bits: map::FAST_BITS_6,
            index: map::FAST_INDEX_6,
            rows: map::FAST_ROWS_6,
            places: Six::LANES + 1,
        };
        Ok(Self {
            four: Half::open(Arc::clone(&head), four)?,
            six: Half::open(Arc::clone(&head), six)?,
            head,
            seen: None,
        })
    }

    fn changes(&self) -> &AtomicU64 {
        self.head.word(CHANGES)
    }

    /// Says which sources the allow-list may hold.
    pub(super) fn spare(&self, (four, six): ([u64; 4], u64)) {
        for (place, word) in four.into_iter().chain([six]).enumerate() {
            self.head.word(SPARED + place).store(word, Release);
        }
    }

    /// Whether another has changed it since.
    pub(super) fn is_stale(&self) -> bool {
        self.seen != Some(self.changes().load(Acquire))
    }

    /// Reads it anew. Call it with a [`Turn`].
    pub(super) fn adopt(&mut self, _turn: &Turn, elsewhere: Elsewhere) {
        self.four.adopt(elsewhere.four);
        self.six.adopt(elsewhere.six);
        self.seen = Some(self.changes().load(Acquire));
    }

    /// Says that it changes now: others will read it anew.
    pub(super) fn changing(&mut self, _turn: &Turn) {
        let next = self.changes().load(Acquire) + 1;
        self.changes().store(next, Release);
        self.seen = Some(next);
    }

    /// Puts a lease for all ports in, at boot time `now`. False: there is no room for it.
    pub(super) fn put(&mut self, (four, key): (bool, u64), lease: &Lease, now: u64) -> bool {
        each_family!(self, four, half => half.put(key, lease, now))
    }

    /// Takes a source out; whether it was there.
    pub(super) fn remove(&mut self, (four, key): (bool, u64)) -> bool {
        each_family!(self, four, half => half.remove(key))
    }

    /// Whether removals left something to tighten.
    pub(super) fn is_loose(&self) -> bool {
        self.four.is_loose() || self.six.is_loose()
    }

    /// Tightens what removals left loose. Call it with a [`Turn`].
    pub(super) fn settle(&mut self, _turn: &Turn) {
        self.four.settle();
        self.six.settle();
    }

    /// Whether a source is in it.
    pub(super) fn has(&self, (four, key): (bool, u64)) -> bool {
        if four { self.four.has(key) } else { self.six.has(key) }
    }

    /// Whether a source is in the hash table.
    pub(super) fn is_elsewhere(&self, (four, key): (bool, u64)) -> bool {
        if four { self.four.is_elsewhere(key) } else { self.six.is_elsewhere(key) }
    }

    /// The source is in the hash table now, or no more.
    pub(super) fn set_elsewhere(&mut self, (four, key): (bool, u64), is: bool) {
        each_family!(self, four, half => if is { half.send_on(key) } else { half.send_back(key) });
    }

    /// The lease of a source.
    pub(super) fn get(&self, (four, key): (bool, u64)) -> Option<Lease> {
        if four { self.four.get(key, net::HOST_4) } else { self.six.get(key, net::HOST_6) }
    }

    /// How many sources are in it: IPv4, IPv6.
    pub(super) fn len(&self) -> (usize, usize) {
        (self.four.len(), self.six.len())
    }

    /// All leases.
    pub(super) fn each(&self, see: &mut dyn FnMut(Net, Lease)) {
        self.four.each(net::HOST_4, &mut |key, lease| see(Net::V4(key as u32, net::HOST_4), lease));
        self.six.each(net::HOST_6, &mut |key, lease| see(Net::V6(u128::from(key) << 64, net::HOST_6), lease));
    }
}
