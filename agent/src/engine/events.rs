//! From the gate's records to policy, store, metrics and log.
//!
//! Invariants: records are taken in the order in which they came; one that cannot be read is counted and skipped; an
//! attempt is stored before the actions it leads to.

use bytes::Bytes;
use portcullis_common::abi::{self, cause, flag};
use portcullis_common::ledger::Actor;
use portcullis_policy::{Actor as PolicyActor, Boot, Cause, Input};

use super::pairs::{is_pairs, says_nothing_new};
use super::{Engine, EngineError};
use crate::api::view;
use crate::clock;
use crate::event::{self, Kind, Source};
use crate::rows::{self, Now};
use crate::store::Attempt;
use crate::text;

/// Records that fit into the ring buffer at once.
const RING: usize = abi::EVENTS_BYTES as usize / size_of::<abi::Event>();

impl Engine {
    /// Takes over what the ring buffer holds now, without waiting.
    pub(super) fn drain_ring(&mut self) -> Result<(), EngineError> {
        // What was told before is in the ring by now.
        let before = clock::boot()?;
        let records = self.ring.drain(RING);
        if !records.is_empty() {
            self.records(&records)?;
        }
        self.metrics.observer().read_until(before);
        Ok(())
    }

    /// Handles a batch of records.
    pub(super) fn records(&mut self, records: &[Bytes]) -> Result<(), EngineError> {
        let mut events = Vec::with_capacity(records.len());
        for record in records {
            match event::decode(record) {
                Ok(event) => events.push(event),
                Err(error) => {
                    self.metrics.undecoded();
                    log::error!("{error}");
                }
            }
        }
        let now = Now::read()?;
        let mut attempts = Vec::new();
        for event in &events {
            self.metrics.observer().record(event);
            // Tells the observer that the line was there, and nobody else anything.
            if Kind::of(event.kind) == Kind::Abandoned {
                continue;
            }
            self.count(event);
            self.tell(event, &now);
            self.attempts_of(event, &now, &mut attempts);
        }
        self.store.attempts(&attempts);
        for event in &events {
            self.breaker_event(event);
        }
        self.look_ahead(&Self::tripped_by(&events))?;
        for event in &events {
            self.source_event(event)?;
            if is_pairs(event) {
                self.decide_pair(event, &now)?;
            } else {
                self.decide(event)?;
            }
        }
        self.look_at_breaker()
    }

    fn count(&self, event: &abi::Event) {
        let kind = Kind::of(event.kind);
        if is_pairs(event) && event.flags & flag::TRIPPED != 0 {
            self.metrics.pair_trip(event.flags & flag::MONITORED != 0);
        }
        if says_nothing_new(event) {
            return;
        }
        if kind.is_attempt() {
            // A label that anybody could invent would crowd out the real ones.
            let claimed = event.entry.detail.via == abi::via::CLAIM;
            let service =
                if claimed { "claimed".to_owned() } else { text::field(&event.entry.detail.service) };
            let monitored = event.flags & flag::MONITORED != 0;
            self.metrics.attempt(outcome_name(kind, monitored), &service);
        }
        for _ in 0..event.lapsed.min(portcullis_common::ledger::SLOTS as u32) {
            self.metrics.attempt("lapsed", "");
        }
        if event.flags & flag::TRIPPED != 0 {
            self.metrics.trip(event.flags & flag::MONITORED != 0);
        }
    }

    /// What is kept of an event for `explain`.
    fn attempts_of(&mut self, event: &abi::Event, now: &Now, attempts: &mut Vec<Attempt>) {
        let Some(uid) = rows::uid_of(event.entry.account) else { return };
        if says_nothing_new(event) {
            return;
        }
        let kind = Kind::of(event.kind);
        let detail = &event.entry.detail;
        let time = now.wall_of(event.time);
        if event.lapsed != 0 {
            attempts.push(Attempt {
                time,
                uid,
                outcome: "lapsed".to_owned(),
                service: String::new(),
                tty: String::new(),
                source: address(lapsed_source(event)),
                actor: local_uid(lapsed_source(event)),
                status: 0,
            });
        }
        if kind.is_attempt() || kind == Kind::Cleared {
            attempts.push(Attempt {
                time,
                uid,
                outcome: kind.name().to_owned(),
                service: text::field(&detail.service),
                tty: text::field(&detail.tty),
                source: address(Source::of(detail)),
                actor: local_uid(Source::of(detail)),
                status: detail.status,
            });
        }
    }

