//! Execs over HTTP, for programs: the WebSocket protocol of `pods/exec` (`v5.channel.k8s.io`), and a scene of the test's in place of the runner.

use futures::{SinkExt as _, StreamExt as _};
use guardian_hook::protocol::{Outcome, PROTOCOL, Request as RunRequest, RunResult, Streamed, Tail};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde_json::{Value, json};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::api::{Answer, Api};

/// The channels of the protocol.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STATUS: u8 = 3;

/// What the runner of a pod does with one request.
#[derive(Clone, Debug)]
pub struct Scene {
    /// What it says before its end.
    pub says: Vec<Streamed>,
    /// How it ends.
    pub curtain: Curtain,
}

/// How a scene ends.
#[derive(Clone, Debug)]
pub enum Curtain {
    /// With an outcome, and the end of standard output in it.
    Outcome(RunResult, &'static str),
    /// There is no runner in the container.
    NoRunner,
    /// The connection is lost.
    Cut,
    /// Not before the caller goes.
    Never,
}

/// The pod in which an exec is asked for, if that is what is asked for.
pub(crate) fn asked(request: &Request<Incoming>) -> Option<String> {
    let mut path = request.uri().path().rsplit('/');
    let is_exec = path.next() == Some("exec") && request.headers().contains_key(SEC_WEBSOCKET_KEY);
    path.next().filter(|_| is_exec).map(str::to_owned)
}

/// The answer that makes a WebSocket of the connection.
pub(crate) fn switching(request: &Request<Incoming>) -> Answer {
    let key = request.headers().get(SEC_WEBSOCKET_KEY).map(http::HeaderValue::as_bytes).unwrap_or_default();
    let answer = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).header(UPGRADE, "websocket");
    let answer = answer.header(CONNECTION, "Upgrade").header(SEC_WEBSOCKET_ACCEPT, derive_accept_key(key));
    let answer = answer.header(SEC_WEBSOCKET_PROTOCOL, "v5.channel.k8s.io");
    answer.body(Empty::new().boxed_unsync()).expect("a response")
}

/// Reads the request, and plays the next scene.
pub(crate) async fn play(api: Api, pod: String, upgrade: OnUpgrade) {
    let Ok(upgraded) = upgrade.await else { return };
    let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
    let mut stdin = Vec::new();
    let request = loop {
        if let Some(request) = framed(&stdin) {
            break request;
        }
        match socket.next().await {
            Some(Ok(Message::Binary(bytes))) if bytes.first() == Some(&STDIN) => stdin.extend_from_slice(&bytes[1..]),
            Some(Ok(_)) => {}
            // Whoever asked is gone.
            _ => return,
        }
    };
    let run_id = request.run_id.clone();
    let Scene { says, curtain } = api.next_scene(&pod, request);
    let mut messages: Vec<Message> = says.iter().map(|said| message(STDOUT, &line(said))).collect();
    match &curtain {
        Curtain::Outcome(result, text) => {
            let stdout = Tail { text: (*text).to_owned(), dropped: 0 };
            let result = result.clone();
            let outcome =
                Outcome { version: PROTOCOL, run_id, result, duration_ms: 1234, stdout, stderr: Tail::default(), survivors: 0 };
            messages.push(message(STDOUT, &line(&outcome)));
            messages.push(message(STATUS, json!({"status": "Success"}).to_string().as_bytes()));
        }
        Curtain::NoRunner => {
            let why = "exec: \"/guardian/guardian-hook\": stat /guardian/guardian-hook: no such file or directory";
            messages.push(message(STATUS, failure(why).to_string().as_bytes()));
        }
        Curtain::Cut | Curtain::Never => {}
    }
    let stays = matches!(curtain, Curtain::Never);
    for message in messages {
        // Whoever asked may be gone.
        if socket.send(message).await.is_err() {
            return;
        }
    }
    while stays && matches!(socket.next().await, Some(Ok(_))) {}
    if !matches!(curtain, Curtain::Cut) {
        let _ = socket.close(None).await;
    }
}

/// The request in a frame that is complete.
fn framed(bytes: &[u8]) -> Option<RunRequest> {
    let (length, json) = bytes.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    Some(serde_json::from_slice(json.get(..length)?).expect("a request"))
}

fn line(said: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(said).expect("JSON");
    line.push(b'\n');
    line
}

fn message(channel: u8, bytes: &[u8]) -> Message {
    Message::Binary([&[channel], bytes].concat().into())
}

fn failure(why: &str) -> Value {
    json!({"status": "Failure", "message": why, "reason": "InternalError"})
}
