//! What the two sides of Portcullis share.
//!
//! * [`abi`]: the records that cross the border between kernel and user space, and the names of the pins.
//! * [`ledger`]: the counting rule itself. The gate runs it in the kernel under a spin lock, the property tests run the
//!   same lines on the host.
//! * [`sources`]: what is counted about sources, by the same rule in the kernel and in the tests.
//! * [`filter`]: the verdict about a packet, and its records.
//! * [`observer`]: the records of programs that start and end.
//! * [`client`] (feature `client`): calls the pinned gate with `bpf(2)`; [`link`]: by the agent's socket where that is
//!   not allowed.
//! * [`services`]: where a locked account is refused in the account phase.
//! * [`pair`]: the key of an account as one source sees it.
//!
//! Invariants: no allocation, no clock, no panic; the ledger compiles for `bpfel-unknown-none` without a single call.
#![cfg_attr(not(test), no_std)]

pub mod abi;
mod arithmetic;
#[cfg(feature = "client")]
pub mod client;
pub mod filter;
pub mod ledger;
#[cfg(feature = "client")]
pub mod link;
pub mod observer;
pub mod pair;
#[cfg(feature = "user")]
mod pod;
pub mod services;
pub mod sources;
