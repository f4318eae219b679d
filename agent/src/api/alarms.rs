//! The API of alarms, on the unix socket.
//!
//! Invariants: root alone; as in [`super::view`].

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::view::Done;
use super::{Answer, Context, PeerInfo, root};
use crate::tamper::Kind;
use crate::tamper::book::Alarm;

/// An alarm that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmView {
    /// Its number.
    pub id: u64,
    /// Its kind: the name of its event.
    pub kind: String,
    /// The file, pin or interface, or the PAM finding.
    pub about: String,
    /// Since when.
    pub since: Timestamp,
    /// What is wrong.
    pub detail: String,
    /// Who did it; absent where it is not known.
    pub who: Option<String>,
}

impl AlarmView {
    /// For people and programs.
    #[must_use]
    pub fn of(kind: Kind, about: &str, alarm: &Alarm) -> Self {
        Self {
            id: alarm.id,
            kind: kind.word().to_owned(),
            about: about.to_owned(),
            since: alarm.since,
            detail: alarm.wrong.detail.clone(),
            who: alarm.wrong.who.clone(),
        }
    }
}

/// Body of POST /v1/alarms/ack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AckRequest {
    /// Which; absent: all.
    #[serde(default)]
    pub id: Option<u64>,
}

/// Body of POST /v1/alarms/pins: `portcullisd gate` replaces pins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinsRequest {
    /// Whether it is done, or about to begin.
    pub done: bool,
}

/// The routes.
pub(super) fn routes() -> Router<Context> {
    Router::new()
        .route("/v1/alarms", get(alarms))
        .route("/v1/alarms/ack", post(acknowledge))
        .route("/v1/alarms/pins", post(pins))
}

async fn alarms(State(context): State<Context>, from: PeerInfo) -> Answer {
    root(&from)?;
    Ok(Json(context.alarms.alarms()).into_response())
}

async fn acknowledge(
    State(context): State<Context>,
    from: PeerInfo,
    body: Result<Json<AckRequest>, JsonRejection>,
) -> Answer {
    root(&from)?;
    let Json(AckRequest { id }) = body?;
    let count = context.alarms.note(id);
    let message = format!("alarms acknowledged: {count}");
    log::warn!("{message}");
    let problems = match id {
        Some(id) if count == 0 => vec![format!("no alarm {id} is open: see portcullis alarms")],
        _ => Vec::new(),
    };
    Ok(Json(Done { row: None, message, problems }).into_response())
}

async fn pins(
    State(context): State<Context>,
    from: PeerInfo,
    body: Result<Json<PinsRequest>, JsonRejection>,
) -> Answer {
    root(&from)?;
    let Json(PinsRequest { done }) = body?;
    log::warn!("pins are replaced by portcullisd gate: {}", if done { "done" } else { "about to begin" });
    context.alarms.pins(done).await;
    Ok(Json(Done { row: None, message: String::new(), problems: Vec::new() }).into_response())
}
