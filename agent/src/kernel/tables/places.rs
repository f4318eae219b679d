//! Places to which soft locks are open.
//!
//! Invariant: written beside those of the running configuration, under the next generation, like members.

use aya::maps::MapError;
use aya::maps::lpm_trie::Key;
use portcullis_common::abi::{self, Place, map};

use super::{Tables, table};
use crate::kernel::KernelError;
use crate::kernel::load::absent;

impl Tables {
    /// Whether what runs has exactly these places.
    ///
    /// # Errors
    /// The table cannot be read.
    pub fn has_places(&self, places: &[(u32, Place)]) -> Result<bool, KernelError> {
        let generation = self.settings()?.generation;
        let found = self.all_places()?;
        let key = |(bits, place): &(u32, Place)| (*bits, Place { generation, ..*place });
        Ok(found.len() == places.len() && places.iter().all(|place| found.contains(&key(place))))
    }

    /// Writes the places of a generation.
    pub(super) fn write_places(
        &mut self,
        generation: u32,
        places: &[(u32, Place)],
    ) -> Result<(), KernelError> {
        let limit = abi::MAX_PLACES / 2;
        if places.len() > limit as usize {
            return Err(KernelError::TooMany { what: "places", count: places.len(), limit });
        }
        for (bits, place) in places {
            self.set_place(*bits, Place { generation, ..*place })?;
        }
        Ok(())
    }

    /// Writes one place as it is.
    pub(in crate::kernel) fn set_place(&mut self, bits: u32, place: Place) -> Result<(), KernelError> {
        self.places.insert(&Key::new(bits, place), 1, 0).map_err(table("write", map::PLACES))
    }

    /// All places of all generations: length in bits, and the place.
    pub(in crate::kernel) fn all_places(&self) -> Result<Vec<(u32, Place)>, KernelError> {
        let keys: Result<Vec<Key<Place>>, MapError> =
            self.places.keys().take(4 * abi::MAX_PLACES as usize).collect();
        let keys = keys.map_err(table("read", map::PLACES))?;
        Ok(keys.iter().map(|key| (key.prefix_len(), key.data())).collect())
    }

    /// Deletes the places of the generations that `old` picks.
    pub(super) fn remove_places(&mut self, old: impl Fn(u32) -> bool) -> Result<(), KernelError> {
        for (bits, place) in self.all_places()? {
            if old(place.generation) {
                match self.places.remove(&Key::new(bits, place)) {
                    Ok(()) => {}
                    Err(error) if absent(&error) => {}
                    Err(error) => return Err(table("clean", map::PLACES)(error)),
                }
            }
        }
        Ok(())
    }
}