    /// Log line and stream.
    fn tell(&mut self, event: &abi::Event, now: &Now) {
        let kind = Kind::of(event.kind);
        let detail = &event.entry.detail;
        let tripped = event.flags & flag::TRIPPED != 0;
        let mut told = view::Event::new(now.wall_of(event.time), kind.name());
        told.account = Some(rows::account(event.entry.account, &mut self.names));
        if kind.is_attempt() || kind == Kind::Cleared {
            told.actor = Some(rows::actor(Source::of(detail), &mut self.names));
            told.service = Some(text::field(&detail.service));
            told.tty = Some(text::field(&detail.tty));
        } else if event.lapsed != 0 {
            told.actor = Some(rows::actor(lapsed_source(event), &mut self.names));
        }
        told.failures = Some(event.failures);
        told.deny = Some(event.deny);
        told.tripped = Some(tripped);
        told.locked_until = now.until(event.locked_until);
        let mut notes = Vec::new();
        if is_pairs(event) {
            told.actor = Some(rows::pair_actor(Actor::of(detail), &mut self.names));
            notes.push("this source alone".to_owned());
            if tripped {
                told.event = "pair_tripped".to_owned();
            }
        }
        if event.lapsed != 0 {
            notes.push(format!("{} attempts outlived their maximum age and count as failures", event.lapsed));
        }
        if event.flags & flag::WITHDRAWN != 0 {
            notes.push("a failure by age was withdrawn: the right answer came late".to_owned());
        }
        if event.flags & flag::EXPIRED != 0 {
            notes.push("a lock had run out".to_owned());
        }
        if event.flags & flag::SOFT != 0 && event.locked_until != 0 {
            notes.push("locked in part: open as its class says".to_owned());
        }
        if event.flags & flag::EXEMPT != 0 {
            notes.push("exempt".to_owned());
        }
        if event.flags & flag::MONITORED != 0 {
            if tripped {
                notes.push("monitor: would have been locked".to_owned());
            }
            match kind {
                Kind::Refused => notes.push("monitor: would have been refused".to_owned()),
                Kind::Busy => {
                    notes.push("monitor: would have waited for a free guess, or been refused".to_owned());
                }
                _ => {}
            }
        }
        if detail.via == abi::via::CLAIM {
            notes.push("reported by a program of his own; service and terminal are its claim".to_owned());
        }
        told.detail = (!notes.is_empty()).then(|| notes.join("; "));
        let level = match kind {
            _ if tripped => log::Level::Warn,
            Kind::Pass | Kind::Void | Kind::Due | Kind::Cleared => log::Level::Debug,
            _ => log::Level::Info,
        };
        self.publish(level, told);
    }

    /// Logs an event as one JSON line and streams it.
    pub(super) fn publish(&self, level: log::Level, event: view::Event) {
        self.hub.publish(level, event);
    }

    /// Tells the policy.
    fn decide(&mut self, event: &abi::Event) -> Result<(), EngineError> {
        let Some(account) = rows::uid_of(event.entry.account) else { return Ok(()) };
        let class = self.policy_class(account)?;
        let (trips, until) = (event.trips, Boot(event.locked_until));
        if event.flags & flag::EXPIRED != 0 {
            self.step(Input::Expired { account })?;
        }
        if event.flags & flag::TRIPPED != 0 {
            let kind = Kind::of(event.kind);
            let actor = if event.lapsed != 0 && !matches!(kind, Kind::Fail | Kind::Died) {
                PolicyActor { kind: event.lapsed_source, id: event.lapsed_actor }
            } else {
                actor(Source::of(&event.entry.detail))
            };
            self.step(Input::Tripped { account, class, trips, locked_until: until, actor })?;
        }
        match Kind::of(event.kind) {
            Kind::Locked => self.step(Input::LockSet { account, class, trips, until, by: by(event.cause) }),
            Kind::Unlocked => {
                // Also of an account that the policy does not follow: its trips may be counted anew.
                self.store.forget_told(account);
                self.step(Input::Unlocked { account, trips })
            }
            _ => Ok(()),
        }
    }
}

/// The outcome label of an attempt; in monitor mode nothing was refused.
fn outcome_name(kind: Kind, monitored: bool) -> &'static str {
    match kind {
        Kind::Refused if monitored => "would_refuse",
        Kind::Busy if monitored => "would_busy",
        _ => kind.name(),
    }
}

/// A cause in the policy's words.
pub(super) fn by(number: u32) -> Cause {
    match number {
        cause::TRIP => Cause::Trip,
        cause::RESTORED => Cause::Restored,
        _ => Cause::Administrator,
    }
}

/// An actor in the ledger's words.
fn actor(source: Source) -> PolicyActor {
    match source {
        Source::None | Source::Unknown(_) => PolicyActor { kind: abi::source::NONE, id: 0 },
        Source::Local(uid) => PolicyActor { kind: abi::source::LOCAL, id: u64::from(uid) },
        Source::V4(address) => PolicyActor { kind: abi::source::IPV4, id: u64::from(address.to_bits()) },
        Source::V6(address) => {
            PolicyActor { kind: abi::source::IPV6, id: u64::try_from(address.to_bits() >> 64).unwrap_or(0) }
        }
    }
}

/// Who held the reservation that lapsed. Of an IPv6 address the ledger knows the network only.
fn lapsed_source(event: &abi::Event) -> Source {
    source_of(event.lapsed_source, event.lapsed_actor)
}

/// A source from the ledger's words.
pub(super) fn source_of(kind: u32, id: u64) -> Source {
    match kind {
        abi::source::NONE => Source::None,
        abi::source::LOCAL => u32::try_from(id).map_or(Source::None, Source::Local),
        abi::source::IPV4 => u32::try_from(id).map_or(Source::None, |bits| Source::V4(bits.into())),
        abi::source::IPV6 => Source::V6((u128::from(id) << 64).into()),
        other => Source::Unknown(other),
    }
}

fn address(source: Source) -> Option<String> {
    match source {
        Source::V4(address) => Some(address.to_string()),
        Source::V6(address) => Some(address.to_string()),
        _ => None,
    }
}

fn local_uid(source: Source) -> Option<u32> {
    if let Source::Local(uid) = source { Some(uid) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actors_survive_the_ledgers_form() {
        for source in [
            Source::None,
            Source::Local(2001),
            Source::V4("192.0.2.7".parse().unwrap()),
            Source::V6("2001:db8:1:2::".parse().unwrap()),
        ] {
            let actor = actor(source);
            assert_eq!(source_of(actor.kind, actor.id), source);
        }
    }
}
