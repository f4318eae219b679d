//! What the policy holds about one account, and what it wants to be done about its shadow lock.
//!
//! Invariants: one shadow action is out at a time; `ShadowUnlock` is asked for only where `own` is set, and `own` is
//! set only by a verified `ShadowLock` or by the store.

use crate::{Action, Boot, Class, Kind, Notice, Outcome};

/// First pause before another try.
const FIRST_PAUSE: u64 = 1_000_000_000;
/// Longest pause before another try.
const LONGEST_PAUSE: u64 = 300_000_000_000;
/// Tries of a shadow lock at one lock of the account. A shadow unlock is tried until it succeeds.
const LOCK_TRIES: u32 = 5;
/// After the first failed unlock, every so many tell people again.
const ALERT_EVERY: u32 = 8;
/// How long an account is remembered after its lock ran out, so that late news of that lock is known as such.
pub(crate) const LINGER: u64 = 60_000_000_000;

/// A shadow action that is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Out {
    Lock,
    Unlock,
}

/// One account.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) class: Class,
    /// The lock at hand, if `locked`, else the last one.
    pub(crate) until: Boot,
    pub(crate) locked: bool,
    /// The highest trip acted on.
    pub(crate) trips: u32,
    /// When an account that is not locked is forgotten.
    pub(crate) forget: Boot,
    /// A lock or unlock of the gate is out.
    pub(crate) gate_out: bool,
    /// We hold a verified shadow lock.
    own: bool,
    /// No (further) shadow lock is to be tried at this lock: an administrator's is there, or it failed for good.
    settled: bool,
    out: Option<Out>,
    /// Failed tries of the action wanted now.
    tries: u32,
    /// No try before.
    next: Boot,
}

impl Account {
    /// An account that is not locked and about which nothing is known.
    pub(crate) fn new(class: Class) -> Self {
        Self {
            class,
            until: Boot(0),
            locked: false,
            trips: 0,
            forget: Boot(0),
            gate_out: false,
            own: false,
            settled: false,
            out: None,
            tries: 0,
            next: Boot(0),
        }
    }

    /// The store says that we hold a shadow lock.
    pub(crate) fn restore_own(&mut self) {
        self.own = true;
    }

    /// A lock begins, or its end moves.
    pub(crate) fn lock(&mut self, until: Boot) {
        if !self.locked {
            self.fresh();
        }
        self.locked = true;
        self.until = until;
    }

    /// The lock is over; late news of it are known as such until `forget`.
    pub(crate) fn release(&mut self, forget: Boot) {
        if self.locked {
            self.fresh();
        }
        self.locked = false;
        self.forget = forget;
    }

    /// What is wanted has changed: tries count anew.
    pub(crate) fn fresh(&mut self) {
        self.settled = false;
        self.tries = 0;
        self.next = Boot(0);
    }

    /// Whether nothing has to be remembered any more.
    pub(crate) fn over(&self, now: Boot) -> bool {
        !self.locked && !self.own && self.out.is_none() && self.forget <= now
    }

    /// Whether it may be forgotten early when room is short.
    pub(crate) fn lingers(&self) -> bool {
        self.over(Boot::NEVER)
    }

    /// When something is to be done next.
    pub(crate) fn due(&self) -> Boot {
        let mut due = if self.locked { self.until } else { Boot::NEVER };
        if self.out.is_none() && (self.wants_lock() || self.wants_unlock()) {
            due = due.min(self.next);
        }
        if self.lingers() {
            due = due.min(self.forget);
        }
        due
    }

    /// The shadow action to be carried out now, if any.
    pub(crate) fn shadow_action(&mut self, account: u32, now: Boot) -> Option<Action> {
        if self.out.is_some() || self.next > now {
            return None;
        }
        if self.wants_lock() {
            self.out = Some(Out::Lock);
            Some(Action::ShadowLock { account })
        } else if self.wants_unlock() {
            self.out = Some(Out::Unlock);
            Some(Action::ShadowUnlock { account })
        } else {
            None
        }
    }

    /// A shadow action ended. News of an action that is not out change nothing.
    pub(crate) fn done(&mut self, now: Boot, kind: Kind, outcome: Outcome) -> Option<Notice> {
        match (kind, self.out) {
            (Kind::ShadowLock, Some(Out::Lock)) => {
                self.out = None;
                self.lock_done(now, outcome)
            }
            (Kind::ShadowUnlock, Some(Out::Unlock)) => {
                self.out = None;
                self.unlock_done(now, outcome)
            }
            _ => None,
        }
    }

    fn lock_done(&mut self, now: Boot, outcome: Outcome) -> Option<Notice> {
        match outcome {
            Outcome::Verified => {
                self.own = true;
                self.tries = 0;
                self.next = Boot(0);
                None
            }
            Outcome::AlreadyLocked | Outcome::Foreign => {
                self.settled = true;
                Some(Notice::ShadowAlreadyLocked)
            }
            Outcome::Failed { reason, retry } => {
                self.tries = self.tries.saturating_add(1);
                self.settled = !retry || self.tries >= LOCK_TRIES;
                self.next = now.after(pause(self.tries));
                let next = if self.wants_lock() { self.next } else { Boot::NEVER };
                Some(Notice::ShadowLockFailed { reason, next })
            }
        }
    }

    fn unlock_done(&mut self, now: Boot, outcome: Outcome) -> Option<Notice> {
        match outcome {
            Outcome::Verified => {
                self.own = false;
                self.tries = 0;
                self.next = Boot(0);
                None
            }
            Outcome::AlreadyLocked | Outcome::Foreign => {
                self.own = false;
                self.tries = 0;
                self.next = Boot(0);
                // Theirs now: not locked a second time by us at this lock.
                self.settled = self.locked;
                Some(Notice::ShadowForeign)
            }
            Outcome::Failed { reason, retry } => {
                self.tries = self.tries.saturating_add(1);
                if !retry {
                    self.own = false;
                    return Some(Notice::ShadowUnlockFailed { reason, tries: self.tries, next: Boot::NEVER });
                }
                self.next = now.after(pause(self.tries));
                let tell = self.tries % ALERT_EVERY == 1;
                tell.then_some(Notice::ShadowUnlockFailed { reason, tries: self.tries, next: self.next })
            }
        }
    }

    fn wants_shadow(&self) -> bool {
        self.locked && self.class.shadow_lock && !self.class.exempt
    }

    fn wants_lock(&self) -> bool {
        self.wants_shadow() && !self.own && !self.settled
    }

    fn wants_unlock(&self) -> bool {
        // A class that no longer asks for the shadow lock gives up what it holds, too.
        self.own && !self.wants_shadow()
    }
}

/// The pause after so many failed tries: doubles, up to a bound.
fn pause(tries: u32) -> u64 {
    let doublings = tries.saturating_sub(1).min(16);
    FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE)
}
