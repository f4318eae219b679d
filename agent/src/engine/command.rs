//! What others ask of the engine, and its answers.
//!
//! Invariants: the engine owns all state, so every question goes through one bounded queue; an asker that went away
//! changes nothing.

use std::net::IpAddr;

use tokio::sync::{mpsc, oneshot};

use crate::api::sources::{ReportRequest, SourceRow};
use crate::api::view::{AccountRow, BreakerView, Done, Explain, ModeRequest, Status};

use crate::filter::Net;

/// Requests that may wait.
pub const QUEUE: usize = 64;

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No user has that uid, and the gate holds no row for it.
    #[error("no account has the uid {0}: see `portcullis accounts` or getent passwd")]
    NoSuchAccount(u32),
    /// The account is exempt.
    #[error("{0} is exempt and never locked: change its class in the configuration first")]
    Exempt(String),
    /// The account's class is in monitor mode.
    #[error("{0} is in a class in monitor mode, where nothing is refused: set mode = \"enforce\" first")]
    Monitor(String),
    /// The new configuration has an error; the old one stays.
    #[error("{0}\nthe running configuration stays")]
    Config(String),
    /// The kernel or the gate said no.
    #[error("{0}")]
    Failed(String),
    /// The gate does not answer.
    #[error("{0}")]
    Gate(String),
    /// The engine is stopping or too busy.
    #[error("the agent is stopping or busy: try again")]
    Unavailable,
}

/// Where an answer goes.
pub type Reply<T> = oneshot::Sender<Result<T, CommandError>>;

/// A request.
#[derive(Debug)]
pub enum Command {
    /// How things are.
    Status(Reply<Status>),
    /// Accounts with a row in the gate, and locked ones.
    Accounts(Reply<Vec<AccountRow>>),
    /// Everything about one account.
    Explain(u32, Reply<Box<Explain>>),
    /// Lock an account.
    Lock {
        /// Which.
        uid: u32,
        /// For how long; none: until released.
        seconds: Option<u64>,
        /// Answered when all actions ended.
        reply: Reply<Done>,
    },
    /// Unlock an account.
    Unlock {
        /// Which.
        uid: u32,
        /// Answered when all actions ended.
        reply: Reply<Done>,
    },
    /// Sources with something on the books, or remembered.
    Sources(Reply<Vec<SourceRow>>),
    /// One source.
    Source(IpAddr, Reply<SourceRow>),
    /// An administrator let these networks go.
    Released(Vec<Net>, Reply<()>),
    /// A logon that another program saw.
    Report(ReportRequest, Reply<Done>),
    /// Switch the mode of a class or of all.
    Mode(ModeRequest, Reply<Done>),
    /// What the breaker says; or what it is to be, by an administrator's word.
    Breaker(Option<portcullis_policy::breaker::Override>, Reply<BreakerView>),
    /// Read the configuration again.
    Reload(Reply<Done>),
    /// The configuration in effect.
    Config(Reply<serde_json::Value>),
    /// Bring the metrics up to date.
    Scrape(Reply<()>),
    /// Whether the agent works and the gate answers.
    Health(Reply<()>),
    /// Finish and stop.
    Stop,
}

/// The way to the engine.
#[derive(Debug, Clone)]
pub struct Handle {
    sender: mpsc::Sender<Command>,
}

impl Handle {
    /// A handle and the engine's end of it.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Command>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self { sender }, receiver)
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// What the engine says, or that it does not answer any more.
    pub async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, CommandError> {
        let (reply, answer) = oneshot::channel();
        self.sender.send(command(reply)).await.map_err(|_| CommandError::Unavailable)?;
        answer.await.map_err(|_| CommandError::Unavailable)?
    }

    /// Tells the engine to stop; it may have done so already.
    pub async fn stop(&self) {
        let _ = self.sender.send(Command::Stop).await;
    }
}
