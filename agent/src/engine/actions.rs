//! Carries out what the policy decides: intent stored, done, read back, result stored, counted, told.
//!
//! Invariants: no action without a stored intent; `verified` means that reality was looked at afterwards; the policy
//! hears of the end of every action exactly once.

use portcullis_common::abi::cause;
use portcullis_policy::{Action, Boot, Cause, Input, Kind, Notice, Outcome, Release};

use super::{Engine, EngineError, Waiting};
use crate::accounts::{Directory, Nss};
use crate::api::view;
use crate::expiry::{Change, ExpiryError};
use crate::kernel::gate;
use crate::logout::LogoutError;
use crate::rows::Now;
use crate::shadow::{Digest, Locked, Prepared, ShadowError, Unlocked};
use crate::store::{ActionId, Intent, StoredLock, Told};

/// An action on a rung under way.
pub(super) struct Under {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) id: ActionId,
}

/// What an action on a rung did.
pub(super) enum Did {
    Locked(Locked),
    Unlocked(Unlocked),
    Expired(Change),
    Restored(Change),
    /// So many processes were ended by signals.
    Sessions(usize),
}

/// An action on a rung that ended.
pub(super) struct Finished {
    pub(super) account: u32,
    pub(super) result: Result<Did, Trouble>,
}

/// Why it failed, and whether another try may help.
pub(super) struct Trouble {
    reason: String,
    retry: bool,
}

impl From<ShadowError> for Trouble {
    fn from(error: ShadowError) -> Self {
        Self { retry: error.retry(), reason: error.to_string() }
    }
}

impl From<ExpiryError> for Trouble {
    fn from(error: ExpiryError) -> Self {
        Self { retry: error.retry(), reason: error.to_string() }
    }
}

impl From<LogoutError> for Trouble {
    fn from(error: LogoutError) -> Self {
        Self { retry: true, reason: error.to_string() }
    }
}

/// The name of a user today; else why there is none, and whether to ask again later.
pub(super) fn name_now(account: u32) -> Result<String, (String, bool)> {
    match Nss.user_by_uid(account) {
        Ok(Some(user)) => Ok(user.name),
        Ok(None) => Err(("no user has that uid any more".to_owned(), false)),
        Err(error) => Err((error.to_string(), true)),
    }
}

/// An action in metrics, log and store.
pub(super) const fn name_of(kind: Kind) -> &'static str {
    match kind {
        Kind::ShadowLock => "shadow_lock",
        Kind::ShadowUnlock => "shadow_unlock",
        Kind::Expire => "expire",
        Kind::Unexpire => "unexpire",
        Kind::EndSessions => "end_sessions",
        Kind::GateLock => "gate_lock",
        Kind::GateUnlock => "gate_unlock",
    }
}

/// All actions.
const KINDS: [Kind; 7] = [
    Kind::ShadowLock,
    Kind::ShadowUnlock,
    Kind::Expire,
    Kind::Unexpire,
    Kind::EndSessions,
    Kind::GateLock,
    Kind::GateUnlock,
];

/// The metrics label of a stored action; none for one this version does not know.
pub(super) fn kind_of(name: &str) -> Option<&'static str> {
    KINDS.into_iter().map(name_of).find(|known| *known == name)
}

/// An outcome in metrics, log and store, and the reason where there is one.
fn words(outcome: &Outcome) -> (&'static str, Option<&str>) {
    match outcome {
        Outcome::Verified => ("verified", None),
        Outcome::Failed { reason, .. } => ("failed", Some(reason)),
        Outcome::AlreadyLocked => ("already_locked", Some("it was so before: not ours to undo")),
        Outcome::Foreign => ("foreign", Some("it was changed by others since: left alone")),
    }
}

impl Engine {
    /// Begins or does one action; an input where it has ended already.
    pub(super) fn perform(&mut self, action: Action) -> Result<Option<Input>, EngineError> {
        match action {
            Action::Wake { at } => {
                self.wake = at;
                Ok(None)
            }
            Action::Alert { account, notice } => {
                self.alert(account, notice)?;
                Ok(None)
            }
            Action::GateLock { account, until, cause } => {
                let done = self.gate_lock(account, until, number(cause))?;
                Ok(Some(Input::ActionDone { account, kind: Kind::GateLock, outcome: done }))
            }
            Action::GateUnlock { account } => {
                let done = self.gate_unlock(account)?;
                Ok(Some(Input::ActionDone { account, kind: Kind::GateUnlock, outcome: done }))
            }
            Action::ShadowLock { account } => self.shadow_begin(account, Kind::ShadowLock),
            Action::ShadowUnlock { account } => self.shadow_begin(account, Kind::ShadowUnlock),
            Action::Expire { account } => self.rung_begin(account, Kind::Expire),
            Action::Unexpire { account } => self.rung_begin(account, Kind::Unexpire),
            Action::EndSessions { account } => self.rung_begin(account, Kind::EndSessions),
        }
    }

