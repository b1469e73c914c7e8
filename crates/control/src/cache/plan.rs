//! What to do with a request, from what is stored and the time (RFC 9111 section 4).

use std::time::Duration;

use gatewright_determinism::Time;

use super::date::Moment;
use super::fields::Fields;
use super::ranges::Part;
use super::request::Request;
use super::status::{CacheStatus, ForwardReason};
use super::stored::StoredResponse;
use super::validation::Conditions;

/// What is known of a request's primary key.
#[derive(Debug)]
pub struct Found<'a, V> {
    /// The stored responses of the key. Indices in a [`Plan`] count in this slice.
    pub variants: &'a [V],
    /// A request that others may wait for is under way for the key.
    pub fetching: bool,
    /// The key's responses are known not to be storable: no request waits for another.
    pub uncacheable: bool,
}

/// What to do with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Answer from the store.
    Serve(Serve),
    /// Wait for the request of the same key that is under way, and decide anew when its response's fields are
    /// there: with them among the variants it is served if [`StoredResponse::can_be_shared`] and it fits; else the
    /// waiter goes to the upstream on its own.
    Collapse,
    /// Ask the upstream.
    Forward(Forward),
    /// Answer 504: nothing stored will do, and the request wants nothing else (`only-if-cached`).
    NotCached,
}

/// Answer from the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serve {
    /// Index of the stored response.
    pub variant: usize,
    /// Its age, for the `Age` field in whole seconds.
    pub age: Duration,
    /// Which part of it answers the request. To a HEAD, no body is sent.
    pub shape: Shape,
    /// For `Cache-Status`.
    pub status: CacheStatus,
    /// Ask for it anew in the background, with a GET whatever the request's method (`stale-while-revalidate`).
    pub revalidate: Option<SendAs>,
}

/// Which part of a stored response answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// All of it, with its own status.
    Whole,
    /// 304, without a body and without the fields that [`in_not_modified`](super::in_not_modified) leaves out.
    NotModified,
    /// 206 with `Content-Range` and these bytes.
    Part(Part),
    /// 416 with `Content-Range: bytes */length`.
    NotSatisfiable {
        /// Bytes of the whole.
        length: u64,
    },
}

/// Ask the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Why, for `Cache-Status`.
    pub why: ForwardReason,
    /// What is sent.
    pub send: SendAs,
    /// Others may wait for the response, if none is under way yet for the key.
    pub lead: bool,
    /// The response may be stored, if [`storing`](super::storing) says so.
    pub store: bool,
    /// The stored response that may answer instead if the upstream fails; [`on_failure`](super::on_failure)
    /// decides then.
    pub fallback: Option<usize>,
}

/// What is sent to the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendAs {
    /// The request with its own preconditions and range.
    AsReceived,
    /// The request without its preconditions and range ([`is_own`]): the answer to them is made from the
    /// response, with [`Request::shape_of`].
    Whole,
    /// The same, and with these conditions in their place.
    Conditional(Conditions),
}

impl Forward {
    /// For `Cache-Status`, before anything is known of the response.
    #[must_use]
    pub const fn status(&self) -> CacheStatus {
        CacheStatus::forwarded(self.why)
    }
}

/// Whether a request field (lower case) is the client's own precondition or range, which [`SendAs::Whole`] and
/// [`SendAs::Conditional`] leave out.
#[must_use]
pub fn is_own(name: &str) -> bool {
    matches!(
        name,
        "if-match"
            | "if-none-match"
            | "if-modified-since"
            | "if-unmodified-since"
            | "if-range"
            | "range"
    )
}

/// Decides what to do with a request.
#[must_use]
pub fn decide<Q: Fields + ?Sized, V: AsRef<StoredResponse>>(
    request: &Request<'_, Q>,
    found: &Found<'_, V>,
    moment: Moment,
) -> Plan {
    if !request.method().reads_store() {
        let store = request.method() == super::Method::Post;
        return as_received(ForwardReason::Method, store);
    }
    if request.directives().no_store || request.is_for_origin() {
        return as_received(ForwardReason::Request, !request.directives().no_store);
    }
    match selected(request, found.variants) {
        Some(variant) => with_stored(request, found, variant, moment),
        None => without_stored(request, found),
    }
}

