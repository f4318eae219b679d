//! The API on the unix socket, and the metrics page on TCP.
//!
//! Invariants: root may ask everything, everybody else about his own account only (SO_PEERCRED); the TCP side is read
//! only and knows two pages; whoever is not root cannot keep the engine busy.

pub mod alarms;
mod drop_routes;
pub mod drops;
pub mod hub;
mod observed;
pub mod peer;
mod rung_routes;
pub mod sources;
pub mod throttles;
pub mod view;

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, body::Body};
use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::sync::broadcast::error::RecvError;

use crate::engine::command::{Command, CommandError, Handle};
use crate::filter::{self, FilterError};
use crate::metrics::{self, Metrics};
use hub::Hub;
use peer::Peer;
use view::{ErrorBody, Event, LockRequest, UnlockRequest};

/// Requests of people other than root that are answered at once.
const OTHERS: usize = 2;

/// What every handler needs.
#[derive(Clone)]
pub struct Context {
    /// The way to the engine.
    pub engine: Handle,
    /// The way to the filter.
    pub filter: filter::Handle,
    /// Events to look on.
    pub hub: Arc<Hub>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Alarms of tampering.
    pub alarms: crate::tamper::Handle,
    others: Arc<Semaphore>,
}

impl Context {
    /// A context for both servers.
    #[must_use]
    pub fn new(engine: Handle, filter: filter::Handle, hub: Arc<Hub>, metrics: Arc<Metrics>) -> Self {
        let alarms = crate::tamper::Handle::default();
        Self { engine, filter, hub, metrics, alarms, others: Arc::new(Semaphore::new(OTHERS)) }
    }

    /// With the alarms of a task that looks for tampering.
    #[must_use]
    pub fn with_alarms(self, alarms: crate::tamper::Handle) -> Self {
        Self { alarms, ..self }
    }
}

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
enum ApiError {
    #[error("only root may do that: use sudo")]
    NotPermitted,
    #[error("too many requests: try again")]
    TooMany,
    #[error("the request is not understood: {0}")]
    Body(#[from] JsonRejection),
    #[error(transparent)]
    Engine(#[from] CommandError),
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error("{0}")]
    Word(String),
    #[error("the metrics page could not be written")]
    Page,
    #[error("no such page")]
    NoPage,
    #[error("this page can only be read (GET)")]
    Method,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::NotPermitted => StatusCode::FORBIDDEN,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Body(_) | Self::Word(_) => StatusCode::BAD_REQUEST,
            Self::Engine(CommandError::NoSuchAccount(_)) | Self::NoPage => StatusCode::NOT_FOUND,
            Self::Engine(CommandError::Config(_)) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Engine(CommandError::Exempt(_) | CommandError::Monitor(_)) => StatusCode::CONFLICT,
            Self::Filter(FilterError::NotDropped(_) | FilterError::NoThrottle(_)) => StatusCode::NOT_FOUND,
            Self::Filter(
                FilterError::Refused { .. } | FilterError::NotThrottled { .. } | FilterError::Off,
            ) => StatusCode::CONFLICT,
            Self::Filter(FilterError::Unavailable)
            | Self::Engine(CommandError::Unavailable | CommandError::Gate(_)) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Filter(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Engine(CommandError::Failed(_)) | Self::Page => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
        };
        (status, Json(ErrorBody { error: self.to_string() })).into_response()
    }
}

type PeerInfo = ConnectInfo<Peer>;
type Answer = Result<Response, ApiError>;

/// The routes of the unix socket.
pub fn socket(context: Context) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/accounts", get(accounts))
        .route("/v1/accounts/{uid}/explain", get(explain))
        .route("/v1/events", get(events))
        .route("/v1/lock", post(lock))
        .route("/v1/unlock", post(unlock))
        .route("/v1/reload", post(reload))
        .route("/v1/config", get(config))
        .route("/v1/metrics", get(socket_metrics))
        .merge(alarms::routes())
        .merge(drop_routes::routes())
        .merge(throttles::routes())
        .merge(rung_routes::routes())
        .merge(sources::routes())
        .merge(observed::routes())
        .fallback(async || ApiError::NoPage)
        .method_not_allowed_fallback(async || ApiError::Method)
        .with_state(context)
}

/// The routes of the TCP side.
pub fn http(context: Context) -> Router {
    Router::new()
        .route("/metrics", get(page))
        .route("/healthz", get(health))
        .fallback(async || ApiError::NoPage)
        .method_not_allowed_fallback(async || ApiError::Method)
        .with_state(context)
}

