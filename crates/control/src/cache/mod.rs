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
//! Where to look: `freshness` says how long and how old, `storing` what is stored, `selecting` is `Vary`, `plan`
//! decides about requests, `validation` and `ranges` are conditional requests and parts, `failure` serves stale,
//! `policy` is what an operator may set. [`look_up`], [`Stored`] and [`lifetime`] are the same rules in small, for
//! a key without variants.

mod basic;
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

pub use basic::{Decision, Stored, lifetime, look_up, request_cacheable};
pub use date::{Moment, WallAnchor};
pub use directives::{Directives, RequestDirectives, ResponseDirectives};
pub use failure::{Failure, on_failure};
pub use fields::Fields;
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
