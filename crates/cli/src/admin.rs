//! A client of the admin API of a running gateway: one request, one answer.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;

use crate::failure::{Exit, Failure, Outcome, reason};

/// Where the gateway is, and what opens it.
#[derive(Debug, Args)]
pub(crate) struct Admin {
    /// Admin address of the gateway.
    #[arg(
        long,
        value_name = "URL",
        env = "GATEWRIGHT_ADMIN",
        default_value = "http://127.0.0.1:8081",
        help_heading = "Gateway"
    )]
    admin: String,

    /// File with the admin token; the variable GATEWRIGHT_TOKEN holds the token itself.
    #[arg(long, value_name = "FILE", help_heading = "Gateway")]
    token_file: Option<PathBuf>,

    /// How long to wait for the answer.
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "60s",
        value_parser = humantime::parse_duration,
        help_heading = "Gateway"
    )]
    timeout: Duration,
}

/// What the gateway said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) content_type: String,
    pub(crate) body: Bytes,
}

/// The body of an answer that is an error.
#[derive(Debug, Deserialize)]
struct Complaint {
    error: String,
    #[serde(default)]
    hint: Option<String>,
}

const MAX_ANSWER_BYTES: usize = 64 << 20;

impl Admin {
    /// Sends one request.
    pub(crate) fn send(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: Vec<u8>,
    ) -> Outcome<Answer> {
        let request = self.request(method, path, content_type, body)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|fault| Failure::failed(format!("cannot start: {}", reason(&fault))))?;
        runtime.block_on(async {
            match tokio::time::timeout(self.timeout, exchange(request)).await {
                Ok(answer) => answer.map_err(|failure| self.explain(failure)),
                Err(_) => Err(self.too_late()),
            }
        })
    }

    /// Sends one request and hands on the body of a good answer as it comes. Only an answer that is not to go on for
    /// ever has a time limit.
    pub(crate) fn stream(
        &self,
        method: Method,
        path: &str,
        limited: bool,
        mut take: impl FnMut(&[u8]) -> Outcome<()>,
    ) -> Outcome<()> {
        let request = self.request(method, path, None, Vec::new())?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|fault| Failure::failed(format!("cannot start: {}", reason(&fault))))?;
        let receive = async {
            let client = Client::builder(TokioExecutor::new()).build_http();
            let response = client.request(request).await;
            let response =
                response.map_err(|fault| self.explain(Failure::failed(root_cause(&fault))))?;
            if !response.status().is_success() {
                let answer = whole(response).await?;
                return Err(self.complaint(&answer));
            }
            let mut body = response.into_body();
            while let Some(frame) = body.frame().await {
                let frame = frame
                    .map_err(|fault| Failure::failed(format!("the answer broke off: {fault}")))?;
                if let Some(data) = frame.data_ref() {
                    take(data)?;
                }
            }
            Ok(())
        };
        runtime.block_on(async {
            if !limited {
                return receive.await;
            }
            let received = tokio::time::timeout(self.timeout, receive).await;
            received.unwrap_or_else(|_| Err(self.too_late()))
        })
    }

    fn too_late(&self) -> Failure {
        let limit = humantime::format_duration(self.timeout);
        Failure::failed(format!("{}: no answer within {limit}", self.admin))
            .hint("give it longer with --timeout")
    }

    /// Sends one request and takes only a good answer.
    pub(crate) fn ask(&self, method: Method, path: &str, body: Vec<u8>) -> Outcome<Answer> {
        let content_type = (!body.is_empty()).then_some("application/json");
        let answer = self.send(method, path, content_type, body)?;
        if answer.status.is_success() { Ok(answer) } else { Err(self.complaint(&answer)) }
    }

    /// The failure that an answer tells of.
    pub(crate) fn complaint(&self, answer: &Answer) -> Failure {
        let status = answer.status;
        let failure = match serde_json::from_slice::<Complaint>(&answer.body) {
            Ok(Complaint { error, hint }) => {
                Failure { hint, ..Failure::failed(format!("{status}: {error}")) }
            }
            Err(_) => Failure::failed(format!("{status}: {}", start_of(&answer.body))),
        };
        match (status, &failure.hint) {
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, None) => {
                failure.hint("give the token: GATEWRIGHT_TOKEN=... or --token-file FILE")
            }
            (StatusCode::NOT_FOUND, None) => {
                failure.hint(format!("`gatewright functions --admin {}` lists them", self.admin))
            }
            _ => failure,
        }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: Vec<u8>,
    ) -> Outcome<Request<Full<Bytes>>> {
        let wrong = || {
            Failure::usage(format!("--admin `{}` is no http:// URL", self.admin))
                .hint("write http://host:port, the address `gateway.admin` of the system file")
        };
        let uri: Uri =
            format!("{}{path}", self.admin.trim_end_matches('/')).parse().map_err(|_| wrong())?;
        if uri.scheme_str() != Some("http") {
            return Err(wrong());
        }
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        if let Some(content_type) = content_type {
            let value = HeaderValue::from_str(content_type)
                .map_err(|_| Failure::usage(format!("`{content_type}` is no content type")))?;
            request.headers_mut().insert(CONTENT_TYPE, value);
        }
        if let Some(token) = self.token()? {
            request.headers_mut().insert(AUTHORIZATION, token);
        }
        Ok(request)
    }

    fn token(&self) -> Outcome<Option<HeaderValue>> {
        let Some(token) = token(self.token_file.as_deref())? else { return Ok(None) };
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| Failure::usage("the token has characters that a header cannot hold"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Nobody answered: where, and what to do.
    fn explain(&self, failure: Failure) -> Failure {
        let hint = "is it running? `gatewright serve` starts it; --admin or GATEWRIGHT_ADMIN says where it is";
        Failure { what: format!("{}: {}", self.admin, failure.what), ..failure }.hint(hint)
    }
}

/// The token: from the file if one is named, else from the variable GATEWRIGHT_TOKEN. It is never printed.
pub(crate) fn token(file: Option<&std::path::Path>) -> Outcome<Option<String>> {
    secret(file, "GATEWRIGHT_TOKEN")
}

/// The token that workers from elsewhere present, from the file or GATEWRIGHT_WORKER_TOKEN.
pub(crate) fn worker_token(file: Option<&std::path::Path>) -> Outcome<Option<String>> {
    secret(file, "GATEWRIGHT_WORKER_TOKEN")
}

fn secret(file: Option<&std::path::Path>, variable: &str) -> Outcome<Option<String>> {
    let (text, source) = match file {
        Some(path) => {
            let text =
                std::fs::read_to_string(path).map_err(|fault| Failure::of_reading(path, &fault))?;
            (text, path.display().to_string())
        }
        None => match std::env::var(variable) {
            Ok(text) => (text, variable.to_owned()),
            Err(_) => return Ok(None),
        },
    };
    let token = text.trim();
    if token.is_empty() {
        return Err(Failure::usage(format!("{source}: there is no token in it")));
    }
    Ok(Some(token.to_owned()))
}

async fn exchange(request: Request<Full<Bytes>>) -> Outcome<Answer> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let response = client
        .request(request)
        .await
        .map_err(|fault| Failure { exit: Exit::Failed, ..Failure::failed(root_cause(&fault)) })?;
    whole(response).await
}

async fn whole(response: http::Response<hyper::body::Incoming>) -> Outcome<Answer> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_ANSWER_BYTES)
        .collect()
        .await
        .map_err(|fault| Failure::failed(format!("the answer broke off: {fault}")))?
        .to_bytes();
    let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    Ok(Answer {
        status: head.status,
        content_type: content_type.unwrap_or_default().to_owned(),
        body,
    })
}

/// The last of an error's causes says most.
fn root_cause(fault: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = fault;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.downcast_ref::<std::io::Error>().map_or_else(|| cause.to_string(), reason)
}

/// The start of a body that should have been JSON.
fn start_of(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let start: String = text.trim().chars().take(200).collect();
    if start.is_empty() { "without a reason".to_owned() } else { start }
}
