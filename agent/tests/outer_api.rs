//! The API's routes against an engine that answers by rote: who may ask what, and what errors look like.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;
use portcullis_agent::api::hub::Hub;
use portcullis_agent::api::peer::Peer;
use portcullis_agent::api::view::{Done, ErrorBody, Event};
use portcullis_agent::api::{self, Context};
use portcullis_agent::engine::command::{Command, CommandError, Handle};
use portcullis_agent::metrics::{CONTENT_TYPE, Metrics};
use tower::ServiceExt;

const ROOT: Peer = Peer(Some(0));
const JON: Peer = Peer(Some(2002));

struct Agent {
    context: Context,
    hub: Arc<Hub>,
    asked: Arc<AtomicUsize>,
}

/// An engine that refuses configurations, knows no account, and does what else it is asked.
fn agent() -> Agent {
    let (handle, mut commands) = Handle::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let hub = Arc::new(Hub::default());
    let context = Context::new(
        handle,
        portcullis_agent::filter::Handle::new().0,
        Arc::clone(&hub),
        Arc::new(Metrics::default()),
    );
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Some(command) = commands.recv().await {
            count.fetch_add(1, Ordering::SeqCst);
            match command {
                Command::Explain(uid, reply) => {
                    reply.send(Err(CommandError::NoSuchAccount(uid))).unwrap();
                }
                Command::Reload(reply) => {
                    reply.send(Err(CommandError::Config("line 7: deny".to_owned()))).unwrap();
                }
                Command::Accounts(reply) => reply.send(Ok(Vec::new())).unwrap(),
                Command::Config(reply) => reply.send(Ok(serde_json::json!({}))).unwrap(),
                Command::Scrape(reply) => reply.send(Ok(())).unwrap(),
                Command::Health(reply) if count.load(Ordering::SeqCst) < 3 => reply.send(Ok(())).unwrap(),
                Command::Health(reply) => reply.send(Err(CommandError::Gate("no gate".to_owned()))).unwrap(),
                Command::Unlock { uid, reply } => {
                    let message = format!("uid {uid} is unlocked");
                    reply.send(Ok(Done { row: None, message, problems: Vec::new() })).unwrap();
                }
                Command::Lock { reply, .. } => {
                    reply.send(Err(CommandError::Exempt("admin".to_owned()))).unwrap();
                }
                other => panic!("not expected: {other:?}"),
            }
        }
    });
    Agent { context, hub, asked }
}

impl Agent {
    async fn ask(&self, peer: Peer, method: &str, page: &str, body: &str) -> (StatusCode, Vec<u8>) {
        let mut request = Request::builder()
            .method(method)
            .uri(page)
            .header("content-type", "application/json")
            .body(Body::from(body.to_owned()))
            .unwrap();
        request.extensions_mut().insert(ConnectInfo(peer));
        let answer = api::socket(self.context.clone()).oneshot(request).await.unwrap();
        let status = answer.status();
        (status, answer.into_body().collect().await.unwrap().to_bytes().to_vec())
    }

    async fn refused(&self, peer: Peer, method: &str, page: &str, body: &str) -> (StatusCode, String) {
        let (status, body) = self.ask(peer, method, page, body).await;
        (status, serde_json::from_slice::<ErrorBody>(&body).unwrap().error)
    }
}

