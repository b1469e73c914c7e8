//! What a plan asks for, understood: requests that are ready to be sent, and where to.

mod dial;

use std::path::PathBuf;
use std::sync::Arc;

use gatewright_workload::{Replay, Strategy, Timing};
use http::uri::Scheme;
use http::{HeaderName, HeaderValue, Method, Uri};

use crate::http2;
use crate::requests::{Prepared, Requests};
use crate::template::{self, Escape, NUMBER_DIGITS, Parts, Piece, RequestTemplate, RowOf, Wire};
use crate::{AnswerKind, BenchError, Data, Dialogue, Plan, Target, Trust, WeightedTarget};

pub(crate) use dial::Fetched;

const MAX_HEAD: usize = 64 << 10;

/// The targets of a plan, understood.
#[derive(Debug)]
pub(crate) struct ParsedTarget {
    host: String,
    port: u16,
    unix_socket: Option<PathBuf>,
    /// If the server is asked over TLS, how it proves who it is.
    trust: Option<Trust>,
    http2: bool,
    pub(crate) requests: Requests,
}

impl ParsedTarget {
    pub(crate) fn of(plan: &Plan) -> Result<Self, BenchError> {
        let only = [WeightedTarget {
            name: None,
            weight: 1.0,
            target: plan.target.clone(),
            answer: plan.answer,
            dialogue: Dialogue::default(),
        }];
        let targets = if plan.mix.is_empty() { &only[..] } else { &plan.mix[..] };
        let id_prefix = plan.request_ids.then_some(plan.name.as_str());
        let mut server: Option<(String, u16, bool)> = None;
        let mut prepared = Vec::with_capacity(targets.len());
        for weighted in targets {
            let target = &weighted.target;
            let filled = plan.data.as_ref().filter(|_| has_places(target));
            let uri = parse_url(&if filled.is_some() {
                without_places(&target.url)
            } else {
                target.url.clone()
            })?;
            let authority = uri.authority().map_or("", |authority| authority.as_str());
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let secure = uri.scheme() == Some(&Scheme::HTTPS);
            let own = (host, uri.port_u16().unwrap_or(if secure { 443 } else { 80 }), secure);
            let first = server.get_or_insert_with(|| own.clone());
            if *first != own {
                let problem = format!(
                    "all targets of a run are on one server, the first is on {}:{}",
                    first.0, first.1
                );
                return Err(BenchError::Url { url: target.url.clone(), problem });
            }
            let wire = Wire::of(plan, secure);
            let path = uri.path_and_query().map_or("/", |path| path.as_str());
            let template = match filled {
                Some(data) => filled_template(weighted, authority, id_prefix, data, plan, wire)?,
                None => fixed_template(target, authority, path, id_prefix, wire)?,
            };
            let name = weighted.name.as_deref().map(Into::into);
            prepared.push((weighted.weight, Prepared { template, kind: weighted.answer, name }));
        }
        let (host, port, secure) = server.unwrap_or_default();
        let trust = secure.then(|| plan.trust.clone());
        let requests = Requests::new(prepared, plan.seed);
        let (http2, unix_socket) = (plan.http2, plan.unix_socket.clone());
        Ok(Self { host, port, unix_socket, trust, http2, requests })
    }
}

impl Wire {
    const fn of(plan: &Plan, is_secure: bool) -> Self {
        if plan.http2 { Self::Http2 { is_secure } } else { Self::Http1 }
    }
}

fn parse_url(url: &str) -> Result<Uri, BenchError> {
    let fail = |problem: String| Err(BenchError::Url { url: url.to_owned(), problem });
    let uri: Uri = match url.parse() {
        Ok(uri) => uri,
        Err(error) => return fail(format!("{error}; write http://host:port/path")),
    };
    if ![Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&uri.scheme()) {
        return fail("it must begin with http:// or https://".into());
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return fail(
            "a name and password in the URL are not sent; give an authorization header".into(),
        );
    }
    if uri.host().is_none_or(str::is_empty) {
        return fail("it has no host; write http://host:port/path".into());
    }
    // What is not a port is passed over by the parser.
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let after_host = authority.strip_prefix(uri.host().unwrap_or_default()).unwrap_or_default();
    if uri.port_u16() == Some(0) || (uri.port_u16().is_none() && after_host.len() > 1) {
        return fail("its port is not a number from 1 to 65535".into());
    }
    Ok(uri)
}

