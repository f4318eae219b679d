//! Records of the ring buffer, decoded.
//!
//! Invariants: any bytes give a record or an error, never a panic; kinds of a later version are kept as
//! [`Kind::Unknown`].

use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::Buf;
use portcullis_common::abi::{self, Detail, Entry, event, source};
use portcullis_common::sources::SourceCounts;

/// A record that is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// The record has another size than this version's.
    #[error("an event of {found} bytes (this version's have {}): agent and gate differ, restart portcullisd", size_of::<abi::Event>())]
    Size {
        /// Bytes found.
        found: usize,
    },
}

/// What an event tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Refused: locked.
    Refused,
    /// Refused: the wait for a free reservation ended.
    Busy,
    /// The guess was right.
    Pass,
    /// The guess was wrong.
    Fail,
    /// The result says nothing about the secret.
    Void,
    /// The task died with its guess unresolved: a failure.
    Died,
    /// Something came due.
    Due,
    /// Confirmed: failures cleared.
    Cleared,
    /// Locked on request.
    Locked,
    /// Unlocked on request.
    Unlocked,
    /// Could not be counted.
    Uncounted,
    /// A prompt that nobody answered.
    Abandoned,
    /// A failure that another program reported.
    Reported,
    /// A logon that another program reported.
    ReportedPass,
    /// A kind this version does not know.
    Unknown(u32),
}

impl Kind {
    /// The kind of a record.
    #[must_use]
    pub const fn of(number: u32) -> Self {
        match number {
            event::REFUSED => Self::Refused,
            event::BUSY => Self::Busy,
            event::PASS => Self::Pass,
            event::FAIL => Self::Fail,
            event::VOID => Self::Void,
            event::DIED => Self::Died,
            event::DUE => Self::Due,
            event::CLEARED => Self::Cleared,
            event::LOCKED => Self::Locked,
            event::UNLOCKED => Self::Unlocked,
            event::UNCOUNTED => Self::Uncounted,
            event::ABANDONED => Self::Abandoned,
            event::REPORTED => Self::Reported,
            event::REPORTED_PASS => Self::ReportedPass,
            other => Self::Unknown(other),
        }
    }

    /// Its name in logs, JSON and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Busy => "busy",
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Void => "void",
            Self::Died => "died",
            Self::Due => "due",
            Self::Cleared => "cleared",
            Self::Locked => "locked",
            Self::Unlocked => "unlocked",
            Self::Uncounted => "uncounted",
            Self::Abandoned => "abandoned",
            Self::Reported => "reported",
            Self::ReportedPass => "reported_pass",
            Self::Unknown(_) => "unknown",
        }
    }

    /// Whether somebody tried to log on.
    #[must_use]
    pub const fn is_attempt(self) -> bool {
        matches!(
            self,
            Self::Refused
                | Self::Busy
                | Self::Pass
                | Self::Fail
                | Self::Void
                | Self::Died
                | Self::Uncounted
                | Self::Reported
                | Self::ReportedPass
        )
    }
}

/// Where an attempt came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// Not known.
    None,
    /// A local user, by real uid.
    Local(u32),
    /// A remote address.
    V4(Ipv4Addr),
    /// A remote address.
    V6(Ipv6Addr),
    /// A kind this version does not know.
    Unknown(u32),
}

impl Source {
    /// Who made the call that a record tells of.
    #[must_use]
    pub fn of(detail: &Detail) -> Self {
        let [a, b, c, d, ..] = detail.address;
        match detail.source {
            source::NONE => Self::None,
            source::LOCAL => Self::Local(detail.uid),
            source::IPV4 => Self::V4(Ipv4Addr::new(a, b, c, d)),
            source::IPV6 => Self::V6(Ipv6Addr::from(detail.address)),
            other => Self::Unknown(other),
        }
    }
}

/// Decodes a record.
///
/// # Errors
/// The record has another size.
pub fn decode(record: &[u8]) -> Result<abi::Event, EventError> {
    if record.len() != size_of::<abi::Event>() {
        return Err(EventError::Size { found: record.len() });
    }
    read(record).map_err(|_| EventError::Size { found: record.len() })
}

/// Reads the fields in the order of `abi::Event`.
fn read(mut bytes: &[u8]) -> Result<abi::Event, bytes::TryGetError> {
    let bytes = &mut bytes;
    Ok(abi::Event {
        kind: bytes.try_get_u32_ne()?,
        flags: bytes.try_get_u32_ne()?,
        seq: bytes.try_get_u64_ne()?,
        time: bytes.try_get_u64_ne()?,
        locked_until: bytes.try_get_u64_ne()?,
        failures: bytes.try_get_u32_ne()?,
        deny: bytes.try_get_u32_ne()?,
        trips: bytes.try_get_u32_ne()?,
        lapsed: bytes.try_get_u32_ne()?,
        lapsed_actor: bytes.try_get_u64_ne()?,
        lapsed_source: bytes.try_get_u32_ne()?,
        cause: bytes.try_get_u32_ne()?,
        source: SourceCounts {
            failures: bytes.try_get_u32_ne()?,
            accounts: bytes.try_get_u32_ne()?,
            unknown: bytes.try_get_u32_ne()?,
            passes: bytes.try_get_u32_ne()?,
            trips: bytes.try_get_u32_ne()?,
            tripped: bytes.try_get_u32_ne()?,
        },
        entry: entry(bytes)?,
    })
}

