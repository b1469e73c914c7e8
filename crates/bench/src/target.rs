use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use gatewright_workload::Strategy;
use http::uri::Scheme;
use http::{HeaderName, HeaderValue, Method, Uri};

use crate::connection::Address;
use crate::feed::Turn;
use crate::http2;
use crate::requests::{Prepared, Requests};
use crate::response::ResponseParser;
use crate::template::{self, Escape, NUMBER_DIGITS, Parts, Piece, RequestTemplate, Wire};
use crate::tls::Tls;
use crate::{AnswerKind, BenchError, Data, Plan, Target, Trust, WeightedTarget};

const MAX_HEAD: usize = 64 << 10;
/// What is kept of an answer that is read whole.
const MAX_FETCHED: usize = 1 << 20;

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

    /// Finds the server and makes sure that it is there: the connection made for it is the run's first one.
    ///
    /// A connection that is secure, or of HTTP/2, is made once to learn what is wrong with it, if anything is, and not
    /// used.
    pub(crate) fn connect(&self, timeout: Duration) -> Result<Connected, BenchError> {
        let (address, tls, stream) = self.dial(timeout)?;
        let first = self.first(tls.as_ref(), stream)?;
        Ok((address, tls, first))
    }

    /// Makes one request over a connection of its own; the status and the beginning of the body.
    pub(crate) fn fetch(&mut self, timeout: Duration) -> Result<(u16, Vec<u8>), BenchError> {
        let (_, tls, mut stream) = self.dial(timeout)?;
        let request = self.requests.bytes(0, 0, Turn::default());
        match tls {
            None => exchange(&mut stream, request),
            Some(tls) => {
                let host = self.host.clone();
                let secure = tls.stream(stream);
                let mut stream = secure.map_err(|what| BenchError::Tls { host, what })?;
                exchange(&mut stream, request)
            }
        }
    }

    fn dial(&self, timeout: Duration) -> Result<(Address, Option<Tls>, Dialled), BenchError> {
        let tls = self.trust.as_ref().map(|trust| Tls::new(&self.host, trust, self.http2));
        let tls = tls.transpose()?;
        if let Some(path) = &self.unix_socket {
            let stream = UnixStream::connect(path)
                .map_err(|source| BenchError::ConnectUnix { path: path.clone(), source })?;
            stream.set_read_timeout(Some(timeout))?;
            return Ok((Address::Unix(path.clone()), tls, Dialled::Unix(stream)));
        }
        let host = format!("{}:{}", self.host, self.port);
        let resolve = |source| BenchError::Resolve { host: host.clone(), source };
        let addresses = (self.host.as_str(), self.port).to_socket_addrs().map_err(resolve)?;
        let mut last = None;
        for address in addresses {
            match TcpStream::connect_timeout(&address, timeout) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(timeout))?;
                    return Ok((Address::Tcp(address), tls, Dialled::Tcp(stream)));
                }
                Err(source) => last = Some(BenchError::Connect { address, source }),
            }
        }
        Err(last.unwrap_or_else(|| resolve(std::io::Error::other("it has no address"))))
    }
}

