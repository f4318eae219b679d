//! Answers what the API asks.
//!
//! Invariants: a question never changes anything; lock and unlock are answered when what they lead to has ended.

use std::os::unix::ffi::OsStrExt;

use portcullis_common::abi::{NOBODY, Row, cause};
use portcullis_common::ledger::{NEVER, rule_flag};
use portcullis_policy::sources::Target;
use portcullis_policy::{Boot, Input, Outcome};

use super::command::{Command, CommandError, Reply};
use super::{Engine, EngineError, Waiting};
use crate::accounts::Nss;
use crate::api::view::{
    Account, AccountRow, ActionView, Actor, Attempt, Done, Explain, Shadow, Status, Table, Until,
};
use crate::config::sc5::policy_net;
use crate::config::{Agent, Config, Metrics};
use crate::kernel::{Slice, TableRow};
use crate::rows::{self, Now};
use crate::shadow::Field;

/// Attempts and actions that `explain` shows.
const SHOWN: u32 = 20;

impl Engine {
    /// Handles one request.
    pub(super) fn command(&mut self, command: Command) -> Result<(), EngineError> {
        // Answers tell of everything that has happened, quiet events too.
        self.drain_ring()?;
        match command {
            Command::Status(reply) => answer(reply, self.status()?),
            Command::Accounts(reply) => answer(reply, self.accounts()?),
            Command::Explain(uid, reply) => {
                let explained = self.explain(uid)?;
                // The asker may be gone.
                let _ = reply.send(explained.map(Box::new));
            }
            Command::Lock { uid, seconds, reply } => self.lock(uid, seconds, reply)?,
            Command::Unlock { uid, reply } => self.unlock(uid, reply)?,
            Command::Mode(asked, reply) => {
                let _ = reply.send(self.set_mode(&asked)?);
            }
            Command::Breaker(wish, reply) => {
                let view = match wish {
                    Some(wish) => self.set_breaker(wish)?,
                    None => self.breaker_view(),
                };
                answer(reply, view);
            }
            Command::Sources(reply) => answer(reply, self.source_rows()?),
            Command::Source(address, reply) => answer(reply, self.source_by_address(address)?),
            Command::Released(nets, reply) => {
                for net in nets {
                    self.release_source(Target::Net(policy_net(net)))?;
                }
                answer(reply, ());
            }
            Command::Report(report, reply) => {
                let _ = reply.send(self.report(report)?);
            }
            Command::Reload(reply) => {
                let _ = reply.send(self.reload()?);
            }
            Command::Config(reply) => {
                let value = serde_json::to_value(&self.config);
                let _ = reply.send(value.map_err(|error| CommandError::Failed(error.to_string())));
            }
            Command::Scrape(reply) => {
                self.metrics.stats(self.tables.stats()?);
                self.look_at_gate()?;
                answer(reply, ());
            }
            Command::Health(reply) => match self.look_at_gate()? {
                None => answer(reply, ()),
                Some(problem) => refuse(reply, CommandError::Gate(problem)),
            },
            Command::Stop => {}
        }
        Ok(())
    }

    /// An account as it is now.
    pub(super) fn row(&mut self, uid: u32) -> Result<AccountRow, EngineError> {
        let row = self.tables.row(u64::from(uid))?;
        self.view(u64::from(uid), row.as_ref(), &Now::read()?)
    }

    fn view(&mut self, key: u64, row: Option<&Row>, now: &Now) -> Result<AccountRow, EngineError> {
        let (class, rule) = self.tables.rule_of(key)?;
        let shadow = rows::uid_of(key).map_or(Shadow::None, |uid| self.shadow_state(uid));
        let account = rows::account(key, &mut self.names);
        Ok(rows::view(account, row, &rule, self.class_name(class), shadow, now))
    }

