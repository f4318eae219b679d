//! The engine: the one task that owns the policy, the store and the tables.
//!
//! events → store, metrics, log → policy → actions → gate, `passwd` → read back → store, metrics, policy.
//!
//! Invariants: everything that decides happens in this task, in the order in which the gate told it; `passwd` runs
//! beside it and never holds up events; what an event was lost for, the scan makes up for; stopping releases nothing.

mod actions;
mod breaker;
pub mod command;
mod commands;
mod events;
mod modes;
mod neighbours;
mod pairs;
mod restore;
mod rungs;
mod scan;
mod setup;
mod source_rows;
pub(crate) mod sources;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use portcullis_policy::{Boot, Input, Policy};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::accounts::AccountsError;
use crate::api::hub::Hub;
use crate::clock::{self, ClockError};
use crate::config::{ClassInfo, Config};
use crate::expiry::Expiry;
use crate::kernel::{KernelError, Ring, SourceTables, Tables};
use crate::metrics::Metrics;
use crate::names::Names;
use crate::shadow::Shadow;
use crate::store::Store;
use crate::unreachable::Unreachable;
use actions::Finished;
use command::{Command, Reply};

pub use setup::{BroughtUp, Parts, bring_up};

/// How often the ring buffer is looked into without being told: the gate wakes nobody for a logon that is right.
const QUIET: Duration = Duration::from_secs(1);
/// Records handled before others get their turn.
const BATCH: usize = 256;
/// `passwd` processes at once: they wait for one another's lock anyway.
const PASSWD: usize = 4;
/// How long running actions may take when the agent stops.
const DRAIN: Duration = Duration::from_secs(25);

