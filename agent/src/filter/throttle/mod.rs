//! Throttles: what is held to a rate, as leases that the kernel ends by itself.
//!
//! * [`rate`]: rates as people write them.
//! * [`table`]: the kernel's table of them.
//!
//! Invariants: a target has one throttle for each unit; no packet has more throttles by its network than the kernel looks
//! at.

pub mod rate;
pub mod table;

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use portcullis_common::filter::Net;
use portcullis_policy::Boot;

use super::Cause;
pub use rate::{Rate, RateError, Unit};

/// Longest name of an interface.
const NAME: usize = 15;

/// What is held to a rate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// All sources of a network together.
    Net(Net),
    /// What goes to a port (TCP, UDP, SCTP, DCCP), of all sources together.
    Port(u16),
    /// What comes in by an interface.
    Interface(String),
}

/// A word that names none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no address, network, port from 1 to 65535 or interface")]
pub struct TargetError(String);

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let wrong = || TargetError(crate::text::escape(text.as_bytes()));
        if let Ok(net) = text.parse::<Net>() {
            return Ok(Self::Net(net));
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            let port = text.parse::<u16>().ok().filter(|port| *port != 0);
            return port.map(Self::Port).ok_or_else(wrong);
        }
        let odd = |letter: char| letter.is_control() || letter.is_whitespace() || "/:".contains(letter);
        let good = !text.is_empty() && text.len() <= NAME && !text.contains(odd) && text != "lo";
        if good { Ok(Self::Interface(text.to_owned())) } else { Err(wrong()) }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(net) => net.fmt(f),
            Self::Port(port) => port.fmt(f),
            Self::Interface(name) => f.write_str(name),
        }
    }
}

/// Something to be held to a rate, until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Throttle {
    /// What.
    pub target: Target,
    /// To which rate.
    pub rate: Rate,
    /// Until when; [`Boot::NEVER`]: until it is taken away.
    pub until: Boot,
    /// Who wants it.
    pub cause: Cause,
    /// Why, in words: for people, escaped where it is shown.
    pub reason: String,
}

/// A throttle as the filter holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldThrottle {
    /// The throttle.
    pub throttle: Throttle,
    /// Its number in the kernel: samples name it.
    pub slot: u16,
    /// Since when.
    pub since: Timestamp,
    /// Packets and bytes that passed.
    pub passed: (u64, u64),
    /// Packets and bytes that were held back.
    pub limited: (u64, u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_told_apart() {
        for (text, shown) in [
            ("192.0.2.7", "192.0.2.7"),
            ("2001:db8::/48", "2001:db8::/48"),
            ("22", "22"),
            ("eth0.7", "eth0.7"),
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), shown);
        }
        assert!(matches!("22".parse(), Ok(Target::Port(22))));
        assert!(matches!("eth0".parse(), Ok(Target::Interface(_))));
        for text in ["", "0", "65536", "lo", "a b", "192.0.2.7/33", "1234567890123456", "a/b"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
