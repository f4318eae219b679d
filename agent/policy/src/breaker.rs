//! The breaker: when many accounts fail and none succeeds (the directory is down, a client is broken), or when too many
//! are locked at once, the rungs above the lock are withheld. Locks of the gate hold all the same.
//!
//! Invariants: pure; bounded; an override of an administrator wins; time that goes back changes nothing; opening and
//! closing each happen once, not once an event.

use std::collections::{BTreeMap, BTreeSet};

use crate::Boot;

/// Failing accounts followed: more than any limit.
const FOLLOWED: usize = 4_096;

/// When it opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Accounts that fail within `window`, with no success in it; 0: never for that.
    pub accounts: u32,
    /// Nanoseconds.
    pub window: u64,
    /// Percent of the accounts that may be locked at once; 100: all.
    pub locked_percent: u32,
}

/// What an administrator wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Override {
    /// The rules decide.
    #[default]
    Auto,
    /// Rungs are withheld, whatever the rules say.
    Open,
    /// No rung is withheld, whatever the rules say.
    Closed,
}

/// Why rungs are withheld.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// So many accounts fail, and none succeeds.
    Failing(u32),
    /// So many accounts are locked, of so many.
    Locked(u32, u32),
    /// An administrator wants it.
    Administrator,
}

/// The breaker.
#[derive(Clone, Debug)]
pub struct Breaker {
    rules: Rules,
    wish: Override,
    /// Last failure of each failing account.
    failing: BTreeMap<u32, Boot>,
    by_time: BTreeSet<(Boot, u32)>,
    newest: Boot,
    locked: u32,
    population: u32,
}

impl Breaker {
    /// A breaker that has seen nothing.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            wish: Override::Auto,
            failing: BTreeMap::new(),
            by_time: BTreeSet::new(),
            newest: Boot(0),
            locked: 0,
            population: 0,
        }
    }

    /// New rules; what was seen counts on.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// The window of failures, in nanoseconds.
    #[must_use]
    pub const fn window(&self) -> u64 {
        self.rules.window
    }

    /// What an administrator wants from now on.
    pub fn set_override(&mut self, wish: Override) {
        self.wish = wish;
    }

    /// What an administrator wants.
    #[must_use]
    pub const fn wish(&self) -> Override {
        self.wish
    }

    /// A failure of an account.
    pub fn failed(&mut self, now: Boot, account: u32) {
        self.forget_old(now);
        if let Some(before) = self.failing.get(&account) {
            self.by_time.remove(&(*before, account));
        } else if self.failing.len() >= FOLLOWED {
            return;
        }
        self.failing.insert(account, self.newest);
        self.by_time.insert((self.newest, account));
    }

    /// A right password: whatever checks passwords works.
    pub fn succeeded(&mut self, now: Boot) {
        self.forget_old(now);
        self.failing.clear();
        self.by_time.clear();
    }

    /// So many of so many accounts are locked now.
    pub fn locked(&mut self, locked: u32, population: u32) {
        self.locked = locked;
        self.population = population;
    }

    /// Accounts that failed within the window since the last success.
    #[must_use]
    pub fn failing(&self) -> u32 {
        u32::try_from(self.failing.len()).unwrap_or(u32::MAX)
    }

    /// Whether rungs are withheld now, and why.
    #[must_use]
    pub fn withheld(&mut self, now: Boot) -> Option<Why> {
        self.forget_old(now);
        let rules = self.rules;
        let failing = self.failing();
        match self.wish {
            Override::Open => return Some(Why::Administrator),
            Override::Closed => return None,
            Override::Auto if cfg!(feature = "mutation-no-breaker") => return None,
            Override::Auto => {}
        }
        if rules.accounts != 0 && failing >= rules.accounts {
            return Some(Why::Failing(failing));
        }
        let share =
            u64::from(self.locked) * 100 > u64::from(self.population) * u64::from(rules.locked_percent);
        // Of three accounts one is a third: a share says nothing about a handful.
        (rules.accounts != 0 && self.locked >= rules.accounts && share)
            .then_some(Why::Locked(self.locked, self.population))
    }

    fn forget_old(&mut self, now: Boot) {
        self.newest = self.newest.max(now);
        while let Some((at, account)) = self.by_time.first().copied() {
            if at.after(self.rules.window) > self.newest {
                break;
            }
            self.by_time.remove(&(at, account));
            self.failing.remove(&account);
        }
    }
}
