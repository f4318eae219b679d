//! Before the first event: the gate loaded, its tables written, locks given back, cut-short actions looked at.
//!
//! Invariants: idempotent; a lock of the store is given back to the kernel only where the kernel has no row that knows
//! better; a lock is never longer than it was meant to be, however the wall clock was set meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use portcullis_common::abi::{UNREACHABLE, cause};
use portcullis_common::ledger::{Ledger, NEVER};
use portcullis_policy::breaker::Breaker;
use portcullis_policy::{Boot, Climb, Input, Policy, Restored};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::scan::StoreTold;
use super::{Engine, EngineError, PASSWD};
use crate::accounts::Nss;
use crate::api::hub::Hub;
use crate::api::view::Until;
use crate::clock;
use crate::config::Config;
use crate::expiry::Expiry;
use crate::kernel::{Loaded, Ring, SourceTables, Tables};
use crate::metrics::Metrics;
use crate::names::Names;
use crate::rows::Now;
use crate::shadow::Shadow;
use crate::store::{Store, StoredLock, Told};
use crate::unreachable::Unreachable;

/// What the store knows of an account.
#[derive(Default)]
struct Known {
    lock: Option<StoredLock>,
    shadow: bool,
    expired: bool,
    climb: Option<Climb>,
}

/// What [`bring_up`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BroughtUp {
    /// Whether there was a gate before.
    pub loaded: Loaded,
    /// Generation of the configuration in the gate.
    pub generation: u32,
    /// Locks given back to the gate.
    pub restored: usize,
}

/// Writes the configuration into the gate that was `loaded`, and gives back the locks it lost.
///
/// # Errors
/// The gate's tables cannot be read or written. A lock that cannot be given back is logged.
pub fn bring_up(config: &Config, loaded: Loaded, store: &Store) -> Result<BroughtUp, EngineError> {
    let mut tables = Tables::open()?;
    let config = &super::modes::with_modes(config, store.modes());
    let (rules, members) = (config.rules(clock::midnight()?), config.members(&Nss)?);
    let places = config.places();
    if !tables.has_config(&rules, &members)? || !tables.has_places(&places)? {
        tables.write_all(&rules, &members, &places)?;
    }
    SourceTables::open()?.set_rule(config.sc5.rule())?;
    let now = Now::read()?;
    let mut restored = super::restore::accounts(&tables, store, &now)?;
    restored += super::pairs::restore(&tables, store, &now)?;
    Ok(BroughtUp { loaded, generation: tables.settings()?.generation, restored })
}

/// The end of a stored lock in this boot's time: what is left of it, and never more than its whole length.
pub(super) fn end_of(lock: &StoredLock, now: &Now) -> u64 {
    end_at(lock.until, lock.locked_at, now)
}

/// The same of a lock that was set at `locked_at` and is to end at `until`.
pub(super) fn end_at(until: Until, locked_at: Timestamp, now: &Now) -> u64 {
    let Until::At(until) = until else { return NEVER };
    let left = until.duration_since(now.wall).min(until.duration_since(locked_at));
    now.boot.saturating_add(u64::try_from(left.as_nanos()).unwrap_or(0))
}

/// The shadow locks of this host, by this configuration.
pub(super) fn shadow_of(config: &Config, store: &Store) -> Arc<Shadow> {
    Arc::new(Shadow::new(Path::new("/"), store.digest_key(), config.agent.passwd_timeout.duration()))
}

/// The expiries of this host, by this configuration.
pub(super) fn expiry_of(config: &Config) -> Expiry {
    Expiry::new(Path::new("/"), config.agent.passwd_timeout.duration())
}

/// Trips of a row that were told. A gate that was lost in this boot counts anew: what it locked since ends later than what
/// was told.
fn told_trips(told: Option<Told>, ledger: &Ledger) -> u32 {
    let news = |told: &Told| ledger.cause == cause::TRIP && ledger.locked_until > told.until;
    told.map_or(0, |told| told.trips.min(ledger.trips.saturating_sub(u32::from(news(&told)))))
}

/// What an engine is made of.
pub struct Parts {
    /// Where the configuration was read.
    pub path: PathBuf,
    /// The configuration.
    pub config: Config,
    /// The store.
    pub store: Store,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Onlookers.
    pub hub: Arc<Hub>,
    /// The way to the filter.
    pub filter: crate::filter::Handle,
    /// The way to the notifier.
    pub notify: crate::notify::Handle,
}