fn fixed_template(
    target: &Target,
    authority: &str,
    path: &str,
    id_prefix: Option<&str>,
    wire: Wire,
) -> Result<RequestTemplate, BenchError> {
    let method = parse_method(target)?;
    let headers = parse_headers(&target.headers, id_prefix.is_some(), wire)?;
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    for (name, value) in defaults(authority) {
        if !headers.iter().any(|(own, _)| *own == name) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    let mut bytes = head.into_bytes();
    for (name, value) in &headers {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    let has_body = [Method::POST, Method::PUT, Method::PATCH].contains(&method);
    if has_body || !target.body.is_empty() {
        bytes.extend_from_slice(format!("content-length: {}\r\n", target.body.len()).as_bytes());
    }
    if let Some(prefix) = id_prefix {
        bytes.extend_from_slice(format!("x-request-id: {prefix}-").as_bytes());
        bytes.extend_from_slice(&[b'0'; NUMBER_DIGITS]);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    if bytes.len() > MAX_HEAD {
        return Err(BenchError::Request(format!("its head is longer than {MAX_HEAD} bytes")));
    }
    Ok(RequestTemplate::fixed(&bytes, &target.body, id_prefix.is_some(), &method, wire))
}

fn parse_method(target: &Target) -> Result<Method, BenchError> {
    let method = match target.method.as_str() {
        "" => Method::GET,
        name => Method::from_bytes(name.to_ascii_uppercase().as_bytes())
            .map_err(|_| BenchError::Request(format!("\"{name}\" is not an HTTP method")))?,
    };
    if method == Method::CONNECT {
        return Err(BenchError::Request("CONNECT asks for a tunnel, not for an answer".into()));
    }
    Ok(method)
}

/// Whether data has anything to fill in.
fn has_places(target: &Target) -> bool {
    let has = |text: &[u8]| text.windows(2).any(|pair| pair == b"{{");
    has(target.url.as_bytes())
        || has(&target.body)
        || target.headers.iter().any(|(_, value)| has(value.as_bytes()))
}

/// A URL whose parts can be told apart.
fn without_places(url: &str) -> String {
    let mut plain = String::new();
    let mut rest = url;
    while let Some((before, after)) = rest.split_once("{{") {
        plain.push_str(before);
        plain.push('x');
        rest = after.split_once("}}").map_or("", |(_, after)| after);
    }
    plain + rest
}

/// What comes after host and port.
fn path_of(url: &str) -> &str {
    let after = url.split_once("://").map_or(url, |(_, after)| after);
    let path = after.find(['/', '?']).map_or("/", |at| &after[at..]);
    path.split('#').next().unwrap_or(path)
}

fn filled_template(
    weighted: &WeightedTarget,
    authority: &str,
    id_prefix: Option<&str>,
    data: &Data,
    plan: &Plan,
    wire: Wire,
) -> Result<RequestTemplate, BenchError> {
    let target = &weighted.target;
    let method = parse_method(target)?;
    let (names, values): (Vec<_>, Vec<_>) = target.headers.iter().cloned().unzip();
    // Names, and values without places, are held to what every header is.
    let plain: Vec<_> =
        names.iter().cloned().zip(values.iter().map(|value| without_places(value))).collect();
    parse_headers(&plain, id_prefix.is_some(), wire)?;
    let mut line = vec![Piece::Text(format!("{method} ").into_bytes())];
    let path = path_of(&target.url);
    let slash = if path.starts_with('/') { "" } else { "/" };
    line.extend(template::pieces(format!("{slash}{path}").as_bytes(), Escape::Url)?);
    let mut text = String::new();
    for (name, value) in defaults(authority) {
        if !names.iter().any(|own| own.eq_ignore_ascii_case(name.as_str())) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    for (name, value) in names.iter().zip(&values) {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    let is_json = target
        .headers
        .iter()
        .any(|(name, value)| name.eq_ignore_ascii_case("content-type") && value.contains("json"));
    let escape = if is_json { Escape::Json } else { Escape::Raw };
    let (headers, body) = (
        template::pieces(text.as_bytes(), Escape::Header)?,
        template::pieces(&target.body, escape)?,
    );
    for column in [&line, &headers, &body].into_iter().flat_map(|pieces| template::columns(pieces))
    {
        data.check_column(column)?;
    }
    let has_body = [Method::POST, Method::PUT, Method::PATCH].contains(&method);
    let has_messages = body.iter().any(|piece| {
        matches!(piece, Piece::Messages { .. } | Piece::Conversation { each: false, .. })
    });
    let is_real = body.iter().any(|piece| matches!(piece, Piece::Conversation { .. }));
    // Users who stay for ever would have conversations without end.
    let has_ends = matches!(plan.strategy, Strategy::Sessions { .. });
    let goes_on = is_real && has_ends && weighted.answer == AnswerKind::OpenAi;
    let row = match &plan.strategy {
        Strategy::Replay(Replay { timing: Timing::IdleGaps, recorded: Some(recorded), .. }) => {
            RowOf::Recorded(Arc::clone(recorded))
        }
        strategy if has_messages && strategy.has_turns() => RowOf::Session,
        _ => RowOf::Request,
    };
    let parts = Parts {
        line,
        headers,
        has_length: has_body || !body.is_empty(),
        body,
        id_prefix: id_prefix.map(str::to_owned),
        wire,
        dialogue: goes_on.then_some(weighted.dialogue),
        form: weighted.dialogue.form,
        row,
    };
    Ok(RequestTemplate::filled(parts, data.clone(), &method))
}

fn defaults(authority: &str) -> [(HeaderName, &str); 3] {
    [
        (http::header::HOST, authority),
        (http::header::USER_AGENT, concat!("gatewright-bench/", env!("CARGO_PKG_VERSION"))),
        (http::header::ACCEPT, "*/*"),
    ]
}

fn parse_headers(
    headers: &[(String, String)],
    with_ids: bool,
    wire: Wire,
) -> Result<Vec<(HeaderName, HeaderValue)>, BenchError> {
    let parse = |(name, value): &(String, String)| {
        let fail =
            |problem: String| Err(BenchError::Request(format!("header \"{name}\": {problem}")));
        let Ok(parsed_name) = HeaderName::from_bytes(name.as_bytes()) else {
            return fail("this is not a name of a header".into());
        };
        let Ok(parsed_value) = HeaderValue::from_str(value) else {
            return fail("its value has characters that a header cannot hold".into());
        };
        if parsed_name == http::header::CONTENT_LENGTH
            || parsed_name == http::header::TRANSFER_ENCODING
        {
            return fail("the engine sets it from the body; leave it out".into());
        }
        if wire != Wire::Http1 && http2::FOREIGN.contains(&parsed_name.as_str()) {
            return fail("HTTP/2 has no such header; leave it out".into());
        }
        if with_ids && parsed_name == "x-request-id" {
            return fail("the engine sets it; turn its request ids off to set your own".into());
        }
        Ok((parsed_name, parsed_value))
    };
    headers.iter().map(parse).collect()
}

#[cfg(test)]
mod tests;
