//! A pinned ring buffer as a stream of raw records.
//!
//! Invariants: records are copied out before they are given back to the kernel; the consumer's position lives in the
//! pinned map, so a restarted agent goes on where the last one stopped. One reader at a time (the agent's lock file).

use std::path::Path;

use aya::maps::{Map, MapData, RingBuf};
use bytes::Bytes;
use portcullis_common::abi::map;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{KernelError, bpf, pins};

/// Reader of a ring buffer.
pub struct Ring {
    ring: AsyncFd<RingBuf<MapData>>,
    name: &'static str,
}

impl Ring {
    /// Opens the gate's events. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// See [`Ring::open`].
    pub fn events() -> Result<Self, KernelError> {
        Self::open(&pins::pin(map::EVENTS), map::EVENTS)
    }

    /// Opens the ring buffer `name` pinned at `path`. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// The pin is missing or no ring buffer, or the runtime refuses the descriptor.
    pub fn open(path: &Path, name: &'static str) -> Result<Self, KernelError> {
        let data = MapData::from_pin(path).map_err(bpf(format!("open the ring buffer {name}")))?;
        let ring =
            RingBuf::try_from(Map::RingBuf(data)).map_err(bpf(format!("map the ring buffer {name}")))?;
        // SAFETY: the ring owns its descriptor, returns the same one as long as it lives, and the AsyncFd owns the ring.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }
            .map_err(bpf(format!("wait for the ring buffer {name}")))?;
        Ok(Self { ring, name })
    }

    /// Waits for records and returns at least one, at most `limit`. Cancel-safe: nothing is taken before all is ready.
    ///
    /// # Errors
    /// The descriptor can no longer be waited for.
    pub async fn read(&mut self, limit: usize) -> Result<Vec<Bytes>, KernelError> {
        loop {
            let mut guard = self
                .ring
                .readable_mut()
                .await
                .map_err(bpf(format!("wait for the ring buffer {}", self.name)))?;
            let records = take(guard.get_inner_mut(), limit);
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
        take(self.ring.get_mut(), limit)
    }
}

fn take(ring: &mut RingBuf<MapData>, limit: usize) -> Vec<Bytes> {
    let mut records = Vec::new();
    while records.len() < limit
        && let Some(item) = ring.next()
    {
        records.push(Bytes::copy_from_slice(&item));
    }
    records
}
