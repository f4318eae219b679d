//! What is counted, as OpenMetrics text.
//!
//! Invariants: label values are bounded (64 services, then "other") and hold no byte from outside that was not checked;
//! every metric is registered here, so the page and the documentation can be held against each other.

mod rungs;
mod tamper;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use portcullis_common::abi::op;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::api::drops::FilterView;
use crate::filter::metrics::Collected;
use crate::kernel::{Occupancy, Stats};
use crate::observer::Shared;
use crate::unreachable::News;

/// Content type of the page.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Services told apart; further ones are "other".
const SERVICES: usize = 64;
/// Latency buckets shown: 2^7 ns (128 ns) to 2^24 ns (17 ms).
const BUCKETS: std::ops::RangeInclusive<u32> = 7..=24;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AttemptLabels {
    outcome: &'static str,
    service: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct SourceLabels {
    class: &'static str,
    answer: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct HeldLabel {
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ActionLabels {
    action: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CallerLabels {
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AnswerLabels {
    answer: &'static str,
}

/// The agent's counters.
pub struct Metrics {
    registry: Registry,
    attempts: Family<AttemptLabels, Counter>,
    services: Mutex<BTreeSet<String>>,
    trips: Counter,
    would_trip: Counter,
    pair_trips: Counter,
    source_trips: Family<SourceLabels, Counter>,
    sources: Family<HeldLabel, Gauge>,
    locks: Family<KindLabel, Gauge>,
    actions: Family<ActionLabels, Counter>,
    undecoded: Counter,
    callers: Family<CallerLabels, Counter>,
    unreachable: Family<AnswerLabels, Counter>,
    degraded: Gauge,
    aside: Gauge,
    gate: Gauge,
    rungs: rungs::Rungs,
    tamper: tamper::Tamper,
    kernel: Arc<Kernel>,
    filter: Arc<Collected>,
    observer: Arc<Shared>,
}

/// What the gate counted, as last read.
#[derive(Debug, Default)]
struct Kernel {
    stats: Mutex<Stats>,
    tables: Mutex<Vec<Occupancy>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("portcullis");
        let attempts = Family::<AttemptLabels, Counter>::default();
        registry.register("attempts", "Logon attempts by outcome and PAM service", attempts.clone());
        let trips = Counter::default();
        registry.register("trips", "Times an account reached its limit and was locked", trips.clone());
        let would_trip = Counter::default();
        registry.register(
            "would_trip",
            "Times an account in monitor mode reached its limit and was not locked",
            would_trip.clone(),
        );
        let source_trips = Family::<SourceLabels, Counter>::default();
        registry.register(
            "source_trips",
            "Times a source reached its limit, by what it did and what was done",
            source_trips.clone(),
        );
        let sources = Family::<HeldLabel, Gauge>::default();
        registry.register("sources", "Sources that tripped, answered now or remembered", sources.clone());
        let pair_trips = Counter::default();
        registry.register(
            "pair_trips",
            "Times a source reached its limit at an account and was shut out of it",
            pair_trips.clone(),
        );
        let locks = Family::<KindLabel, Gauge>::default();
        registry.register(
            "locks",
            "Accounts locked now, in the gate and in /etc/shadow by us",
            locks.clone(),
        );
        let actions = Family::<ActionLabels, Counter>::default();
        registry.register(
            "actions",
            "Actions carried out, by what reading them back showed",
            actions.clone(),
        );
        let undecoded = Counter::default();
        registry.register("events_undecoded", "Events that this version could not read", undecoded.clone());
        let callers = Family::<CallerLabels, Counter>::default();
        registry.register(
            "callers",
            "Requests at the socket of callers who may not open the gate themselves",
            callers.clone(),
        );
        for result in ["asked", "refused"] {
            callers.get_or_create(&CallerLabels { result }).inc_by(0);
        }
        let unreachable = Family::<AnswerLabels, Counter>::default();
        registry.register(
            "gate_unreachable",
            "Attempts that the PAM module decided without the gate, by on_error",
            unreachable.clone(),
        );
        for answer in ["ignored", "refused"] {
            unreachable.get_or_create(&AnswerLabels { answer }).inc_by(0);
        }
        let degraded = Gauge::default();
        registry.register(
            "store_degraded",
            "1 while the store cannot be written and memory stands in for it",
            degraded.clone(),
        );
        let aside = Gauge::default();
        registry.register(
            "store_set_aside",
            "Damaged files of the store that were put aside and still lie there",
            aside.clone(),
        );
        let gate = Gauge::default();
        registry.register(
            "gate_loaded",
            "1 while the gate answers, 0 while nothing is counted or refused",
            gate.clone(),
        );
        let rungs = rungs::Rungs::register(&mut registry);
        let tamper = tamper::Tamper::register(&mut registry);
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "The version that runs", Info::new(version));
        let kernel = Arc::new(Kernel::default());
        registry.register_collector(Box::new(kernel.clone()));
        let filter = Arc::new(Collected::default());
        registry.register_collector(Box::new(filter.clone()));
        let observer = Arc::new(Shared::default());
        registry.register_collector(Box::new(observer.clone()));
        for kind in ["gate", "shadow"] {
            locks.get_or_create(&KindLabel { kind }).set(0);
        }
        let services = Mutex::default();
        Self {
            registry,
            attempts,
            services,
            trips,
            would_trip,
            pair_trips,
            source_trips,
            sources,
            locks,
            actions,
            undecoded,
            callers,
            unreachable,
            degraded,
            aside,
            gate,
            rungs,
            tamper,
            kernel,
            filter,
            observer,
        }
    }
}

impl Metrics {
    /// Counts an attempt.
    pub fn attempt(&self, outcome: &'static str, service: &str) {
        let service = self.service(service);
        self.attempts.get_or_create(&AttemptLabels { outcome, service }).inc();
    }

    /// A service as a label: of plain characters, and one of the first 64.
    fn service(&self, service: &str) -> String {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '@');
        if service.is_empty() || !service.chars().all(plain) {
            return "other".to_owned();
        }
        let mut known = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains(service) {
            if known.len() >= SERVICES {
                return "other".to_owned();
            }
            known.insert(service.to_owned());
        }
        service.to_owned()
    }

    /// Counts a trip; in monitor mode it locked nobody.
    pub fn trip(&self, monitored: bool) {
        if monitored {
            self.would_trip.inc();
        } else {
            self.trips.inc();
        }
    }

    /// Counts a source that reached its limit at an account; in monitor mode nothing followed.
    pub fn pair_trip(&self, monitored: bool) {
        if monitored {
            self.would_trip.inc();
        } else {
            self.pair_trips.inc();
        }
    }

    /// Sets how many pairs are locked.
    pub fn pairs(&self, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.locks.get_or_create(&KindLabel { kind: "pair" }).set(count);
    }

    /// Sets how many accounts are locked.
    pub fn locks(&self, gate: usize, shadow: usize) {
        for (kind, count) in [("gate", gate), ("shadow", shadow)] {
            self.locks.get_or_create(&KindLabel { kind }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// A source tripped.
    pub fn source_trip(&self, class: &'static str, answer: &'static str) {
        self.source_trips.get_or_create(&SourceLabels { class, answer }).inc();
    }

    /// Sources answered now, and all that are held.
    pub fn sources(&self, answered: usize, held: usize) {
        let set = |state, count: usize| {
            self.sources.get_or_create(&HeldLabel { state }).set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        set("answered", answered);
        set("remembered", held.saturating_sub(answered));
    }

    /// Counts an action by its result.
    pub fn action(&self, action: &'static str, result: &'static str) {
        self.actions.get_or_create(&ActionLabels { action, result }).inc();
    }

    /// Counts a record that could not be decoded.
    pub fn undecoded(&self) {
        self.undecoded.inc();
    }

    /// Counts what the module did without the gate.
    pub fn unreachable(&self, news: News) {
        for (answer, count) in [("ignored", news.ignored), ("refused", news.refused)] {
            self.unreachable.get_or_create(&AnswerLabels { answer }).inc_by(count);
        }
    }

    /// Counts a request at the callers' socket: `asked` or `refused`.
    pub fn caller(&self, result: &'static str) {
        self.callers.get_or_create(&CallerLabels { result }).inc();
    }

    /// Whether the store is degraded, and how many damaged ones lie beside it.
    pub fn store(&self, degraded: bool, aside: usize) {
        self.degraded.set(i64::from(degraded));
        self.aside.set(i64::try_from(aside).unwrap_or(i64::MAX));
    }

    /// Whether the gate answers.
    pub fn gate(&self, answers: bool) {
        self.gate.set(i64::from(answers));
    }

    /// Takes over the gate's counters.
    pub fn stats(&self, stats: Stats) {
        *self.kernel.stats.lock().unwrap_or_else(PoisonError::into_inner) = stats;
    }

    /// Takes over how full the tables are.
    pub fn tables(&self, tables: Vec<Occupancy>) {
        *self.kernel.tables.lock().unwrap_or_else(PoisonError::into_inner) = tables;
    }

    /// What the observer saw.
    pub const fn observer(&self) -> &Arc<Shared> {
        &self.observer
    }

    /// Takes over how the filter is.
    pub fn filter(&self, view: FilterView) {
        self.filter.set(view);
    }

    /// The page.
    ///
    /// # Errors
    /// The text could not be written (a metric that encodes itself wrongly).
    pub fn page(&self) -> Result<String, fmt::Error> {
        let mut page = String::new();
        text::encode(&mut page, &self.registry)?;
        Ok(page)
    }
}

/// Name of a gate call.
fn op_name(number: u32) -> Option<&'static str> {
    Some(match number {
        op::ADMIT => "admit",
        op::RESOLVE => "resolve",
        op::CONFIRM => "confirm",
        op::CHECK => "check",
        op::LOCK => "lock",
        op::UNLOCK => "unlock",
        op::FORGET => "forget",
        _ => return None,
    })
}

impl Collector for Kernel {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut counter = |name: &str, help: &str, value: u64| {
            ConstCounter::new(value).encode(encoder.encode_descriptor(
                name,
                help,
                None,
                MetricType::Counter,
            )?)
        };
        counter("events_lost", "Events that found no room in the ring buffer", stats.lost_events)?;
        counter("rows_refused", "Accounts not counted because a table was full", stats.no_row)?;
        counter("tasks_refused", "Attempts the exit program cannot see (table full)", stats.no_task)?;
        counter(
            "sources_refused",
            "Failures of sources that found no place in their bucket",
            stats.no_source,
        )?;
        counter("source_reports", "Logons reported by other programs", stats.reports)?;
        counter("row_races", "Gate calls that met a row being deleted and were repeated", stats.row_race)?;
        let mut calls = encoder.encode_descriptor(
            "gate_calls",
            "Gate calls by what they ask",
            None,
            MetricType::Counter,
        )?;
        for (number, count) in (0..).zip(stats.calls) {
            if let Some(name) = op_name(number) {
                ConstCounter::new(count).encode(calls.encode_family(&[("op", name)])?)?;
            }
        }
        latency(
            encoder.encode_descriptor(
                "gate_latency",
                "Time a gate call takes inside the kernel",
                Some(&Unit::Seconds),
                MetricType::Histogram,
            )?,
            &stats,
        )?;
        let mut used =
            encoder.encode_descriptor("table_entries", "Entries in use", None, MetricType::Gauge)?;
        for table in &tables {
            let value = ConstGauge::new(i64::try_from(table.used).unwrap_or(i64::MAX));
            value.encode(used.encode_family(&[("table", table.table)])?)?;
        }
        let mut limit =
            encoder.encode_descriptor("table_limit", "Entries a table can hold", None, MetricType::Gauge)?;
        for table in &tables {
            let value = ConstGauge::new(i64::try_from(table.limit).unwrap_or(i64::MAX));
            value.encode(limit.encode_family(&[("table", table.table)])?)?;
        }
        Ok(())
    }
}

/// The gate's log2 counters as a histogram in seconds.
fn latency(mut encoder: MetricEncoder, stats: &Stats) -> fmt::Result {
    let mut buckets = Vec::new();
    let mut pending = 0;
    let mut count = 0;
    for (power, calls) in (0_u32..).zip(stats.latency) {
        pending += calls;
        count += calls;
        // Calls of bucket `power` took less than 2^(power+1) ns.
        if BUCKETS.contains(&(power + 1)) {
            buckets.push(((1_u64 << (power + 1)) as f64 / 1e9, pending));
            pending = 0;
        }
    }
    buckets.push((f64::INFINITY, pending));
    encoder.encode_histogram::<NoLabelSet>(stats.latency_sum as f64 / 1e9, count, &buckets, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line<'a>(page: &'a str, start: &str) -> &'a str {
        page.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("no {start} in\n{page}"))
    }

    #[test]
    fn the_page_tells_what_was_counted() {
        let metrics = Metrics::default();
        metrics.attempt("fail", "su");
        metrics.attempt("fail", "su");
        metrics.trip(false);
        metrics.locks(1, 1);
        metrics.action("shadow_lock", "verified");
        let page = metrics.page().unwrap();
        line(&page, "portcullis_attempts_total{outcome=\"fail\",service=\"su\"} 2");
        line(&page, "portcullis_trips_total 1");
        line(&page, "portcullis_locks{kind=\"shadow\"} 1");
        line(&page, "portcullis_actions_total{action=\"shadow_lock\",result=\"verified\"} 1");
        line(&page, "portcullis_events_lost_total 0");
        line(&page, "portcullis_build_info{version=");
        assert!(page.ends_with("# EOF\n"));
    }

    #[test]
    fn latency_buckets_add_up() {
        let metrics = Metrics::default();
        let mut stats = Stats { latency_sum: 3_000_000_000, ..Stats::default() };
        stats.latency[3] = 1;
        stats.latency[9] = 4;
        stats.latency[31] = 2;
        metrics.stats(stats);
        let page = metrics.page().unwrap();
        line(&page, "portcullis_gate_latency_seconds_count 7");
        line(&page, "portcullis_gate_latency_seconds_sum 3");
        line(&page, "portcullis_gate_latency_seconds_bucket{le=\"1.28e-7\"} 1");
        line(&page, "portcullis_gate_latency_seconds_bucket{le=\"+Inf\"} 7");
    }

    #[test]
    fn services_from_outside_stay_bounded_and_plain() {
        let metrics = Metrics::default();
        for number in 0..1000 {
            metrics.attempt("fail", &format!("service{number}"));
        }
        metrics.attempt("fail", "evil\"} 1\nfake 2");
        let page = metrics.page().unwrap();
        let services = page.lines().filter(|line| line.starts_with("portcullis_attempts_total")).count();
        assert_eq!(services, SERVICES + 1);
        line(&page, "portcullis_attempts_total{outcome=\"fail\",service=\"other\"} 937");
        assert!(!page.contains("fake"));
    }
}
