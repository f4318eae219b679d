//! One rung above the lock: what is wanted of it, what came of it.
//!
//! Invariants: a rung is undone only where `own` is set, and `own` is set only by a verified action or by the store; a
//! rung that an administrator holds is not touched at this lock.

use crate::{Boot, Kind, Notice, Outcome};

/// First pause before another try.
const FIRST_PAUSE: u64 = 1_000_000_000;
/// Longest pause before another try.
const LONGEST_PAUSE: u64 = 300_000_000_000;
/// Tries to climb a rung at one lock of the account. Undoing one is tried until it succeeds.
const LOCK_TRIES: u32 = 5;
/// After the first failed undoing, every so many tell people again.
const ALERT_EVERY: u32 = 8;

/// The rungs above the lock, from the lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Shadow,
    Expire,
    Sessions,
}

impl Step {
    /// All, from the lowest.
    pub(crate) const ALL: [Self; 3] = [Self::Shadow, Self::Expire, Self::Sessions];

    /// The action that climbs it.
    pub(crate) const fn up(self) -> Kind {
        match self {
            Self::Shadow => Kind::ShadowLock,
            Self::Expire => Kind::Expire,
            Self::Sessions => Kind::EndSessions,
        }
    }

    /// The action that undoes it; ended sessions stay ended.
    pub(crate) const fn down(self) -> Option<Kind> {
        match self {
            Self::Shadow => Some(Kind::ShadowUnlock),
            Self::Expire => Some(Kind::Unexpire),
            Self::Sessions => None,
        }
    }

    /// The rung that an action is of.
    pub(crate) fn of(kind: Kind) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.up() == kind || step.down() == Some(kind))
    }
}

/// A rung of one account.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rung {
    /// We hold it, verified (sessions: they were ended at this lock).
    pub(crate) own: bool,
    /// Not to be climbed (again) at this lock: an administrator holds it, or it failed for good.
    pub(crate) settled: bool,
    /// Failed tries of the action wanted now.
    tries: u32,
    /// No try before.
    next: u64,
}

impl Rung {
    /// What is wanted has changed: tries count anew.
    pub(crate) fn fresh(&mut self) {
        self.settled = false;
        self.tries = 0;
        self.next = 0;
    }

    /// When it may be tried next.
    pub(crate) const fn next(&self) -> Boot {
        Boot(self.next)
    }

    /// It was climbed, or not.
    pub(crate) fn climbed(&mut self, now: Boot, step: Step, outcome: Outcome) -> Option<Notice> {
        match outcome {
            Outcome::Verified => {
                *self = Self { own: true, ..Self::default() };
                None
            }
            Outcome::AlreadyLocked | Outcome::Foreign => {
                self.settled = true;
                Some(match step {
                    Step::Shadow => Notice::ShadowAlreadyLocked,
                    _ => Notice::AlreadyThere { kind: step.up() },
                })
            }
            Outcome::Failed { reason, retry } => {
                self.tries = self.tries.saturating_add(1);
                self.settled = !retry || self.tries >= LOCK_TRIES;
                self.next = now.after(pause(self.tries)).0;
                let next = if self.settled { Boot::NEVER } else { self.next() };
                Some(match step {
                    Step::Shadow => Notice::ShadowLockFailed { reason, next },
                    _ => Notice::ClimbFailed { kind: step.up(), reason, next },
                })
            }
        }
    }

    /// It was undone, or not.
    pub(crate) fn undone(&mut self, now: Boot, step: Step, locked: bool, outcome: Outcome) -> Option<Notice> {
        match outcome {
            Outcome::Verified => {
                *self = Self::default();
                None
            }
            Outcome::AlreadyLocked | Outcome::Foreign => {
                // Theirs now: not climbed a second time by us at this lock.
                *self = Self { settled: locked, ..Self::default() };
                Some(match step {
                    Step::Shadow => Notice::ShadowForeign,
                    _ => Notice::ChangedByOthers { kind: step.up() },
                })
            }
            Outcome::Failed { reason, retry } => {
                self.tries = self.tries.saturating_add(1);
                let tries = self.tries;
                let failed = |next| match step {
                    Step::Shadow => Notice::ShadowUnlockFailed { reason, tries, next },
                    _ => Notice::UndoFailed { kind: step.up(), reason, tries, next },
                };
                if !retry {
                    self.own = false;
                    return Some(failed(Boot::NEVER));
                }
                self.next = now.after(pause(self.tries)).0;
                (tries % ALERT_EVERY == 1).then(|| failed(Boot(self.next)))
            }
        }
    }
}

/// The pause after so many failed tries: doubles, up to a bound.
fn pause(tries: u32) -> u64 {
    let doublings = tries.saturating_sub(1).min(16);
    FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE)
}
