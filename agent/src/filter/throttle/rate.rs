//! Rates as people write them: `1000pps`, `4mbit`, `50syn`, `20flows`.
//!
//! Invariant: what is shown is read again as the same; no rate is zero, and no burst smaller than what comes at once.

use std::fmt;
use std::str::FromStr;

use portcullis_common::filter::limit::{self, MAX_BURST, MAX_RATE, Meter};
use portcullis_common::filter::throttle::unit;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// Packets.
    Packets,
    /// Bytes; people write bits.
    Bytes,
    /// TCP segments that ask for a connection.
    Syns,
    /// New flows.
    Flows,
}

/// A train of packets that the kernel has put together: a burst must let one through.
const TRAIN: u64 = 65_536;
/// Units that come at once, for the length of windows in which sources share.
const PACKET: u64 = 4_096;
/// Smallest burst of what is no bytes, where none is named.
const FEW: u64 = 10;

impl Unit {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Packets, Self::Bytes, Self::Syns, Self::Flows];

    /// Its number in the kernel.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Packets => unit::PACKETS,
            Self::Bytes => unit::BYTES,
            Self::Syns => unit::SYNS,
            Self::Flows => unit::FLOWS,
        }
    }

    /// The unit of a number.
    #[must_use]
    pub fn of_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|unit| unit.number() == number)
    }

    /// Its word in metrics, the API and the store.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Packets => "packets",
            Self::Bytes => "bytes",
            Self::Syns => "syns",
            Self::Flows => "flows",
        }
    }

    const fn least_burst(self) -> u64 {
        match self {
            Self::Bytes => TRAIN,
            _ => 1,
        }
    }
}

/// How much, of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate {
    /// Of what.
    pub unit: Unit,
    /// Units a second.
    pub rate: u64,
    /// Units at once.
    pub burst: u64,
}

/// Why a text is no rate or burst.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// No such form.
    #[error("{0} is no rate: write 1000pps, 4mbit (kbit, gbit), 50syn or 20flows, of one second")]
    Form(String),
    /// Zero, or more than can be counted.
    #[error("{0} is out of range: from 1 to {max} bytes or packets a second", max = MAX_RATE)]
    Range(String),
    /// No such burst.
    #[error(
        "{0} is no burst: write a number of packets, SYNs or flows; of bits a number of bytes, as 64k or 1m"
    )]
    Burst(String),
    /// A burst that lets nothing through, or too large.
    #[error("a burst of {burst} is out of range: from {least} to {MAX_BURST}{why}")]
    BurstRange {
        /// What was asked.
        burst: u64,
        /// The least.
        least: u64,
        /// Why.
        why: &'static str,
    },
}

const THOUSANDS: [(&str, u64); 3] = [("k", 1_000), ("m", 1_000_000), ("g", 1_000_000_000)];

/// Digits, and what follows.
fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end)?;
    Some((digits.parse().ok()?, rest))
}

impl Rate {
    /// Reads a rate and a burst; without one it is a quarter of a second's, and at least what comes at once.
    ///
    /// # Errors
    /// One of the two is none.
    pub fn read(rate: &str, burst: Option<&str>) -> Result<Self, RateError> {
        let word = || crate::text::escape(rate.as_bytes());
        let lower = rate.to_ascii_lowercase();
        let text = lower.strip_suffix("/s").unwrap_or(&lower);
        let (number, rest) = split(text).ok_or_else(|| RateError::Form(word()))?;
        let (scale, rest) = THOUSANDS
            .iter()
            .find_map(|(letter, scale)| Some((*scale, rest.strip_prefix(letter)?)))
            .unwrap_or((1, rest));
        let (unit, divisor) = match rest {
            "pps" => (Unit::Packets, 1),
            "bit" => (Unit::Bytes, 8),
            "syn" | "syns" => (Unit::Syns, 1),
            "flow" | "flows" => (Unit::Flows, 1),
            _ => return Err(RateError::Form(word())),
        };
        let number = number.checked_mul(scale).map(|number| number / divisor);
        let number = number.filter(|number| (1..=MAX_RATE).contains(number));
        let number = number.ok_or_else(|| RateError::Range(word()))?;
        Self::with(unit, number, burst)
    }

