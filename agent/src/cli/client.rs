//! Talks to the agent: HTTP over its unix socket.
//!
//! Invariants: one connection a question; an answer is bounded; a refused connection is told apart from a refusal.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::api::view::ErrorBody;

/// Largest answer taken: 65,536 accounts fit.
const LARGEST: usize = 64 << 20;

/// Why the agent gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no agent answers at {path} ({source}): start portcullisd.service")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// The agent refused.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: StatusCode,
        /// Its words.
        message: String,
    },
    /// The connection broke, or the answer is not the agent's.
    #[error(
        "the agent's answer broke off or is not understood ({what}): see its log, `journalctl -u portcullisd`"
    )]
    Broken {
        /// What happened.
        what: String,
    },
}

/// The agent's socket.
#[derive(Debug, Clone)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// A client for the socket at `path`.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Asks for a page and reads its JSON.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, page: &str) -> Result<T, ClientError> {
        parse(&self.text(page).await?)
    }

    /// Asks for a page as it is.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn text(&self, page: &str) -> Result<Bytes, ClientError> {
        collect(self.send(Method::GET, page, Bytes::new()).await?).await
    }

    /// Sends a request and reads the JSON that comes back.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post<T: DeserializeOwned>(
        &self,
        page: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(broken)?;
        parse(&collect(self.send(Method::POST, page, Bytes::from(body)).await?).await?)
    }

    /// Asks for a page that goes on; `see` gets each line until it says no or the agent stops.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn lines(&self, page: &str, mut see: impl FnMut(&[u8]) -> bool) -> Result<(), ClientError> {
        let response = self.send(Method::GET, page, Bytes::new()).await?;
        if response.status() != StatusCode::OK {
            collect(response).await?;
            return Ok(());
        }
        let mut body = response.into_body();
        let mut rest = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
            rest.extend_from_slice(&data);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                if !see(line.trim_ascii_end()) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn send(&self, method: Method, page: &str, body: Bytes) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.path)
            .await
            .map_err(|source| ClientError::Unreachable { path: self.path.clone(), source })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                log::debug!("connection to the agent: {error}");
            }
        });
        let request = Request::builder()
            .method(method)
            .uri(page)
            .header(header::HOST, "portcullis")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(broken)?;
        sender.send_request(request).await.map_err(broken)
    }
}

fn broken(error: impl std::fmt::Display) -> ClientError {
    ClientError::Broken { what: error.to_string() }
}

async fn collect(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    let status = response.status();
    let body = Limited::new(response.into_body(), LARGEST)
        .collect()
        .await
        .map_err(|error| ClientError::Broken { what: error.to_string() })?
        .to_bytes();
    if status == StatusCode::OK {
        return Ok(body);
    }
    let message = serde_json::from_slice::<ErrorBody>(&body)
        .map_or_else(|_| format!("the agent answers {status}"), |body| body.error);
    Err(ClientError::Refused { status, message })
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(broken)
}
