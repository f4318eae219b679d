//! What the API says of throttles, as JSON, and its routes on the unix socket.
//!
//! Invariants: as in [`super::drop_routes`].

use std::net::IpAddr;

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use jiff::Timestamp;
use portcullis_policy::Boot;
use serde::{Deserialize, Serialize};

use super::drop_routes::end_of;
use super::view::Until;
use super::{Answer, ApiError, Context, PeerInfo, root};
use crate::clock;
use crate::filter::throttle::{HeldThrottle, Rate, Target, Throttle};
use crate::filter::{self, Asker, Cause};

/// A throttle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThrottleView {
    /// Network, port or interface.
    pub target: String,
    /// As `1000pps`.
    pub rate: String,
    /// `packets`, `bytes`, `syns`, `flows`.
    pub unit: String,
    /// Units a second.
    pub per_second: u64,
    /// Units at once.
    pub burst: u64,
    /// Until when.
    pub until: Until,
    /// `administrator`, `policy`.
    pub cause: String,
    /// Why, in words.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// Its number: samples name it.
    pub rule: u32,
    /// Packets that passed.
    pub passed: u64,
    /// Packets that were held back.
    pub limited: u64,
    /// Bytes that passed.
    pub passed_bytes: u64,
    /// Bytes that were held back.
    pub limited_bytes: u64,
}

/// Body of POST /v1/throttles.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThrottleRequest {
    /// Network, port or interface.
    pub target: String,
    /// As `1000pps`.
    pub rate: String,
    /// Units at once; absent: a quarter of a second's.
    #[serde(default)]
    pub burst: Option<String>,
    /// For how long; absent: until taken away.
    #[serde(default)]
    pub seconds: Option<u64>,
    /// Why, in words.
    #[serde(default)]
    pub reason: String,
    /// What only cuts off is no reason to refuse.
    #[serde(default)]
    pub force: bool,
    /// Where the sessions of the one who asks come from.
    #[serde(default)]
    pub sessions: Vec<IpAddr>,
}

/// Body of POST /v1/unthrottle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnthrottleRequest {
    /// Network, port or interface.
    pub target: String,
}

/// The routes.
pub(super) fn routes() -> Router<Context> {
    Router::new().route("/v1/throttles", get(list).post(give)).route("/v1/unthrottle", post(take))
}

fn view(held: &HeldThrottle) -> ThrottleView {
    let now = (clock::boot().unwrap_or(Boot(0)), Timestamp::now());
    let throttle = &held.throttle;
    ThrottleView {
        target: crate::text::escape(throttle.target.to_string().as_bytes()),
        rate: throttle.rate.to_string(),
        unit: throttle.rate.unit.word().to_owned(),
        per_second: throttle.rate.rate,
        burst: throttle.rate.burst,
        until: filter::wall_time(throttle.until, now.0, now.1).map_or(Until::Never, Until::At),
        cause: throttle.cause.word().to_owned(),
        reason: crate::text::escape(throttle.reason.as_bytes()),
        since: held.since,
        rule: u32::from(held.slot),
        passed: held.passed.0,
        limited: held.limited.0,
        passed_bytes: held.passed.1,
        limited_bytes: held.limited.1,
    }
}

async fn list(State(context): State<Context>, from: PeerInfo) -> Answer {
    root(&from)?;
    let held = context.filter.ask(filter::Command::Throttles).await??;
    Ok(Json(held.iter().map(view).collect::<Vec<_>>()).into_response())
}

fn target(text: &str) -> Result<Target, ApiError> {
    text.parse().map_err(|error: filter::throttle::TargetError| ApiError::Word(error.to_string()))
}

async fn give(
    State(context): State<Context>,
    from: PeerInfo,
    body: Result<Json<ThrottleRequest>, JsonRejection>,
) -> Answer {
    root(&from)?;
    let Json(request) = body?;
    let rate = Rate::read(&request.rate, request.burst.as_deref())
        .map_err(|error| ApiError::Word(error.to_string()))?;
    let throttle = Throttle {
        target: target(&request.target)?,
        rate,
        until: end_of(request.seconds)?,
        cause: Cause::Administrator,
        reason: request.reason,
    };
    let asker = Asker { force: request.force, sessions: request.sessions };
    let held = context.filter.ask(|reply| filter::Command::Throttle { throttle, asker, reply }).await??;
    Ok(Json(view(&held)).into_response())
}

async fn take(
    State(context): State<Context>,
    from: PeerInfo,
    body: Result<Json<UnthrottleRequest>, JsonRejection>,
) -> Answer {
    root(&from)?;
    let Json(request) = body?;
    let target = target(&request.target)?;
    let held = context.filter.ask(|reply| filter::Command::Unthrottle { target, reply }).await??;
    Ok(Json(held.iter().map(view).collect::<Vec<_>>()).into_response())
}
