//! What the kernel's side tells: records of its ring buffer.
//!
//! Invariant: a record is taken once, and only when it is handed on.

use aya::maps::{Map, MapData, RingBuf};
use bytes::Bytes;
use portcullis_common::observer::map;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{ObserverError, load};

/// Records read before others get their turn.
pub const BATCH: usize = 512;

/// The ring buffer.
pub struct Ring(AsyncFd<RingBuf<MapData>>);

fn failed<E: std::error::Error + 'static>(error: E) -> ObserverError {
    ObserverError::Kernel(format!("cannot read what it tells: {}", crate::text::chain(&error)))
}

/// At most [`BATCH`] records.
fn take(ring: &mut RingBuf<MapData>) -> Vec<Bytes> {
    let mut records = Vec::new();
    while records.len() < BATCH
        && let Some(item) = ring.next()
    {
        records.push(Bytes::copy_from_slice(&item));
    }
    records
}

impl Ring {
    /// Opens the pinned one.
    ///
    /// # Errors
    /// It is not there.
    pub fn open() -> Result<Self, ObserverError> {
        let data = MapData::from_pin(load::pin(map::OBSERVED)).map_err(failed)?;
        let ring = RingBuf::try_from(Map::RingBuf(data)).map_err(failed)?;
        // SAFETY: the ring owns its descriptor, returns the same one as long as it lives, and the AsyncFd owns the ring.
        unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }.map(Self).map_err(failed)
    }

    /// What is there, at most [`BATCH`] records: fewer are all.
    pub fn take(&mut self) -> Vec<Bytes> {
        take(self.0.get_mut())
    }

    /// Waits for records; for ever where there is no ring. Cancel-safe.
    pub async fn read(ring: Option<&mut Self>) -> Vec<Bytes> {
        let Some(Self(ring)) = ring else { return std::future::pending().await };
        loop {
            let Ok(mut guard) = ring.readable_mut().await else { return std::future::pending().await };
            let records = take(guard.get_inner_mut());
            if records.len() < BATCH {
                guard.clear_ready();
            }
            if !records.is_empty() {
                return records;
            }
        }
    }
}
