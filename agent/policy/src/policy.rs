//! The state machine: which accounts are locked, what is to be done next, and when.
//!
//! Invariants: `due` holds exactly the accounts whose [`Account::due`] is not NEVER, under that time, and every change
//! of an account goes through [`Policy::change`], which keeps it so; actions on rungs are asked for in
//! [`Policy::overdue`] alone.

use std::collections::{BTreeMap, BTreeSet};

use crate::account::{Account, LINGER};
use crate::{
    Action, Actor, Boot, Cause, Class, Input, Kind, MAX_ACCOUNTS, Notice, Outcome, Release, Restored,
};

/// The decisions of the agent.
#[derive(Clone, Debug)]
pub struct Policy {
    accounts: BTreeMap<u32, Account>,
    due: BTreeSet<(Boot, u32)>,
    /// Accounts that may be forgotten when room is short, by when they would be anyway.
    lingering: BTreeSet<(Boot, u32)>,
    /// No rung above the lock is climbed.
    withheld: bool,
    room: usize,
    newest: Boot,
    wake: Boot,
}

/// A lock as the gate tells of it.
#[derive(Clone, Copy)]
struct Lock {
    account: u32,
    class: Class,
    trips: u32,
    until: Boot,
}

impl Default for Policy {
    fn default() -> Self {
        Self::new()
    }
}

impl Policy {
    /// A policy that knows of no account.
    #[must_use]
    pub fn new() -> Self {
        Self::with_room(MAX_ACCOUNTS)
    }

    /// A policy that follows at most `room` accounts.
    #[must_use]
    pub fn with_room(room: usize) -> Self {
        Self {
            accounts: BTreeMap::new(),
            due: BTreeSet::new(),
            lingering: BTreeSet::new(),
            withheld: false,
            room,
            newest: Boot(0),
            wake: Boot::NEVER,
        }
    }

