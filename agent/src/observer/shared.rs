//! What the rest of the agent sees of the observer, and tells it.
//!
//! Invariant: bounded; nobody waits here for anything but the lock, which is never held over I/O.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use portcullis_common::abi;
use portcullis_policy::Boot;
use portcullis_policy::observer::Record;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use super::denial::Means;
use super::process::{ProcessView, program_of_service};
use super::tables::Counts;
use crate::config::observer::Observer;
use crate::event::Kind;
use crate::text;

/// Programs remembered.
const RECENT: usize = 2_000;
/// Programs a reader may be behind.
const BEHIND: usize = 4_096;
/// Records of the gate that wait to be taken up.
const WAITING: usize = 16_384;

/// A watched program, and whether it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchedView {
    /// Where it is looked for.
    pub path: String,
    /// Whether there is a file.
    pub present: bool,
}

/// How the observer is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObserverView {
    /// Whether the configuration wants it.
    pub enabled: bool,
    /// Whether it observes.
    pub loaded: bool,
    /// Why it does not.
    pub problem: Option<String>,
    /// What is watched.
    pub watched: Vec<WatchedView>,
    /// Starts told.
    pub starts: u64,
    /// Ends told.
    pub ends: u64,
    /// Starts and ends that were lost.
    pub lost: u64,
    /// Programs that had ended by then have been held against the records of the PAM line; absent: none yet.
    #[serde(default)]
    pub judged: Option<Timestamp>,
    /// Failed logons that never reached the PAM line.
    pub unrecorded: u64,
    /// PAM records whose program did not run.
    pub no_process: u64,
    /// Guesses at their own passwords by `unix_chkpwd`.
    pub own_guesses: u64,
    /// Whether locked-out users are kept from starting su, login and sudo.
    #[serde(default)]
    pub denies: bool,
    /// Why they are not although they are to be.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub denies_not: Option<String>,
    /// How this kernel would keep them.
    #[serde(default)]
    pub means: Means,
    /// Programs they were kept from running.
    #[serde(default)]
    pub denied: u64,
}

#[derive(Debug, Default)]
struct State {
    view: ObserverView,
    config: Observer,
    recent: VecDeque<ProcessView>,
    records: VecDeque<Record>,
    claims: VecDeque<(u32, u64)>,
    forgot: bool,
    read_until: u64,
}

/// Shared by the engine, the API, the metrics page and the observer's task.
#[derive(Debug)]
pub struct Shared {
    state: Mutex<State>,
    seen: broadcast::Sender<Arc<ProcessView>>,
}

impl Default for Shared {
    fn default() -> Self {
        Self { state: Mutex::default(), seen: broadcast::Sender::new(BEHIND) }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the observer is.
    #[must_use]
    pub fn view(&self) -> ObserverView {
        self.state().view.clone()
    }

    /// Changes what is shown.
    pub(super) fn set(&self, change: impl FnOnce(&mut ObserverView)) {
        change(&mut self.state().view);
    }

    pub(super) fn counted(&self, counts: Counts) {
        self.set(|view| {
            (view.starts, view.ends, view.lost) = (counts.starts, counts.ends, counts.lost);
            view.denied = counts.denied;
        });
    }

    /// Another configuration; the observer's task takes it up within a second.
    pub fn adopt(&self, config: &Observer) {
        self.state().config = config.clone();
    }

    pub(super) fn config(&self) -> Observer {
        self.state().config.clone()
    }

    /// Notes a program that was started or has ended.
    pub(super) fn remember(&self, seen: ProcessView) {
        // Nobody may be listening.
        let _ = self.seen.send(Arc::new(seen.clone()));
        let mut state = self.state();
        let same = |old: &ProcessView| old.pid == seen.pid && old.started == seen.started;
        if let Some(old) = state.recent.iter_mut().rev().find(|old| same(old)) {
            *old = seen;
            return;
        }
        if state.recent.len() >= RECENT {
            state.recent.pop_front();
        }
        state.recent.push_back(seen);
    }

    /// Programs from now on, at their start and at their end.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<ProcessView>> {
        self.seen.subscribe()
    }

