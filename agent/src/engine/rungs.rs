//! The rungs above the shadow lock: the account expires, its sessions end. And what the store knew of them at a start.
//!
//! Invariants: the former expiry is stored before ours is set; sessions of root and of exempt accounts are never ended.

use std::collections::BTreeSet;

use portcullis_policy::{Boot, Climb, Input, Kind, Outcome};

use super::actions::{Did, Finished, Under, name_now, name_of};
use super::{Engine, EngineError};
use crate::accounts::{Directory, Nss};
use crate::api::view::Until;
use crate::expiry::{Change, Expiry, today};
use crate::logout;
use crate::rows::Now;
use crate::store::{StoredClimb, StoredExpiry, Unfinished};

impl Engine {
    /// Starts `chage` or the end of sessions beside the engine.
    pub(super) fn rung_begin(&mut self, account: u32, kind: Kind) -> Result<Option<Input>, EngineError> {
        let held = self.store.expiry(account);
        let name = match (kind, &held) {
            // The name it was set under: the user may have been renamed or deleted since.
            (Kind::Unexpire, Some(held)) => Ok(held.name.clone()),
            (Kind::Unexpire, None) => Err(("the store holds no expiry of ours".to_owned(), false)),
            _ => name_now(account),
        };
        let name = match name {
            Ok(name) => name,
            Err((reason, retry)) => {
                let id = self.intend(account, kind, None, None)?;
                return self.not_begun(account, kind, id, reason, retry);
            }
        };
        if kind == Kind::Expire
            && let Ok(former) = self.expiry.read(&name)
            && !Expiry::over(&former, today())
        {
            self.store.set_expiry(StoredExpiry { uid: account, name: name.clone(), former, sure: false });
        }
        let id = self.intend(account, kind, None, None)?;
        let (expiry, permits, user) = (self.expiry.clone(), self.passwd.clone(), name.clone());
        let limit = self.config.agent.passwd_timeout.duration();
        let spared = self.spared();
        self.running.spawn(async move {
            // The semaphore is never closed; if it were, the limit alone would be lost.
            let _permit = permits.acquire_owned().await;
            let result = match (kind, held) {
                (Kind::EndSessions, _) => {
                    let ended = logout::end(account, &user, spared, limit).await;
                    ended.map(Did::Sessions).map_err(Into::into)
                }
                (Kind::Unexpire, Some(held)) => {
                    expiry.restore(&user, &held.former).await.map(Did::Restored).map_err(Into::into)
                }
                _ => expiry.set(&user).await.map(Did::Expired).map_err(Into::into),
            };
            Finished { account, result }
        });
        self.busy.insert(account, Under { kind, name, id });
        Ok(None)
    }

    /// Uids whose processes are never ended: root's, and those of exempt accounts.
    fn spared(&self) -> BTreeSet<u32> {
        let exempt =
            self.classes.iter().filter(|(_, class)| self.info(**class).is_some_and(|info| info.exempt));
        let mut spared: BTreeSet<u32> = exempt.map(|(uid, _)| *uid).collect();
        spared.insert(0);
        let named = self.config.break_glass.names().iter();
        spared.extend(named.filter_map(|name| Some(Nss.user(name).ok()??.uid)));
        spared
    }

    /// What a rung's action came to, in the store.
    pub(super) fn rung_done(&mut self, account: u32, did: &Did) -> Outcome {
        match did {
            Did::Expired(Change::Verified) => {
                if let Some(held) = self.store.expiry(account) {
                    self.store.set_expiry(StoredExpiry { sure: true, ..held });
                }
                Outcome::Verified
            }
            Did::Expired(Change::Theirs) => {
                self.store.remove_expiry(account);
                Outcome::AlreadyLocked
            }
            Did::Restored(change) => {
                self.store.remove_expiry(account);
                if *change == Change::Verified { Outcome::Verified } else { Outcome::Foreign }
            }
            Did::Sessions(processes) => {
                log::info!("sessions of uid {account} ended, {processes} processes by signals");
                self.store.sessions_ended(account);
                Outcome::Verified
            }
            // The shadow lock's are taken care of where it is.
            Did::Locked(_) | Did::Unlocked(_) => Outcome::Verified,
        }
    }

    /// Stores a row of trips, where something may follow from it.
    pub(super) fn store_climb(&mut self, uid: u32, climb: Climb, now: &Now) -> Result<(), EngineError> {
        let class = self.policy_class(uid)?;
        if class.backoff_window == 0 && class.expire_after == 0 && class.end_sessions_after == 0 {
            return Ok(());
        }
        let level = self.tables.row(u64::from(uid))?.map_or(0, |row| row.ledger.level);
        if let Some(until) = now.until(climb.until.0) {
            let Climb { trips, sessions_ended, .. } = climb;
            self.store.set_climb(StoredClimb { uid, trips, until, sessions_ended, level });
        }
        Ok(())
    }

    /// A rung whose action was cut short by the end of an earlier process: reality tells what became of it.
    pub(super) fn unfinished_rung(&mut self, action: &Unfinished) -> Option<(&'static str, &'static str)> {
        let held = self.store.expiry(action.uid);
        let holds = held.as_ref().map(|held| self.expiry.holds(&held.name));
        let is = |kind| action.kind == name_of(kind);
        if is(Kind::Expire) {
            return Some(match (held, holds) {
                (Some(held), Some(Ok(true))) => {
                    self.store.set_expiry(StoredExpiry { sure: true, ..held });
                    ("verified", "found done when portcullisd started again")
                }
                (_, Some(Err(_))) => ("failed", "cut short, and /etc/shadow cannot be read"),
                _ => {
                    self.store.remove_expiry(action.uid);
                    ("failed", "cut short: not done when portcullisd started again")
                }
            });
        }
        if is(Kind::Unexpire) {
            return Some(match holds {
                Some(Ok(false)) => {
                    self.store.remove_expiry(action.uid);
                    ("verified", "found no longer as we set it when portcullisd started again")
                }
                Some(Ok(true)) => ("failed", "cut short: still expired when portcullisd started again"),
                Some(Err(_)) => ("failed", "cut short, and /etc/shadow cannot be read"),
                None => ("failed", "cut short"),
            });
        }
        is(Kind::EndSessions).then_some(("failed", "cut short: done again when portcullisd started again"))
    }

    /// The rows of trips that go on, in this boot's time.
    pub(super) fn stored_climbs(&mut self, now: &Now) -> Vec<(u32, Climb)> {
        self.store.forget_climbs(now.wall);
        let climb = |stored: StoredClimb| {
            let StoredClimb { uid, trips, sessions_ended, .. } = stored;
            (uid, Climb { trips, until: climb_end(&stored, now), sessions_ended })
        };
        self.store.climbs().into_iter().map(climb).collect()
    }
}

/// The end of a stored row of trips in this boot's time.
pub(super) fn climb_end(stored: &StoredClimb, now: &Now) -> Boot {
    Boot(row_end(stored.until, now))
}

/// The same of any stored end.
pub(super) fn row_end(until: Until, now: &Now) -> u64 {
    match until {
        Until::Never => Boot::NEVER.0,
        Until::At(end) => {
            now.boot.saturating_add(u64::try_from(end.duration_since(now.wall).as_nanos()).unwrap_or(0))
        }
    }
}
