//! How long a response is fresh and how old it came (RFC 9111 sections 4.2.1 to 4.2.3).

use std::time::Duration;

use gatewright_determinism::Time;

use super::date::{self, Moment, WallAnchor};
use super::directives::{ResponseDirectives, SECONDS_MAX};
use super::fields::{Fields, digits, elements};
use super::policy::CachePolicy;

/// A lifetime, and who said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lifetime {
    /// How old the response may get while it is fresh.
    pub(super) span: Duration,
    /// Who said so.
    pub(super) source: Source,
}

/// Who said how long a response is fresh, from the strongest word to none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The operator, whatever the response says.
    Operator,
    /// The response.
    Response,
    /// The operator, because the response does not say.
    OperatorDefault,
    /// Guessed from its last change.
    Heuristic,
    /// Nobody.
    Nobody,
}

/// What a lifetime is worked out from.
pub(super) struct Given<'a, R: ?Sized> {
    pub(super) status: u16,
    pub(super) fields: &'a R,
    pub(super) directives: &'a ResponseDirectives,
    /// A targeted field speaks: `Expires` does not count.
    pub(super) targeted: bool,
    /// When it was made, seconds since 1970.
    pub(super) date: i64,
    /// How old it came.
    pub(super) initial_age: Duration,
    pub(super) received: Moment,
}

/// How long a response stays fresh.
pub(super) fn lifetime<R: Fields + ?Sized>(given: &Given<'_, R>, policy: &CachePolicy) -> Lifetime {
    // The operator's time starts when the response is received, however old it is.
    let of_operator = |ttl: Duration| given.initial_age.saturating_add(ttl);
    if let Some(ttl) = policy.ttl_of(given.status) {
        return Lifetime { span: of_operator(ttl), source: Source::Operator };
    }
    let said = given.directives.s_maxage.or(given.directives.max_age);
    let expires = || if given.targeted { None } else { until_expires(given) };
    if let Some(span) = said.or_else(expires) {
        return Lifetime { span, source: Source::Response };
    }
    if let (Some(ttl), true) = (policy.default_ttl, has_ttl(given.status)) {
        return Lifetime { span: of_operator(ttl.get()), source: Source::OperatorDefault };
    }
    match policy.heuristic.and_then(|longest| guessed(given, longest.get())) {
        Some(span) => Lifetime { span, source: Source::Heuristic },
        None => Lifetime { span: Duration::ZERO, source: Source::Nobody },
    }
}

/// Whether a response of this status may be stored though it does not say how long it is fresh (RFC 9110 section
/// 15.1).
pub(super) const fn heuristically_cacheable(status: u16) -> bool {
    matches!(status, 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// Whether the operator's `ttl` and `default_ttl` are meant for this status: what answers a GET for good, and
/// redirects.
pub(super) const fn has_ttl(status: u16) -> bool {
    matches!(status, 200 | 203 | 204 | 300 | 301 | 302 | 307 | 308)
}

/// When a response was made, seconds since 1970: its `Date`, or when it was received if that is no date.
pub(super) fn made_at<R: Fields + ?Sized>(fields: &R, received: Moment) -> i64 {
    let now = received.unix_seconds();
    fields.first("date").and_then(|value| date::parse(value, now)).unwrap_or(now)
}

/// How old a response is when it is received: its `Age` and the time it took to come, or what its `Date` says if
/// that is more.
pub(super) fn initial_age<R: Fields + ?Sized>(
    fields: &R,
    date: i64,
    sent: Time,
    received: Time,
    anchor: WallAnchor,
) -> Duration {
    let apparent = u64::try_from(anchor.unix_seconds(received).saturating_sub(date)).unwrap_or(0);
    let corrected = age_value(fields) + (received - sent);
    corrected.max(Duration::from_secs(apparent.min(SECONDS_MAX)))
}

/// The `Age` field: the first value counts if there are several, none if it is no number of seconds (RFC 9111
/// section 5.1).
fn age_value<R: Fields + ?Sized>(fields: &R) -> Duration {
    let first = fields.values("age").flat_map(elements).next();
    let seconds = first.and_then(|value| digits(value, SECONDS_MAX));
    Duration::from_secs(seconds.unwrap_or(0))
}

/// From when it was made until `Expires`; what is no date has passed, and so have two that differ.
fn until_expires<R: Fields + ?Sized>(given: &Given<'_, R>) -> Option<Duration> {
    let mut lines = given.fields.values("expires");
    let first = lines.next()?;
    if lines.any(|line| line != first) {
        return Some(Duration::ZERO);
    }
    let expires = date::parse(first, given.received.unix_seconds());
    let seconds = expires.map_or(0, |expires| expires.saturating_sub(given.date));
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0).min(SECONDS_MAX)))
}

/// A tenth of the time since the last change (RFC 9111 section 4.2.2).
fn guessed<R: Fields + ?Sized>(given: &Given<'_, R>, longest: Duration) -> Option<Duration> {
    if !heuristically_cacheable(given.status) && !given.directives.public {
        return None;
    }
    let value = given.fields.first("last-modified")?;
    let changed = date::parse(value, given.received.unix_seconds())?;
    let unchanged = u64::try_from(given.date.saturating_sub(changed)).ok()?;
    Some(Duration::from_millis(unchanged.min(SECONDS_MAX) * 100).min(longest))
}