/// Reads an attempt.
pub(crate) fn entry(bytes: &mut &[u8]) -> Result<Entry, bytes::TryGetError> {
    Ok(Entry {
        account: bytes.try_get_u64_ne()?,
        token: bytes.try_get_u64_ne()?,
        detail: Detail {
            source: bytes.try_get_u32_ne()?,
            uid: bytes.try_get_u32_ne()?,
            address: array(bytes)?,
            pid: bytes.try_get_u32_ne()?,
            parent: bytes.try_get_u32_ne()?,
            status: bytes.try_get_i32_ne()?,
            via: bytes.try_get_u32_ne()?,
            service: array(bytes)?,
            tty: array(bytes)?,
        },
    })
}

fn array(bytes: &mut &[u8]) -> Result<[u8; 16], bytes::TryGetError> {
    let mut field = [0; 16];
    bytes.try_copy_to_slice(&mut field)?;
    Ok(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every field a different number, laid out by hand at the offsets of the ABI.
    fn record() -> Vec<u8> {
        let mut bytes = vec![0; size_of::<abi::Event>()];
        let mut put = |offset: usize, value: &[u8]| {
            bytes[offset..offset + value.len()].copy_from_slice(value);
        };
        use std::mem::offset_of;
        put(offset_of!(abi::Event, kind), &event::FAIL.to_ne_bytes());
        put(offset_of!(abi::Event, flags), &1_u32.to_ne_bytes());
        put(offset_of!(abi::Event, seq), &2_u64.to_ne_bytes());
        put(offset_of!(abi::Event, time), &3_u64.to_ne_bytes());
        put(offset_of!(abi::Event, locked_until), &4_u64.to_ne_bytes());
        put(offset_of!(abi::Event, failures), &5_u32.to_ne_bytes());
        put(offset_of!(abi::Event, deny), &6_u32.to_ne_bytes());
        put(offset_of!(abi::Event, trips), &7_u32.to_ne_bytes());
        put(offset_of!(abi::Event, lapsed), &8_u32.to_ne_bytes());
        put(offset_of!(abi::Event, lapsed_actor), &9_u64.to_ne_bytes());
        put(offset_of!(abi::Event, lapsed_source), &10_u32.to_ne_bytes());
        put(offset_of!(abi::Event, cause), &11_u32.to_ne_bytes());
        let counts = offset_of!(abi::Event, source);
        put(counts + offset_of!(SourceCounts, failures), &21_u32.to_ne_bytes());
        put(counts + offset_of!(SourceCounts, accounts), &22_u32.to_ne_bytes());
        put(counts + offset_of!(SourceCounts, unknown), &23_u32.to_ne_bytes());
        put(counts + offset_of!(SourceCounts, passes), &24_u32.to_ne_bytes());
        put(counts + offset_of!(SourceCounts, trips), &25_u32.to_ne_bytes());
        put(counts + offset_of!(SourceCounts, tripped), &26_u32.to_ne_bytes());
        let entry = offset_of!(abi::Event, entry);
        put(entry + offset_of!(Entry, account), &12_u64.to_ne_bytes());
        put(entry + offset_of!(Entry, token), &13_u64.to_ne_bytes());
        let detail = entry + offset_of!(Entry, detail);
        put(detail + offset_of!(Detail, source), &source::IPV4.to_ne_bytes());
        put(detail + offset_of!(Detail, uid), &14_u32.to_ne_bytes());
        put(detail + offset_of!(Detail, address), &[192, 0, 2, 7]);
        put(detail + offset_of!(Detail, pid), &15_u32.to_ne_bytes());
        put(detail + offset_of!(Detail, parent), &16_u32.to_ne_bytes());
        put(detail + offset_of!(Detail, status), &(-17_i32).to_ne_bytes());
        put(detail + offset_of!(Detail, service), b"sshd");
        put(detail + offset_of!(Detail, tty), b"pts/3");
        bytes
    }

    #[test]
    fn fields_are_where_the_abi_says() {
        let event = decode(&record()).unwrap();
        assert_eq!(Kind::of(event.kind), Kind::Fail);
        assert_eq!((event.flags, event.seq, event.time, event.locked_until), (1, 2, 3, 4));
        assert_eq!((event.failures, event.deny, event.trips, event.lapsed), (5, 6, 7, 8));
        assert_eq!((event.lapsed_actor, event.lapsed_source, event.cause), (9, 10, 11));
        assert_eq!((event.entry.account, event.entry.token), (12, 13));
        let counts = event.source;
        assert_eq!((counts.failures, counts.accounts, counts.unknown), (21, 22, 23));
        assert_eq!((counts.passes, counts.trips, counts.tripped), (24, 25, 26));
        let detail = event.entry.detail;
        assert_eq!((detail.uid, detail.pid, detail.parent, detail.status), (14, 15, 16, -17));
        assert_eq!(Source::of(&detail), Source::V4(Ipv4Addr::new(192, 0, 2, 7)));
        assert_eq!(crate::text::field(&detail.service), "sshd");
        assert_eq!(crate::text::field(&detail.tty), "pts/3");
    }

    #[test]
    fn unaligned_records_decode() {
        let mut shifted = vec![0];
        shifted.extend(record());
        assert_eq!(decode(&shifted[1..]), decode(&record()));
    }

    #[test]
    fn other_sizes_are_refused() {
        for size in [0, 1, 175, 177, 4096] {
            assert_eq!(decode(&vec![0; size]), Err(EventError::Size { found: size }));
        }
    }

    #[test]
    fn kinds_of_a_later_version_are_kept() {
        assert_eq!(Kind::of(4711), Kind::Unknown(4711));
        assert_eq!(Kind::of(0), Kind::Unknown(0));
    }
}
