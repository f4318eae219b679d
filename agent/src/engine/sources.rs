//! Sources that tripped: from the gate's events and tables to the policy, from its decisions to the filter, to the gate's
//! table of refused local users, and to people.
//!
//! Invariants: a trip whose event was lost is found by the scan; the filter is never waited for; what the policy
//! remembers is stored in wall time before anything else is decided.

use std::net::IpAddr;

use jiff::SignedDuration;
use portcullis_common::abi::{self, flag, source};
use portcullis_common::sources::{Source as Counted, SourceCounts};
use portcullis_policy::Boot;
use portcullis_policy::sources::{
    Action, Class, Counts, Input, Memory, Net, Notice, Source, Sources, Target, Why,
};

use super::{Engine, EngineError};
use crate::accounts::Nss;
use crate::api::view;
use crate::clock;
use crate::config::sc5::{Ports, filter_net, policy_net};
use crate::event;
use crate::filter::{Cause, FilterError, Lease};
use crate::rows::{self, Now};
use crate::store::sources::StoredSource;

/// What came of an answer that the filter was asked for.
pub(super) type Answered = (Target, Option<(String, bool)>);

/// A source in the policy's words.
pub(super) fn source_of(kind: u32, id: u64) -> Option<Source> {
    match kind {
        source::LOCAL => u32::try_from(id).ok().map(Source::Local),
        source::IPV4 => u32::try_from(id).ok().map(Source::V4),
        source::IPV6 => Some(Source::V6(id)),
        _ => None,
    }
}

/// The source that an event counted for.
fn counted(event: &abi::Event) -> Option<Source> {
    let detail = &event.entry.detail;
    source_of(detail.source, portcullis_common::sources::id_of(detail))
}

/// The numbers of a trip.
fn counts_of(event: &abi::Event, counts: SourceCounts) -> Counts {
    let SourceCounts { failures, accounts, unknown, .. } = counts;
    Counts { failures, accounts, unknown, service: event.entry.detail.service }
}

/// The last trip as a scan finds it.
fn last_trip(found: &Counted) -> Counts {
    let [failures, accounts, unknown, _] = found.last.to_le_bytes().map(u32::from);
    Counts { failures, accounts, unknown, service: [0; 16] }
}

/// A target in the store, the log and the API.
pub(crate) fn name_of(target: Target) -> String {
    match target {
        Target::Net(net) => filter_net(net).to_string(),
        Target::Local(uid) => format!("uid {uid}"),
    }
}

fn stored(target: Target, memory: &Memory, now: &Now) -> StoredSource {
    StoredSource {
        target: name_of(target),
        at: now.wall_of(memory.at.0),
        until: now.wall_of(memory.until.0),
        repeats: memory.repeats,
        class: memory.class.word().to_owned(),
        counts: [memory.counts.failures, memory.counts.accounts, memory.counts.unknown],
        acted: memory.acted,
        service: crate::text::field(&memory.counts.service),
    }
}

/// A stored target; none for one this version does not know.
fn restored(stored: &StoredSource, now: &Now) -> Option<(Target, Memory)> {
    let target = match stored.target.strip_prefix("uid ") {
        Some(uid) => Target::Local(uid.parse().ok()?),
        None => Target::Net(policy_net(stored.target.parse().ok()?)),
    };
    let classes = [Class::Guess, Class::Spray, Class::Local, Class::Network];
    let class = classes.into_iter().find(|class| class.word() == stored.class)?;
    let boot = |time: jiff::Timestamp| {
        let distance: SignedDuration = time.duration_since(now.wall);
        let nanoseconds = i64::try_from(distance.as_nanos()).unwrap_or(i64::MAX);
        Boot(now.boot.saturating_add_signed(nanoseconds))
    };
    let [failures, accounts, unknown] = stored.counts;
    let mut service = [0; 16];
    for (slot, byte) in service.iter_mut().zip(stored.service.bytes()) {
        *slot = byte;
    }
    let counts = Counts { failures, accounts, unknown, service };
    let (at, until, repeats) = (boot(stored.at), boot(stored.until), stored.repeats);
    Some((target, Memory { at, until, repeats, class, counts, acted: stored.acted }))
}

