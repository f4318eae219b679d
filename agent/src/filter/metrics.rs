//! The filter's part of the metrics page, as it was when last looked at.
//!
//! Invariant: labels are the words of this program and the names of interfaces, which are bounded by the host.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::api::drops::FilterView;

/// Why a drop was not shown as a sample, and how many were.
const SAMPLES: [&str; 3] = ["shown", "paced", "lost"];

/// What was collected.
#[derive(Debug, Default)]
pub struct Collected(Arc<Mutex<FilterView>>);

impl Collected {
    /// Takes over how the filter is.
    pub fn set(&self, view: FilterView) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = view;
    }
}

fn gauge(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let view = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut one = |name: &str, help: &str, value: u64| {
            gauge(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
        };
        let works = view.enabled && view.problem.is_none();
        one("filter_loaded", "1 while the filter drops what it is told to", u64::from(works))?;
        one("drops", "Networks dropped now", view.drops)?;
        one("throttles", "Throttles that hold now", view.throttles)?;
        one("filter_allowed", "Networks on the allow-list", view.allowed)?;
        for (name, help, label, counts) in [
            ("packets_dropped", "Packets dropped, by who asked for it", "cause", &view.dropped),
            ("bytes_dropped", "Bytes dropped, by who asked for it", "cause", &view.dropped_bytes),
            ("packets_seen", "Packets let through, by why", "verdict", &view.packets),
        ] {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (word, count) in counts {
                ConstCounter::new(*count).encode(family.encode_family(&[(label, word.as_str())])?)?;
            }
        }
        for (name, help, count) in [
            ("packets_throttled", "Packets that throttles held back", view.throttled),
            ("bytes_throttled", "Bytes that throttles held back", view.throttled_bytes),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(count).encode(metric)?;
        }
        let mut samples = encoder.encode_descriptor(
            "drop_samples",
            "Dropped packets shown as samples, left out for their pace, or lost",
            None,
            MetricType::Counter,
        )?;
        for (word, count) in SAMPLES.into_iter().zip(view.samples) {
            ConstCounter::new(count).encode(samples.encode_family(&[("result", word)])?)?;
        }
        let mut places = encoder.encode_descriptor(
            "filter_interface",
            "Interfaces to be filtered, by how; 0 where it is not",
            None,
            MetricType::Gauge,
        )?;
        for place in &view.interfaces {
            let hook = place.hook.as_deref().unwrap_or("none");
            let labels = [("interface", place.name.as_str()), ("hook", hook)];
            gauge(u64::from(place.hook.is_some())).encode(places.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
