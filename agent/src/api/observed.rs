//! What the observer saw, on the unix socket: programs, and who was behind an attempt.
//!
//! Invariant: root alone sees programs; chains go with the attempts that the asker may see.

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use bytes::Bytes;
use tokio::sync::broadcast::error::RecvError;

use super::view::{Actor, Explain};
use super::{Answer, Context, Follow, PeerInfo, root};
use crate::observer::ProcessView;

/// The routes.
pub(super) fn routes() -> Router<Context> {
    Router::new().route("/v1/observed", get(observed))
}

/// Says of each attempt by a local user which programs led to it.
pub(super) fn chains(context: &Context, answer: &mut Explain) {
    for attempt in &mut answer.attempts {
        if let Actor::Local { uid, .. } = &attempt.actor {
            attempt.chain = context.metrics.observer().chain(&attempt.service, *uid, attempt.time);
        }
    }
}

async fn observed(State(context): State<Context>, from: PeerInfo, Query(query): Query<Follow>) -> Answer {
    root(&from)?;
    let observer = context.metrics.observer();
    let body = if query.follow {
        let stream = futures_util::stream::unfold(observer.subscribe(), async |mut receiver| {
            loop {
                match receiver.recv().await {
                    Ok(seen) => return Some((Ok::<_, Infallible>(line(&seen)), receiver)),
                    // Those that were missed are in the list.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            }
        });
        Body::from_stream(stream)
    } else {
        Body::from(observer.recent().iter().map(line).collect::<Vec<_>>().concat())
    };
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

fn line(seen: &ProcessView) -> Bytes {
    let mut text = serde_json::to_vec(seen).unwrap_or_default();
    text.push(b'\n');
    Bytes::from(text)
}
