//! Whether a response is stored, and what is noted of it (RFC 9111 section 3).

use std::time::Duration;

use gatewright_determinism::Time;

use super::date::{self, Moment, WallAnchor};
use super::directives::ResponseDirectives;
use super::fields::{Fields, elements, lower_token};
use super::freshness::{self, Given, Lifetime, Source};
use super::method::Method;
use super::policy::{CachePolicy, SetCookie};
use super::request::Request;
use super::selecting::Selecting;
use super::stored::StoredResponse;
use super::tags;
use super::target::Target;
use crate::config::HumanDuration;

/// A request, and the response that the upstream gave to it.
#[derive(Debug)]
pub struct Exchange<'a, Q: ?Sized, R: ?Sized> {
    /// The client's request.
    pub request: &'a Request<'a, Q>,
    /// Where it went.
    pub target: Target<'a>,
    /// The response's status; after a 304, the status of the response that it confirmed.
    pub status: u16,
    /// The response's fields; after a 304, those of [`merged`](super::merged).
    pub response: &'a R,
    /// When the request was sent upstream.
    pub sent: Time,
    /// When the response's fields were there.
    pub received: Time,
    /// Where the run's time lies on the calendar.
    pub anchor: WallAnchor,
}

/// Whether a response is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storing {
    /// Yes, as a response to GET; of its fields, those that `fields` keeps.
    Store {
        /// What is noted of it.
        stored: Box<StoredResponse>,
        /// Which of its fields are stored.
        fields: StoredFields,
    },
    /// No.
    Refuse(Refusal),
}

/// Why a response is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request's method.
    Method,
    /// The request says `no-store`.
    RequestNoStore,
    /// A status that is not stored: interim, 206, 304, 412, 416, or one that must be understood and is not.
    Status,
    /// It says `no-store`.
    NoStore,
    /// It says `private`.
    Private,
    /// The request has credentials, and the response does not say that it is for everyone.
    Authorization,
    /// Its `Vary` fits no other request.
    Vary,
    /// It sets a cookie, and the policy is against it.
    SetCookie,
    /// It could never be served: it is not fresh, cannot be validated, and must not be served stale.
    Useless,
}

/// Which fields of a response are stored (RFC 9111 section 3.1): not those of one connection, nor those that the
/// response withholds. `Age` is not stored either; it is in [`StoredResponse`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredFields {
    left_out: Vec<String>,
}

impl Refusal {
    /// A word for `Cache-Status`' `detail`, and for logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::RequestNoStore => "request-no-store",
            Self::Status => "status",
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::Authorization => "authorization",
            Self::Vary => "vary",
            Self::SetCookie => "set-cookie",
            Self::Useless => "not-reusable",
        }
    }

    /// Whether the next request of the same key will probably find the same, so that none should wait for it.
    #[must_use]
    pub const fn is_lasting(self) -> bool {
        !matches!(self, Self::Method | Self::RequestNoStore | Self::Authorization)
    }
}

impl StoredFields {
    /// Whether the field of this name (lower case) is stored.
    #[must_use]
    pub fn keeps(&self, name: &str) -> bool {
        !is_of_connection(name) && name != "age" && !self.left_out.iter().any(|out| out == name)
    }

    /// What a response's `Connection` and directives leave out.
    pub(super) fn of<R: Fields + ?Sized>(response: &R, withheld: &[String]) -> Self {
        let listed = response.values("connection").flat_map(elements).filter_map(lower_token);
        Self { left_out: listed.chain(withheld.iter().cloned()).collect() }
    }
}