    /// The accounts held: those whose classes [`Input::ConfigChanged`] must tell.
    pub fn accounts(&self) -> impl Iterator<Item = u32> + '_ {
        self.accounts.keys().copied()
    }

    /// How many accounts are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.accounts.len()
    }

    /// Whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    /// The accounts that are locked as far as the policy knows, with the end of the lock: a scan that finds no lock
    /// for one of them says so with [`Input::NoLockSeen`].
    pub fn locked(&self) -> impl Iterator<Item = (u32, Boot)> + '_ {
        self.accounts.iter().filter(|(_, held)| held.locked).map(|(account, held)| (*account, held.until))
    }

    /// Whether the policy knows that an account is locked.
    #[must_use]
    pub fn is_locked(&self, account: u32) -> bool {
        self.accounts.get(&account).is_some_and(|held| held.locked)
    }

    /// One step: what happened at `now`, and what is to be done about it, in this order.
    #[must_use]
    pub fn step(&mut self, now: Boot, input: Input) -> Vec<Action> {
        self.newest = self.newest.max(now);
        let now = self.newest;
        let mut actions = Vec::new();
        let out = &mut actions;
        match input {
            Input::Tripped { account, class, trips, locked_until, actor } => {
                self.tripped(now, Lock { account, class, trips, until: locked_until }, Some(actor), out);
            }
            Input::LockSeen { account, class, trips, locked_until, cause } => {
                self.seen(now, Lock { account, class, trips, until: locked_until }, cause, out);
            }
            Input::LockSet { account, class, trips, until, by } => {
                let stale = self.accounts.get(&account).is_some_and(|held| held.locked && trips < held.trips);
                if !stale {
                    self.set(now, Lock { account, class, trips, until }, by, out);
                }
            }
            Input::NoLockSeen { account } => {
                // A lock that was asked for but not yet set is no lock that has gone.
                if self.accounts.get(&account).is_some_and(|held| !held.gate_out) {
                    self.release(now, account, Release::Gone, out);
                }
            }
            Input::Unlocked { account, trips } => {
                let stale = self.accounts.get(&account).is_some_and(|held| trips < held.trips);
                if !stale {
                    self.release(now, account, Release::Unlocked, out);
                }
            }
            Input::Expired { account } => {
                // News of an older lock than the one at hand end after now.
                if self.accounts.get(&account).is_some_and(|held| held.until <= now) {
                    self.release(now, account, Release::Expired, out);
                }
            }
            Input::Tick => {}
            Input::ActionDone { account, kind, outcome } => self.done(now, account, kind, outcome, out),
            Input::Restored { account, class, lock, shadow, expired, climb } => {
                let mut held = Account::new(class);
                held.restore(shadow, expired, climb);
                self.restored(now, account, held, lock, out);
            }
            Input::Withhold(withheld) => self.withhold(withheld),
            Input::ConfigChanged { classes } => {
                for (account, class) in classes {
                    self.reclass(now, account, class, out);
                }
            }
        }
        self.overdue(now, out);
        let next = self.due.first().map_or(Boot::NEVER, |(at, _)| *at);
        if next != self.wake {
            self.wake = next;
            actions.push(Action::Wake { at: next });
        }
        actions
    }

    /// The gate tells of a trip, by an event or, without the actor, by a scan.
    fn tripped(&mut self, now: Boot, lock: Lock, actor: Option<Actor>, out: &mut Vec<Action>) {
        if !self.enter(now, lock.account, lock.class, out) {
            return;
        }
        self.change(lock.account, |held| {
            // The gate numbers trips anew when it has forgotten an account; such a trip's lock ends later.
            if lock.trips <= held.trips && lock.until <= held.until {
                return;
            }
            held.trips = lock.trips;
            let climb = held.tripped(now, lock.until);
            if lock.until > now {
                held.lock(lock.until);
            } else if !held.locked {
                held.until = lock.until;
            }
            if !held.locked {
                held.release(now.after(LINGER));
            }
            let notice = Notice::Tripped { trips: lock.trips, until: lock.until, actor, climb };
            out.push(Action::Alert { account: lock.account, notice });
        });
    }

    /// A scan found a lock.
    fn seen(&mut self, now: Boot, lock: Lock, cause: Cause, out: &mut Vec<Action>) {
        if lock.until <= now {
            self.release(now, lock.account, Release::Expired, out);
            return;
        }
        let held = self.accounts.get(&lock.account);
        let acted_on = held.is_some_and(|held| held.locked && lock.trips <= held.trips);
        if cause == Cause::Trip && !acted_on {
            self.tripped(now, lock, None, out);
        } else {
            self.set(now, lock, cause, out);
        }
    }

    /// A lock was set on request, or its end has moved.
    fn set(&mut self, now: Boot, lock: Lock, cause: Cause, out: &mut Vec<Action>) {
        if lock.until <= now {
            self.release(now, lock.account, Release::Expired, out);
            return;
        }
        if !self.enter(now, lock.account, lock.class, out) {
            return;
        }
        self.change(lock.account, |held| {
            held.trips = held.trips.max(lock.trips);
            if !held.locked || held.until != lock.until {
                held.lock(lock.until);
                let notice = Notice::Locked { until: lock.until, cause };
                out.push(Action::Alert { account: lock.account, notice });
            }
        });
    }

    /// The account is not locked any more.
    fn release(&mut self, now: Boot, account: u32, why: Release, out: &mut Vec<Action>) {
        self.change(account, |held| {
            if !held.locked {
                return;
            }
            if why == Release::Expired {
                held.release(now.after(LINGER));
            } else {
                // The gate may forget the account and count its trips anew.
                held.forgive();
                held.release(now);
                held.trips = 0;
                held.until = Boot(0);
            }
            out.push(Action::Alert { account, notice: Notice::Released { why } });
        });
    }

    /// An action ended.
    fn done(&mut self, now: Boot, account: u32, kind: Kind, outcome: Outcome, out: &mut Vec<Action>) {
        self.change(account, |held| {
            let notice = match (kind, outcome) {
                (Kind::GateLock | Kind::GateUnlock, outcome) => {
                    held.gate_out = false;
                    match outcome {
                        Outcome::Failed { reason, .. } => Some(Notice::GateFailed { reason }),
                        _ => None,
                    }
                }
                (_, outcome) => held.done(now, kind, outcome),
            };
            out.extend(notice.map(|notice| Action::Alert { account, notice }));
        });
    }

    /// What the store knows of an account.
    fn restored(
        &mut self,
        now: Boot,
        account: u32,
        mut held: Account,
        lock: Option<Restored>,
        out: &mut Vec<Action>,
    ) {
        if self.accounts.contains_key(&account) || !self.room_for(account, out) {
            return;
        }
        let class = held.class;
        if let Some(lock) = lock {
            let notice = if class.exempt {
                if !lock.lost {
                    held.gate_out = true;
                    out.push(Action::GateUnlock { account });
                }
                Some(Notice::Released { why: Release::Exempt })
            } else if lock.until <= now {
                Some(Notice::Released { why: Release::Expired })
            } else {
                held.lock(lock.until);
                held.trips = lock.trips;
                if lock.lost {
                    held.gate_out = true;
                    out.push(Action::GateLock { account, until: lock.until, cause: Cause::Restored });
                }
                None
            };
            out.extend(notice.map(|notice| Action::Alert { account, notice }));
        }
        if !held.locked {
            held.release(now);
        }
        self.accounts.insert(account, held);
        self.change(account, |_| {});
    }

    /// The breaker withholds rungs, or no more.
    fn withhold(&mut self, withheld: bool) {
        if self.withheld == withheld {
            return;
        }
        self.withheld = withheld;
        let dues = self.accounts.iter().map(|(account, held)| (held.due(withheld), *account));
        self.due = dues.filter(|(due, _)| *due != Boot::NEVER).collect();
    }

    /// The account's class as it is now.
    fn reclass(&mut self, now: Boot, account: u32, class: Class, out: &mut Vec<Action>) {
        let Some(held) = self.accounts.get(&account) else { return };
        if held.class == class {
            return;
        }
        let unlock = class.exempt && held.locked;
        if unlock {
            out.push(Action::GateUnlock { account });
            self.release(now, account, Release::Exempt, out);
        }
        self.change(account, |held| {
            held.gate_out |= unlock;
            held.class = class;
            held.fresh();
        });
    }

    /// Makes sure that the account is held, under its class; false where nothing is to be done about it.
    fn enter(&mut self, now: Boot, account: u32, class: Class, out: &mut Vec<Action>) -> bool {
        self.reclass(now, account, class, out);
        if class.exempt || !self.room_for(account, out) {
            return false;
        }
        self.accounts.entry(account).or_insert_with(|| Account::new(class));
        true
    }

    /// Makes room for one more account, if need be by forgetting one whose lock is over.
    fn room_for(&mut self, account: u32, out: &mut Vec<Action>) -> bool {
        if self.accounts.len() < self.room || self.accounts.contains_key(&account) {
            return true;
        }
        if let Some((_, over)) = self.lingering.first().copied() {
            self.forget(over);
            return true;
        }
        out.push(Action::Alert { account, notice: Notice::Full });
        false
    }

    /// Does what is due: ends locks, asks for shadow actions, forgets what is over.
    fn overdue(&mut self, now: Boot, out: &mut Vec<Action>) {
        let now = if cfg!(feature = "mutation-early-end") { now.after(1_000_000_000) } else { now };
        while let Some(&(at, account)) = self.due.first() {
            if at > now {
                break;
            }
            if self.accounts.get(&account).is_some_and(|held| held.locked && held.until <= now) {
                self.release(now, account, Release::Expired, out);
            }
            let withheld = self.withheld;
            self.change(account, |held| out.extend(held.action(account, now, withheld)));
            if self.accounts.get(&account).is_none_or(|held| held.over(now)) {
                self.forget(account);
            }
        }
    }

    /// Changes an account that is held, and when it is due.
    fn change(&mut self, account: u32, change: impl FnOnce(&mut Account)) {
        let withheld = self.withheld;
        if let Some(held) = self.accounts.get_mut(&account) {
            self.due.remove(&(held.due(withheld), account));
            self.lingering.remove(&(held.forget, account));
            change(held);
            let due = held.due(withheld);
            if due != Boot::NEVER {
                self.due.insert((due, account));
            }
            if held.lingers() {
                self.lingering.insert((held.forget, account));
            }
        }
    }

    fn forget(&mut self, account: u32) {
        if let Some(held) = self.accounts.remove(&account) {
            self.due.remove(&(held.due(self.withheld), account));
            self.lingering.remove(&(held.forget, account));
        }
    }
}