/// A connection that blocks.
#[derive(Debug)]
enum Dialled {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Read for Dialled {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Dialled {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl From<Dialled> for OwnedFd {
    fn from(dialled: Dialled) -> Self {
        match dialled {
            Dialled::Tcp(stream) => stream.into(),
            Dialled::Unix(stream) => stream.into(),
        }
    }
}

/// Asks and reads the answer, which is kept up to a megabyte.
fn exchange(
    stream: &mut (impl Read + Write),
    request: &[u8],
) -> Result<(u16, Vec<u8>), BenchError> {
    stream.write_all(request)?;
    stream.flush()?;
    let mut parser = ResponseParser::new();
    let (mut body, mut buffer) = (Vec::new(), [0; 8_192]);
    loop {
        let count = stream.read(&mut buffer)?;
        let keep = |_: u16, piece: &[u8]| {
            if body.len() < MAX_FETCHED {
                body.extend_from_slice(piece);
            }
        };
        let done = parser.feed(&buffer[..count], false, keep);
        let done = done.map_err(|error| BenchError::System(std::io::Error::other(error)))?;
        match parser.code() {
            Some(code) if done.is_some() || (count == 0 && parser.end()) => {
                return Ok((code, body));
            }
            _ if count == 0 => return Err(std::io::Error::from(ErrorKind::UnexpectedEof).into()),
            _ => {}
        }
    }
}

/// Where the server is, how it is spoken to, and perhaps a connection.
pub(crate) type Connected = (Address, Option<Tls>, Option<OwnedFd>);

impl ParsedTarget {
    fn first(&self, tls: Option<&Tls>, mut stream: Dialled) -> Result<Option<OwnedFd>, BenchError> {
        let host = self.host.clone();
        match tls {
            Some(tls) => tls.check(&mut stream).map_err(|what| BenchError::Tls { host, what })?,
            None if self.http2 => {
                let host = format!("{host}:{}", self.port);
                greet(&mut stream).map_err(|what| BenchError::Http2 { host, what })?;
            }
            None => return Ok(Some(stream.into())),
        }
        Ok(None)
    }
}

/// Says the first words of HTTP/2 to a server that was not asked whether it speaks it.
fn greet(stream: &mut (impl Read + Write)) -> Result<(), String> {
    let mut first = [0; 9];
    let done = stream.write_all(&http2::PREFACE).and_then(|()| stream.read_exact(&mut first));
    match done {
        Ok(()) if http2::is_greeting(&first) => Ok(()),
        Ok(()) if first.starts_with(b"HTTP/1") => Err("it answers in HTTP/1".to_owned()),
        Ok(()) => Err("it answers otherwise".to_owned()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err("it does not answer".to_owned()),
        Err(error) => Err(error.to_string()),
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
    let parts = Parts {
        line,
        headers,
        has_length: has_body || !body.is_empty(),
        body,
        id_prefix: id_prefix.map(str::to_owned),
        wire,
        by_session: has_messages && plan.strategy.has_turns(),
        is_conversation: is_real && has_ends && weighted.answer == AnswerKind::OpenAi,
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
mod tests {
    use gatewright_workload::Limits;

    use super::*;

    fn parse(target: Target) -> Result<ParsedTarget, BenchError> {
        ParsedTarget::of(&Plan::new(target, Strategy::Synchronous, Limits::default()))
    }

    fn header(name: &str, value: &str) -> Target {
        Target { headers: vec![(name.into(), value.into())], ..Target::get("http://localhost/") }
    }

    #[test]
    fn requests_are_prepared_but_for_their_number() {
        let target = Target {
            method: "post".into(),
            headers: vec![("Host".into(), "example".into()), ("x-a".into(), "1".into())],
            body: b"[0.5]".to_vec(),
            ..Target::get("http://[::1]:8080/function/square?x=1#part")
        };
        let mut parsed = parse(target).unwrap();
        assert_eq!(parsed.requests.choose(7, Turn::default()), 0);
        assert_eq!((parsed.host.as_str(), parsed.port), ("::1", 8080));
        let version = env!("CARGO_PKG_VERSION");
        let expected = format!(
            "POST /function/square?x=1 HTTP/1.1\r\nuser-agent: gatewright-bench/{version}\r\naccept: */*\r\n\
             host: example\r\nx-a: 1\r\ncontent-length: 5\r\nx-request-id: bench-000000000042\r\n\r\n[0.5]"
        );
        assert_eq!(
            std::str::from_utf8(parsed.requests.bytes(0, 42, Turn::default())).unwrap(),
            expected
        );
        let next = parsed.requests.bytes(0, 7, Turn::default()).to_vec();
        assert!(String::from_utf8(next).unwrap().contains("bench-000000000007\r\n"));
    }

    #[test]
    fn bad_targets_say_what_to_do() {
        let bad = [
            (Target::get("localhost:8080"), "must begin with http://"),
            (Target::get("ftp://localhost/"), "must begin with http://"),
            (Target::get("/path"), "must begin with http://"),
            (Target::get("http://a b/"), "write http://host:port/path"),
            (Target::get("http://me:secret@localhost/"), "give an authorization header"),
            (Target::get("http://localhost:99999/"), "1 to 65535"),
            (Target::get("http://localhost:x/"), ""),
            (Target::get("http://localhost:0/"), "1 to 65535"),
            (Target::get(""), "write http://host:port/path"),
            (header("content-length", "3"), "leave it out"),
            (header("x-request-id", "3"), "turn its request ids off"),
            (header("bad name", "3"), "not a name of a header"),
            (header("x-a", "3\r\nx-b: 4"), "cannot hold"),
            (Target { method: "GET /".into(), ..Target::get("http://a/") }, "not an HTTP method"),
            (Target { method: "CONNECT".into(), ..Target::get("http://a/") }, "tunnel"),
            (header("x-a", &"x".repeat(70_000)), "longer than 65536 bytes"),
        ];
        for (target, part) in bad {
            let error = parse(target.clone()).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(part), "{target:?}: {error}");
        }
    }

    #[test]
    fn several_targets_come_in_turn_or_by_weight() {
        let weighted = |path: &str, weight| WeightedTarget {
            name: Some(path.into()),
            weight,
            target: Target::get(format!("http://localhost/{path}")),
            answer: AnswerKind::Opaque,
        };
        let parse = |mix| {
            let plan = Plan::new(Target::default(), Strategy::Synchronous, Limits::default());
            ParsedTarget::of(&Plan { mix, ..plan })
        };
        let even = parse(vec![weighted("a", 2.0), weighted("b", 2.0)]).unwrap();
        assert_eq!(
            (0..4).map(|number| even.requests.choose(number, Turn::default())).collect::<Vec<_>>(),
            [0, 1, 0, 1]
        );
        let uneven = parse(vec![weighted("a", 3.0), weighted("b", 1.0)]).unwrap();
        let chosen: Vec<_> =
            (0..10_000).map(|number| uneven.requests.choose(number, Turn::default())).collect();
        let second = chosen.iter().sum::<usize>();
        assert!((2_350..2_650).contains(&second), "{second} of 10000 for a quarter");
        assert_eq!(uneven.requests.get(1).name.as_deref(), Some("b"));
        let elsewhere =
            WeightedTarget { target: Target::get("http://other/"), ..weighted("a", 1.0) };
        let error = parse(vec![weighted("a", 1.0), elsewhere]).unwrap_err().to_string();
        assert!(error.contains("all targets of a run are on one server"), "{error}");
    }
}
