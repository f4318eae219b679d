//! Samples of dropped packets, as the ring buffer gives them.
//!
//! Invariants: what is in a sample came from outside: it is read by the code that judged it, and shown as numbers.

use jiff::{SignedDuration, Timestamp};
use portcullis_common::filter::packet::{self, PORT_NONE};
use portcullis_common::filter::{FILTER_DIR, Kind, SAMPLE_BYTES, Sample, map, reason};

use super::Cause;
use super::command::FilterError;
use super::netlink::array;
use crate::api::drops::SampleView;
use crate::kernel::{KernelError, Ring};

/// Samples read before others get their turn.
const BATCH: usize = 256;

/// Reader of the samples.
pub struct Samples(Ring);

/// A sample as it lay in the ring.
#[derive(Debug, Clone)]
pub struct Raw {
    time: u64,
    rule: u32,
    reason: u16,
    interface: u32,
    length: u32,
    raw: bool,
    head: Vec<u8>,
}

fn failed(error: KernelError) -> FilterError {
    FilterError::Kernel(format!("cannot read the filter's samples: {error}"))
}

impl Samples {
    /// Opens the pinned ring buffer. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// The pin is missing, or the runtime refuses the descriptor.
    pub fn open() -> Result<Self, FilterError> {
        let path = std::path::Path::new(FILTER_DIR).join(map::SAMPLES);
        Ring::open(&path, map::SAMPLES).map(Self).map_err(failed)
    }

    /// Waits for samples. Cancel-safe.
    ///
    /// # Errors
    /// The descriptor can no longer be waited for.
    pub async fn read(&mut self) -> Result<Vec<Raw>, FilterError> {
        let records = self.0.read(BATCH).await.map_err(failed)?;
        Ok(records.iter().filter_map(|record| raw(record)).collect())
    }
}

/// Reads a record field by field, as [`Sample`] has them.
fn raw(bytes: &[u8]) -> Option<Raw> {
    if bytes.len() != size_of::<Sample>() {
        return None;
    }
    let number = |offset| array(bytes, offset).map(u32::from_ne_bytes);
    let short = |offset| array(bytes, offset).map(u16::from_ne_bytes);
    let head: [u8; SAMPLE_BYTES] = array(bytes, 32)?;
    Some(Raw {
        time: u64::from_ne_bytes(array(bytes, 0)?),
        rule: number(8)?,
        reason: short(12)?,
        interface: number(16)?,
        length: number(20)?,
        raw: number(24)? != 0,
        head: head.get(..usize::from(short(14)?))?.to_vec(),
    })
}

impl Raw {
    /// Index of the interface.
    #[must_use]
    pub const fn interface(&self) -> u32 {
        self.interface
    }

    /// The sample for people. `now`: boot time and wall time of one moment.
    #[must_use]
    pub fn view(&self, now: (u64, Timestamp), interface: Option<&str>) -> SampleView {
        let age = i64::try_from(now.0.saturating_sub(self.time)).unwrap_or(i64::MAX);
        let time = now.1.checked_sub(SignedDuration::from_nanos(age)).unwrap_or(now.1);
        let bytes = self.head.as_slice();
        let kind = if self.raw { packet::raw(&bytes) } else { packet::ethernet(&bytes) };
        let (source, port) = match kind {
            Kind::Ip(packet) => {
                let port = Some(packet.port).filter(|port| *port < PORT_NONE);
                (Some(packet.source.address()), port.and_then(|port| u16::try_from(port).ok()))
            }
            _ => (None, None),
        };
        SampleView {
            time,
            source,
            port,
            interface: interface.map_or_else(|| format!("#{}", self.interface), str::to_owned),
            length: self.length,
            rule: self.rule,
            cause: match self.reason {
                reason::THROTTLE => "throttle",
                number => Cause::of_number(number).map_or("unknown", Cause::word),
            }
            .to_owned(),
            head: self.head.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}