fn root(ConnectInfo(peer): &PeerInfo) -> Result<(), ApiError> {
    if peer.is_root() { Ok(()) } else { Err(ApiError::NotPermitted) }
}

async fn status(State(context): State<Context>, from: PeerInfo) -> Answer {
    root(&from)?;
    let mut status = context.engine.ask(Command::Status).await?;
    status.filter = context.filter.ask(filter::Command::Show).await.ok();
    status.alarms = context.alarms.alarms();
    status.observer = Some(context.metrics.observer().view());
    Ok(Json(status).into_response())
}

async fn accounts(State(context): State<Context>, from: PeerInfo) -> Answer {
    root(&from)?;
    Ok(Json(context.engine.ask(Command::Accounts).await?).into_response())
}

async fn explain(State(context): State<Context>, Path(uid): Path<u32>, from: PeerInfo) -> Answer {
    let ConnectInfo(peer) = from;
    if !peer.may_see(uid) {
        return Err(ApiError::NotPermitted);
    }
    let _permit = if peer.is_root() {
        None
    } else {
        Some(context.others.try_acquire().map_err(|_| ApiError::TooMany)?)
    };
    let mut answer = context.engine.ask(|reply| Command::Explain(uid, reply)).await?;
    observed::chains(&context, &mut answer);
    Ok(Json(*answer).into_response())
}

async fn lock(
    State(context): State<Context>,
    from: PeerInfo,
    body: Result<Json<LockRequest>, JsonRejection>,
) -> Answer {
    root(&from)?;
    let Json(LockRequest { uid, seconds }) = body?;
    let done = context.engine.ask(|reply| Command::Lock { uid, seconds, reply }).await?;
    Ok(Json(done).into_response())
}

async fn unlock(
    State(context): State<Context>,
    from: PeerInfo,
    body: Result<Json<UnlockRequest>, JsonRejection>,
) -> Answer {
    root(&from)?;
    let Json(UnlockRequest { uid }) = body?;
    Ok(Json(context.engine.ask(|reply| Command::Unlock { uid, reply }).await?).into_response())
}

async fn reload(State(context): State<Context>, from: PeerInfo) -> Answer {
    root(&from)?;
    let done = context.engine.ask(Command::Reload).await?;
    context.alarms.reloaded().await;
    Ok(Json(done).into_response())
}

async fn config(State(context): State<Context>, from: PeerInfo) -> Answer {
    root(&from)?;
    Ok(Json(context.engine.ask(Command::Config).await?).into_response())
}

async fn socket_metrics(State(context): State<Context>, from: PeerInfo) -> Answer {
    root(&from)?;
    page(State(context)).await
}

/// Whether to go on after what is known already.
#[derive(Debug, Deserialize)]
struct Follow {
    #[serde(default)]
    follow: bool,
}

async fn events(State(context): State<Context>, from: PeerInfo, Query(query): Query<Follow>) -> Answer {
    root(&from)?;
    let body = if query.follow {
        let stream = futures_util::stream::unfold(context.hub.subscribe(), async |mut receiver| {
            let event = match receiver.recv().await {
                Ok(event) => line(&event),
                Err(RecvError::Lagged(count)) => line(&missed(count)),
                Err(RecvError::Closed) => return None,
            };
            Some((Ok::<_, Infallible>(event), receiver))
        });
        Body::from_stream(stream)
    } else {
        Body::from(context.hub.recent().iter().map(|event| line(event)).collect::<Vec<_>>().concat())
    };
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// Says that a reader was too slow.
fn missed(count: u64) -> Event {
    let mut event = Event::new(jiff::Timestamp::now(), "missed");
    event.detail = Some(format!("{count} events were not read in time"));
    event
}

fn line(event: &Event) -> Bytes {
    let mut text = serde_json::to_vec(event).unwrap_or_default();
    text.push(b'\n');
    Bytes::from(text)
}

async fn page(State(context): State<Context>) -> Answer {
    // Old numbers are better than none.
    if let Err(error) = context.engine.ask(Command::Scrape).await {
        log::debug!("metrics are not up to date: {error}");
    }
    if let Ok(view) = context.filter.ask(filter::Command::Show).await {
        context.metrics.filter(view);
    }
    let page = context.metrics.page().map_err(|_| ApiError::Page)?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], page).into_response())
}

/// One line for a prober: the agent works and the gate answers, or what is wrong.
async fn health(State(context): State<Context>) -> Response {
    match context.engine.ask(Command::Health).await {
        Ok(()) => "ok\n".into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}
