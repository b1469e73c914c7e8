//! Calls of functions that run in workers.

use std::sync::Arc;

use bytes::Bytes;
use gatewright_control::End;
use gatewright_protocol::{Arguments, Reply};
use gatewright_record::Status;
use http::header::{ALLOW, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};

use super::typed::PieceCheck;
use super::{Asked, Failure, Plane};
use crate::answer::{Body, Pieces, Refusal};
use crate::call::{Answer, Call, Step};
use crate::function::Function;
use crate::records::Trail;

impl Plane {
    pub(super) async fn invoke<B>(
        &self,
        function: &Arc<Function>,
        parts: &Parts,
        body: B,
        asked: &Asked,
        trail: &mut Trail,
    ) -> Result<Response<Body>, Failure>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        if !matches!(parts.method, Method::POST | Method::GET) {
            return Ok(method_not_allowed(asked, trail));
        }
        let body = self.body(body, &parts.headers, function, trail).await?;
        self.check_input(function, &parts.headers, &body)?;
        let arguments = arguments(parts, &body)?;
        let received = trail.invocation.received.unwrap_or_default();
        let call = Call::new(asked.id, Some(arguments), received + function.timeout);
        let call = Arc::new(call.with_urgency(asked.urgency));
        trail.call = Some(Arc::clone(&call));
        let Some(ticket) = self.driver.invoke(function, Arc::clone(&call)) else {
            return Err(self.unknown(&function.name));
        };
        loop {
            match call.step().await {
                Step::Dispatched => {}
                Step::Pieces { text, pieces } => {
                    trail.invocation.first_byte = Some(self.book.clock.now());
                    let media =
                        if text { "text/plain; charset=utf-8" } else { "application/octet-stream" };
                    let check = PieceCheck::of(function, text);
                    let mut pieces = Pieces::new(pieces, ticket, check);
                    pieces.look_ahead().await?;
                    return Ok(typed(media, Body::Pieces(Box::new(pieces))));
                }
                Step::Ended(end) => {
                    trail.invocation.first_byte = call.end().map(|(_, at)| at);
                    return self.finished(end, call.take_answer(), function, trail);
                }
            }
        }
    }

    fn finished(
        &self,
        end: End,
        answer: Option<Answer>,
        function: &Function,
        trail: &mut Trail,
    ) -> Result<Response<Body>, Failure> {
        match (end, answer) {
            (End::Ok, Some(Answer::Value(value))) => {
                let reply = Reply::from_value(&value).map_err(|error| {
                    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
                        .hint("return text, bytes, or what JSON can say")
                })?;
                self.check_reply(function, &reply)?;
                Ok(typed(reply.content_type, Body::whole(reply.body)))
            }
            (End::Error, Some(Answer::Failed(error))) => {
                trail.failed(Status::Error, &error.kind);
                let text = match error.message.is_empty() {
                    true => error.kind.clone(),
                    false => format!("{}: {}", error.kind, error.message),
                };
                let mut refusal = Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, text);
                refusal.kind = Some(error.kind);
                if function.expose_traceback {
                    refusal.traceback = error.traceback;
                } else if let Some(traceback) = error.traceback {
                    tracing::debug!(function = &*function.name, "{traceback}");
                }
                Err(refusal.into())
            }
            (end, _) => Err(self.ended(end, function)),
        }
    }
}

/// The arguments that a body stands for, by its content type.
fn arguments(parts: &Parts, body: &[u8]) -> Result<Arguments, Refusal> {
    if body.is_empty() {
        return Ok(Arguments::none());
    }
    let arguments = match kind(parts) {
        Kind::Json => Arguments::json(body),
        // `curl -d 3` calls its body a form, which no function takes: what reads as JSON is meant as JSON.
        Kind::Form => Arguments::json(body).or_else(|_| Arguments::bytes(body)),
        Kind::Other => Arguments::bytes(body),
    };
    arguments.map_err(|error| {
        Refusal::new(StatusCode::BAD_REQUEST, error.to_string())
            .hint("send JSON as application/json, anything else with a content type of its own")
    })
}

/// What a body says that it is.
enum Kind {
    Json,
    Form,
    Other,
}

fn kind(parts: &Parts) -> Kind {
    let Some(media) = parts.headers.get(CONTENT_TYPE) else { return Kind::Json };
    let media = media.to_str().unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim();
    let Some((kind, subtype)) = media.split_once('/') else { return Kind::Other };
    let suffix = subtype.rsplit('+').next().unwrap_or_default();
    if !kind.eq_ignore_ascii_case("application") {
        Kind::Other
    } else if suffix.eq_ignore_ascii_case("json") {
        Kind::Json
    } else if subtype.eq_ignore_ascii_case("x-www-form-urlencoded") {
        Kind::Form
    } else {
        Kind::Other
    }
}

fn typed(media: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

fn method_not_allowed(asked: &Asked, trail: &mut Trail) -> Response<Body> {
    let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "a function is called by POST")
        .hint("or by GET, without arguments");
    trail.refused(&refusal);
    let mut response = refusal.response(asked.request_id.to_str().unwrap_or_default());
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST"));
    response
}
