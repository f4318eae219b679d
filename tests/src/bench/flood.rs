//! What an innocent client gets while a flood runs: `cargo xtask bench flood`.
//!
//! * [`scene`]: one victim behind each defence, and who talks to it.
//! * [`rules`]: what each defence is told.
//! * [`floods`]: the kinds of floods.
//! * [`sockets`]: connections from an address and an interface of one's choice.
//! * [`server`]: the service that innocents ask.
//! * [`innocents`]: their requests, one after the other, and how long each took.
//! * [`plan`]: kinds, rates, rounds.
//! * [`report`]: the run, as tables and as JSON.
//!
//! Invariants: the flood and the innocents run on one processor, all that is the victim's on the other, in every row; what a
//! row is compared with is the same flood, made and thrown away before it leaves, so that only its arrival differs; the
//! defences take turns in each round.

pub mod floods;
pub mod innocents;
pub mod plan;
pub mod report;
pub mod rules;
pub mod scene;
pub mod server;
pub mod sockets;