impl Engine {
    /// An engine over the pinned tables. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// The tables cannot be opened or a clock cannot be read.
    pub fn new(parts: Parts) -> Result<Self, EngineError> {
        let Parts { path, config, store, metrics, hub, filter, notify } = parts;
        let file = config;
        let config = super::modes::with_modes(&file, store.modes());
        for (class, monitor) in store.modes() {
            let mode = if *monitor { "monitor" } else { "enforce" };
            log::warn!("mode {mode} was set at run time for {class}, and holds until the next reboot");
        }
        let tables = Tables::open()?;
        let source_policy = super::sources::policy(&config);
        let shadow = shadow_of(&config, &store);
        let expiry = expiry_of(&config);
        let last_lost = tables.stats()?.lost_events;
        let members = config.members(&Nss)?;
        Ok(Self {
            path,
            infos: config.class_infos(),
            classes: members.into_iter().collect::<HashMap<_, _>>(),
            running_config: config.clone(),
            file,
            notify,
            breaker: Breaker::new(config.breaker.rules()),
            withheld: None,
            population: 0,
            config,
            tables,
            ring: Ring::events()?,
            store,
            shadow,
            expiry,
            policy: Policy::new(),
            names: Names::default(),
            metrics,
            hub,
            filter,
            running: JoinSet::new(),
            busy: HashMap::new(),
            passwd: Arc::new(Semaphore::new(PASSWD)),
            waiting: Vec::new(),
            wake: Boot::NEVER,
            since: Timestamp::now(),
            last_lost,
            unreachable: Unreachable::new(UNREACHABLE.into()),
            gate_answers: true,
            store_told: StoreTold::default(),
            last_members: Instant::now(),
            source_tables: SourceTables::open()?,
            sources: source_policy,
            neighbours: super::neighbours::Neighbours::new(),
            source_wake: Boot::NEVER,
            source_trips: 0,
            answers: JoinSet::new(),
        })
    }

    /// Takes over what an earlier process left: cut-short actions, shadow locks, locks.
    pub(super) fn recover(&mut self) -> Result<(), EngineError> {
        self.look_at_unfinished();
        let now = Now::read()?;
        let mut known: BTreeMap<u32, Known> = BTreeMap::new();
        for lock in self.store.locks() {
            let uid = lock.uid;
            known.entry(uid).or_default().lock = Some(lock);
        }
        for shadow in self.store.shadow_locks() {
            known.entry(shadow.uid).or_default().shadow = true;
        }
        for uid in self.store.expiries() {
            known.entry(uid).or_default().expired = true;
        }
        for (uid, climb) in self.stored_climbs(&now) {
            known.entry(uid).or_default().climb = Some(climb);
        }
        self.remember_failing(&now);
        self.count_population(known.len());
        let locked = known.iter().filter(|(_, known)| known.lock.is_some()).map(|(uid, _)| *uid).collect();
        self.look_ahead(&locked)?;
        for (account, Known { lock, shadow, expired, climb }) in known {
            let class = self.policy_class(account)?;
            let row = self.tables.row(u64::from(account))?;
            let stored = lock.is_some();
            let lock = match (lock, row) {
                (None, _) => None,
                // The kernel knows better: still locked, or released while no agent ran.
                (Some(_), Some(row)) => (row.ledger.locked_until > now.boot).then_some(Restored {
                    until: Boot(row.ledger.locked_until),
                    // Trips that were not told yet are news.
                    trips: told_trips(self.store.told(account), &row.ledger),
                    lost: false,
                }),
                (Some(lock), None) => {
                    Some(Restored { until: Boot(end_of(&lock, &now)), trips: 0, lost: true })
                }
            };
            if stored && lock.is_none() {
                self.store.remove_lock(account);
            }
            self.step(Input::Restored { account, class, lock, shadow, expired, climb })?;
        }
        Ok(())
    }

    /// Actions whose end was never stored: reality tells what became of them.
    fn look_at_unfinished(&mut self) {
        for action in self.store.unfinished() {
            let (result, reason) = match (action.kind.as_str(), action.digest) {
                ("shadow_lock", Some(digest)) => match self.shadow.holds(&action.name, &digest) {
                    Ok(true) => {
                        self.store.set_shadow_lock(action.uid, &action.name, &digest);
                        ("verified", "found done when portcullisd started again")
                    }
                    Ok(false) => ("failed", "cut short: not done when portcullisd started again"),
                    Err(error) => {
                        log::error!("whether the shadow lock of uid {} is ours: {error}", action.uid);
                        ("failed", "cut short, and /etc/shadow cannot be read")
                    }
                },
                ("shadow_unlock", _) => {
                    let held = self.store.shadow_lock(action.uid);
                    match held.map(|held| self.shadow.holds(&held.name, &held.digest)) {
                        Some(Ok(true)) => {
                            ("failed", "cut short: still locked when portcullisd started again")
                        }
                        Some(Ok(false)) => {
                            self.store.remove_shadow_lock(action.uid);
                            ("verified", "found no longer locked by us when portcullisd started again")
                        }
                        Some(Err(_)) => ("failed", "cut short, and /etc/shadow cannot be read"),
                        None => ("failed", "cut short"),
                    }
                }
                _ => self
                    .unfinished_rung(&action)
                    .unwrap_or(("failed", "cut short: what the gate holds counts")),
            };
            log::warn!(
                "action {} on uid {} was cut short by the end of an earlier portcullisd: {result}: {reason}",
                action.kind,
                action.uid
            );
            self.store.finish(action.id, result, Some(reason));
            if let Some(kind) = super::actions::kind_of(&action.kind) {
                self.metrics.action(kind, result);
            }
        }
    }
}
