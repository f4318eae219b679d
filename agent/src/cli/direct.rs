//! The reduced form of some verbs, for root, when no agent answers: straight from the gate and its tables.
//!
//! Invariants: shadow locks and the store are the agent's and are not touched; each answer says so.

use std::path::Path;

use portcullis_common::abi::cause;
use portcullis_common::ledger::{NEVER, Rule, rule_flag};

use super::CliError;
use crate::api::view::{AccountRow, Done, Shadow, Status, Table};
use crate::config;
use crate::kernel::{Slice, TableRow, Tables, gate};
use crate::names::Names;
use crate::rows::{self, Now};

/// `status` without an agent.
pub fn status() -> Result<Status, CliError> {
    let tables = Tables::open()?;
    let now = Now::read()?;
    let mut locked = 0;
    let accounts = tables.each_row(Slice::Accounts, |TableRow { account, row }| {
        let rule = tables.rule_of(account).map_or(Rule::DEFAULT, |(_, rule)| rule);
        locked += u64::from(rows::settled(&row, &rule, now.boot).0.locked());
    })?;
    let unknown_names = tables.each_row(Slice::Unknown, |_| {})?;
    let gate_problem = gate::probe().err().map(|error| format!("nothing is counted or refused: {error}"));
    let loaded = config::load(Path::new(config::PATH)).ok();
    Ok(Status {
        answered_by: "gate".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: None,
        since: None,
        gate: gate_problem.is_none(),
        gate_problem,
        generation: tables.settings()?.generation,
        locked,
        shadow_locked: None,
        breaker: None,
        modes: Vec::new(),
        expired: 0,
        accounts,
        unknown_names,
        events_lost: tables.stats()?.lost_events,
        break_glass: loaded.map_or_else(Vec::new, |loaded| loaded.config.break_glass.names().to_vec()),
        store_degraded: None,
        store_set_aside: Vec::new(),
        tables: tables
            .occupancy()?
            .into_iter()
            .map(|table| Table { name: table.table.to_owned(), used: table.used, limit: table.limit })
            .collect(),
        filter: None,
        alarms: Vec::new(),
        observer: None,
    })
}

/// `accounts` without an agent.
pub fn accounts() -> Result<Vec<AccountRow>, CliError> {
    let tables = Tables::open()?;
    let mut found = Vec::new();
    for slice in [Slice::Accounts, Slice::Unknown, Slice::Pairs] {
        tables.each_row(slice, |row| found.push(row))?;
    }
    let now = Now::read()?;
    let shown = |found: &TableRow| {
        let mut row = view(&tables, found.row.account, Some(&found.row), &now)?;
        if found.is_pair() {
            row.deny = tables.rule_of_row(found)?.1.limit();
            row.source = Some(rows::pair_actor(found.actor(), &mut Names::default()));
        }
        Ok(row)
    };
    found.iter().map(shown).collect()
}

fn view(
    tables: &Tables,
    account: u64,
    row: Option<&portcullis_common::abi::Row>,
    now: &Now,
) -> Result<AccountRow, CliError> {
    let (class, rule) = tables.rule_of(account)?;
    let account = rows::account(account, &mut Names::default());
    Ok(rows::view(account, row, &rule, format!("#{class}"), Shadow::Unknown, now))
}

fn after(uid: u32, message: &str) -> Result<Done, CliError> {
    let tables = Tables::open()?;
    let row = tables.row(u64::from(uid))?;
    let row = view(&tables, u64::from(uid), row.as_ref(), &Now::read()?)?;
    let message = format!("{} {message}", row.account.name);
    Ok(Done { row: Some(row), message, problems: Vec::new() })
}

/// `lock` without an agent.
pub fn lock(uid: u32, seconds: Option<u64>) -> Result<Done, CliError> {
    let tables = Tables::open()?;
    let (_, rule) = tables.rule_of(u64::from(uid))?;
    if rule.flags & rule_flag::EXEMPT != 0 {
        return Err(CliError::Failed(format!(
            "uid {uid} is exempt and never locked: change its class in the configuration first"
        )));
    }
    let now = Now::read()?.boot;
    let until = seconds.map_or(NEVER, |seconds| now.saturating_add(seconds.saturating_mul(1_000_000_000)));
    gate::lock(u64::from(uid), until, cause::ADMINISTRATOR)?;
    let answer = gate::check(u64::from(uid))?;
    if answer.locked_until == 0 {
        return Err(CliError::Failed("the gate does not show the lock: try again".to_owned()));
    }
    after(uid, "is locked in the gate")
}

/// `unlock` without an agent.
pub fn unlock(uid: u32) -> Result<Done, CliError> {
    gate::unlock(u64::from(uid))?;
    let mut pairs = Vec::new();
    Tables::open()?.each_row(Slice::Pairs, |row| pairs.push(row))?;
    for found in pairs.iter().filter(|found| found.row.account == u64::from(uid)) {
        gate::unlock(gate::Subject::of(found))?;
    }
    let answer = gate::check(u64::from(uid))?;
    if answer.locked_until != 0 {
        return Err(CliError::Failed("the gate still shows a lock: try again".to_owned()));
    }
    after(uid, "is unlocked in the gate; a shadow lock of ours is undone when the agent runs again")
}
