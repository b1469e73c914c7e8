//! When the upstream fails: whether a stale response may answer instead (RFC 5861 section 4, RFC 9111 section
//! 4.2.4).

use super::date::Moment;
use super::fields::Fields;
use super::plan::Serve;
use super::request::Request;
use super::status::{CacheStatus, ForwardReason};
use super::stored::StoredResponse;

/// How the upstream failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It answered with this status. Only 500, 502, 503 and 504 are failures.
    Status(u16),
    /// No connection, or none that is allowed now.
    Connect,
    /// No answer in time.
    Timeout,
    /// The connection broke, or what came was no response.
    Broken,
}

impl Failure {
    /// Whether a stale response may stand in for it at all.
    #[must_use]
    pub const fn is_one(self) -> bool {
        match self {
            Self::Status(status) => matches!(status, 500 | 502 | 503 | 504),
            Self::Connect | Self::Timeout | Self::Broken => true,
        }
    }
}

/// Whether the stored response `stored` (at index `variant`) answers a request whose upstream failed; if not, the
/// failure does.
///
/// The window is the response's or the operator's, or the request's where the response leaves it a say; never one
/// that says `must-revalidate`, `proxy-revalidate` or `no-cache`, nor for a request that says `no-cache`.
#[must_use]
pub fn on_failure<Q: Fields + ?Sized>(
    request: &Request<'_, Q>,
    variant: usize,
    stored: &StoredResponse,
    failure: Failure,
    moment: Moment,
) -> Option<Serve> {
    let wants = request.directives();
    let age = stored.age(moment.now);
    // A failure that was stored, because it said for how long, is no better than the one there is now.
    if !failure.is_one()
        || Failure::Status(stored.status).is_one()
        || stored.no_cache
        || wants.no_cache
        || wants.max_age.is_some_and(|oldest| age > oldest)
        || wants.min_fresh.is_some()
    {
        return None;
    }
    let asked = wants.stale_if_error.filter(|_| stored.stale_on_request).unwrap_or_default();
    if stored.stale_for(moment.now) >= stored.stale_if_error.max(asked) {
        return None;
    }
    let fwd_status = match failure {
        Failure::Status(status) => Some(status),
        Failure::Connect | Failure::Timeout | Failure::Broken => None,
    };
    Some(Serve {
        variant,
        age,
        shape: request.shape_of(stored, moment),
        status: CacheStatus {
            fwd_status,
            ttl: Some(stored.ttl(moment.now)),
            detail: Some("stale-if-error"),
            ..CacheStatus::forwarded(ForwardReason::Stale)
        },
        revalidate: None,
    })
}
