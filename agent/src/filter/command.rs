//! What others ask of the filter, and its answers.
//!
//! Invariants: the filter's task owns the kernel's table, so every question goes through one bounded queue; an asker that
//! went away changes nothing.

use std::sync::Arc;

use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::throttle::{HeldThrottle, Target, Throttle};
use super::{Cause, Given, Held, Lease, Net};
use crate::api::drops::{FilterView, SampleView};
use crate::config::Config;
use crate::kernel::KernelError;

/// Requests that may wait.
pub const QUEUE: usize = 256;
/// Samples a reader may be behind.
const BEHIND: usize = 1_024;

/// Why the filter did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// The configuration does not have it.
    #[error("the filter is off: set `enabled = true` in [filter] and `portcullis reload`")]
    Off,
    /// The network must not be dropped.
    #[error("{net} is not dropped: {why}")]
    Refused {
        /// Which.
        net: Net,
        /// Why, and what to do.
        why: String,
    },
    /// Another of the same request was refused, and all or none was asked for.
    #[error("{0} is not dropped: another of the list is refused")]
    Spared(Net),
    /// No such lease.
    #[error("{0} is not dropped: see `portcullis drops`")]
    NotDropped(Net),
    /// Somebody else wants it dropped.
    #[error("{net} stays dropped: {cause} wants it; an administrator's `portcullis undrop` lets it go")]
    Anothers {
        /// Which.
        net: Net,
        /// Who.
        cause: Cause,
    },
    /// The table is full.
    #[error("the table {table} is full ({limit} entries): take leases away with `portcullis undrop`")]
    Full {
        /// Which.
        table: &'static str,
        /// What it holds.
        limit: u32,
    },
    /// No throttle.
    #[error("{target} is not throttled: {why}", target = crate::text::escape(target.to_string().as_bytes()))]
    NotThrottled {
        /// Of what.
        target: Target,
        /// Why, and what to do.
        why: String,
    },
    /// No such throttle.
    #[error("{} is not throttled: see `portcullis throttles`", crate::text::escape(.0.to_string().as_bytes()))]
    NoThrottle(Target),
    /// nftables drops.
    #[error("throttles need the BPF filter, and nftables drops here: see `portcullis doctor`")]
    NoThrottles,
    /// Networks of too many different lengths.
    #[error(
        "{net} is not dropped: there are IPv6 networks of {most} different lengths already; use one of those"
    )]
    Lengths {
        /// Which.
        net: Net,
        /// As many as the filter looks at.
        most: usize,
    },
    /// The kernel.
    #[error("{0}")]
    Kernel(String),
    /// What was read back is not what was written.
    #[error("{net}: the kernel's table does not show what was written: {what}; see `portcullis doctor`")]
    ReadBack {
        /// Which network.
        net: Net,
        /// What differs.
        what: String,
    },
    /// The filter's task is stopping or too busy.
    #[error("the agent is stopping or busy: try again")]
    Unavailable,
}

impl From<KernelError> for FilterError {
    fn from(error: KernelError) -> Self {
        Self::Kernel(error.to_string())
    }
}

/// Who asks for a drop.
#[derive(Debug, Clone, Default)]
pub struct Asker {
    /// What only cuts off is no reason to refuse.
    pub force: bool,
    /// Where his sessions come from.
    pub sessions: Vec<std::net::IpAddr>,
}

/// Where an answer goes.
pub type Reply<T> = oneshot::Sender<T>;

