//! The counters of breaker and notifier.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Metrics;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

/// The counters.
pub(super) struct Rungs {
    open: Gauge,
    failing: Gauge,
    accounts: Gauge,
    commands: Family<ResultLabel, Counter>,
    lines: Family<ResultLabel, Counter>,
}

impl Rungs {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let open = Gauge::default();
        registry.register("breaker_open", "1 while the rungs above the lock are withheld", open.clone());
        let failing = Gauge::default();
        registry.register(
            "breaker_failing_accounts",
            "Accounts that failed within breaker.failing_window since the last success",
            failing.clone(),
        );
        let accounts = Gauge::default();
        registry.register(
            "breaker_accounts",
            "Accounts of which breaker.locked_percent is taken",
            accounts.clone(),
        );
        let commands = Family::<ResultLabel, Counter>::default();
        registry.register("notify_commands", "Commands for events, by how they ended", commands.clone());
        for result in ["done", "failed", "timeout", "dropped"] {
            commands.get_or_create(&ResultLabel { result }).inc_by(0);
        }
        let lines = Family::<ResultLabel, Counter>::default();
        registry.register("notify_lines", "Lines for the file of events", lines.clone());
        for result in ["written", "failed", "dropped"] {
            lines.get_or_create(&ResultLabel { result }).inc_by(0);
        }
        Self { open, failing, accounts, commands, lines }
    }
}

impl Metrics {
    /// Whether the breaker is open, and what it goes by.
    pub fn breaker(&self, open: bool, failing: u32, accounts: u32) {
        self.rungs.open.set(i64::from(open));
        self.rungs.failing.set(failing.into());
        self.rungs.accounts.set(accounts.into());
    }

    /// Counts commands of the notifier: `done`, `failed`, `timeout`, `dropped`.
    pub fn notified(&self, result: &'static str, count: u64) {
        self.rungs.commands.get_or_create(&ResultLabel { result }).inc_by(count);
    }

    /// Counts a line for the file of events: `written`, `failed`, `dropped`.
    pub fn file_line(&self, result: &'static str) {
        self.rungs.lines.get_or_create(&ResultLabel { result }).inc();
    }
}