impl Engine {
    /// Takes over what the store knows of sources.
    pub(super) fn recover_sources(&mut self) -> Result<(), EngineError> {
        self.adopt_sources()?;
        let now = Now::read()?;
        for kept in self.store.sources() {
            match restored(&kept, &now) {
                Some((target, memory)) => self.step_sources(Input::Restored { target, memory })?,
                None => self.store.remove_source(&kept.target),
            }
        }
        Ok(())
    }

    /// Takes over the configuration.
    pub(super) fn adopt_sources(&mut self) -> Result<(), EngineError> {
        self.source_tables.set_rule(self.config.sc5.rule())?;
        self.read_addresses()?;
        self.step_sources(Input::Configured(self.config.sc5.rules()))
    }

    /// What an event says of its source.
    pub(super) fn source_event(&mut self, event: &abi::Event) -> Result<(), EngineError> {
        let tripped = event.flags & flag::SOURCE_TRIPPED != 0;
        if tripped {
            self.source_trips = self.source_trips.saturating_add(1);
        }
        let near = self
            .neighbours
            .of_event(event)
            .map(|address| (address, self.neighbours.count(event, address, &self.config.sc5.rule())));
        if let Some((address, alone)) = near.filter(|(_, alone)| alone.tripped != 0) {
            self.source_tripped(Source::Near(address), Boot(event.time), counts_of(event, alone))?;
        } else if let Some(source) = counted(event).filter(|_| tripped) {
            self.source_tripped(source, Boot(event.time), counts_of(event, event.source))?;
        }
        // Several sources may have tripped by guesses that outlived their age, of which the event says nothing.
        if event.lapsed == 0 { Ok(()) } else { self.scan_sources() }
    }

    fn source_tripped(&mut self, source: Source, at: Boot, counts: Counts) -> Result<(), EngineError> {
        let administrators = self.administrators();
        self.read_addresses()?;
        self.step_sources(Input::Tripped { source, at, counts, administrators })
    }

    /// This host's own addresses and its gateways: they come and go.
    pub(super) fn read_addresses(&mut self) -> Result<(), EngineError> {
        match crate::filter::guard::addresses() {
            Ok(own) => {
                let net = |address| policy_net(crate::filter::Net::around(address, 128));
                let all = own.into_iter().chain(crate::filter::guard::gateways());
                let own: Vec<Net> = all.map(net).collect();
                self.neighbours.adopt(&own);
                self.step_sources(Input::Own(own))
            }
            Err(error) => {
                // The filter reads them too, and refuses without.
                log::error!("this host's own addresses cannot be read, those of before count: {error}");
                Ok(())
            }
        }
    }

    /// Networks that administrators are logged in from.
    fn administrators(&self) -> Vec<Net> {
        if !self.config.sc5.exempt_administrators {
            return Vec::new();
        }
        let found = crate::sessions::administrators(std::path::Path::new("/"), &self.config, &Nss);
        found.into_iter().map(|address| policy_net(self.net_of(address))).collect()
    }

    /// What an address is counted and dropped as.
    pub(super) fn net_of(&self, address: IpAddr) -> crate::filter::Net {
        match address {
            IpAddr::V6(six) if self.neighbours.is_near(six.to_bits()) => {
                crate::filter::Net::around(address, 128)
            }
            _ => crate::filter::Net::source(address),
        }
    }

    /// Looks for trips whose events were lost: the gate counts all of them.
    pub(super) fn scan_sources(&mut self) -> Result<(), EngineError> {
        let trips = self.tables.stats()?.source_trips;
        if trips == self.source_trips {
            return Ok(());
        }
        self.source_trips = trips;
        let window = self.config.sc5.find_time.nanoseconds();
        let now = clock::boot()?;
        let mut tripped = Vec::new();
        self.source_tables.each(|found| {
            if found.tripped != 0 && now.0.saturating_sub(found.tripped) < window {
                tripped.push((source_of(found.kind, found.id), Boot(found.tripped), last_trip(found)));
            }
        })?;
        for (source, at, counts) in tripped {
            if let Some(source) = source {
                self.source_tripped(source, at, counts)?;
            }
        }
        Ok(())
    }