    fn shadow_state(&mut self, uid: u32) -> Shadow {
        let ours = self.store.shadow_lock(uid).is_some();
        let Some(name) = self.names.of(uid) else { return Shadow::Unknown };
        match crate::shadow::field(std::path::Path::new("/"), &name) {
            Ok(Some(Field::Locked)) if ours => Shadow::Ours,
            Ok(Some(Field::Locked)) => Shadow::Foreign,
            Ok(Some(_)) => Shadow::None,
            Ok(None) | Err(_) => Shadow::Unknown,
        }
    }

    fn status(&mut self) -> Result<Status, EngineError> {
        let now = Now::read()?;
        let mut rows = Vec::new();
        let accounts = self.tables.each_row(Slice::Accounts, |row| rows.push(row))?;
        let mut locked = 0;
        for found in &rows {
            let (_, rule) = self.tables.rule_of(found.account)?;
            locked += u64::from(rows::settled(&found.row, &rule, now.boot).0.locked());
        }
        let tables = self.tables.occupancy()?;
        let gate_problem = self.look_at_gate()?;
        let used = |name| tables.iter().find(|table| table.table == name).map_or(0, |table| table.used);
        Ok(Status {
            answered_by: "agent".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: Some(std::process::id()),
            since: Some(self.since),
            gate: gate_problem.is_none(),
            gate_problem,
            generation: self.tables.settings()?.generation,
            locked,
            shadow_locked: Some(self.store.shadow_locks().len() as u64),
            accounts,
            unknown_names: used(portcullis_common::abi::map::UNKNOWN),
            events_lost: self.tables.stats()?.lost_events,
            breaker: Some(self.breaker_view()),
            modes: self.modes_shown(),
            expired: self.store.expiries().len() as u64,
            break_glass: self.config.break_glass.names().to_vec(),
            store_degraded: self.store.degraded().map(str::to_owned),
            store_set_aside: self
                .store
                .set_aside()
                .iter()
                .map(|file| crate::text::escape(file.as_os_str().as_bytes()))
                .collect(),
            tables: tables
                .iter()
                .map(|table| Table { name: table.table.to_owned(), used: table.used, limit: table.limit })
                .collect(),
            filter: None,
            alarms: Vec::new(),
            observer: None,
        })
    }

    fn accounts(&mut self) -> Result<Vec<AccountRow>, EngineError> {
        let now = Now::read()?;
        let mut found = Vec::new();
        for slice in [Slice::Accounts, Slice::Unknown, Slice::Pairs] {
            self.tables.each_row(slice, |row| found.push(row))?;
        }
        let shown = |row: &TableRow| {
            if row.is_pair() {
                self.view_pair(row, &now)
            } else {
                self.view(row.account, Some(&row.row), &now)
            }
        };
        found.iter().map(shown).collect()
    }

    fn explain(&mut self, uid: u32) -> Result<Result<Explain, CommandError>, EngineError> {
        let now = Now::read()?;
        let found = self.tables.row(u64::from(uid))?;
        if found.is_none() && self.names.of(uid).is_none() && uid != NOBODY {
            return Ok(Err(CommandError::NoSuchAccount(uid)));
        }
        let mut row = self.view(u64::from(uid), found.as_ref(), &now)?;
        if uid == NOBODY {
            row.account = Account { uid: None, name: "names no user has".to_owned() };
        }
        let (class, rule) = self.tables.rule_of(u64::from(uid))?;
        let shadow_lock = self.info(class).is_some_and(|info| info.shadow_lock);
        let mut rule = rows::rule_view(&rule, shadow_lock);
        rule.restrict = self.info(class).and_then(|info| info.restrict.clone());
        if let Some(info) = self.info(class) {
            rule.expire_after_trips = info.expire_after_trips;
            rule.end_sessions_after_trips = info.end_sessions_after_trips;
        }
        let because = self.config.because(&Nss, uid);
        let attempts: Vec<Attempt> = self
            .store
            .history(uid, SHOWN)
            .into_iter()
            .map(|kept| Attempt {
                time: kept.time,
                outcome: kept.outcome,
                actor: match (kept.actor, kept.source) {
                    (Some(actor), _) => Actor::Local { uid: actor, name: self.names.of(actor) },
                    (None, Some(address)) => Actor::Remote { address },
                    (None, None) => Actor::Unknown,
                },
                service: kept.service,
                tty: kept.tty,
                chain: None,
            })
            .collect();
        let actions = self
            .store
            .actions_of(uid, SHOWN)
            .into_iter()
            .map(|kept| ActionView {
                time: kept.time,
                action: kept.kind,
                result: kept.result,
                reason: kept.reason,
            })
            .collect();
        let why = why(&row, rule.fail_interval);
        let release = release(&row);
        let pairs = self.pairs_shown(uid, &now)?;
        Ok(Ok(Explain { row, because, rule, why, release, pairs, attempts, actions }))
    }

