//! The control API over DWCP, for certificates that `control.allow` names: the same requests as over the socket, each on a
//! stream of its own.

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    http::{Request, header::CONTENT_TYPE},
};
use dwcp_core::{Connection, IncomingMessage, RecvStream, SendStream};
use novacron_control::{
    Answer, CALL_BYTES_MAX, Call, Control, STREAMS_MAX, StatusCode, read_to_end, schema::Refusal,
};
use novacron_trace::TRACEPARENT;
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use crate::{agent::Inner, control};

/// A request came over DWCP: its author cannot read what this machine's root can.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FromAfar;

/// Whether this, sent first, asks for control.
pub(crate) fn is_asked_for(first: &[u8]) -> bool {
    serde_json::from_slice::<Control>(first).is_ok()
}

/// Answers until the connection ends.
pub(crate) async fn serve(agent: Arc<Inner>, connection: &Connection, first: IncomingMessage) {
    let Some(responder) = first.responder else { return };
    let refused = refused(&agent.settings.control_allow, &connection.peer().names, &first.payload);
    let answer = match &refused {
        Some(error) => serde_json::to_vec(&Refusal { error: error.clone() }),
        None => serde_json::to_vec(&Control { control: 1 }),
    };
    let _ = responder.respond(Bytes::from(answer.expect("texts and numbers are JSON")));
    let (addr, names) = (connection.peer().addr, connection.peer().names.join(", "));
    if let Some(why) = refused {
        tracing::warn!(%addr, names, why, "control refused");
        // It reads the answer, and goes.
        connection.closed().await;
        return;
    }
    tracing::info!(%addr, names, "controlled");
    let router = control::router(agent);
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            stream = connection.accept_stream(), if calls.len() < STREAMS_MAX => match stream {
                Ok(stream) => drop(calls.spawn(answer_one(router.clone(), stream))),
                Err(_) => break,
            },
            Some(_) = calls.join_next() => {}
        }
    }
}

/// Why not, if so.
fn refused(allowed: &[String], names: &[String], first: &[u8]) -> Option<String> {
    if !names.iter().any(|name| allowed.contains(name)) {
        return Some(match names.is_empty() {
            true => "without a certificate nobody controls this agent".to_owned(),
            false => format!("control.allow of this agent names none of {}", names.join(", ")),
        });
    }
    match serde_json::from_slice::<Control>(first) {
        Ok(Control { control: 1 }) => None,
        _ => Some("this agent speaks version 1 of control".to_owned()),
    }
}

async fn answer_one(router: Router, (mut answering, mut asking): (SendStream, RecvStream)) {
    let answer = match read(&mut asking).await {
        Ok(call) => answer_to(router, call).await,
        Err(error) => refusal(StatusCode::BAD_REQUEST, error),
    };
    let answer = serde_json::to_vec(&answer).expect("it was JSON");
    if answering.write_bytes(Bytes::from(answer)).await.is_ok() && answering.finish().is_ok() {
        let _ = answering.acknowledged().await;
    }
}

async fn read(asking: &mut RecvStream) -> Result<Call, String> {
    let call = read_to_end(asking, CALL_BYTES_MAX).await?;
    serde_json::from_slice(&call).map_err(|error| format!("no call: {error}"))
}

async fn answer_to(router: Router, call: Call) -> Answer {
    let body = call.body.map_or(Body::empty(), |body| Body::from(body.to_string()));
    let mut request = Request::builder()
        .method(&*call.method)
        .uri(call.path)
        .header(CONTENT_TYPE, "application/json")
        .extension(FromAfar);
    if let Some(traceparent) = call.traceparent {
        request = request.header(TRACEPARENT, traceparent);
    }
    let request = request.body(body);
    let request = match request {
        Ok(request) => request,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, error.to_string()),
    };
    // A router answers always.
    let Ok(response) = router.oneshot(request).await;
    let status = response.status();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap_or_default();
    match body.is_empty() {
        true => Answer { status: status.as_u16(), body: serde_json::Value::Null },
        false => match serde_json::from_slice(&body) {
            Ok(body) => Answer { status: status.as_u16(), body },
            // What answers before a request has reached its handler has no more than text.
            Err(_) if !status.is_success() => refusal(status, String::from_utf8_lossy(&body).into_owned()),
            Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        },
    }
}

fn refusal(status: StatusCode, error: String) -> Answer {
    let body = serde_json::to_value(Refusal { error }).expect("texts are JSON");
    Answer { status: status.as_u16(), body }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_certificates_count_and_nobody_by_default() {
        let name = |name: &str| vec![name.to_owned()];
        let hello = br#"{"control":1}"#;
        assert_eq!(refused(&name("api"), &name("api"), hello), None);
        for (allowed, names, first, why) in [
            (vec![], name("api"), &hello[..], "control.allow"),
            (vec![], vec![], hello, "without a certificate"),
            (name("api"), vec![], hello, "without a certificate"),
            (name("api"), name("ap"), hello, "names none of ap"),
            (name("api"), name("api"), br#"{"control":2}"#, "version 1"),
        ] {
            let refused = refused(&allowed, &names, first).expect(why);
            assert!(refused.contains(why), "{refused}");
        }
    }

    #[test]
    fn greetings_ask_for_nothing() {
        assert!(is_asked_for(br#"{"control":9}"#));
        for first in [&b""[..], b"{}", br#"{"node_id":"a"}"#, br#"{"control":1,"node_id":"a"}"#] {
            assert!(!is_asked_for(first));
        }
    }
}
