//! The counting rule as one would write it on paper: every guess it ever saw, replayed second by second. It knows nothing
//! of slots.

use portcullis_common::ledger::{Actor, Rule};

/// What happened to a guess that was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Out,
    Failed,
    Lapsed,
    /// Passed, withdrawn, cleared, used up by a trip, or out of the window: it counts no more.
    Gone,
}

#[derive(Clone, Debug)]
pub struct Guess {
    pub token: u64,
    pub actor: Actor,
    pub admitted: u64,
    /// When it became a failure.
    pub failed: u64,
    pub fate: Fate,
}

/// The rule as one would write it on paper: the list of all guesses, replayed second by second.
#[derive(Debug, Default)]
pub struct Model {
    pub guesses: Vec<Guess>,
    pub locked_until: u64,
    pub failures_ever: u64,
    pub trips: u32,
    /// Trips in a row, and until when the next one is one of them.
    pub row: u32,
    pub row_until: u64,
    pub passes: Vec<(u32, u32, u64, u64)>,
}

impl Model {
    pub fn failures(&self) -> usize {
        self.guesses.iter().filter(|g| matches!(g.fate, Fate::Failed | Fate::Lapsed)).count()
    }

    pub fn out(&self) -> usize {
        self.guesses.iter().filter(|g| g.fate == Fate::Out).count()
    }

    pub fn fail(&mut self, index: usize, at: u64, fate: Fate, rule: &Rule) {
        self.expire(at, rule);
        self.guesses[index].fate = fate;
        self.guesses[index].failed = at;
        self.failures_ever += 1;
        self.judge(at, rule);
    }

    pub fn judge(&mut self, at: u64, rule: &Rule) {
        if self.failures() >= rule.deny as usize {
            self.trips += 1;
            self.row = if at < self.row_until { self.row + 1 } else { 0 };
            let mut time = rule.unlock_time;
            for _ in 0..self.row {
                if time < rule.max_unlock_time {
                    time = (time * 2).min(rule.max_unlock_time);
                }
            }
            let until = at.saturating_add(time);
            self.row_until =
                if rule.backoff_window == 0 { 0 } else { until.saturating_add(rule.backoff_window) };
            self.locked_until = self.locked_until.max(until);
            self.clear();
        }
    }

    pub fn clear(&mut self) {
        for guess in &mut self.guesses {
            if matches!(guess.fate, Fate::Failed | Fate::Lapsed) {
                guess.fate = Fate::Gone;
            }
        }
    }

    pub fn expire(&mut self, now: u64, rule: &Rule) {
        for guess in &mut self.guesses {
            if matches!(guess.fate, Fate::Failed | Fate::Lapsed) && guess.failed + rule.fail_interval <= now {
                guess.fate = Fate::Gone;
            }
        }
    }

    /// In order of time, one thing after the other.
    pub fn settle(&mut self, now: u64, rule: &Rule) {
        while let Some(index) = (0..self.guesses.len())
            .filter(|&i| self.guesses[i].fate == Fate::Out && self.guesses[i].admitted + rule.max_age <= now)
            .min_by_key(|&i| self.guesses[i].admitted)
        {
            let due = self.guesses[index].admitted + rule.max_age;
            self.fail(index, due, Fate::Lapsed, rule);
        }
        self.expire(now, rule);
        if self.locked_until != 0 && self.locked_until <= now {
            self.locked_until = 0;
        }
    }
}