    fn lock(&mut self, uid: u32, seconds: Option<u64>, reply: Reply<Done>) -> Result<(), EngineError> {
        let Some(name) = self.names.of(uid) else {
            refuse(reply, CommandError::NoSuchAccount(uid));
            return Ok(());
        };
        self.class_of(uid)?;
        let (_, rule) = self.tables.rule_of(u64::from(uid))?;
        if rule.flags & rule_flag::EXEMPT != 0 {
            refuse(reply, CommandError::Exempt(name));
            return Ok(());
        }
        if rule.flags & rule_flag::MONITOR != 0 {
            refuse(reply, CommandError::Monitor(name));
            return Ok(());
        }
        let now = Now::read()?;
        let until = seconds
            .map_or(NEVER, |seconds| now.boot.saturating_add(seconds.max(1).saturating_mul(1_000_000_000)));
        self.drain_ring()?;
        let outcome = self.gate_lock(uid, Boot(until), cause::ADMINISTRATOR)?;
        if let Outcome::Failed { reason, .. } = outcome {
            refuse(reply, CommandError::Failed(format!("{name} could not be locked: {reason}")));
            return Ok(());
        }
        let message = format!("{name} is locked");
        self.waiting.push(Waiting { uid, message, problems: Vec::new(), reply });
        self.drain_ring()?;
        // The event may have been lost.
        let trips = self.tables.row(u64::from(uid))?.map_or(0, |row| row.ledger.trips);
        let class = self.policy_class(uid)?;
        let by = portcullis_policy::Cause::Administrator;
        self.step(Input::LockSet { account: uid, class, trips, until: Boot(until), by })
    }

    fn unlock(&mut self, uid: u32, reply: Reply<Done>) -> Result<(), EngineError> {
        let before = self.tables.row(u64::from(uid))?;
        let name = self.names.of(uid);
        if before.is_none() && name.is_none() {
            refuse(reply, CommandError::NoSuchAccount(uid));
            return Ok(());
        }
        let name = name.unwrap_or_else(|| format!("uid {uid}"));
        self.drain_ring()?;
        let was_locked = self.row(uid)?.lock.is_some();
        if let Outcome::Failed { reason, .. } = self.gate_unlock(uid)? {
            refuse(reply, CommandError::Failed(format!("{name} could not be unlocked: {reason}")));
            return Ok(());
        }
        let sources = self.release_pairs(uid, &Now::read()?)?;
        let mut message = if was_locked {
            format!("{name} is unlocked, its failures are forgotten")
        } else {
            format!("{name} was not locked; its failures are forgotten")
        };
        if sources != 0 {
            message.push_str(&format!("; sources let in again: {sources}"));
        }
        if self.release_source(Target::Local(uid))? {
            message.push_str("; as a source it is let try other accounts again");
        }
        self.waiting.push(Waiting { uid, message, problems: Vec::new(), reply });
        self.drain_ring()?;
        let trips = self.tables.row(u64::from(uid))?.map_or(0, |row| row.ledger.trips);
        self.step(Input::Unlocked { account: uid, trips })
    }