    /// Locks in the gate and looks whether it did.
    pub(super) fn gate_lock(&mut self, uid: u32, until: Boot, why: u32) -> Result<Outcome, EngineError> {
        let id = self.intend(uid, Kind::GateLock, Some(until), None)?;
        let set = if why == cause::RESTORED {
            gate::restore(u64::from(uid), super::restore::of(&self.store, uid, until.0, &Now::read()?))
        } else {
            gate::lock(u64::from(uid), until.0, why)
        };
        let done = set.and_then(|_| gate::check(u64::from(uid)));
        let outcome = match done {
            Ok(answer) if answer.locked_until == until.0 => Outcome::Verified,
            Ok(answer) if answer.locked_until == 0 && until.0 <= answer.now => Outcome::Verified,
            Ok(answer) => {
                failed(format!("the gate shows a lock until {}, not {}", answer.locked_until, until.0))
            }
            Err(error) => failed(error.to_string()),
        };
        self.end(uid, Kind::GateLock, id, &outcome)?;
        Ok(outcome)
    }

    /// Unlocks in the gate and looks whether it did.
    pub(super) fn gate_unlock(&mut self, uid: u32) -> Result<Outcome, EngineError> {
        let id = self.intend(uid, Kind::GateUnlock, None, None)?;
        let done = gate::unlock(u64::from(uid)).and_then(|_| gate::check(u64::from(uid)));
        let outcome = match done {
            Ok(answer) if answer.locked_until == 0 => Outcome::Verified,
            Ok(_) => failed("the gate still shows a lock".to_owned()),
            Err(error) => failed(error.to_string()),
        };
        self.end(uid, Kind::GateUnlock, id, &outcome)?;
        Ok(outcome)
    }

    /// Stores what is about to be done.
    pub(super) fn intend(
        &mut self,
        uid: u32,
        kind: Kind,
        until: Option<Boot>,
        digest: Option<Digest>,
    ) -> Result<ActionId, EngineError> {
        let now = Now::read()?;
        let name = self.names.of(uid).unwrap_or_default();
        let until = until.and_then(|until| now.until(until.0));
        let kind = name_of(kind).to_owned();
        Ok(self.store.begin(&Intent { time: now.wall, uid, name, kind, until, digest }))
    }

    /// Stores, counts and tells how it ended.
    fn end(&mut self, uid: u32, kind: Kind, id: ActionId, outcome: &Outcome) -> Result<(), EngineError> {
        let (result, reason) = words(outcome);
        self.store.finish(id, result, reason);
        self.metrics.action(name_of(kind), result);
        let mut event = view::Event::new(Now::read()?.wall, name_of(kind));
        event.account = Some(crate::rows::account(u64::from(uid), &mut self.names));
        event.result = Some(result.to_owned());
        event.detail = reason.map(str::to_owned);
        let level = if result == "failed" { log::Level::Error } else { log::Level::Info };
        self.publish(level, event);
        Ok(())
    }

    /// Starts `passwd` beside the engine.
    fn shadow_begin(&mut self, account: u32, kind: Kind) -> Result<Option<Input>, EngineError> {
        let held = self.store.shadow_lock(account);
        let name = match (kind, &held) {
            // The name it was locked under: the user may have been renamed or deleted since.
            (Kind::ShadowUnlock, Some(held)) => Ok(held.name.clone()),
            (Kind::ShadowUnlock, None) => Err(("the store holds no shadow lock of ours".to_owned(), false)),
            _ => name_now(account),
        };
        let name = match name {
            Ok(name) => name,
            Err((reason, retry)) => {
                let id = self.intend(account, kind, None, None)?;
                return self.not_begun(account, kind, id, reason, retry);
            }
        };
        // What a lock will leave goes into the intent, so that one that was cut short is known as ours.
        let digest = match (kind, self.shadow.prepare(&name)) {
            (Kind::ShadowLock, Ok(Prepared::Ready(digest))) => Some(digest),
            _ => None,
        };
        let id = self.intend(account, kind, None, digest)?;
        let (shadow, passwd, user) = (self.shadow.clone(), self.passwd.clone(), name.clone());
        self.running.spawn(async move {
            // The semaphore is never closed; if it were, the limit alone would be lost.
            let _permit = passwd.acquire_owned().await;
            let result = match (kind, held) {
                (Kind::ShadowUnlock, Some(held)) => {
                    shadow.unlock(&user, &held.digest).await.map(Did::Unlocked).map_err(Into::into)
                }
                _ => shadow.lock(&user).await.map(Did::Locked).map_err(Into::into),
            };
            Finished { account, result }
        });
        self.busy.insert(account, Under { kind, name, id });
        Ok(None)
    }

