//! What the agent decides: a pure function of (state, time, event) that answers with actions.
//!
//! The gate in the kernel has locked the account already when the policy hears of it; the policy decides what follows:
//! the shadow lock of classes that ask for it, its release, the alerts. The engine carries the actions out, reads each
//! back and reports the result with [`Input::ActionDone`].
//!
//! Invariants
//! * No I/O, no clock, no `unsafe`; the same events give the same actions.
//! * A trip is acted on once, however often it is reported.
//! * A shadow lock is undone only if this policy (or its stored predecessor) set it and saw it verified.
//! * An exempt account is never locked, and what was locked before it became exempt is released.
//! * At most [`MAX_ACCOUNTS`] accounts are held, and of these only such that are locked or were a moment ago.
//! * Time may go back a little: the newest time seen counts.
#![forbid(unsafe_code)]

mod account;
pub mod breaker;
pub mod observer;
mod policy;
mod rung;
pub mod sources;

pub use policy::Policy;

/// Accounts the policy follows at once: as many as the gate has rows for.
pub const MAX_ACCOUNTS: usize = 65_536;

/// A point in time: CLOCK_BOOTTIME nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Boot(pub u64);

impl Boot {
    /// The end of a lock that has none.
    pub const NEVER: Self = Self(u64::MAX);

    /// This time and `nanoseconds` more; never past [`Boot::NEVER`].
    #[must_use]
    pub const fn after(self, nanoseconds: u64) -> Self {
        Self(self.0.saturating_add(nanoseconds))
    }
}

/// What the policy must know about an account's class. The default locks in the gate alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Class {
    /// Never locked.
    pub exempt: bool,
    /// A lock in the gate is followed by `passwd -l`.
    pub shadow_lock: bool,
    /// From this trip of a row on, a lock is followed by `chage -E`; 0: never.
    pub expire_after: u32,
    /// From this trip of a row on, a lock is followed by the end of the account's sessions; 0: never.
    pub end_sessions_after: u32,
    /// Nanoseconds after a lock's end within which a trip is one more of a row.
    pub backoff_window: u64,
}

impl Class {
    /// Whether it matters how many trips there were.
    pub(crate) const fn climbs(&self) -> bool {
        self.expire_after > 1 || self.end_sessions_after > 1
    }
}

/// A row of trips, each within the back-off window of the last lock's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Climb {
    /// How many.
    pub trips: u32,
    /// Until when one more counts as such.
    pub until: Boot,
    /// The sessions were ended at the last of them.
    pub sessions_ended: bool,
}

impl Class {
    /// What holds while an account is locked in part: no rung that would shut out those to whom the lock is open. Every
    /// field is named, so that a new rung must be thought of.
    #[must_use]
    pub const fn while_in_part(self) -> Self {
        // Out of reach, not off: the row of trips goes on.
        const fn out_of_reach(trips: u32) -> u32 {
            if trips == 0 { 0 } else { u32::MAX }
        }
        let Self { exempt, shadow_lock: _, expire_after, end_sessions_after, backoff_window } = self;
        let (expire_after, end_sessions_after) =
            (out_of_reach(expire_after), out_of_reach(end_sessions_after));
        Self { exempt, shadow_lock: false, expire_after, end_sessions_after, backoff_window }
    }
}

/// Who guessed: `kind` is one of the gate's kinds of source, `id` which one of that kind (an uid, an address).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Actor {
    /// Kind of source.
    pub kind: u32,
    /// Which one.
    pub id: u64,
}

/// Who set a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The failure that reached `deny`.
    Trip,
    /// An administrator.
    Administrator,
    /// The store, after the kernel lost it.
    Restored,
}

/// What a finished action was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// [`Action::ShadowLock`].
    ShadowLock,
    /// [`Action::ShadowUnlock`].
    ShadowUnlock,
    /// [`Action::Expire`].
    Expire,
    /// [`Action::Unexpire`].
    Unexpire,
    /// [`Action::EndSessions`].
    EndSessions,
    /// [`Action::GateLock`].
    GateLock,
    /// [`Action::GateUnlock`].
    GateUnlock,
}

/// How an action ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Done, and read back.
    Verified,
    /// Not done, or not seen to be done.
    Failed {
        /// Why, for people.
        reason: String,
        /// Whether another try may help.
        retry: bool,
    },
    /// Nothing was done: an administrator had locked it before (ShadowLock), so there is nothing of ours to undo.
    AlreadyLocked,
    /// Nothing was done: what we had set was changed by others since (ShadowUnlock), and is theirs now.
    Foreign,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The gate tells of a trip (event with the flag TRIPPED).
    Tripped {
        /// Uid.
        account: u32,
        /// The account's class now.
        class: Class,
        /// The gate's number of this trip.
        trips: u32,
        /// End of the lock.
        locked_until: Boot,
        /// Who made the failure that tripped.
        actor: Actor,
    },
    /// A scan of the gate's table found the account locked.
    LockSeen {
        /// Uid.
        account: u32,
        /// The account's class now.
        class: Class,
        /// The gate's number of the last trip.
        trips: u32,
        /// End of the lock.
        locked_until: Boot,
        /// Who set it.
        cause: Cause,
    },
    /// A scan of the gate's table found no lock for an account that [`Policy::locked`] names.
    NoLockSeen {
        /// Uid.
        account: u32,
    },
    /// A lock was set in the gate on request (event LOCKED).
    LockSet {
        /// Uid.
        account: u32,
        /// The account's class now.
        class: Class,
        /// The gate's number of the last trip.
        trips: u32,
        /// End of the lock.
        until: Boot,
        /// Who asked for it.
        by: Cause,
    },
    /// A lock was taken off in the gate on request (event UNLOCKED).
    Unlocked {
        /// Uid.
        account: u32,
        /// The gate's number of the last trip: an unlock older than the lock at hand changes nothing.
        trips: u32,
    },
    /// The gate says that the account's lock has run out (event with the flag EXPIRED).
    Expired {
        /// Uid.
        account: u32,
    },
    /// Time has passed: see [`Action::Wake`].
    Tick,
    /// An action ended.
    ActionDone {
        /// Uid.
        account: u32,
        /// Which action.
        kind: Kind,
        /// How.
        outcome: Outcome,
    },
    /// What the store knows, told once per account at start, before any other input about it.
    Restored {
        /// Uid.
        account: u32,
        /// The account's class now.
        class: Class,
        /// A lock that has not run out.
        lock: Option<Restored>,
        /// We hold a verified shadow lock on it.
        shadow: bool,
        /// We hold a verified expiry of it.
        expired: bool,
        /// Its row of trips.
        climb: Option<Climb>,
    },
    /// The breaker withholds the rungs above the lock, or no more: see [`breaker`].
    Withhold(bool),
    /// A new configuration: the classes of the accounts that [`Policy::accounts`] names.
    ConfigChanged {
        /// Uid and class.
        classes: Vec<(u32, Class)>,
    },
}

