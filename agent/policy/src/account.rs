//! What the policy holds about one account, and what it wants to be done about the rungs above its lock.
//!
//! Invariants: one action is out at a time; rungs are climbed from the lowest and undone from the highest, none is
//! skipped on the way down; a breaker that withholds rungs stops climbing, never undoing.

use crate::rung::{Rung, Step};
use crate::{Action, Boot, Class, Climb, Kind, Notice, Outcome};

/// How long an account is remembered after its lock ran out, so that late news of that lock is known as such.
pub(crate) const LINGER: u64 = 60_000_000_000;

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
    /// Trips in a row, each within the back-off window of the last lock's end.
    climb: u32,
    /// Until when a trip is one more of the row.
    climb_until: Boot,
    shadow: Rung,
    expire: Rung,
    sessions: Rung,
    out: Option<Kind>,
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
            climb: 0,
            climb_until: Boot(0),
            shadow: Rung::default(),
            expire: Rung::default(),
            sessions: Rung::default(),
            out: None,
        }
    }

    /// The store says what we hold.
    pub(crate) fn restore(&mut self, shadow: bool, expired: bool, climb: Option<Climb>) {
        self.shadow.own = shadow;
        self.expire.own = expired;
        if let Some(climb) = climb {
            self.climb = climb.trips;
            self.climb_until = climb.until;
            self.sessions.own = climb.sessions_ended;
        }
    }

    /// One trip more, of a lock that ends at `until`. Returns the row of trips.
    pub(crate) fn tripped(&mut self, now: Boot, until: Boot) -> Climb {
        self.climb = if now < self.climb_until { self.climb.saturating_add(1) } else { 1 };
        self.climb_until = self.climb_until.max(until.after(self.class.backoff_window));
        self.sessions = Rung::default();
        Climb { trips: self.climb, until: self.climb_until, sessions_ended: false }
    }

    /// The row of trips ends: an administrator let the account go.
    pub(crate) fn forgive(&mut self) {
        self.climb = 0;
        self.climb_until = Boot(0);
    }

    /// A lock begins, or its end moves.
    pub(crate) fn lock(&mut self, until: Boot) {
        if !self.locked {
            self.fresh();
        }
        self.locked = true;
        self.until = until;
        // An end that was moved forward takes the row's with it: no row outlasts a lock without end.
        self.climb_until = self.climb_until.min(until.after(self.class.backoff_window));
    }

    /// The lock is over; late news of it are known as such until `forget`.
    pub(crate) fn release(&mut self, forget: Boot) {
        if self.locked {
            self.fresh();
        }
        self.locked = false;
        // A row of trips is remembered as long as one more would count, where anything follows from it.
        self.forget = if self.class.climbs() { forget.max(self.climb_until) } else { forget };
    }

    /// What is wanted has changed: tries count anew.
    pub(crate) fn fresh(&mut self) {
        for step in Step::ALL {
            self.rung_mut(step).fresh();
        }
    }

    /// Whether nothing has to be remembered any more.
    pub(crate) fn over(&self, now: Boot) -> bool {
        !self.locked && !self.shadow.own && !self.expire.own && self.out.is_none() && self.forget <= now
    }

    /// Whether it may be forgotten early when room is short.
    pub(crate) fn lingers(&self) -> bool {
        self.over(Boot::NEVER)
    }

    /// When something is to be done next.
    pub(crate) fn due(&self, withheld: bool) -> Boot {
        let mut due = if self.locked { self.until } else { Boot::NEVER };
        if self.out.is_none() {
            due = due.min(self.wanted(withheld).map(|(at, _)| at).min().unwrap_or(Boot::NEVER));
        }
        if self.lingers() {
            due = due.min(self.forget);
        }
        due
    }

    /// The action to be carried out now, if any.
    pub(crate) fn action(&mut self, account: u32, now: Boot, withheld: bool) -> Option<Action> {
        if self.out.is_some() {
            return None;
        }
        let kind = self.wanted(withheld).find(|(at, _)| *at <= now).map(|(_, kind)| kind)?;
        self.out = Some(kind);
        match kind {
            Kind::ShadowLock => Some(Action::ShadowLock { account }),
            Kind::ShadowUnlock => Some(Action::ShadowUnlock { account }),
            Kind::Expire => Some(Action::Expire { account }),
            Kind::Unexpire => Some(Action::Unexpire { account }),
            Kind::EndSessions => Some(Action::EndSessions { account }),
            Kind::GateLock | Kind::GateUnlock => None,
        }
    }

    /// An action ended. News of an action that is not out change nothing.
    pub(crate) fn done(&mut self, now: Boot, kind: Kind, outcome: Outcome) -> Option<Notice> {
        let step = Step::of(kind).filter(|_| self.out == Some(kind))?;
        self.out = None;
        let locked = self.locked;
        if step.up() == kind {
            self.rung_mut(step).climbed(now, step, outcome)
        } else {
            self.rung_mut(step).undone(now, step, locked, outcome)
        }
    }

    /// What is wanted, and from when on, the more urgent first.
    fn wanted(&self, withheld: bool) -> impl Iterator<Item = (Boot, Kind)> + use<> {
        // The highest that is to be undone goes first, and until it has, none below it.
        let down = Self::downward().find_map(|step| {
            let kind = step.down()?;
            // A class that no longer asks for a rung gives up what it holds, too.
            (self.rung(step).own && !self.asks(step)).then(|| (self.rung(step).next(), kind))
        });
        let climbing = !withheld || cfg!(feature = "mutation-ignore-breaker");
        let up = Step::ALL.into_iter().filter_map(move |step| {
            let rung = self.rung(step);
            let wanted = climbing && self.asks(step) && !rung.own && !rung.settled;
            wanted.then(|| (rung.next(), step.up()))
        });
        let up: Vec<_> = up.collect();
        down.into_iter().chain(up)
    }

    /// The rungs from the highest.
    fn downward() -> Box<dyn Iterator<Item = Step>> {
        let steps = Step::ALL.into_iter();
        if cfg!(feature = "mutation-skip-downward") { Box::new(steps) } else { Box::new(steps.rev()) }
    }

    /// Whether class, lock and trips ask for a rung.
    fn asks(&self, step: Step) -> bool {
        if !self.locked || self.class.exempt {
            return false;
        }
        let after = |trips: u32| trips != 0 && self.climb >= trips;
        match step {
            Step::Shadow => self.class.shadow_lock,
            Step::Expire => after(self.class.expire_after),
            Step::Sessions => after(self.class.end_sessions_after),
        }
    }

    const fn rung(&self, step: Step) -> &Rung {
        match step {
            Step::Shadow => &self.shadow,
            Step::Expire => &self.expire,
            Step::Sessions => &self.sessions,
        }
    }

    const fn rung_mut(&mut self, step: Step) -> &mut Rung {
        match step {
            Step::Shadow => &mut self.shadow,
            Step::Expire => &mut self.expire,
            Step::Sessions => &mut self.sessions,
        }
    }
}
