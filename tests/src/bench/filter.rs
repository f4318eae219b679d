//! What a packet costs that is dropped, and what the list costs a packet that is not on it: `cargo xtask bench filter`.
//!
//! * [`rows`]: what is compared, each on interfaces of its own.
//! * [`fill`]: the same sources in every list.
//! * [`plan`]: sizes, kinds of traffic, rounds.
//! * [`report`]: the run, as tables and as JSON.
//!
//! Invariants: the filter is the installed one, filled by `portcullis drop --file`; the rows take turns in each round, so
//! that what else the machine does falls on all of them, and ratios are taken within a round; what gets through is
//! counted where it arrives.

pub mod fill;
pub mod plan;
pub mod report;
pub mod rows;
