//! Whether two rules are the same, though the hours in them were reckoned at different moments.
//!
//! Invariant: a difference that a person could notice is one.

use portcullis_common::ledger::{DAY, Rule};

/// The beginning of the hours is told by two clocks: it differs by what lies between their readings.
const NOISE: u64 = 2_000_000_000;

/// The same rule, but for the noise of the clocks.
pub(super) fn same(one: &Rule, other: &Rule) -> bool {
    let apart = (one.opens % DAY).abs_diff(other.opens % DAY);
    *one == Rule { opens: one.opens, ..*other } && apart.min(DAY.saturating_sub(apart)) < NOISE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_noise_of_clocks_is_no_difference() {
        let at = |opens| Rule { opens, open_for: 1, ..Rule::DEFAULT };
        assert!(same(&at(0), &at(1_999_999_999)));
        assert!(same(&at(5), &at(DAY - 5)), "around midnight");
        assert!(!same(&at(0), &at(2_000_000_000)), "the clock was set");
        assert!(!same(&at(0), &Rule { deny: 4, ..at(0) }));
    }
}
