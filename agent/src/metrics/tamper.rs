//! The counters of alarms and of what was mended.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::{KindLabel, Metrics};
use crate::tamper::Kind;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct HealLabels {
    kind: &'static str,
    result: &'static str,
}

/// The counters.
pub(super) struct Tamper {
    raised: Family<KindLabel, Counter>,
    open: Family<KindLabel, Gauge>,
    healed: Family<HealLabels, Counter>,
    looks: Counter,
    processor: Counter<f64, AtomicU64>,
}

impl Tamper {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let raised = Family::<KindLabel, Counter>::default();
        registry.register("alarms", "Alarms of tampering that were raised, by kind", raised.clone());
        let open = Family::<KindLabel, Gauge>::default();
        registry.register("alarms_open", "Alarms of tampering that are open now, by kind", open.clone());
        for kind in Kind::ALL {
            raised.get_or_create(&KindLabel { kind: kind.word() }).inc_by(0);
            open.get_or_create(&KindLabel { kind: kind.word() }).set(0);
        }
        let healed = Family::<HealLabels, Counter>::default();
        registry.register(
            "heals",
            "What was put back, by kind and by what reading it back showed",
            healed.clone(),
        );
        let looks = Counter::default();
        registry.register("tamper_looks", "Looks for tampering, each with its alarms told", looks.clone());
        let processor = Counter::<f64, AtomicU64>::default();
        registry.register_with_unit(
            "tamper_look_processor",
            "Time on a processor that the looks took",
            Unit::Seconds,
            processor.clone(),
        );
        Self { raised, open, healed, looks, processor }
    }
}

impl Metrics {
    /// An alarm was raised.
    pub fn alarm(&self, kind: &'static str) {
        self.tamper.raised.get_or_create(&KindLabel { kind }).inc();
    }

    /// How many of a kind are open.
    pub fn open_alarms(&self, kind: &'static str, count: usize) {
        self.tamper.open.get_or_create(&KindLabel { kind }).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A look was made, its alarms are told; it took so long on a processor.
    pub fn looked(&self, processor: Duration) {
        self.tamper.looks.inc();
        self.tamper.processor.inc_by(processor.as_secs_f64());
    }

    /// Something was put back: `verified`, `failed`.
    pub fn healed(&self, kind: &'static str, result: &'static str) {
        self.tamper.healed.get_or_create(&HealLabels { kind, result }).inc();
    }
}