/// A request.
#[derive(Debug)]
pub enum Command {
    /// Drop these sources. One answer each, in order; with `all_or_none` nothing is changed where one is refused.
    Give {
        /// Which, how long, why.
        leases: Vec<Lease>,
        /// Whether one refusal refuses all.
        all_or_none: bool,
        /// Who asks.
        asker: Asker,
        /// Answered when each was read back.
        reply: Reply<Vec<Result<Given, FilterError>>>,
    },
    /// Drop them no more. One answer each, in order.
    Take {
        /// Which.
        nets: Vec<Net>,
        /// Who asks: what another wants stays, unless it is an administrator.
        by: Cause,
        /// Answered when each was read back.
        reply: Reply<Vec<Result<Held, FilterError>>>,
    },
    /// What is dropped now.
    List(Reply<Result<Vec<Held>, FilterError>>),
    /// Hold something to a rate.
    Throttle {
        /// What, to which rate, how long.
        throttle: Throttle,
        /// Who asks.
        asker: Asker,
        /// Answered when it was read back.
        reply: Reply<Result<HeldThrottle, FilterError>>,
    },
    /// Hold it to no rate any more.
    Unthrottle {
        /// What.
        target: Target,
        /// Answered with what was held.
        reply: Reply<Result<Vec<HeldThrottle>, FilterError>>,
    },
    /// What is throttled now.
    Throttles(Reply<Result<Vec<HeldThrottle>, FilterError>>),
    /// How things are.
    Show(Reply<FilterView>),
    /// A new configuration is in effect.
    Adopt(Box<Config>, Reply<Result<(), FilterError>>),
    /// Attach again wherever it should hang: something was taken off, or put in its place.
    Heal(Reply<Result<(), FilterError>>),
    /// Finish and stop; nothing is let go.
    Stop,
}

/// The way to the filter.
#[derive(Debug, Clone)]
pub struct Handle {
    sender: mpsc::Sender<Command>,
    samples: broadcast::Sender<Arc<SampleView>>,
    around: watch::Sender<()>,
}

impl Handle {
    /// A handle and the filter's end of it.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Command>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self { sender, samples: broadcast::Sender::new(BEHIND), around: watch::Sender::new(()) }, receiver)
    }

    /// Samples of dropped packets from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<SampleView>> {
        self.samples.subscribe()
    }

    /// Changes whenever this host's addresses or gateways have.
    #[must_use]
    pub fn around(&self) -> watch::Receiver<()> {
        self.around.subscribe()
    }

    /// This host's addresses or gateways have changed.
    pub(super) fn moved(&self) {
        self.around.send_replace(());
    }

    /// Tells a sample to those who look on.
    pub(super) fn tell(&self, sample: SampleView) {
        // Nobody may be listening.
        let _ = self.samples.send(Arc::new(sample));
    }

    /// Drops a source.
    ///
    /// # Errors
    /// Refused (allow-listed, this host's own way out), no room, or the kernel does not take it. Nothing has changed.
    pub async fn give(&self, lease: Lease) -> Result<Given, FilterError> {
        let answers = self.give_all(vec![lease], false).await?;
        answers.into_iter().next().ok_or(FilterError::Unavailable)?
    }

    /// Drops sources; one answer each, in order.
    ///
    /// # Errors
    /// The filter does not answer any more.
    pub async fn give_all(
        &self,
        leases: Vec<Lease>,
        all_or_none: bool,
    ) -> Result<Vec<Result<Given, FilterError>>, FilterError> {
        self.give_as(leases, all_or_none, Asker::default()).await
    }

    /// As [`Handle::give_all`], for somebody who may insist.
    ///
    /// # Errors
    /// The filter does not answer any more.
    pub async fn give_as(
        &self,
        leases: Vec<Lease>,
        all_or_none: bool,
        asker: Asker,
    ) -> Result<Vec<Result<Given, FilterError>>, FilterError> {
        self.ask(|reply| Command::Give { leases, all_or_none, asker, reply }).await
    }

    /// Drops a source no more. Returns what was held.
    ///
    /// # Errors
    /// There is no such lease, it is another's, or the kernel does not let go of it.
    pub async fn take(&self, net: Net, by: Cause) -> Result<Held, FilterError> {
        let answers = self.ask(|reply| Command::Take { nets: vec![net], by, reply }).await?;
        answers.into_iter().next().ok_or(FilterError::Unavailable)?
    }

    /// What is dropped now.
    ///
    /// # Errors
    /// The filter is off, or its table cannot be read.
    pub async fn list(&self) -> Result<Vec<Held>, FilterError> {
        self.ask(Command::List).await?
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// [`FilterError::Unavailable`].
    pub async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, FilterError> {
        let (reply, answer) = oneshot::channel();
        self.sender.send(command(reply)).await.map_err(|_| FilterError::Unavailable)?;
        answer.await.map_err(|_| FilterError::Unavailable)
    }

    /// Tells the filter to stop; it may have done so already.
    pub async fn stop(&self) {
        let _ = self.sender.send(Command::Stop).await;
    }
}
