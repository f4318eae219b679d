//! What people and other programs ask about sources, and tell of them.
//!
//! Invariant: a question changes nothing; a report is counted by the gate, as a logon through PAM is.

use std::collections::BTreeMap;
use std::net::IpAddr;

use portcullis_common::abi::{Detail, Entry, outcome, source};
use portcullis_common::sources::{Source as Counted, SourceCounts, TRIES};
use portcullis_policy::sources::{Memory, Source::Near, Target};

use super::command::CommandError;
use super::sources::{name_of, words};
use super::{Engine, EngineError};
use crate::api::sources::{ReportRequest, SourceRow};
use crate::api::view::{Actor, Done};
use crate::config::sc5::policy_net;
use crate::event::Source;
use crate::filter::Net;
use crate::rows::{self, Now};

/// What is known of one: by the gate, by the policy.
type Known = (Option<Counted>, Option<(Memory, bool)>);

fn target_of(found: &Counted) -> Option<Target> {
    match super::sources::source_of(found.kind, found.id)? {
        portcullis_policy::sources::Source::Local(uid) => Some(Target::Local(uid)),
        other => portcullis_policy::sources::Net::of(other).map(Target::Net),
    }
}

impl Engine {
    /// Every source that has something on the books, or is remembered.
    pub(super) fn source_rows(&mut self) -> Result<Vec<SourceRow>, EngineError> {
        let now = Now::read()?;
        let mut known: BTreeMap<Target, Known> = BTreeMap::new();
        for (target, memory, in_force) in self.sources.held(portcullis_policy::Boot(now.boot)) {
            known.insert(target, (None, Some((memory, in_force))));
        }
        self.source_tables.each(|found| {
            if let Some(target) = target_of(found) {
                let (counted, _) = known.entry(target).or_default();
                *counted = Some(*found);
            }
        })?;
        for (address, found) in self.neighbours.all() {
            if let Some(net) = portcullis_policy::sources::Net::of(Near(address)) {
                let (counted, _) = known.entry(Target::Net(net)).or_default();
                *counted = Some(found);
            }
        }
        let rule = self.source_tables.rule()?;
        let mut rows = Vec::new();
        for (target, (counted, memory)) in known {
            let counts = counted.map_or_else(SourceCounts::default, |found| found.counts(now.boot, &rule));
            if counts.failures | counts.passes != 0 || memory.is_some() {
                rows.push(self.source_row(target, counts, memory, &now)?);
            }
        }
        Ok(rows)
    }

    /// One source, by its address.
    pub(super) fn source_by_address(&mut self, address: IpAddr) -> Result<SourceRow, EngineError> {
        let now = Now::read()?;
        let net = self.net_of(address.to_canonical());
        let target = Target::Net(policy_net(net));
        let (kind, id) = match net {
            Net::V4(address, _) => (source::IPV4, u64::from(address)),
            Net::V6(address, _) => (source::IPV6, u64::try_from(address >> 64).unwrap_or(0)),
        };
        let rule = self.source_tables.rule()?;
        let found = match net {
            Net::V6(address, 128) => self.neighbours.find(address),
            _ => self.source_tables.source(&self.tables, kind, id)?,
        };
        let counts = found.map_or_else(SourceCounts::default, |found| found.counts(now.boot, &rule));
        let memory = self
            .sources
            .held(portcullis_policy::Boot(now.boot))
            .find(|(held, ..)| *held == target)
            .map(|(_, memory, in_force)| (memory, in_force));
        self.source_row(target, counts, memory, &now)
    }

    fn source_row(
        &mut self,
        target: Target,
        counts: SourceCounts,
        memory: Option<(Memory, bool)>,
        now: &Now,
    ) -> Result<SourceRow, EngineError> {
        let rule = self.source_tables.rule()?;
        let actor = match target {
            Target::Local(uid) => rows::actor(Source::Local(uid), &mut self.names),
            Target::Net(_) => Actor::Remote { address: name_of(target) },
        };
        Ok(SourceRow {
            actor,
            failures: counts.failures,
            accounts: counts.accounts,
            unknown_names: counts.unknown,
            logons: counts.passes,
            deny: rule.deny.saturating_add(counts.passes).min(TRIES as u32),
            trips: counts.trips,
            class: memory.map(|(memory, _)| memory.class.word().to_owned()),
            why: memory.map(|(memory, _)| words(memory.class, memory.counts)),
            repeats: memory.map_or(0, |(memory, _)| memory.repeats),
            answered: memory.is_some_and(|(_, in_force)| in_force),
            until: memory.map(|(memory, _)| now.wall_of(memory.until.0)),
            acted: memory.is_some_and(|(memory, _)| memory.acted),
        })
    }

    /// Counts what another program saw.
    pub(super) fn report(
        &mut self,
        report: ReportRequest,
    ) -> Result<Result<Done, CommandError>, EngineError> {
        let mut detail = Detail { pid: std::process::id(), ..Detail::EMPTY };
        detail.locate(report.source);
        copy(&mut detail.service, report.service.as_bytes());
        let result = if report.pass { outcome::PASS } else { outcome::FAIL };
        let told = match report.account {
            Some(uid) if self.names.of(uid).is_none() => return Ok(Err(CommandError::NoSuchAccount(uid))),
            Some(uid) => {
                let entry = Entry { account: u64::from(uid), token: 0, detail };
                self.class_of(uid)?;
                crate::kernel::gate::attempt(entry, result)
            }
            None => {
                let account = portcullis_common::abi::UNKNOWN;
                crate::kernel::gate::report(Entry { account, token: 0, detail }, result)
            }
        };
        let answer = match told {
            Ok(answer) => answer,
            Err(error) => return Ok(Err(CommandError::Failed(error.to_string()))),
        };
        // What it leads to has begun when the report is answered.
        self.drain_ring()?;
        let locked = answer.verdict == portcullis_common::abi::verdict::LOCKED;
        let busy = answer.verdict == portcullis_common::abi::verdict::BUSY;
        if busy {
            let why = "all guesses of the account are out: it was not counted, try again";
            return Ok(Err(CommandError::Failed(why.to_owned())));
        }
        let what = if locked { "counted; the account is locked" } else { "counted" };
        Ok(Ok(Done {
            row: None,
            message: format!("{}: {what}", report.source.to_canonical()),
            problems: Vec::new(),
        }))
    }
}

fn copy<const N: usize>(to: &mut [u8; N], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}
