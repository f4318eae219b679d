//! Medians, percentiles, and the gate's own histogram.

use crate::system::run;
use crate::{Error, Result};

/// Times of one thing, in nanoseconds.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<u64>);

impl Times {
    /// One more.
    pub fn add(&mut self, nanoseconds: u64) {
        self.0.push(nanoseconds);
    }

    /// The smallest value that at least `percent` of all do not exceed; 0 where there is none.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> u64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        sorted.get(place).copied().unwrap_or(0)
    }

    /// Half are smaller.
    #[must_use]
    pub fn median(&self) -> u64 {
        self.percentile(50)
    }

    /// 99 of 100 are smaller.
    #[must_use]
    pub fn high(&self) -> u64 {
        self.percentile(99)
    }

    /// Each value less the one of the same round in `base`, as the median: what a stack adds. Negative where it is
    /// quicker.
    #[must_use]
    pub fn over(&self, base: &Self) -> i64 {
        let mut differences: Vec<i64> =
            self.0.iter().zip(&base.0).map(|(own, base)| own.cast_signed() - base.cast_signed()).collect();
        differences.sort_unstable();
        differences.get(differences.len().div_ceil(2).saturating_sub(1)).copied().unwrap_or(0)
    }
}

/// The gate's own account of its calls, by `portcullis metrics`.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// Upper bound in nanoseconds, and calls up to it.
    buckets: Vec<(u64, u64)>,
    calls: u64,
    seconds: f64,
}

impl Histogram {
    /// As of now.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub fn read() -> Result<Self> {
        const NAME: &str = "portcullis_gate_latency_seconds_";
        let (_, text) = run("portcullis", &["metrics"])?;
        let mut histogram = Self::default();
        for line in text.lines().filter_map(|line| line.strip_prefix(NAME)) {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            if let Some(bound) = name.strip_prefix("bucket{le=\"").and_then(|rest| rest.strip_suffix("\"}")) {
                if let (Ok(bound), Ok(count)) = (bound.parse::<f64>(), value.parse::<f64>()) {
                    histogram.buckets.push(((bound * 1e9).round() as u64, count as u64));
                }
            } else if name == "sum" {
                histogram.seconds = value.parse().unwrap_or(0.0);
            } else if name == "count" {
                histogram.calls = value.parse::<f64>().unwrap_or(0.0) as u64;
            }
        }
        if histogram.buckets.is_empty() {
            return Err(Error::Answer { program: "portcullis metrics".into(), output: text });
        }
        Ok(histogram)
    }

    /// Calls counted here and not in `before`.
    #[must_use]
    pub fn calls_since(&self, before: &Self) -> u64 {
        self.calls - before.calls
    }

    /// Their mean, in nanoseconds.
    #[must_use]
    pub fn mean_since(&self, before: &Self) -> u64 {
        let calls = self.calls_since(before).max(1);
        ((self.seconds - before.seconds) * 1e9 / calls as f64) as u64
    }

    /// The bound of the bucket in which their percentile lies, in nanoseconds: it is not larger.
    #[must_use]
    pub fn percentile_since(&self, before: &Self, percent: u64) -> u64 {
        let wanted = (self.calls_since(before) * percent).div_ceil(100);
        let at =
            |bound| before.buckets.iter().find(|(other, _)| *other == bound).map_or(0, |(_, count)| *count);
        let found = self.buckets.iter().find(|(bound, count)| count - at(*bound) >= wanted);
        found.map_or(u64::MAX, |(bound, _)| *bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(values: &[u64]) -> Times {
        Times(values.to_vec())
    }

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let hundred: Vec<u64> = (1..=100).rev().collect();
        let hundred = times(&hundred);
        assert_eq!((hundred.median(), hundred.high(), hundred.percentile(100)), (50, 99, 100));
        assert_eq!((times(&[7]).median(), times(&[7]).high(), times(&[]).median()), (7, 7, 0));
    }

    #[test]
    fn what_a_stack_adds_is_told_round_by_round() {
        // Rounds that were slow for both say nothing about the difference.
        assert_eq!(times(&[15, 1005, 25]).over(&times(&[10, 1000, 20])), 5);
        assert_eq!(times(&[1, 1, 1]).over(&times(&[2, 2, 2])), -1);
    }

    #[test]
    fn calls_between_two_looks() {
        let before = Histogram { buckets: vec![(100, 5), (200, 5)], calls: 5, seconds: 5e-7 };
        let after = Histogram { buckets: vec![(100, 5), (200, 14)], calls: 15, seconds: 25e-7 };
        assert_eq!(after.calls_since(&before), 10);
        assert_eq!(after.mean_since(&before), 200);
        assert_eq!(after.percentile_since(&before, 50), 200);
        assert_eq!(after.percentile_since(&before, 99), u64::MAX);
    }
}
