//! What the API says of the filter, as JSON.
//!
//! Invariants: as in [`super::view`].

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::view::Until;

/// A drop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropView {
    /// The network.
    pub net: String,
    /// Until when.
    pub until: Until,
    /// Destination ports; empty: everything.
    pub ports: Vec<u16>,
    /// `administrator`, `policy`, `reported`.
    pub cause: String,
    /// Why, in words.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// Its number.
    pub rule: u32,
    /// Packets dropped by it.
    pub packets: u64,
}

/// Body of POST /v1/drops.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropRequest {
    /// Which networks.
    pub nets: Vec<String>,
    /// For how long; absent: until taken away.
    #[serde(default)]
    pub seconds: Option<u64>,
    /// Destination ports; empty: everything.
    #[serde(default)]
    pub ports: Vec<u16>,
    /// Why, in words.
    #[serde(default)]
    pub reason: String,
    /// What only cuts off is no reason to refuse.
    #[serde(default)]
    pub force: bool,
    /// Another program reports it: joined with what holds, `force` does not count.
    #[serde(default)]
    pub reported: bool,
    /// One refusal refuses all.
    #[serde(default)]
    pub all_or_none: bool,
    /// Where the sessions of the one who asks come from.
    #[serde(default)]
    pub sessions: Vec<IpAddr>,
}

/// Body of POST /v1/undrop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UndropRequest {
    /// Which networks.
    pub nets: Vec<String>,
    /// Another program asks: what was not reported stays.
    #[serde(default)]
    pub reported: bool,
}

/// A network that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Its place in the request, from 0.
    pub index: usize,
    /// Why, and what to do.
    pub why: String,
}

/// Answer of POST /v1/drops and /v1/undrop.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropAnswer {
    /// The first of what is dropped now, or was until now.
    pub drops: Vec<DropView>,
    /// How many.
    pub done: usize,
    /// How many of them were dropped before.
    pub renewed: usize,
    /// Established connections that were ended; absent where the kernel cannot.
    pub connections: Option<usize>,
    /// What was refused.
    pub refused: Vec<Refused>,
}

/// An interface that is to be filtered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceView {
    /// Its name.
    pub name: String,
    /// `tcx`, `clsact`, `xdp`, `xdp-generic`, `nft`; absent: not filtered.
    pub hook: Option<String>,
    /// What is not as asked.
    pub problem: Option<String>,
}

/// How the filter is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterView {
    /// Whether the configuration has it.
    pub enabled: bool,
    /// Why it does not work.
    pub problem: Option<String>,
    /// Interfaces.
    pub interfaces: Vec<PlaceView>,
    /// Interfaces the configuration names that are not there.
    pub absent: Vec<String>,
    /// Networks dropped now.
    pub drops: u64,
    /// Throttles that hold now.
    #[serde(default)]
    pub throttles: u64,
    /// Packets that throttles held back.
    #[serde(default)]
    pub throttled: u64,
    /// Their bytes.
    #[serde(default)]
    pub throttled_bytes: u64,
    /// Networks on the allow-list.
    pub allowed: u64,
    /// Packets dropped, by cause.
    pub dropped: Vec<(String, u64)>,
    /// Bytes dropped, by cause.
    pub dropped_bytes: Vec<(String, u64)>,
    /// Packets by verdict: `passed`, `allowed`, `not_ip`, `malformed`.
    pub packets: Vec<(String, u64)>,
    /// Samples given, left out for the pace, lost.
    pub samples: [u64; 3],
    /// Whether leases are kept over a reboot; why not.
    pub store_problem: Option<String>,
}

/// A dropped packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleView {
    /// When.
    pub time: Timestamp,
    /// From where.
    pub source: Option<IpAddr>,
    /// Destination port, where there is one.
    pub port: Option<u16>,
    /// Where it came in.
    pub interface: String,
    /// Its length.
    pub length: u32,
    /// Number of the lease.
    pub rule: u32,
    /// Who asked for the drop; `throttle`: a throttle held it back.
    pub cause: String,
    /// Its beginning, in hexadecimal.
    pub head: String,
}
