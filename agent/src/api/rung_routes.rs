//! The API of modes and breaker, on the unix socket.
//!
//! Invariant: root alone.

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use portcullis_policy::breaker::Override;

use super::view::{BreakerRequest, ModeRequest};
use super::{Answer, Context, PeerInfo, root};
use crate::engine::command::{Command, CommandError};

/// The routes.
pub(super) fn routes() -> Router<Context> {
    Router::new().route("/v1/mode", post(mode)).route("/v1/breaker", get(breaker).post(set_breaker))
}

async fn mode(
    State(context): State<Context>,
    from: PeerInfo,
    body: Result<Json<ModeRequest>, JsonRejection>,
) -> Answer {
    root(&from)?;
    let Json(asked) = body?;
    Ok(Json(context.engine.ask(|reply| Command::Mode(asked, reply)).await?).into_response())
}

async fn breaker(State(context): State<Context>, from: PeerInfo) -> Answer {
    root(&from)?;
    Ok(Json(context.engine.ask(|reply| Command::Breaker(None, reply)).await?).into_response())
}

async fn set_breaker(
    State(context): State<Context>,
    from: PeerInfo,
    body: Result<Json<BreakerRequest>, JsonRejection>,
) -> Answer {
    root(&from)?;
    let Json(BreakerRequest { breaker }) = body?;
    let wish = match breaker.as_str() {
        "open" => Override::Open,
        "close" => Override::Closed,
        "auto" => Override::Auto,
        other => {
            let other = crate::text::escape(other.as_bytes());
            let text = format!("the breaker can be open, close or auto, not {other}");
            return Err(CommandError::Config(text).into());
        }
    };
    Ok(Json(context.engine.ask(|reply| Command::Breaker(Some(wish), reply)).await?).into_response())
}
