//! The API of the filter, on the unix socket.
//!
//! Invariants: root alone; a list is bounded; what was asked is judged again here, whoever checked it before.

use std::convert::Infallible;

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router, body::Body};
use bytes::Bytes;
use portcullis_policy::Boot;
use tokio::sync::broadcast::error::RecvError;

use super::drops::{DropAnswer, DropRequest, DropView, Refused, UndropRequest};
use super::view::Until;
use super::{Answer, ApiError, Context, Follow, PeerInfo, root};
use crate::clock;
use crate::engine::command::Command;
use crate::filter::{self, Asker, Cause, FilterError, Held, Lease, Net};

/// Bytes of a request: a million networks.
const LARGEST: usize = 64 << 20;
/// Drops an answer shows one by one.
const SHOWN: usize = 100;
const SECOND: u64 = 1_000_000_000;
/// Ten years, as the configuration has it.
const LONGEST: u64 = 3_653 * 86_400;

/// The routes.
pub(super) fn routes() -> Router<Context> {
    Router::new()
        .route("/v1/drops", get(list).post(give))
        .route("/v1/undrop", post(take))
        .route("/v1/drops/samples", get(samples))
        .layer(DefaultBodyLimit::max(LARGEST))
}

/// A lease for people.
fn view(held: &Held) -> DropView {
    let now = (clock::boot().unwrap_or(Boot(0)), jiff::Timestamp::now());
    DropView {
        net: held.lease.net.to_string(),
        until: filter::wall_time(held.lease.until, now.0, now.1).map_or(Until::Never, Until::At),
        ports: held.lease.ports.clone(),
        cause: held.lease.cause.word().to_owned(),
        reason: crate::text::escape(held.lease.reason.as_bytes()),
        since: held.since,
        rule: held.rule,
        packets: held.packets,
    }
}

async fn list(State(context): State<Context>, from: PeerInfo) -> Answer {
    root(&from)?;
    let drops: Vec<DropView> = context.filter.list().await?.iter().map(view).collect();
    Ok(Json(drops).into_response())
}

/// Networks of a request; what is none is refused.
fn nets(texts: &[String]) -> (Vec<(usize, Net)>, Vec<Refused>) {
    let (mut nets, mut refused) = (Vec::new(), Vec::new());
    for (index, text) in texts.iter().enumerate() {
        match text.parse::<Net>() {
            Ok(net) => nets.push((index, net)),
            Err(error) => {
                let why = format!("{} {error}", crate::text::escape(text.as_bytes()));
                refused.push(Refused { index, why });
            }
        }
    }
    (nets, refused)
}

const fn cause(reported: bool) -> Cause {
    if reported { Cause::Reported } else { Cause::Administrator }
}

/// The end of a lease of so many seconds.
pub(super) fn end_of(seconds: Option<u64>) -> Result<Boot, FilterError> {
    let now = clock::boot().map_err(|error| FilterError::Kernel(error.to_string()))?;
    Ok(seconds.map_or(Boot::NEVER, |seconds| {
        Boot(now.0.saturating_add(seconds.clamp(1, LONGEST).saturating_mul(SECOND)))
    }))
}

async fn give(
    State(context): State<Context>,
    from: PeerInfo,
    body: Result<Json<DropRequest>, JsonRejection>,
) -> Answer {
    root(&from)?;
    let Json(request) = body?;
    let (nets, mut refused) = nets(&request.nets);
    if request.all_or_none && !refused.is_empty() {
        return Ok(Json(DropAnswer { refused, ..DropAnswer::default() }).into_response());
    }
    let until = end_of(request.seconds)?;
    let lease = |net| Lease {
        net,
        until,
        ports: request.ports.clone(),
        cause: cause(request.reported),
        reason: request.reason.clone(),
    };
    let leases: Vec<Lease> = nets.iter().map(|(_, net)| lease(*net)).collect();
    let asker = Asker { force: request.force, sessions: request.sessions.clone() };
    let answers = context.filter.give_as(leases, request.all_or_none, asker).await?;
    let mut answer = DropAnswer::default();
    for ((index, _), given) in nets.iter().zip(answers) {
        match given {
            Ok(given) => {
                answer.done += 1;
                answer.renewed += usize::from(given.renewed);
                answer.connections = given.connections;
                if answer.drops.len() < SHOWN {
                    answer.drops.push(view(&given.held));
                }
            }
            Err(error @ (FilterError::Off | FilterError::Unavailable)) => return Err(error.into()),
            Err(FilterError::Spared(_)) => {}
            Err(error) => refused.push(Refused { index: *index, why: error.to_string() }),
        }
    }
    refused.sort_by_key(|refused| refused.index);
    answer.refused = refused;
    Ok(Json(answer).into_response())
}

async fn take(
    State(context): State<Context>,
    from: PeerInfo,
    body: Result<Json<UndropRequest>, JsonRejection>,
) -> Answer {
    root(&from)?;
    let Json(request) = body?;
    let (nets, refused) = nets(&request.nets);
    let mut answer = DropAnswer { refused, ..DropAnswer::default() };
    let wanted: Vec<Net> = nets.iter().map(|(_, net)| *net).collect();
    let by = cause(request.reported);
    let answers = context.filter.ask(|reply| filter::Command::Take { nets: wanted, by, reply }).await?;
    let mut gone = Vec::new();
    for ((index, net), taken) in nets.iter().zip(answers) {
        if matches!(taken, Ok(_) | Err(FilterError::NotDropped(_))) {
            gone.push(*net);
        }
        match taken {
            Ok(held) => {
                answer.done += 1;
                if answer.drops.len() < SHOWN {
                    answer.drops.push(view(&held));
                }
            }
            Err(error @ (FilterError::Off | FilterError::Unavailable)) => return Err(error.into()),
            Err(error) => answer.refused.push(Refused { index: *index, why: error.to_string() }),
        }
    }
    if request.reported {
        return Ok(Json(answer).into_response());
    }
    // What the policy answers is not its to hold any more. It notices later, where the engine is stopping.
    let _ = context.engine.ask(|reply| Command::Released(gone, reply)).await;
    Ok(Json(answer).into_response())
}

/// Dropped packets as they come.
async fn samples(State(context): State<Context>, from: PeerInfo, Query(query): Query<Follow>) -> Answer {
    root(&from)?;
    if !query.follow {
        return Err(ApiError::NoPage);
    }
    let stream = futures_util::stream::unfold(context.filter.subscribe(), async |mut receiver| {
        loop {
            match receiver.recv().await {
                Ok(sample) => {
                    let mut line = serde_json::to_vec(&*sample).unwrap_or_default();
                    line.push(b'\n');
                    return Some((Ok::<_, Infallible>(Bytes::from(line)), receiver));
                }
                // They are samples.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(stream)).into_response())
}
