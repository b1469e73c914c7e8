//! What a stored response is good for: the rules of a shared cache, decided from what is stored, the request and
//! the time, without looking at a clock or a store. The relay and the simulator run the same rules.
//!
//! RFC 9111 (HTTP caching), RFC 5861 (`stale-while-revalidate`, `stale-if-error`), RFC 9211 (`Cache-Status`) and
//! RFC 9213 (targeted fields). No HTTP library is needed: header fields come through the trait [`Fields`].
//!
//! ```text
//!  request --> Request::read, PrimaryKey::of
//!                  |
//!  store  ---> decide ---> Serve | Collapse | NotCached
//!                  |
//!               Forward ---> upstream ---> fails ---> on_failure ---> Serve, or the failure
//!                                |
//!                               304 ---> Conditions::confirmed, freshen --+
//!                                |                                        |
//!                             a response ---> storing --------------------+--> Store | Refuse
//!                                |
//!                             unsafe method ---> invalidated;  HEAD ---> head_effect
//! ```
//!
//! A miss and the hit after it:
//!
//! ```
//! use gatewright_control::cache::*;
//! use gatewright_determinism::Time;
//!
//! let policy = CachePolicy::default();
//! let anchor = WallAnchor { unix_nanos_at_start: 1_795_219_200_000_000_000 };
//! let fields = [("accept", "*/*")];
//! let target = Target { scheme: "http", authority: "host", path: "/menu", query: Some("day=1") };
//!
//! let request = Request::read("GET", &fields[..], &policy);
//! let key = PrimaryKey::of(&target, request.fields(), &policy.key).expect("it is short");
//! assert_eq!(key.as_str(), "http://host/menu?day=1");
//!
//! // Nothing is stored: the request goes to the upstream, and others may wait for its response.
//! let nothing: [StoredResponse; 0] = [];
//! let found = Found { variants: &nothing, fetching: false, uncacheable: false };
//! let Plan::Forward(forward) = decide(&request, &found, Moment { now: Time::ZERO, anchor }) else {
//!     unreachable!()
//! };
//! assert!(forward.lead && forward.send == SendAs::Whole);
//!
//! // The response is stored, without the fields that `fields.keeps` leaves out, and answers the next request.
//! let response = [("cache-control", "max-age=60"), ("etag", "\"a\"")];
//! let exchange = Exchange {
//!     request: &request,
//!     target,
//!     status: 200,
//!     response: &response[..],
//!     sent: Time::ZERO,
//!     received: Time::ZERO,
//!     anchor,
//! };
//! let Storing::Store { stored, .. } = storing(&exchange, &policy) else { unreachable!() };
//! let variants = [*stored];
//! let found = Found { variants: &variants, fetching: false, uncacheable: false };
//! let moment = Moment { now: Time::from_secs_f64(2.5), anchor };
//! let Plan::Serve(serve) = decide(&request, &found, moment) else { unreachable!() };
//! assert_eq!((serve.age.as_secs(), serve.shape), (2, Shape::Whole));
//! assert_eq!(serve.status.named("gatewright").to_string(), "gatewright; hit; ttl=57");
//! ```
//!
//! Where to look: `freshness` says how long and how old, `storing` what is stored, `selecting` is `Vary`, `plan`
//! decides about requests, `validation` and `ranges` are conditional requests and parts, `failure` serves stale,
//! `policy` is what an operator may set.

pub mod date;
mod directives;
mod failure;
mod fields;
mod freshness;
mod invalidation;
mod key;
mod method;
mod plan;
mod policy;
mod ranges;
mod request;
mod selecting;
mod status;
mod stored;
mod storing;
mod structured;
mod tags;
mod target;
#[cfg(test)]
mod tests;
mod validation;

pub use date::{Moment, WallAnchor};
pub use directives::{RequestDirectives, ResponseDirectives};
pub use failure::{Failure, on_failure};
pub use fields::Fields;
pub(crate) use fields::elements;
pub use invalidation::invalidated;
pub use key::{KEY_MAX, PrimaryKey};
pub use method::Method;
pub use plan::{Forward, Found, Plan, SendAs, Serve, Shape, decide, is_own};
pub use policy::{CachePolicy, KeyRules, PolicyError, QueryParts, SetCookie, StatusPattern};
pub use ranges::Part;
pub use request::Request;
pub use selecting::Selecting;
pub use status::{CacheStatus, ForwardReason, NamedStatus};
pub use stored::StoredResponse;
pub use storing::{Exchange, Refusal, StoredFields, Storing, is_of_connection, storing};
pub use target::{OwnedTarget, Target};
pub use validation::{Conditions, HeadEffect, freshen, head_effect, in_not_modified, merged};