/// Whether a stored response will do.
enum Verdict {
    Serve,
    ServeStale,
    Ask(ForwardReason),
}

fn with_stored<Q: Fields + ?Sized, V: AsRef<StoredResponse>>(
    request: &Request<'_, Q>,
    found: &Found<'_, V>,
    variant: usize,
    moment: Moment,
) -> Plan {
    let stored = found.variants[variant].as_ref();
    let conditional = || match Conditions::of(found.variants, [variant]) {
        Some(conditions) => SendAs::Conditional(conditions),
        None => SendAs::Whole,
    };
    let serve = |revalidate| {
        Plan::Serve(Serve {
            variant,
            age: stored.age(moment.now),
            shape: request.shape_of(stored, moment),
            status: CacheStatus::hit(stored.ttl(moment.now)),
            revalidate,
        })
    };
    let why = match verdict(request, stored, moment.now) {
        Verdict::Serve => return serve(None),
        Verdict::ServeStale if found.fetching => return serve(None),
        Verdict::ServeStale => return serve(Some(conditional())),
        Verdict::Ask(why) => why,
    };
    if request.directives().only_if_cached {
        return Plan::NotCached;
    }
    let get = request.method() == super::Method::Get;
    // Who waits gets nothing from a response that each request must validate by itself.
    let lead = get && !request.has_credentials() && stored.can_be_shared() && !found.uncacheable;
    if lead && found.fetching && !request.directives().no_cache {
        return Plan::Collapse;
    }
    let send = if get { conditional() } else { SendAs::Whole };
    Plan::Forward(Forward { why, send, lead, store: true, fallback: Some(variant) })
}

fn without_stored<Q: Fields + ?Sized, V: AsRef<StoredResponse>>(
    request: &Request<'_, Q>,
    found: &Found<'_, V>,
) -> Plan {
    if request.directives().only_if_cached {
        return Plan::NotCached;
    }
    let why =
        if found.variants.is_empty() { ForwardReason::UriMiss } else { ForwardReason::VaryMiss };
    if !request.is_shareable() || found.uncacheable {
        return as_received(why, true);
    }
    if found.fetching && !request.directives().no_cache {
        return Plan::Collapse;
    }
    // The origin may say that one of the other variants is what this request should have.
    let send = match Conditions::by_etag(found.variants) {
        Some(conditions) => SendAs::Conditional(conditions),
        None => SendAs::Whole,
    };
    Plan::Forward(Forward { why, send, lead: true, store: true, fallback: None })
}

fn as_received(why: ForwardReason, store: bool) -> Plan {
    Plan::Forward(Forward { why, send: SendAs::AsReceived, lead: false, store, fallback: None })
}

/// The stored response that a request selects: of those that fit, the newest (RFC 9111 section 4.1).
fn selected<Q: Fields + ?Sized, V: AsRef<StoredResponse>>(
    request: &Request<'_, Q>,
    variants: &[V],
) -> Option<usize> {
    let fitting = variants.iter().map(AsRef::as_ref).enumerate();
    fitting
        .filter(|(_, stored)| stored.selecting.fits(request.fields()))
        .max_by_key(|(_, stored)| (stored.date, stored.received))
        .map(|(index, _)| index)
}

fn verdict<Q: ?Sized + Fields>(
    request: &Request<'_, Q>,
    stored: &StoredResponse,
    now: Time,
) -> Verdict {
    let wants = request.directives();
    let fresh = stored.is_fresh(now);
    if stored.no_cache {
        return Verdict::Ask(ForwardReason::Stale);
    }
    let asked = Verdict::Ask(if fresh { ForwardReason::Request } else { ForwardReason::Stale });
    let age = stored.age(now);
    if wants.no_cache || wants.max_age.is_some_and(|oldest| age > oldest) {
        return asked;
    }
    if wants.min_fresh.is_some_and(|least| stored.lifetime.saturating_sub(age) < least) {
        return asked;
    }
    if fresh {
        return Verdict::Serve;
    }
    let stale_for = stored.stale_for(now);
    if stored.stale_on_request && wants.max_stale.is_some_and(|most| stale_for <= most) {
        return Verdict::Serve;
    }
    if stale_for < stored.stale_while_revalidate { Verdict::ServeStale } else { asked }
}
