//! Sources on the unix socket: what they did, what is done about them, what other programs report.
//!
//! Invariants: root alone; what is reported is judged here, names are looked up as they are and addresses never resolved.

use std::net::IpAddr;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::view::Actor;
use super::{Answer, ApiError, Context, PeerInfo, root};
use crate::engine::command::Command;

/// A row of `portcullis sources`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRow {
    /// Who.
    pub actor: Actor,
    /// Failures in the window.
    pub failures: u32,
    /// Different accounts among them.
    pub accounts: u32,
    /// Different names among those that nobody has.
    pub unknown_names: u32,
    /// Different accounts entered in the window.
    pub logons: u32,
    /// Failures that trip it now.
    pub deny: u32,
    /// Trips since the gate first saw it.
    pub trips: u32,
    /// What its last trip was for: `guess`, `spray`, `local`, `network`.
    pub class: Option<String>,
    /// What it did then, in words.
    pub why: Option<String>,
    /// Answers so far, less those forgotten.
    pub repeats: u32,
    /// Whether it is dropped or refused now.
    pub answered: bool,
    /// Until when it is, or was; in monitor mode, would be.
    pub until: Option<Timestamp>,
    /// Whether something was done, or only told.
    pub acted: bool,
}

/// Body of POST /v1/report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportRequest {
    /// Address it came from.
    pub source: IpAddr,
    /// Uid that was tried; absent: not known, or nobody's.
    #[serde(default)]
    pub account: Option<u32>,
    /// Which service saw it.
    pub service: String,
    /// Whether the logon succeeded.
    pub pass: bool,
}

/// The routes.
pub(super) fn routes() -> Router<Context> {
    Router::new()
        .route("/v1/sources", get(list))
        .route("/v1/sources/{address}", get(explain))
        .route("/v1/report", post(report))
}

async fn list(State(context): State<Context>, from: PeerInfo) -> Answer {
    root(&from)?;
    Ok(Json(context.engine.ask(Command::Sources).await?).into_response())
}

async fn explain(State(context): State<Context>, Path(address): Path<IpAddr>, from: PeerInfo) -> Answer {
    root(&from)?;
    let row = context.engine.ask(|reply| Command::Source(address, reply)).await?;
    Ok(Json(row).into_response())
}

async fn report(
    State(context): State<Context>,
    from: PeerInfo,
    body: Result<Json<ReportRequest>, JsonRejection>,
) -> Answer {
    root(&from)?;
    let Json(report) = body.map_err(ApiError::from)?;
    Ok(Json(context.engine.ask(|reply| Command::Report(report, reply)).await?).into_response())
}