/// Why the engine ended.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The kernel's side.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A clock.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// The user database.
    #[error(transparent)]
    Accounts(#[from] AccountsError),
    /// A task of ours panicked.
    #[error("an action's task ended without a result: {0}; this is a bug, portcullisd restarts")]
    Task(#[from] tokio::task::JoinError),
}

/// A request that is answered when the actions of its account have ended.
struct Waiting {
    uid: u32,
    message: String,
    problems: Vec<String>,
    reply: Reply<crate::api::view::Done>,
}

/// All state of the agent.
pub struct Engine {
    path: PathBuf,
    config: Config,
    /// The configuration this process was started with: what a reload cannot change is as it says.
    running_config: Config,
    infos: Vec<ClassInfo>,
    /// Classes of the uids looked up so far.
    classes: HashMap<u32, u32>,
    tables: Tables,
    ring: Ring,
    store: Store,
    shadow: Arc<Shadow>,
    expiry: Expiry,
    /// The configuration as the file has it, without what was switched at run time.
    file: Config,
    notify: crate::notify::Handle,
    breaker: portcullis_policy::breaker::Breaker,
    /// Why rungs are withheld now.
    withheld: Option<portcullis_policy::breaker::Why>,
    /// Accounts that could be locked.
    population: u32,
    policy: Policy,
    names: Names,
    metrics: Arc<Metrics>,
    hub: Arc<Hub>,
    filter: crate::filter::Handle,
    running: JoinSet<Finished>,
    /// Accounts with a shadow action under way, and the record of it.
    busy: HashMap<u32, actions::Under>,
    passwd: Arc<Semaphore>,
    waiting: Vec<Waiting>,
    wake: Boot,
    since: Timestamp,
    last_lost: u64,
    unreachable: Unreachable,
    gate_answers: bool,
    store_told: scan::StoreTold,
    last_members: Instant,
    source_tables: SourceTables,
    sources: portcullis_policy::sources::Sources,
    neighbours: neighbours::Neighbours,
    source_wake: Boot,
    /// Trips of sources that were handled.
    source_trips: u64,
    /// Leases that the filter was asked for.
    answers: JoinSet<sources::Answered>,
}

impl Engine {
    /// Works until told to stop.
    ///
    /// # Errors
    /// The kernel's side, a clock or a task of ours failed; the process is to be started again.
    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>) -> Result<(), EngineError> {
        self.recover()?;
        self.recover_sources()?;
        let mut scan = tokio::time::interval(self.config.agent.reconcile.duration());
        scan.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut quiet = tokio::time::interval(QUIET);
        quiet.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut around = self.filter.around();
        loop {
            let wake = self.until_wake()?;
            tokio::select! {
                records = self.ring.read(BATCH) => {
                    let records = records?;
                    self.records(&records)?;
                }
                command = commands.recv() => match command {
                    None | Some(Command::Stop) => break,
                    Some(command) => {
                        let before = self.config.agent.reconcile;
                        self.command(command)?;
                        if before != self.config.agent.reconcile {
                            scan = tokio::time::interval(self.config.agent.reconcile.duration());
                            scan.set_missed_tick_behavior(MissedTickBehavior::Delay);
                        }
                    }
                },
                Some(finished) = self.running.join_next(), if !self.running.is_empty() => {
                    self.finished(finished?)?;
                }
                Some(answered) = self.answers.join_next(), if !self.answers.is_empty() => {
                    self.source_answered(answered?)?;
                }
                Ok(()) = around.changed() => self.read_addresses()?,
                () = tokio::time::sleep(wake) => {
                    self.step(Input::Tick)?;
                    self.step_sources(portcullis_policy::sources::Input::Tick)?;
                }
                _ = quiet.tick() => self.drain_ring()?,
                _ = scan.tick() => self.scan()?,
            }
        }
        self.drain().await
    }

    /// How long until the policy wants to be stepped. Bounded, since timers do not see the machine sleep.
    fn until_wake(&self) -> Result<Duration, EngineError> {
        let now = clock::boot()?;
        let left = Duration::from_nanos(self.wake.min(self.source_wake).0.saturating_sub(now.0));
        Ok(left.min(Duration::from_secs(60)))
    }

    /// One step of the policy, and all that follows from it.
    fn step(&mut self, input: Input) -> Result<(), EngineError> {
        let mut inputs = std::collections::VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let actions = self.policy.step(clock::boot()?, input);
            for action in actions {
                inputs.extend(self.perform(action)?);
            }
        }
        self.metrics.locks(self.policy.locked().count(), self.store.shadow_locks().len());
        self.look_at_store()?;
        self.answer_waiting()
    }

    /// Lets the actions under way end, so that their results are stored; later ones are left to the next start.
    async fn drain(mut self) -> Result<(), EngineError> {
        let end = Instant::now() + DRAIN;
        while !self.running.is_empty() {
            match tokio::time::timeout_at(end, self.running.join_next()).await {
                Ok(Some(finished)) => self.record_finished(finished?)?,
                Ok(None) => break,
                Err(_) => {
                    log::warn!(
                        "{} actions still run at the stop; their intents are looked at when portcullisd starts again",
                        self.running.len()
                    );
                    break;
                }
            }
        }
        Ok(())
    }

    /// The class of a uid; one seen for the first time is put into the gate's table if it is not the default.
    fn class_of(&mut self, uid: u32) -> Result<u32, EngineError> {
        if let Some(class) = self.classes.get(&uid) {
            return Ok(*class);
        }
        let class = match self.config.class_of(&crate::accounts::Nss, uid) {
            Ok(class) => class,
            Err(error) => {
                log::warn!("uid {uid} counts in the default class for now: {error}");
                return Ok(crate::config::CLASS_DEFAULT);
            }
        };
        if self.classes.len() >= portcullis_policy::MAX_ACCOUNTS {
            self.classes.retain(|_, class| *class != crate::config::CLASS_DEFAULT);
        }
        self.classes.insert(uid, class);
        if class != crate::config::CLASS_DEFAULT
            && let Err(error) = self.tables.add_member(uid, class)
        {
            log::error!("uid {uid} stays in the default class: {error}");
        }
        Ok(class)
    }

    /// What the policy must know of a uid's class: while a lock is a soft one, that nothing is to shut out those to whom it
    /// is open.
    fn policy_class(&mut self, uid: u32) -> Result<portcullis_policy::Class, EngineError> {
        let class = self.class_of(uid)?;
        let class = self.info(class).map_or(portcullis_policy::Class::default(), ClassInfo::policy);
        let soft = self.tables.row(u64::from(uid))?.is_some_and(|row| row.ledger.soft != 0);
        Ok(if soft { class.while_in_part() } else { class })
    }

    fn info(&self, class: u32) -> Option<&ClassInfo> {
        self.infos.get(usize::try_from(class).ok()?)
    }

    fn class_name(&self, class: u32) -> String {
        self.info(class).map_or_else(|| format!("#{class}"), |info| crate::text::escape(info.name.as_bytes()))
    }
}
