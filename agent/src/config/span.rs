//! Lengths of time as the configuration writes them: `90s`, `15m`, `2h`, `1d`, `never`.
//!
//! Invariants: printing and parsing are each other's inverse; nothing overflows.

use std::fmt;
use std::time::Duration;

use portcullis_common::ledger::NEVER;
use serde::{Serialize, Serializer};

/// Longest time that can be meant: ten years. More is a slip of the pen; `never` says what is meant.
pub const LONGEST: u64 = 3650 * 86_400;
const NANOSECONDS: u64 = 1_000_000_000;
const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// A length of time in whole seconds, or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(u64);

/// Why a text is no length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpanError {
    /// Not a number and a unit.
    #[error(
        "is no length of time: write a whole number and a unit, as in \"90s\", \"15m\", \"2h\" or \"1d\""
    )]
    Form,
    /// No unit.
    #[error("has no unit: write \"{0}s\" for seconds, or use m, h, d")]
    Unit(u64),
    /// Zero.
    #[error("must be at least \"1s\"")]
    Zero,
    /// Longer than ten years.
    #[error("is longer than ten years: write at most \"3650d\"")]
    Long,
}

impl Span {
    /// No end.
    pub const NEVER: Self = Self(u64::MAX);

    /// So many seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self(seconds)
    }

    /// The same in nanoseconds, as the gate's rules have it.
    #[must_use]
    pub const fn nanoseconds(self) -> u64 {
        if self.0 == u64::MAX { NEVER } else { self.0.saturating_mul(NANOSECONDS) }
    }

    /// The same for timers; never is the longest there is.
    #[must_use]
    pub const fn duration(self) -> Duration {
        if self.0 == u64::MAX { Duration::MAX } else { Duration::from_secs(self.0) }
    }

    /// Reads a length of time; `never` is none.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, SpanError> {
        let digits = text.trim_end_matches(|letter: char| !letter.is_ascii_digit());
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(SpanError::Form);
        }
        let number: u64 = digits.parse().map_err(|_| SpanError::Long)?;
        let unit = text.get(digits.len()..).unwrap_or_default();
        if unit.is_empty() {
            return Err(SpanError::Unit(number));
        }
        let (_, unit) = UNITS.iter().find(|(letter, _)| unit.chars().eq([*letter])).ok_or(SpanError::Form)?;
        match number.checked_mul(*unit) {
            Some(0) => Err(SpanError::Zero),
            Some(seconds) if seconds <= LONGEST => Ok(Self(seconds)),
            _ => Err(SpanError::Long),
        }
    }
}

/// Reads a length of time that has an end, as command lines give it.
///
/// # Errors
/// What is wrong with it.
pub fn parse_duration(text: &str) -> Result<Duration, SpanError> {
    Span::parse(text).map(Span::duration)
}

impl fmt::Display for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NEVER {
            return formatter.write_str("never");
        }
        for (letter, unit) in UNITS {
            if self.0.is_multiple_of(unit) {
                return write!(formatter, "{}{letter}", self.0 / unit);
            }
        }
        write!(formatter, "{}s", self.0)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::{Span, SpanError};

    #[test]
    fn what_is_written_is_read() {
        for text in ["1s", "90s", "15m", "2h", "1d", "3650d"] {
            assert_eq!(Span::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Span::parse("60s").unwrap().to_string(), "1m");
        assert_eq!(Span::parse("90s").unwrap().nanoseconds(), 90_000_000_000);
        assert_eq!(Span::NEVER.to_string(), "never");
    }

    #[test]
    fn the_rest_is_refused() {
        assert_eq!(Span::parse("900"), Err(SpanError::Unit(900)));
        for text in ["", "s", "-5s", "1.5h", "5 m", "5min", "never", "+5s", "5ß", "1h30m"] {
            assert_eq!(Span::parse(text), Err(SpanError::Form), "{text}");
        }
        assert_eq!(Span::parse("0d"), Err(SpanError::Zero));
        for text in ["3651d", "99999999999999999999s", "9999999999999999999d"] {
            assert_eq!(Span::parse(text), Err(SpanError::Long), "{text}");
        }
    }
}
