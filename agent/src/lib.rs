//! The agent of Portcullis: loads and pins the gate, reads its events, decides by policy, acts, and shows it all.
//!
//! Invariants: the gate decides without the agent, so nothing in here is on the path of a login; what comes from outside
//! (names, terminals, services, addresses) is bytes to be bounded and escaped, never parsed by a shell.

pub mod accounts;
pub mod api;
pub mod callers;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod doctor;
pub mod engine;
pub mod event;
pub mod exit;
pub mod expiry;
pub mod filter;
pub mod kernel;
pub mod logging;
pub mod logout;
pub mod metrics;
pub mod names;
pub mod notify;
pub mod observer;
pub mod program;
pub mod rows;
pub mod seats;
mod sessions;
pub mod shadow;
pub mod store;
pub mod tamper;
pub mod text;
pub mod unreachable;