    /// One step of the policy for sources, and all that follows from it.
    pub(super) fn step_sources(&mut self, input: Input) -> Result<(), EngineError> {
        let mut inputs = std::collections::VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for action in self.sources.step(clock::boot()?, input) {
                inputs.extend(self.do_about_source(action)?);
            }
        }
        let now = clock::boot()?;
        let answered = self.sources.held(now).filter(|(_, _, in_force)| *in_force).count();
        self.metrics.sources(answered, self.sources.held(now).count());
        Ok(())
    }

    /// Begins or does one action; an input where it has ended already.
    fn do_about_source(&mut self, action: Action) -> Result<Option<Input>, EngineError> {
        match action {
            Action::Wake { at } => self.source_wake = at,
            Action::Remember { target, memory } => {
                let now = Now::read()?;
                self.store.set_source(&stored(target, &memory, &now));
            }
            Action::Forget { target } => self.store.remove_source(&name_of(target)),
            Action::Tell { target, notice } => self.tell_of_source(target, notice)?,
            Action::Answer { target: Target::Local(uid), until, .. } => {
                let done =
                    self.source_tables.refuse(uid, until.0).and_then(|()| self.source_tables.refused(uid));
                let failed = match done {
                    Ok(Some(end)) if end == until.0 => None,
                    Ok(_) => Some(("the gate's table does not show what was written".to_owned(), true)),
                    Err(error) => Some((error.to_string(), true)),
                };
                let target = Target::Local(uid);
                self.answered((target, failed.clone()))?;
                return Ok(Some(Input::Done { target, failed }));
            }
            Action::Answer { target: Target::Net(net), until, class, counts } => {
                let lease = Lease {
                    net: filter_net(net),
                    until,
                    ports: ports(&self.config.sc5.ports, counts),
                    cause: Cause::Policy,
                    reason: words(class, counts),
                };
                let filter = self.filter.clone();
                self.answers.spawn(async move {
                    let failed = filter.give(lease).await.err().map(|error| {
                        let retry = !matches!(error, FilterError::Off | FilterError::Refused { .. });
                        (error.to_string(), retry)
                    });
                    (Target::Net(net), failed)
                });
            }
            Action::Release { target } => self.let_go(target),
            Action::Ended { target } => {
                // The kernel lets it pass by itself, and the filter takes its lease out.
                if let Target::Local(_) = target {
                    self.let_go(target);
                }
                let mut event = self.event_of(target, "source_ended")?;
                event.detail = Some("its time ran out".to_owned());
                self.publish(log::Level::Info, event);
            }
        }
        Ok(None)
    }

    fn let_go(&mut self, target: Target) {
        match target {
            Target::Local(uid) => {
                if let Err(error) = self.source_tables.allow(uid) {
                    log::error!("{error}");
                }
            }
            Target::Net(net) => {
                let filter = self.filter.clone();
                tokio::spawn(async move {
                    match filter.take(filter_net(net), Cause::Policy).await {
                        Ok(_)
                        | Err(FilterError::NotDropped(_) | FilterError::Off | FilterError::Anothers { .. }) =>
                            {}
                        Err(error) => log::error!("{}: {error}", filter_net(net)),
                    }
                });
            }
        }
    }

    /// An administrator lets a source go. Whether it was answered.
    pub(super) fn release_source(&mut self, target: Target) -> Result<bool, EngineError> {
        let now = clock::boot()?;
        let answered = self.sources.held(now).any(|(held, _, in_force)| held == target && in_force);
        if answered {
            if let Target::Local(_) = target {
                self.let_go(target);
            }
            self.step_sources(Input::Released { target })?;
            let mut event = self.event_of(target, "source_ended")?;
            event.detail = Some("on request".to_owned());
            self.publish(log::Level::Info, event);
        }
        Ok(answered)
    }

    /// An answer of the filter: told, and handed to the policy.
    pub(super) fn source_answered(&mut self, answered: Answered) -> Result<(), EngineError> {
        self.answered(answered.clone())?;
        let (target, failed) = answered;
        self.step_sources(Input::Done { target, failed })
    }

    fn answered(&mut self, (target, failed): Answered) -> Result<(), EngineError> {
        let what = if matches!(target, Target::Local(_)) { "source_refused" } else { "source_dropped" };
        let mut event = self.event_of(target, what)?;
        event.result = Some(if failed.is_none() { "verified" } else { "failed" }.to_owned());
        self.metrics.action(what, if failed.is_none() { "verified" } else { "failed" });
        event.detail = failed.map(|(reason, _)| reason);
        let now = Now::read()?;
        event.locked_until = self.sources.of(target).and_then(|memory| now.until(memory.until.0));
        let level = if event.detail.is_some() { log::Level::Error } else { log::Level::Warn };
        self.publish(level, event);
        Ok(())
    }

    fn event_of(&mut self, target: Target, name: &str) -> Result<view::Event, EngineError> {
        let mut event = view::Event::new(Now::read()?.wall, name);
        event.actor = Some(match target {
            Target::Local(uid) => rows::actor(event::Source::Local(uid), &mut self.names),
            Target::Net(_) => view::Actor::Remote { address: name_of(target) },
        });
        Ok(event)
    }

    fn tell_of_source(&mut self, target: Target, notice: Notice) -> Result<(), EngineError> {
        let mut event = self.event_of(target, "source_tripped")?;
        let mut level = log::Level::Warn;
        match notice {
            Notice::Tripped { class, counts, until, acted } => {
                self.metrics.source_trip(class.word(), if acted { "answered" } else { "monitored" });
                event.failures = Some(counts.failures);
                event.locked_until = Now::read()?.until(until.0);
                let would = if acted { "" } else { "; monitor: nothing is done" };
                event.detail = Some(format!("{}{would}", words(class, counts)));
            }
            Notice::Exempt { counts, why } => {
                self.metrics.source_trip("exempt", "exempt");
                "source_exempt".clone_into(&mut event.event);
                event.failures = Some(counts.failures);
                event.detail = Some(exempt(why).to_owned());
            }
            Notice::Full => {
                level = log::Level::Error;
                "source_not_held".clone_into(&mut event.event);
                event.detail = Some("more sources are answered than are held at once".to_owned());
            }
            Notice::Failed { reason, next } => {
                level = log::Level::Error;
                "source_failed".clone_into(&mut event.event);
                let again = if next == Boot::NEVER { "not tried again" } else { "tried again soon" };
                event.detail = Some(format!("{reason}; {again}"));
            }
        }
        self.publish(level, event);
        Ok(())
    }
}

/// What a source did, in words.
pub(crate) fn words(class: Class, counts: Counts) -> String {
    let Counts { failures, accounts, unknown, .. } = counts;
    let of_them = if unknown == 0 { String::new() } else { format!(", {unknown} of them nobody has") };
    match class {
        Class::Network => "many of its members are dropped".to_owned(),
        _ => format!("{}: {failures} failed logons at {accounts} accounts{of_them}", class.word()),
    }
}

const fn exempt(why: Why) -> &'static str {
    match why {
        Why::Configured => "exempt by sc5.exempt: nothing is done",
        Why::Administrator => "an administrator is logged in from there: nothing is done",
        Why::Own => "this host's own address, its gateway, loopback, link-local or multicast: never answered",
        Why::Root => "root is never refused",
    }
}

/// The ports of a drop; empty: all.
fn ports(what: &Ports, counts: Counts) -> Vec<u16> {
    match what {
        Ports::All => Vec::new(),
        Ports::Listed(ports) => ports.clone(),
        Ports::Service => crate::filter::listening::of_service(&counts.service),
    }
}

/// A new policy for sources.
pub(super) fn policy(config: &crate::config::Config) -> Sources {
    Sources::new(config.sc5.rules())
}
