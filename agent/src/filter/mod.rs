//! The filter: drops the packets of sources in the kernel, as leases that end by themselves.
//!
//! The rest of the agent has one way to it, [`Handle`]: give a lease, take one away, list them. Cheap to clone; each call
//! is answered when the kernel's table was read back.
//!
//! Invariants: whoever asks never touches the kernel's table; a lease that is refused changes nothing; an allow-listed
//! address is never dropped, whoever asks.

pub mod attach;
pub mod book;
pub mod command;
mod fast;
pub mod guard;
mod hosts;
pub mod links;
pub mod listening;
pub mod load;
pub mod metrics;
pub mod netlink;
pub mod nft;
pub mod samples;
pub mod sockets;
pub mod table;
pub mod task;
pub mod throttle;
mod worker;

pub use command::{Asker, Command, FilterError, Handle};
pub use portcullis_common::filter::{Net, NetError};

use std::fmt;

use jiff::Timestamp;
use portcullis_policy::Boot;

/// Ports one lease can name.
pub const PORTS: usize = portcullis_common::filter::PORTS;

/// Who wants a source dropped, the one whose word counts most first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// An administrator, by hand or by a list.
    Administrator,
    /// The policy for sources.
    Policy,
    /// Another program that reports sources (fail2ban).
    Reported,
}

impl Cause {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Administrator, Self::Policy, Self::Reported];

    /// Its word in the store, the API and metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Administrator => "administrator",
            Self::Policy => "policy",
            Self::Reported => "reported",
        }
    }

    /// The cause of a word.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.word() == word)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A source to be dropped, until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Which packets: by their source.
    pub net: Net,
    /// Until when; [`Boot::NEVER`]: until it is taken away.
    pub until: Boot,
    /// Destination ports (TCP, UDP, SCTP, DCCP), at most [`PORTS`]; empty: everything the source sends.
    pub ports: Vec<u16>,
    /// Who wants it.
    pub cause: Cause,
    /// Why, in words: for people, escaped where it is shown.
    pub reason: String,
}

/// A lease as the filter holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The lease.
    pub lease: Lease,
    /// Its number in the kernel: samples and counters name it.
    pub rule: u32,
    /// Since when.
    pub since: Timestamp,
    /// Packets dropped by it so far.
    pub packets: u64,
}

/// What giving a lease came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// What holds now. A lease by the policy or a report never shortens or narrows one that holds already: the two are
    /// joined, and whose word counts more has the cause.
    pub held: Held,
    /// Whether the network had a lease before.
    pub renewed: bool,
    /// Established connections that the request ended, all of its leases together; none where the kernel cannot
    /// (CONFIG_INET_DIAG_DESTROY).
    pub connections: Option<usize>,
}

/// A boot time as wall time, by both clocks of one moment; none: never.
#[must_use]
pub fn wall_time(until: Boot, boot: Boot, wall: Timestamp) -> Option<Timestamp> {
    if until == Boot::NEVER {
        return None;
    }
    let left = i64::try_from(until.0.saturating_sub(boot.0)).unwrap_or(i64::MAX);
    Some(wall.checked_add(jiff::SignedDuration::from_nanos(left)).unwrap_or(Timestamp::MAX))
}