    fn with(unit: Unit, rate: u64, burst: Option<&str>) -> Result<Self, RateError> {
        let usual = (rate / 4).max(if unit == Unit::Bytes { 2 * TRAIN } else { FEW }).min(MAX_BURST);
        let Some(text) = burst else { return Ok(Self { unit, rate, burst: usual }) };
        let wrong = || RateError::Burst(crate::text::escape(text.as_bytes()));
        let lower = text.to_ascii_lowercase();
        let (number, rest) = split(&lower).ok_or_else(wrong)?;
        let scale = match THOUSANDS.iter().find(|(letter, _)| *letter == rest) {
            Some((_, scale)) => *scale,
            None if rest.is_empty() => 1,
            None => return Err(wrong()),
        };
        let burst = number.checked_mul(scale).ok_or_else(wrong)?;
        let least = unit.least_burst();
        if !(least..=MAX_BURST).contains(&burst) {
            let why = if unit == Unit::Bytes {
                " bytes: packets that the kernel has put together pass as one"
            } else {
                ""
            };
            return Err(RateError::BurstRange { burst, least, why });
        }
        Ok(Self { unit, rate, burst })
    }

    /// A full meter for the kernel.
    #[must_use]
    pub fn meter(&self, now: u64) -> Meter {
        let step = if self.unit == Unit::Bytes { PACKET } else { 1 };
        Meter::new(limit::Rate::new(self.rate, self.burst), step, now)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, word) = match self.unit {
            Unit::Packets => (self.rate, "pps"),
            Unit::Bytes => (self.rate * 8, "bit"),
            Unit::Syns => (self.rate, "syn"),
            Unit::Flows => (self.rate, "flows"),
        };
        for (letter, scale) in THOUSANDS.iter().rev().filter(|_| self.unit == Unit::Bytes) {
            if number.is_multiple_of(*scale) {
                return write!(f, "{}{letter}{word}", number / scale);
            }
        }
        write!(f, "{number}{word}")
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        Self::read(text, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_shown() {
        for (text, unit, rate, shown) in [
            ("1000pps", Unit::Packets, 1_000, "1000pps"),
            ("1kpps/s", Unit::Packets, 1_000, "1000pps"),
            ("4mbit", Unit::Bytes, 500_000, "4mbit"),
            ("4Mbit", Unit::Bytes, 500_000, "4mbit"),
            ("1500kbit", Unit::Bytes, 187_500, "1500kbit"),
            ("10gbit", Unit::Bytes, 1_250_000_000, "10gbit"),
            ("50syn", Unit::Syns, 50, "50syn"),
            ("20flows", Unit::Flows, 20, "20flows"),
        ] {
            let read: Rate = text.parse().unwrap();
            assert_eq!((read.unit, read.rate, read.to_string().as_str()), (unit, rate, shown));
            assert_eq!(read.to_string().parse(), Ok(read));
        }
        for text in [
            "",
            "pps",
            "1000",
            "0pps",
            "1bit",
            "-1pps",
            "1tbit",
            "99999999999pps",
            "1.5mbit",
            "18446744073709551615gbit",
        ] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    #[test]
    fn bursts_let_something_through() {
        assert_eq!(Rate::read("1000pps", Some("20")).unwrap().burst, 20);
        assert_eq!(Rate::read("4mbit", Some("128k")).unwrap().burst, 128_000);
        assert_eq!(Rate::read("4mbit", None).unwrap().burst, 131_072);
        assert_eq!(Rate::read("5syn", None).unwrap().burst, 10);
        for (rate, burst) in [("4mbit", "1500"), ("5syn", "0"), ("5syn", "x"), ("5syn", "5g"), ("5syn", "")] {
            assert!(Rate::read(rate, Some(burst)).is_err(), "{rate} {burst}");
        }
    }
}