/// Whether a field speaks of one connection only, and so is neither stored nor passed on.
#[must_use]
pub fn is_of_connection(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authentication-info"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Status codes whose meaning for a cache is known here, so that `must-understand` is satisfied: those of RFC
/// 9110 that a cache may store at all.
const fn is_understood(status: u16) -> bool {
    matches!(
        status,
        200..=205 | 300..=303 | 305 | 307 | 308 | 400..=411 | 413..=415 | 417 | 421 | 422 | 426
            | 428 | 429 | 431 | 451 | 500..=505 | 511
    )
}

/// Decides whether a response is stored, and what is noted of it.
#[must_use]
pub fn storing<Q: Fields + ?Sized, R: Fields + ?Sized>(
    exchange: &Exchange<'_, Q, R>,
    policy: &CachePolicy,
) -> Storing {
    match decide(exchange, policy) {
        Ok((stored, fields)) => Storing::Store { stored: Box::new(stored), fields },
        Err(refusal) => Storing::Refuse(refusal),
    }
}

fn decide<Q: Fields + ?Sized, R: Fields + ?Sized>(
    exchange: &Exchange<'_, Q, R>,
    policy: &CachePolicy,
) -> Result<(StoredResponse, StoredFields), Refusal> {
    let Exchange { request, status, response, .. } = *exchange;
    let (directives, targeted) = ResponseDirectives::of(response, &policy.targeted);
    permitted(request, status, &directives)?;
    let selecting = Selecting::of(request.fields(), response).ok_or(Refusal::Vary)?;

    let received = Moment { now: exchange.received, anchor: exchange.anchor };
    let date = freshness::made_at(response, received);
    let initial_age =
        freshness::initial_age(response, date, exchange.sent, exchange.received, exchange.anchor);
    let given = Given {
        status,
        fields: response,
        directives: &directives,
        targeted,
        date,
        initial_age,
        received,
    };
    let lifetime = freshness::lifetime(&given, policy);
    if request.method() == Method::Post && !is_for_get(exchange, lifetime.source) {
        return Err(Refusal::Method);
    }
    let mut fields = StoredFields::of(response, &directives.withheld);
    cookies(response, policy, lifetime.source, &mut fields)?;

    let (while_revalidate, if_error) = stale_windows(&directives, lifetime, policy);
    let last_modified = response.first("last-modified");
    let modified = last_modified.and_then(|value| date::parse(value, received.unix_seconds()));
    let stored = StoredResponse {
        status,
        received: exchange.received,
        initial_age,
        lifetime: lifetime.span,
        no_cache: directives.no_cache,
        stale_while_revalidate: while_revalidate,
        stale_if_error: if_error,
        stale_on_request: !never_stale(&directives) && directives.s_maxage.is_none(),
        selecting,
        etag: response.first("etag").filter(|etag| !etag.is_empty()).map(Box::from),
        last_modified: last_modified.filter(|_| modified.is_some()).map(Box::from),
        modified,
        date,
        length: None,
        keep: policy.keep.get(),
        tags: tags::of(response, policy),
    };
    if is_useful(&stored, lifetime, &directives) {
        Ok((stored, fields))
    } else {
        Err(Refusal::Useless)
    }
}

/// What forbids storing, whatever the lifetime.
fn permitted<Q: Fields + ?Sized>(
    request: &Request<'_, Q>,
    status: u16,
    directives: &ResponseDirectives,
) -> Result<(), Refusal> {
    if !matches!(request.method(), Method::Get | Method::Post) {
        return Err(Refusal::Method);
    }
    if request.directives().no_store {
        return Err(Refusal::RequestNoStore);
    }
    // Parts and answers to preconditions are answers to this one request.
    let storable = matches!(status, 200..=205 | 207..=303 | 305..=411 | 413..=415 | 417..=599);
    if !storable || (directives.must_understand && !is_understood(status)) {
        return Err(Refusal::Status);
    }
    if directives.no_store && !directives.must_understand {
        return Err(Refusal::NoStore);
    }
    if directives.private {
        return Err(Refusal::Private);
    }
    let for_all = directives.public || directives.must_revalidate || directives.s_maxage.is_some();
    if request.has_credentials() && !for_all {
        return Err(Refusal::Authorization);
    }
    Ok(())
}

/// Whether a response to POST also answers GET: it says itself how long it is fresh, and that it is what is found
/// at the same URL (RFC 9110 section 9.3.3).
fn is_for_get<Q: Fields + ?Sized, R: Fields + ?Sized>(
    exchange: &Exchange<'_, Q, R>,
    source: Source,
) -> bool {
    let location = exchange.response.first("content-location");
    let location = location.and_then(|reference| exchange.target.resolve(reference));
    source == Source::Response
        && matches!(exchange.status, 200 | 201)
        && location.is_some_and(|location| location.as_target().same_as(&exchange.target))
}

fn cookies<R: Fields + ?Sized>(
    response: &R,
    policy: &CachePolicy,
    source: Source,
    fields: &mut StoredFields,
) -> Result<(), Refusal> {
    let kept_out = |name: &String| name == "set-cookie";
    if !response.has("set-cookie") || fields.left_out.iter().any(kept_out) {
        return Ok(());
    }
    match policy.set_cookie {
        SetCookie::Keep if source == Source::Response => Ok(()),
        SetCookie::Keep | SetCookie::Refuse => Err(Refusal::SetCookie),
        SetCookie::Strip => {
            fields.left_out.push("set-cookie".to_owned());
            Ok(())
        }
    }
}

const fn never_stale(directives: &ResponseDirectives) -> bool {
    directives.must_revalidate || directives.proxy_revalidate || directives.no_cache
}

/// For how long it may be served stale: while revalidating, and on errors.
///
/// The response's own words count unless it also says `must-revalidate`, `proxy-revalidate` or `no-cache`. The
/// operator's count where it is silent, does not say `s-maxage`, which forbids it too (RFC 9111 section
/// 5.2.2.10), and has a lifetime that could be over: what was never fresh is not served unasked.
fn stale_windows(
    directives: &ResponseDirectives,
    lifetime: Lifetime,
    policy: &CachePolicy,
) -> (Duration, Duration) {
    if never_stale(directives) {
        return (Duration::ZERO, Duration::ZERO);
    }
    let has_lifetime = lifetime.source != Source::Nobody && directives.s_maxage.is_none();
    let was_fresh = has_lifetime && !lifetime.span.is_zero();
    let window = |said: Option<Duration>, set: Option<HumanDuration>, counts: bool| {
        said.or_else(|| set.filter(|_| counts).map(HumanDuration::get)).unwrap_or_default()
    };
    let while_revalidate = directives.stale_while_revalidate;
    (
        window(while_revalidate, policy.stale_while_revalidate, was_fresh),
        window(directives.stale_if_error, policy.stale_if_error, has_lifetime),
    )
}

/// Whether any later request could get something from it.
fn is_useful(stored: &StoredResponse, lifetime: Lifetime, directives: &ResponseDirectives) -> bool {
    let fresh = !stored.no_cache && stored.initial_age < stored.lifetime;
    let stale = !(stored.stale_while_revalidate.is_zero() && stored.stale_if_error.is_zero());
    // Without a word on freshness, only some statuses may be stored at all (RFC 9111 section 3).
    let storable = lifetime.source != Source::Nobody
        || directives.public
        || freshness::heuristically_cacheable(stored.status);
    storable && (fresh || stale || stored.has_validator())
}