    pub(super) fn not_begun(
        &mut self,
        account: u32,
        kind: Kind,
        id: ActionId,
        reason: String,
        retry: bool,
    ) -> Result<Option<Input>, EngineError> {
        let outcome = Outcome::Failed { reason, retry };
        self.end(account, kind, id, &outcome)?;
        Ok(Some(Input::ActionDone { account, kind, outcome }))
    }

    /// Takes over the end of a shadow action.
    pub(super) fn finished(&mut self, finished: Finished) -> Result<(), EngineError> {
        if let Some(input) = self.take_over(finished)? {
            self.step(input)?;
        }
        Ok(())
    }

    /// The same when the agent stops: the policy is not asked any more.
    pub(super) fn record_finished(&mut self, finished: Finished) -> Result<(), EngineError> {
        self.take_over(finished).map(|_| ())
    }

    fn take_over(&mut self, finished: Finished) -> Result<Option<Input>, EngineError> {
        let Finished { account, result } = finished;
        let Some(Under { kind, name, id }) = self.busy.remove(&account) else { return Ok(None) };
        let outcome = match result {
            Ok(Did::Locked(Locked::Verified(digest))) => {
                self.store.set_shadow_lock(account, &name, &digest);
                Outcome::Verified
            }
            Ok(Did::Locked(Locked::AlreadyLocked)) => Outcome::AlreadyLocked,
            Ok(Did::Unlocked(Unlocked::Verified)) => {
                self.store.remove_shadow_lock(account);
                Outcome::Verified
            }
            Ok(Did::Unlocked(Unlocked::Foreign)) => {
                self.store.remove_shadow_lock(account);
                Outcome::Foreign
            }
            Ok(did) => self.rung_done(account, &did),
            Err(Trouble { reason, retry }) => {
                // Not set, as far as was seen: what is found set later is looked at then.
                if kind == Kind::Expire && self.expiry.holds(&name).is_ok_and(|holds| !holds) {
                    self.store.remove_expiry(account);
                }
                Outcome::Failed { reason, retry }
            }
        };
        self.end(account, kind, id, &outcome)?;
        Ok(Some(Input::ActionDone { account, kind, outcome }))
    }

    /// Tells people, and keeps the store's list of locks in step.
    fn alert(&mut self, uid: u32, notice: Notice) -> Result<(), EngineError> {
        let now = Now::read()?;
        let account = crate::rows::account(u64::from(uid), &mut self.names);
        let mut event = view::Event::new(now.wall, "notice");
        let mut level = log::Level::Warn;
        match notice {
            Notice::Tripped { trips, until, actor, climb } => {
                if self.told_before(uid, trips, until, &now) {
                    return Ok(());
                }
                event.event = "tripped".to_owned();
                event.locked_until = now.until(until.0);
                event.actor = actor.map(|actor| {
                    crate::rows::actor(super::events::source_of(actor.kind, actor.id), &mut self.names)
                });
                if until.0 > now.boot {
                    let soft = self.tables.row(u64::from(uid))?.is_some_and(|row| row.ledger.soft != 0);
                    let why = if soft { StoredLock::SOFT } else { "trip" };
                    self.store_lock(uid, &account.name, until, why, trips, &now);
                }
                self.store.set_told(uid, Told { trips, until: until.0 });
                self.store_climb(uid, climb, &now)?;
            }
            Notice::Locked { until, cause } => {
                event.event = "lock_noted".to_owned();
                event.locked_until = now.until(until.0);
                level = log::Level::Info;
                let why = crate::rows::cause_name(number(cause));
                self.store_lock(uid, &account.name, until, why, 0, &now);
            }
            Notice::Released { why } => {
                event.event = "released".to_owned();
                event.detail = Some(release(why).to_owned());
                level = log::Level::Info;
                self.store.remove_lock(uid);
                if why != Release::Expired {
                    self.store.remove_climb(uid);
                    self.store.forget_told(uid);
                }
            }
            other => {
                let text = problem(&other, &now);
                for waiting in self.waiting.iter_mut().filter(|waiting| waiting.uid == uid) {
                    waiting.problems.push(text.clone());
                }
                if matches!(
                    other,
                    Notice::ShadowUnlockFailed { .. } | Notice::UndoFailed { .. } | Notice::GateFailed { .. }
                ) {
                    level = log::Level::Error;
                }
                event.detail = Some(text);
            }
        }
        event.account = Some(account);
        self.publish(level, event);
        Ok(())
    }

