//! The lines that replicas print, for operators: `GET /system/logs`, in the shape of OpenFaaS.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body::Frame;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::admin::{Admin, Problem};
use crate::logs::{Line, Logs, Wanted};

/// Pieces that wait for a client that reads slowly.
const PIECES: usize = 16;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    name: String,
    #[serde(default)]
    follow: bool,
    /// RFC 3339.
    since: Option<String>,
    tail: Option<usize>,
    /// Only this replica: "square/3", or "3".
    instance: Option<String>,
    /// There is one only; OpenFaaS' client names it.
    #[serde(default, rename = "namespace")]
    _namespace: Option<String>,
}

#[derive(Serialize)]
struct Message<'a> {
    name: &'a str,
    instance: &'a str,
    timestamp: String,
    text: &'a str,
}

/// The last lines of a function as JSON, one object a line; with `follow`, those to come as well.
pub(crate) async fn logs(
    State(admin): State<Admin>,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let function = admin.plane.functions.read().get(&*asked.name).cloned();
    let Some(function) = function else { return Err(admin.unknown(&asked.name)) };
    let instance = asked.instance.map(|instance| match instance.parse::<u64>() {
        Ok(number) => format!("{}/{number}", asked.name),
        Err(_) => instance,
    });
    let wanted = Wanted { since: moment(asked.since.as_deref())?, tail: asked.tail, instance };
    let logs = Arc::clone(&function.logs);
    let (lines, next) = logs.read(&wanted);
    let (sender, receiver) = mpsc::channel(PIECES);
    if let Some(first) = piece(&logs, &lines) {
        // There is room for the first one.
        drop(sender.try_send(first));
    }
    if asked.follow {
        tokio::spawn(follow(logs, wanted, next, sender));
    }
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, axum::body::Body::new(Lines(receiver))).into_response())
}

fn moment(since: Option<&str>) -> Result<Option<SystemTime>, Problem> {
    let Some(since) = since.filter(|since| !since.is_empty()) else { return Ok(None) };
    let parsed = humantime::parse_rfc3339_weak(since);
    parsed.map(Some).map_err(|error| {
        let error = format!("since `{since}` is no moment such as 2026-01-31T12:00:00Z: {error}");
        Problem::new(StatusCode::BAD_REQUEST, error)
    })
}

/// Sends what comes until the client is gone.
async fn follow(logs: Arc<Logs>, wanted: Wanted, mut next: u64, sender: mpsc::Sender<Bytes>) {
    loop {
        let (lines, after) = tokio::select! {
            news = logs.follow(&wanted, next) => news,
            () = sender.closed() => return,
        };
        next = after;
        if let Some(piece) = piece(&logs, &lines)
            && sender.send(piece).await.is_err()
        {
            return;
        }
    }
}

fn piece(logs: &Logs, lines: &[Arc<Line>]) -> Option<Bytes> {
    let mut piece = Vec::new();
    for line in lines {
        let timestamp = humantime::format_rfc3339_nanos(line.at).to_string();
        let (name, instance, text) = (logs.function(), &*line.instance, &*line.text);
        let message = Message { name, instance, timestamp, text };
        serde_json::to_writer(&mut piece, &message).expect("strings are always JSON");
        piece.push(b'\n');
    }
    (!piece.is_empty()).then(|| piece.into())
}

/// Pieces as they come.
struct Lines(mpsc::Receiver<Bytes>);

impl http_body::Body for Lines {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}