/// A lock from the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Restored {
    /// End of the lock.
    pub until: Boot,
    /// The gate's number of the last trip as stored; 0 after a reboot, since the gate counts anew.
    pub trips: u32,
    /// The kernel does not hold it any more (reboot, new gate) and must be given it again.
    pub lost: bool,
}

/// What the engine is to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// `passwd -l`, read back, recorded; ends with [`Input::ActionDone`].
    ShadowLock {
        /// Uid.
        account: u32,
    },
    /// `passwd -u` of a shadow lock of ours, read back, recorded; ends with [`Input::ActionDone`].
    ShadowUnlock {
        /// Uid.
        account: u32,
    },
    /// `chage -E`, read back, recorded with the former value; ends with [`Input::ActionDone`].
    Expire {
        /// Uid.
        account: u32,
    },
    /// The former expiry again, read back, recorded; ends with [`Input::ActionDone`].
    Unexpire {
        /// Uid.
        account: u32,
    },
    /// The end of the account's sessions, looked at, recorded; ends with [`Input::ActionDone`].
    EndSessions {
        /// Uid.
        account: u32,
    },
    /// Lock in the gate; ends with [`Input::ActionDone`].
    GateLock {
        /// Uid.
        account: u32,
        /// End of the lock.
        until: Boot,
        /// Why.
        cause: Cause,
    },
    /// Unlock in the gate; ends with [`Input::ActionDone`].
    GateUnlock {
        /// Uid.
        account: u32,
    },
    /// Step with [`Input::Tick`] at this time, whatever was asked for before ([`Boot::NEVER`]: no need).
    Wake {
        /// When.
        at: Boot,
    },
    /// Tell people.
    Alert {
        /// Uid.
        account: u32,
        /// What.
        notice: Notice,
    },
}

/// What people are told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// The account tripped. Told once per trip. The engine stores the lock now.
    Tripped {
        /// The gate's number of this trip.
        trips: u32,
        /// End of the lock.
        until: Boot,
        /// Who made the failure that tripped, where known (a scan does not tell).
        actor: Option<Actor>,
        /// The row of trips that it is the last of.
        climb: Climb,
    },
    /// A lock was set on request, or its end was moved. The engine stores the lock now.
    Locked {
        /// End of the lock.
        until: Boot,
        /// Who asked for it.
        cause: Cause,
    },
    /// The account is not locked any more. The engine removes the stored lock now.
    Released {
        /// Why.
        why: Release,
    },
    /// An administrator had locked the password before: nothing of ours to undo.
    ShadowAlreadyLocked,
    /// The password field was changed while we held it locked: left alone.
    ShadowForeign,
    /// `passwd -l` failed.
    ShadowLockFailed {
        /// Why.
        reason: String,
        /// When it is tried again; [`Boot::NEVER`]: not again.
        next: Boot,
    },
    /// `passwd -u` failed: a user may be kept out longer than meant.
    ShadowUnlockFailed {
        /// Why.
        reason: String,
        /// How often so far.
        tries: u32,
        /// When it is tried again; [`Boot::NEVER`]: not again.
        next: Boot,
    },
    /// What the rung is about was so before: nothing of ours to undo.
    AlreadyThere {
        /// The action.
        kind: Kind,
    },
    /// What the rung had set was changed while we held it: left alone.
    ChangedByOthers {
        /// The action.
        kind: Kind,
    },
    /// A rung could not be climbed.
    ClimbFailed {
        /// The action.
        kind: Kind,
        /// Why.
        reason: String,
        /// When it is tried again; [`Boot::NEVER`]: not again.
        next: Boot,
    },
    /// A rung could not be undone: a user may be kept out longer than meant.
    UndoFailed {
        /// The action that is to be undone.
        kind: Kind,
        /// Why.
        reason: String,
        /// How often so far.
        tries: u32,
        /// When it is tried again; [`Boot::NEVER`]: not again.
        next: Boot,
    },
    /// The gate did not do what was asked.
    GateFailed {
        /// Why.
        reason: String,
    },
    /// The policy follows [`MAX_ACCOUNTS`] locked accounts already: this one is locked in the gate alone.
    Full,
}

/// Why an account is not locked any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Release {
    /// Its time ran out.
    Expired,
    /// On request.
    Unlocked,
    /// A scan found no lock.
    Gone,
    /// Its class is exempt now.
    Exempt,
}
