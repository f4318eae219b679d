//! `portcullis throttle`, `unthrottle`, `throttles`.
//!
//! Invariant: what is asked is judged by the agent; nothing is looked up by name.

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::table::{Table, until};
use super::{CliError, Context, duration, need_root, session};
use crate::api::throttles::{ThrottleRequest, ThrottleView, UnthrottleRequest};
use crate::api::view::Until;

#[derive(Debug, Args)]
pub(super) struct ThrottleArguments {
    /// A network (192.0.2.7, 192.0.2.0/24, 2001:db8::/48), a port (22) or an interface (eth0).
    target: String,
    /// Of one second: 1000pps, 4mbit, 50syn, 20flows.
    #[arg(long, value_name = "RATE")]
    rate: String,
    /// What may come at once: a number of packets, SYNs, flows; of bits a number of bytes (64k). A quarter of a second's.
    #[arg(long, value_name = "BURST")]
    burst: Option<String>,
    /// How long: 90s, 15m, 2h, 1d.
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    length: Option<Duration>,
    /// Why, in words; shown by `portcullis throttles`.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    /// Also the network that your own session comes from.
    #[arg(long)]
    force: bool,
}

impl Context {
    pub(super) async fn throttle(&self, arguments: &ThrottleArguments) -> Result<(), CliError> {
        need_root()?;
        let request = ThrottleRequest {
            target: arguments.target.clone(),
            rate: arguments.rate.clone(),
            burst: arguments.burst.clone(),
            seconds: arguments.length.map(|length| length.as_secs()),
            reason: arguments.reason.clone(),
            force: arguments.force,
            sessions: session::addresses(),
        };
        let given: ThrottleView = self.client.post("/v1/throttles", &request).await?;
        self.print(&given, |given| {
            let end = match given.until {
                Until::Never => format!("until `portcullis unthrottle {}`", given.target),
                Until::At(_) => format!("until {}", until(given.until, Timestamp::now())),
            };
            format!("{} is held to {} (burst {}) {end}\n", given.target, given.rate, given.burst)
        })
    }

    pub(super) async fn unthrottle(&self, target: &str) -> Result<(), CliError> {
        need_root()?;
        let request = UnthrottleRequest { target: target.to_owned() };
        let taken: Vec<ThrottleView> = self.client.post("/v1/unthrottle", &request).await?;
        self.print(&taken, |taken| {
            taken
                .iter()
                .map(|taken| {
                    format!(
                        "{} is not held to {} any more; {} packets passed, {} were held back\n",
                        taken.target, taken.rate, taken.passed, taken.limited
                    )
                })
                .collect()
        })
    }

    pub(super) async fn throttles(&self) -> Result<(), CliError> {
        let throttles: Vec<ThrottleView> = self.client.get("/v1/throttles").await?;
        self.print(&throttles, |throttles| table(throttles, Timestamp::now()))
    }
}

fn table(throttles: &[ThrottleView], now: Timestamp) -> String {
    if throttles.is_empty() {
        return "nothing is throttled\n".to_owned();
    }
    let mut table =
        Table::new(["TARGET", "RATE", "BURST", "UNTIL", "PASSED", "HELD BACK", "BY", "THROTTLE", "REASON"]);
    for throttle in throttles {
        table.row([
            throttle.target.clone(),
            throttle.rate.clone(),
            throttle.burst.to_string(),
            until(throttle.until, now),
            throttle.passed.to_string(),
            throttle.limited.to_string(),
            throttle.cause.clone(),
            throttle.rule.to_string(),
            throttle.reason.clone(),
        ]);
    }
    table.render()
}
