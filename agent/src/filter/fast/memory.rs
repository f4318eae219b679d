//! A pinned ARRAY map in this process's memory.
//!
//! Invariants: nothing outside the map is touched, whatever is asked for; everything is read and written by whole, aligned
//! words, as the programs in the kernel do.

use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64};

use aya::maps::MapData;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use portcullis_common::filter::FILTER_DIR;

use crate::filter::command::FilterError;

const WORD: usize = size_of::<u64>();

/// The words of a map.
pub(super) struct Mapped {
    words: &'static [AtomicU64],
}

/// What lies outside a map: nobody looks at it.
static OUTSIDE: AtomicU64 = AtomicU64::new(0);
static OUTSIDE_HALF: AtomicU32 = AtomicU32::new(0);

impl Mapped {
    /// Maps the pinned map of that name, which has so many words.
    pub(super) fn open(name: &str, words: usize) -> Result<Self, FilterError> {
        let failed =
            |error: String| FilterError::Kernel(format!("cannot map the filter's table {name}: {error}"));
        let map = MapData::from_pin(Path::new(FILTER_DIR).join(name))
            .map_err(|error| failed(crate::text::chain(&error)))?;
        let length = NonZeroUsize::new(words * WORD).ok_or_else(|| failed("it is empty".to_owned()))?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; the kernel refuses one longer than the map. It holds
        // the map by itself, the descriptor may be closed.
        let start = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, map.fd().as_fd(), 0) }
            .map_err(|error| failed(error.to_string()))?;
        // SAFETY: so many words are mapped at a page's begin until `drop`, behind which no reference is left: those that
        // are given out live as long as `self`. Others write to it too: atomics may be shared.
        let words = unsafe { std::slice::from_raw_parts(start.as_ptr().cast::<AtomicU64>(), words) };
        Ok(Self { words })
    }

    /// One word.
    pub(super) fn word(&self, at: usize) -> &AtomicU64 {
        self.words.get(at).unwrap_or(&OUTSIDE)
    }

    /// One half of a word, counted in halves.
    pub(super) fn half(&self, at: usize) -> &AtomicU32 {
        let Some(word) = self.words.get(at / 2) else { return &OUTSIDE_HALF };
        let halves = std::ptr::from_ref(word).cast::<AtomicU32>();
        // SAFETY: the second half where `at` is odd: both lie in the word.
        let half = unsafe { halves.add(at % 2) };
        // SAFETY: as above, aligned; who uses halves of a word uses halves only, or reads.
        unsafe { &*half }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let start = std::ptr::NonNull::from(self.words).cast();
        // SAFETY: the mapping of `open`; nobody has a reference into it any more.
        if let Err(error) = unsafe { munmap(start, size_of_val(self.words)) } {
            log::debug!("cannot let go of a mapped table: {error}");
        }
    }
}
