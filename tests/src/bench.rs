//! What the module adds to one authentication: `cargo xtask bench pam`; what a dropped packet costs: [`filter`];
//! what is left to others while a flood runs: [`flood`]; what the observer costs: [`observer`].
//!
//! * [`stacks`]: the stacks that are compared, and one attempt on each.
//! * [`command`]: the command line of the programs that measure.
//! * [`figures`]: medians, percentiles, the gate's own histogram.
//! * [`report`]: the run, as a table and as JSON.
//! * [`run`](mod@run): the rounds.
//!
//! Invariants: all stacks take turns in each round, in another order each time, so that what else the machine does falls
//! on all of them; every attempt's result is checked; before anything is measured each counting stack must have locked
//! an account.

pub mod command;
pub mod figures;
pub mod filter;
pub mod flood;
pub mod observer;
pub mod report;
pub mod run;
pub mod stacks;
