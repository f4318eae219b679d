//! The ring buffer as a stream of raw records.
//!
//! Invariants: records are copied out before they are given back to the kernel; the consumer's position lives in the
//! pinned map, so a restarted agent goes on where the last one stopped. One reader at a time (the agent's lock file).

use aya::maps::{Map, MapData, RingBuf};
use bytes::Bytes;
use portcullis_common::abi::map;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{KernelError, bpf, pins};

/// Reader of the gate's events.
pub struct EventRing {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl EventRing {
    /// Opens the pinned ring buffer. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// The pin is missing or no ring buffer, or the runtime refuses the descriptor.
    pub fn open() -> Result<Self, KernelError> {
        let data = MapData::from_pin(pins::pin(map::EVENTS)).map_err(bpf("open the ring buffer EVENTS"))?;
        let ring = RingBuf::try_from(Map::RingBuf(data)).map_err(bpf("map the ring buffer EVENTS"))?;
        // SAFETY: the ring owns its descriptor, returns the same one as long as it lives, and the AsyncFd owns the ring.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }
            .map_err(bpf("wait for the ring buffer EVENTS"))?;
        Ok(Self { ring })
    }

    /// Waits for records and returns at least one, at most `limit`. Cancel-safe: nothing is taken before all is ready.
    ///
    /// # Errors
    /// The descriptor can no longer be waited for.
    pub async fn read(&mut self, limit: usize) -> Result<Vec<Bytes>, KernelError> {
        loop {
            let mut guard = self.ring.readable_mut().await.map_err(bpf("wait for the ring buffer EVENTS"))?;
            let mut records = Vec::new();
            {
                let ring = guard.get_inner_mut();
                while records.len() < limit {
                    match ring.next() {
                        Some(item) => records.push(Bytes::copy_from_slice(&item)),
                        None => break,
                    }
                }
            }
            if records.len() < limit {
                // Drained: the next record wakes us.
                guard.clear_ready();
            }
            if !records.is_empty() {
                return Ok(records);
            }
        }
    }

    /// Returns what is there now, at most `limit`, without waiting.
    pub fn drain(&mut self, limit: usize) -> Vec<Bytes> {
        let ring = self.ring.get_mut();
        let mut records = Vec::new();
        while records.len() < limit
            && let Some(item) = ring.next()
        {
            records.push(Bytes::copy_from_slice(&item));
        }
        records
    }
}