#[tokio::test]
async fn others_than_root_reach_the_engine_for_their_own_account_only() {
    let agent = agent();
    for (method, page, body) in [
        ("GET", "/v1/status", ""),
        ("GET", "/v1/accounts", ""),
        ("GET", "/v1/accounts/0/explain", ""),
        ("GET", "/v1/accounts/2001/explain", ""),
        ("GET", "/v1/events", ""),
        ("GET", "/v1/events?follow=true", ""),
        ("GET", "/v1/config", ""),
        ("GET", "/v1/metrics", ""),
        ("POST", "/v1/lock", "{\"uid\":2002}"),
        ("POST", "/v1/unlock", "{\"uid\":2002}"),
        ("POST", "/v1/reload", "{}"),
    ] {
        for peer in [JON, Peer(None)] {
            let (status, _) = agent.refused(peer, method, page, body).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{method} {page} by {peer:?}");
        }
    }
    assert_eq!(agent.asked.load(Ordering::SeqCst), 0);
    let (status, _) = agent.refused(JON, "GET", "/v1/accounts/2002/explain", "").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(agent.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn root_is_answered_with_what_the_engine_says() {
    let agent = agent();
    let (status, body) = agent.ask(ROOT, "POST", "/v1/unlock", "{\"uid\":2002}").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(serde_json::from_slice::<Done>(&body).unwrap().message, "uid 2002 is unlocked");
    assert_eq!(agent.ask(ROOT, "GET", "/v1/accounts", "").await, (StatusCode::OK, b"[]".to_vec()));
    let (status, error) = agent.refused(ROOT, "POST", "/v1/reload", "{}").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(error.contains("line 7: deny"), "{error}");
    let (status, error) = agent.refused(ROOT, "POST", "/v1/lock", "{\"uid\":2003}").await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(error.contains("exempt"), "{error}");
}

#[tokio::test]
async fn requests_that_make_no_sense_never_reach_the_engine() {
    let agent = agent();
    for body in
        ["", "{}", "{\"uid\":-1}", "{\"uid\":4294967296}", "{\"uid\":1,\"x\":2}", "[", "{\"uid\":\"jon\"}"]
    {
        let (status, error) = agent.refused(ROOT, "POST", "/v1/unlock", body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}: {error}");
    }
    assert_eq!(agent.refused(ROOT, "GET", "/v1/unlock", "").await.0, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(agent.refused(ROOT, "GET", "/v2/status", "").await.0, StatusCode::NOT_FOUND);
    assert_eq!(agent.ask(ROOT, "GET", "/v1/accounts/jon/explain", "").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(agent.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn recent_events_are_told_oldest_first() {
    let agent = agent();
    for name in ["fail", "tripped"] {
        agent.hub.tell(Event::new(jiff::Timestamp::UNIX_EPOCH, name));
    }
    let (status, body) = agent.ask(ROOT, "GET", "/v1/events", "").await;
    assert_eq!(status, StatusCode::OK);
    let names: Vec<String> = body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice::<Event>(line).unwrap().event)
        .collect();
    assert_eq!(names, ["fail", "tripped"]);
}

#[tokio::test]
async fn a_follower_that_falls_behind_is_told_how_many_it_missed() {
    let agent = agent();
    let mut request = Request::builder().uri("/v1/events?follow=true").body(Body::empty()).unwrap();
    request.extensions_mut().insert(ConnectInfo(ROOT));
    let answer = api::socket(agent.context.clone()).oneshot(request).await.unwrap();
    for _ in 0..10_000 {
        agent.hub.tell(Event::new(jiff::Timestamp::UNIX_EPOCH, "fail"));
    }
    let frame = answer.into_body().frame().await.unwrap().unwrap().into_data().unwrap();
    let event: Event = serde_json::from_slice(&frame).unwrap();
    assert_eq!(event.event, "missed");
    assert_eq!(event.detail.unwrap(), "5904 events were not read in time");
}

#[tokio::test]
async fn the_tcp_side_is_read_only() {
    let agent = agent();
    let ask = async |method: &str, page: &str| {
        let request = Request::builder().method(method).uri(page).body(Body::empty()).unwrap();
        api::http(agent.context.clone()).oneshot(request).await.unwrap()
    };
    let page = ask("GET", "/metrics").await;
    assert_eq!(page.status(), StatusCode::OK);
    assert_eq!(page.headers().get("content-type").unwrap(), CONTENT_TYPE);
    let health = ask("GET", "/healthz").await;
    assert_eq!(health.status(), StatusCode::OK);
    assert_eq!(health.into_body().collect().await.unwrap().to_bytes(), "ok\n");
    // The engine by rote has no gate from here on.
    let health = ask("GET", "/healthz").await;
    assert_eq!(health.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(health.into_body().collect().await.unwrap().to_bytes(), "no gate\n");
    assert_eq!(ask("POST", "/metrics").await.status(), StatusCode::METHOD_NOT_ALLOWED);
    for page in ["/", "/v1/status", "/v1/unlock", "/metrics/../v1/status"] {
        assert_eq!(ask("GET", page).await.status(), StatusCode::NOT_FOUND, "{page}");
    }
}