    /// A new configuration: all of it or nothing of it.
    fn reload(&mut self) -> Result<Result<Done, CommandError>, EngineError> {
        let loaded = match crate::config::load(&self.path) {
            Ok(loaded) => loaded,
            Err(error) => {
                log::error!("the configuration stays as it was: {error}");
                return Ok(Err(CommandError::Config(error.to_string())));
            }
        };
        for warning in &loaded.warnings {
            log::warn!("{warning}");
        }
        let problems = restart_needed(&self.running_config, &loaded.config);
        let config = super::modes::with_modes(&loaded.config, self.store.modes());
        if let Err(error) = self.adopt(config) {
            log::error!("the configuration stays as it was: {error}");
            return Ok(Err(CommandError::Failed(error.to_string())));
        }
        self.file = loaded.config;
        // Also of the same configuration: the file of events is opened again.
        let _ = self.notify.send(self.config.notify.clone());
        // It says in the log, and to who looks at the status, what it cannot do.
        self.metrics.observer().adopt(&self.config.observer);
        let (filter, config) = (self.filter.clone(), Box::new(self.config.clone()));
        tokio::spawn(async move { filter.ask(|reply| crate::filter::Command::Adopt(config, reply)).await });
        let generation = self.tables.settings()?.generation;
        self.tell_classes()?;
        let message = format!("configuration {generation} of {} is in effect", self.path.display());
        log::info!("{message}");
        for problem in &problems {
            log::warn!("{problem}");
        }
        Ok(Ok(Done { row: None, message, problems }))
    }
}

/// What differs from what runs and cannot be changed by a reload. Every key is named here, so that a new one must be
/// thought of.
fn restart_needed(running: &Config, new: &Config) -> Vec<String> {
    let Config {
        metrics: Metrics { listen },
        agent: Agent { socket, store, reconcile: _, passwd_timeout: _ },
        break_glass: _,
        break_glass_limits: _,
        reservation_max_age: _,
        confirm_time: _,
        default: _,
        root: _,
        classes: _,
        filter: _,
        sc5: _,
        observer: _,
        notify: _,
        breaker: _,
    } = running;
    [
        (*listen != new.metrics.listen, "metrics.listen"),
        (*socket != new.agent.socket, "agent.socket"),
        (*store != new.agent.store, "agent.store"),
    ]
    .into_iter()
    .filter(|(differs, _)| *differs)
    .map(|(_, key)| format!("{key} takes effect when portcullisd is restarted"))
    .collect()
}

fn answer<T>(reply: Reply<T>, value: T) {
    // The asker may be gone.
    let _ = reply.send(Ok(value));
}

fn refuse<T>(reply: Reply<T>, error: CommandError) {
    // The asker may be gone.
    let _ = reply.send(Err(error));
}

/// Why an account is locked or not, in words.
fn why(row: &AccountRow, fail_interval: u64) -> String {
    match &row.lock {
        _ if row.monitor => format!(
            "its class is in monitor mode, nothing is refused; {} of {} failures within {fail_interval}s{}",
            row.failures,
            row.deny,
            if row.lock.is_some() { ", would be locked" } else { "" }
        ),
        None if row.exempt => "its class is exempt".to_owned(),
        None => format!("{} of {} failures within {fail_interval}s", row.failures, row.deny),
        Some(lock) => match lock.cause.as_str() {
            "trip" => format!("trip: {} failed logons within {fail_interval}s", row.deny),
            "administrator" => "locked by an administrator".to_owned(),
            "restored" => "a lock from before the reboot or restart of the gate".to_owned(),
            other => format!("cause {other}"),
        },
    }
}

/// Ways to release a lock.
fn release(row: &AccountRow) -> Vec<String> {
    let Some(lock) = &row.lock else { return Vec::new() };
    let mut ways = vec![format!("portcullis unlock {}", row.account.name)];
    if lock.until != Until::Never {
        ways.push("or wait: the lock ends by itself".to_owned());
    }
    ways
}
