use gatewright_protocol::openai::{ErrorBody, ErrorObject};
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::Value;

use crate::body::Body;
use crate::openai::json;

/// An answer that says no, in OpenAI's words.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    kind: &'static str,
    message: String,
    param: Option<&'static str>,
    header: Option<(HeaderName, &'static str)>,
}

const INVALID: &str = "invalid_request_error";

impl Refusal {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into(), param: None, header: None }
    }

    /// A field of the request is wrong.
    pub(crate) fn bad(param: &'static str, message: impl Into<String>) -> Self {
        let param = Some(param);
        Self { param, ..Self::new(StatusCode::BAD_REQUEST, INVALID, message) }
    }

    pub(crate) fn unreadable(error: &serde_json::Error) -> Self {
        let message = format!("the body is not a request of this endpoint: {error}");
        Self::new(StatusCode::BAD_REQUEST, INVALID, message)
    }

    /// `allowed` is "GET" or "POST".
    pub(crate) fn method(allowed: &'static str) -> Self {
        let header = Some((ALLOW, allowed));
        let message = format!("use {allowed} here");
        Self { header, ..Self::new(StatusCode::METHOD_NOT_ALLOWED, INVALID, message) }
    }

    pub(crate) fn key() -> Self {
        let message = "the key is missing or wrong; send Authorization: Bearer <key>";
        Self::new(StatusCode::UNAUTHORIZED, "authentication_error", message)
    }

    pub(crate) fn no_model(id: &str) -> Self {
        let message = format!("there is no model \"{id}\"; /v1/models lists them");
        Self::new(StatusCode::NOT_FOUND, "not_found_error", message)
    }

    pub(crate) fn no_path(path: &str) -> Self {
        let message = format!("nothing answers at {path}");
        Self::new(StatusCode::NOT_FOUND, "not_found_error", message)
    }

    pub(crate) fn full() -> Self {
        let message = "too many requests are waiting; try again later";
        let header = Some((RETRY_AFTER, "1"));
        Self { header, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded_error", message) }
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        let message = format!("the body is longer than {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID, message)
    }

    pub(crate) fn too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, INVALID, "the body took too long to come")
    }

    pub(crate) fn broken_body() -> Self {
        let message = "the body broke off";
        Self::new(StatusCode::BAD_REQUEST, INVALID, message)
    }

    /// A fault that was asked for.
    pub(crate) fn injected(status: u16) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::new(status, "injected_error", "this fault was asked for")
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let error = ErrorObject {
            message: self.message,
            kind: Some(self.kind.to_owned()),
            param: self.param.map(str::to_owned),
            code: Some(Value::from(self.status.as_u16())),
        };
        let mut response = Response::new(Body::from(json(&ErrorBody { error })));
        *response.status_mut() = self.status;
        let kind = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}
