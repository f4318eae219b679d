//! How many findings about one user are told and charged in a second.
//!
//! A user may fail `unix_chkpwd` a thousand times a second, without a delay: each would be a line of the log, a call of the
//! gate and its event. journald then withholds what else the agent has to say.
//!
//! Invariant: whatever limit a class has is reached within a second or two; what is left out is counted and said.

use std::collections::BTreeMap;

/// Findings about one user in one second.
pub const EACH: u64 = 20;

/// Findings of this second, by user.
#[derive(Debug, Default)]
pub struct Pace(BTreeMap<u32, u64>);

impl Pace {
    /// Whether one more about this user is to be told and charged.
    pub fn allows(&mut self, uid: u32) -> bool {
        let found = self.0.entry(uid).or_default();
        *found += 1;
        *found <= EACH || cfg!(feature = "mutation-tell-every-guess")
    }

    /// The next second begins. Users of whom more was found, and how much was left out.
    pub fn next(&mut self) -> Vec<(u32, u64)> {
        let over = |(uid, found): (u32, u64)| (found > EACH).then(|| (uid, found - EACH));
        std::mem::take(&mut self.0).into_iter().filter_map(over).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_is_told_of_so_often_and_another_all_the_same() {
        let mut pace = Pace::default();
        let mut told = |uid: u32, count: u64| (0..count).filter(|_| pace.allows(uid)).count() as u64;
        assert_eq!((told(1000, 500), told(1001, 3), told(1000, 1)), (EACH, 3, 0));
        assert_eq!(pace.next(), [(1000, 501 - EACH)]);
        assert!(pace.allows(1000) && pace.next().is_empty());
    }
}