    /// Whether a trip is old news: its lock is over, and this trip or a later one of the account was told already. The
    /// policy knows that of trips whose lock holds; it forgets an account some time after the lock, the store does not.
    fn told_before(&self, uid: u32, trips: u32, until: Boot, now: &Now) -> bool {
        let over = until.0 <= now.boot;
        // The gate counts trips anew when it has forgotten an account; the lock of such a trip ends later.
        over && self.store.told(uid).is_some_and(|told| trips <= told.trips && until.0 <= told.until)
    }

    fn store_lock(&mut self, uid: u32, name: &str, until: Boot, why: &str, trips: u32, now: &Now) {
        let Some(end) = now.until(until.0) else { return };
        let class = self.classes.get(&uid).copied().unwrap_or(crate::config::CLASS_DEFAULT);
        self.store.set_lock(&StoredLock {
            uid,
            name: name.to_owned(),
            class: self.class_name(class),
            cause: why.to_owned(),
            locked_at: now.wall,
            until: end,
            trips,
        });
    }

    /// Answers requests whose account has nothing under way any more.
    pub(super) fn answer_waiting(&mut self) -> Result<(), EngineError> {
        let (ready, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|waiting: &Waiting| !self.busy.contains_key(&waiting.uid));
        self.waiting = waiting;
        for Waiting { uid, message, problems, reply } in ready {
            let row = self.row(uid)?;
            // The asker may be gone.
            let _ = reply.send(Ok(view::Done { row: Some(row), message, problems }));
        }
        Ok(())
    }
}

fn failed(reason: String) -> Outcome {
    Outcome::Failed { reason, retry: true }
}

/// A cause in the gate's words.
pub(super) const fn number(why: Cause) -> u32 {
    match why {
        Cause::Trip => cause::TRIP,
        Cause::Administrator => cause::ADMINISTRATOR,
        Cause::Restored => cause::RESTORED,
    }
}

const fn release(why: Release) -> &'static str {
    match why {
        Release::Expired => "its time ran out",
        Release::Unlocked => "on request",
        Release::Gone => "the gate holds no lock any more",
        Release::Exempt => "its class is exempt or in monitor mode now",
    }
}

/// A problem in words.
fn problem(notice: &Notice, now: &Now) -> String {
    let again = |next: &Boot| match now.until(next.0) {
        Some(view::Until::At(time)) => format!("tried again at {time}"),
        _ => "not tried again".to_owned(),
    };
    match notice {
        Notice::ShadowAlreadyLocked => {
            "the password was locked by an administrator before: it will not be unlocked by us".to_owned()
        }
        Notice::ShadowForeign => {
            "the password field was changed while we held it locked: it is left alone, see passwd --status"
                .to_owned()
        }
        Notice::ShadowLockFailed { reason, next } => {
            format!("the password could not be locked: {reason}; {}", again(next))
        }
        Notice::ShadowUnlockFailed { reason, tries, next } => format!(
            "the password could not be unlocked ({tries} tries): {reason}; {}; by hand: passwd -u",
            again(next)
        ),
        Notice::AlreadyThere { kind } => {
            format!("{}: it was so before, and will not be undone by us", name_of(*kind))
        }
        Notice::ChangedByOthers { kind } => {
            format!("{}: changed by others while we held it: left alone, see chage -l", name_of(*kind))
        }
        Notice::ClimbFailed { kind, reason, next } => {
            format!("{} failed: {reason}; {}", name_of(*kind), again(next))
        }
        Notice::UndoFailed { kind, reason, tries, next } => format!(
            "{} could not be undone ({tries} tries): {reason}; {}; by hand: chage -E",
            name_of(*kind),
            again(next)
        ),
        Notice::GateFailed { reason } => format!("the gate did not do what was asked: {reason}"),
        Notice::Full => "too many locked accounts to follow: locked in the gate alone".to_owned(),
        Notice::Tripped { .. } | Notice::Locked { .. } | Notice::Released { .. } => String::new(),
    }
}