    /// The last programs, oldest first.
    #[must_use]
    pub fn recent(&self) -> Vec<ProcessView> {
        self.state().recent.iter().cloned().collect()
    }

    /// Who started the program that was behind an attempt by a local user.
    #[must_use]
    pub fn chain(&self, service: &str, uid: u32, time: Timestamp) -> Option<String> {
        let program = program_of_service(service)?;
        let state = self.state();
        let slack = SignedDuration::from_millis(100);
        let found = state.recent.iter().rev().find(|seen| {
            super::process::program_of(&seen.program) == program
                && (seen.uid == uid || seen.login_uid == Some(uid))
                && seen.started <= time
                && seen.ended.is_none_or(|ended| time.duration_since(ended) <= slack)
        })?;
        Some(found.chain.clone())
    }

    /// The gate told of an attempt.
    pub fn record(&self, event: &abi::Event) {
        let detail = &event.entry.detail;
        let kind = Kind::of(event.kind);
        let by_module = kind == Kind::Abandoned
            || (kind.is_attempt() && !matches!(kind, Kind::Reported | Kind::ReportedPass));
        let service = text::field(&detail.service);
        // What the observer itself counted has no module behind it.
        if kind == Kind::Fail && detail.via == abi::via::CLAIM {
            let mut state = self.state();
            if state.claims.len() < WAITING {
                state.claims.push_back((detail.uid, event.time));
            }
            return;
        }
        if !by_module || detail.pid == 0 || service == super::task::SERVICE {
            return;
        }
        let mut state = self.state();
        if state.records.len() >= WAITING {
            state.records.pop_front();
            state.forgot = true;
        }
        state.records.push_back(Record {
            time: event.time,
            pid: detail.pid,
            parent: detail.parent,
            program: program_of_service(&service),
            uid: detail.uid,
        });
    }

    /// Failures that users' own programs reported of them since the last time.
    pub(super) fn claims(&self) -> Vec<(u32, u64)> {
        self.state().claims.drain(..).collect()
    }

    /// All that the gate told before is here.
    pub fn read_until(&self, time: Boot) {
        self.state().read_until = time.0;
    }

    /// Until when all that the gate told is here.
    pub(super) fn is_read_until(&self) -> Boot {
        Boot(self.state().read_until)
    }

    /// What the gate told since the last time, and whether something was forgotten.
    pub(super) fn records(&self) -> (Vec<Record>, bool) {
        let mut state = self.state();
        let forgot = std::mem::take(&mut state.forgot);
        (state.records.drain(..).collect(), forgot)
    }
}

impl Collector for Shared {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let view = self.view();
        let present = view.watched.iter().filter(|one| one.present).count();
        let present = i64::try_from(present).unwrap_or(i64::MAX);
        for (name, help, value) in [
            ("observer_loaded", "1 while logon programs are observed", i64::from(view.loaded)),
            ("observer_watched", "Watched programs that are there", present),
            (
                "observer_denies",
                "1 while locked-out users may start no su, login or sudo",
                i64::from(view.denies),
            ),
        ] {
            ConstGauge::new(value).encode(encoder.encode_descriptor(
                name,
                help,
                None,
                MetricType::Gauge,
            )?)?;
        }
        for (name, help, value) in [
            ("observer_starts", "Watched programs that were started", view.starts),
            ("observer_ends", "Watched programs that ended", view.ends),
            ("observer_lost", "Starts and ends that found no room and were not told", view.lost),
            ("unrecorded_attempts", "Failed logons that never reached the PAM line", view.unrecorded),
            ("records_without_process", "PAM records whose program did not run", view.no_process),
            ("observer_denied", "Programs that locked-out users were kept from running", view.denied),
            ("own_guesses", "Wrong passwords given to unix_chkpwd outside the PAM line", view.own_guesses),
        ] {
            ConstCounter::new(value).encode(encoder.encode_descriptor(
                name,
                help,
                None,
                MetricType::Counter,
            )?)?;
        }
        Ok(())
    }
}
