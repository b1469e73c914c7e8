//! Header fields that are the business of one connection, and those that a gateway adds.

use std::net::IpAddr;

use gatewright_control::URGENCY_DEFAULT;
use gatewright_control::cache::Fields;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, EXPECT, HOST, MAX_FORWARDS, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE,
    TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::forwarding::Forwarding;

/// The request id, taken from the client or made.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// What the cache did (RFC 9211).
pub(crate) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const PRIORITY: HeaderName = HeaderName::from_static("priority");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// The fields of a message, as the rules of the cache read them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FieldsOf<'a>(pub(crate) &'a HeaderMap);

impl Fields for FieldsOf<'_> {
    fn pairs(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
    }

    fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.0.get_all(name).iter().map(HeaderValue::as_bytes)
    }
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Client {
    /// Its address, if it came over the network: behind proxies, as far as they are trusted.
    pub(crate) address: Option<IpAddr>,
    /// Whether it came over TLS.
    pub(crate) secure: bool,
    /// The trusted proxy that it came through last, and whether that came over TLS.
    pub(crate) proxy: Option<(IpAddr, bool)>,
}

/// Longest request id that is taken over from a client.
const REQUEST_ID_MAX: usize = 128;

/// The urgency that the `Priority` field asks for (RFC 9218 section 4.1): 0 to 7, [`URGENCY_DEFAULT`] where the
/// field is missing or says something else.
pub(crate) fn urgency(headers: &HeaderMap) -> u8 {
    let lines = headers.get_all(PRIORITY).iter().filter_map(|line| line.to_str().ok());
    let members = lines.flat_map(|line| line.split(','));
    // A member that comes twice counts as it came last (RFC 9651 section 4.2.2).
    let asked = members.filter_map(|member| member.trim().strip_prefix("u=")).next_back();
    let digits = asked.and_then(|value| value.split(';').next());
    let urgency = digits.and_then(|digits| digits.trim().parse().ok());
    urgency.filter(|urgency| *urgency <= 7).unwrap_or(URGENCY_DEFAULT)
}

/// Removes the fields that end with the connection they came on (RFC 9110 section 7.6.1), those that
/// `Connection` names included.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','))
            .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in [
        CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRANSFER_ENCODING,
        UPGRADE,
        HTTP2_SETTINGS,
    ] {
        headers.remove(name);
    }
}

/// Whether the one who sent these fields takes trailer fields (RFC 9110 section 10.1.4).
pub(crate) fn takes_trailers(headers: &HeaderMap) -> bool {
    tokens(headers, &TE).any(|token| token.eq_ignore_ascii_case("trailers"))
}

/// Makes a request ask for trailer fields.
pub(crate) fn ask_for_trailers(headers: &mut HeaderMap) {
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(CONNECTION, HeaderValue::from_static("te"));
}

/// Whether a request's body waits until it is asked for (RFC 9110 section 10.1.1). `None` if it expects something
/// else, which cannot be met.
pub(crate) fn waits_to_send(headers: &HeaderMap) -> Option<bool> {
    let mut waits = false;
    for line in headers.get_all(EXPECT) {
        if !line.as_bytes().eq_ignore_ascii_case(b"100-continue") {
            return None;
        }
        waits = true;
    }
    Some(waits)
}

/// The elements of a field that is a list of tokens.
pub(crate) fn tokens<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

/// Removes from trailer fields what must not come behind a body, where whoever reads it late could be misled:
/// framing, routing, credentials, and what describes the body (RFC 9110 section 6.5.1).
pub(crate) fn strip_trailers(trailers: &mut HeaderMap) {
    strip_hop_by_hop(trailers);
    for name in [
        AUTHORIZATION,
        CACHE_CONTROL,
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        CONTENT_RANGE,
        CONTENT_TYPE,
        HOST,
        MAX_FORWARDS,
        SET_COOKIE,
        TRAILER,
    ] {
        trailers.remove(name);
    }
}

/// Makes the fields of a request to an upstream of those of the client's request.
pub(crate) fn to_upstream(
    headers: &mut HeaderMap,
    forwarding: &Forwarding,
    client: Client,
    request_id: &HeaderValue,
    pseudonym: &str,
) {
    strip_hop_by_hop(headers);
    forwarding.tell(headers, client);
    if let Ok(via) = HeaderValue::try_from(format!("1.1 {pseudonym}")) {
        headers.append(VIA, via);
    }
    headers.insert(REQUEST_ID, request_id.clone());
}

/// Whether a request came through this gateway before: it goes in a circle.
pub(crate) fn is_loop(headers: &HeaderMap, pseudonym: &str) -> bool {
    let lines = headers.get_all(VIA).iter().filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(','))
        .any(|hop| hop.split_whitespace().nth(1) == Some(pseudonym))
}

/// The client's own request id, if it is one that can be logged and passed on.
pub(crate) fn request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let id = headers.get(REQUEST_ID)?;
    let sane = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let fits = (1..=REQUEST_ID_MAX).contains(&id.len()) && id.as_bytes().iter().all(sane);
    fits.then(|| id.clone())
}

/// The id of a request that has none of its own: the run's name and the request's number in hexadecimal digits.
pub(crate) fn numbered(run: &str, number: u64) -> HeaderValue {
    let digits = (64 - (number | 1).leading_zeros()).div_ceil(4) as usize;
    let mut id = bytes::BytesMut::with_capacity(run.len() + 1 + digits);
    id.extend_from_slice(run.as_bytes());
    id.extend_from_slice(b"-");
    for place in (0..digits).rev() {
        id.extend_from_slice(&[b"0123456789abcdef"[(number >> (4 * place)) as usize & 15]]);
    }
    HeaderValue::from_maybe_shared(id.freeze()).expect("letters and digits are a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urgency_is_what_the_priority_field_says() {
        let of = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("priority", HeaderValue::from_static(line));
            }
            urgency(&headers)
        };
        assert_eq!(of(&[]), 3);
        assert_eq!((of(&["u=0"]), of(&["i, u=7"]), of(&["u=5;x=1, i"])), (0, 7, 5));
        assert_eq!((of(&["u=1", "u=2"]), of(&["u=8"]), of(&["u=x"]), of(&["uu=1"])), (2, 3, 3, 3));
    }

    #[test]
    fn fields_of_the_connection_go_and_those_it_names() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Private"),
            ("connection", "x-other"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("x-private", "1"),
            ("x-other", "2"),
            ("x-kept", "3"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-kept"]);
    }

    #[test]
    fn a_request_id_is_taken_over_if_it_is_sane() {
        let taken = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_str(value).unwrap());
            request_id(&headers).is_some()
        };
        assert!(taken("a-B_3.x"));
        assert!(!taken(""));
        assert!(!taken("a b"));
        assert!(!taken("a\"b"));
        assert!(!taken(&"x".repeat(129)));
    }

    #[test]
    fn requests_are_numbered_in_hexadecimal_digits() {
        for number in [0, 1, 15, 16, 0xabcdef, u64::MAX] {
            assert_eq!(numbered("run", number), format!("run-{number:x}"));
        }
    }
}
