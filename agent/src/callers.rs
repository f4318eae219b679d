//! The socket of callers who may not open the gate themselves: screen lockers, and root without bpf(2).
//!
//! One connection, one attempt: requests and answers of the ABI as they lie in memory. What a caller may ask is
//! [`session`]'s; here are the connections.
//!
//! Invariants: SO_PEERCRED alone says who asks; whoever is not root has at most [`EACH`] connections and a pause after
//! each answer, so that nobody keeps the agent busy; a connection that ends with a guess out has failed.

mod session;
mod wire;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use portcullis_common::abi::{Answer, CALLERS, Request};
use portcullis_common::client::{Error, Gate};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use crate::metrics::Metrics;
use crate::seats::{Seats, accepted};
use session::{Caller, Session};

/// Connections of all callers together.
const ALL: usize = 256;
/// Connections of one user who is not root.
const EACH: usize = 4;
/// Pause after an answer to a caller who is not root, and before his place is free: each attempt is an event and a line
/// of the log, of which journald takes some hundreds a second from one service.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a caller may say nothing without a guess out, and with one: the longest reservation by far.
const SILENCE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3600));

/// Where the socket is.
#[must_use]
pub fn path() -> &'static Path {
    Path::new(CALLERS)
}

/// Serves the socket for ever.
pub async fn serve(listener: UnixListener, metrics: Arc<Metrics>) {
    let seats = Seats::new(EACH, ALL);
    loop {
        let (stream, _) = accepted(|| listener.accept()).await;
        let Some(caller) = Caller::of(&stream) else {
            metrics.caller("refused");
            continue;
        };
        let Some(seat) = seats.take(caller.uid) else {
            metrics.caller("refused");
            continue;
        };
        let metrics = Arc::clone(&metrics);
        tokio::spawn(async move {
            let _seat = seat;
            let mut session = Session::new(caller);
            if let Err(error) = talk(stream, &mut session, &metrics).await {
                log::debug!("uid {}: {error}", caller.uid);
            }
            // Gone with a guess out.
            for request in session.end() {
                if let Err(error) = ask(&request) {
                    log::warn!("the guess of uid {} fails by its age: {error}", caller.uid);
                }
            }
            // Who hangs up at once waits as well.
            if !session.is_root() {
                tokio::time::sleep(PAUSE).await;
            }
        });
    }
}

/// Why a conversation ended early.
#[derive(Debug, thiserror::Error)]
enum TalkError {
    #[error("connection: {0}")]
    Stream(#[from] std::io::Error),
    #[error("no gate to ask: {0}")]
    Gate(#[from] Error),
    #[error("a request that is none: {0}")]
    Request(#[from] bytes::TryGetError),
    #[error("said nothing for too long")]
    Silent(#[from] tokio::time::error::Elapsed),
}

async fn talk(mut stream: UnixStream, session: &mut Session, metrics: &Metrics) -> Result<(), TalkError> {
    let mut bytes = [0; wire::REQUEST];
    loop {
        let patience = if session.has_guess() { SILENCE.1 } else { SILENCE.0 };
        match tokio::time::timeout(patience, stream.read_exact(&mut bytes)).await? {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        };
        let answer = match session.allow(&wire::request(&bytes)?) {
            Some(request) => {
                metrics.caller("asked");
                let answer = ask(&request)?;
                session.answered(&request, &answer);
                answer
            }
            None => {
                metrics.caller("refused");
                session::not_yours()
            }
        };
        stream.write_all(&wire::answer(&answer)).await?;
        if !session.is_root() {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn ask(request: &Request) -> Result<Answer, Error> {
    Gate::open()?.call(request)
}
