use std::time::Duration;

use gatewright_determinism::Time;
use serde::{Deserialize, Serialize};

use super::date::WallAnchor;
use super::selecting::Selecting;

/// What is known of a stored response without looking at its fields or body: enough to decide whether a request
/// may have it.
///
/// It can be written to a shared store or a disk and read by another run: see [`StoredResponse::rebase`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredResponse {
    /// Status code.
    pub status: u16,
    /// When it was received, or last validated.
    pub received: Time,
    /// How old it was then.
    pub initial_age: Duration,
    /// How old it may get while it is fresh.
    pub lifetime: Duration,
    /// It is never served without asking the origin.
    pub no_cache: bool,
    /// How long after its lifetime it is served while it is asked for anew. 0 if that is forbidden.
    pub stale_while_revalidate: Duration,
    /// How long after its lifetime it is served when the upstream fails. 0 if that is forbidden.
    pub stale_if_error: Duration,
    /// Whether a request may ask for it though it is stale (`max-stale`, `stale-if-error`).
    pub stale_on_request: bool,
    /// The requests that it is for.
    pub selecting: Selecting,
    /// Its `ETag`.
    pub etag: Option<Box<[u8]>>,
    /// Its `Last-Modified` as it came, if it is a date.
    pub last_modified: Option<Box<[u8]>>,
    /// Its last change, seconds since 1970.
    pub modified: Option<i64>,
    /// When it was made, seconds since 1970.
    pub date: i64,
    /// Bytes of its body, once it is whole; ranges are served from then on.
    pub length: Option<u64>,
    /// How long after its lifetime it is kept in order to be validated.
    pub keep: Duration,
    /// Tags to purge it by.
    pub tags: Vec<String>,
}

impl StoredResponse {
    /// Age at `now` (RFC 9111 section 4.2.3).
    #[must_use]
    pub fn age(&self, now: Time) -> Duration {
        self.initial_age.saturating_add(now - self.received)
    }

    /// Whether it is fresh at `now` (RFC 9111 section 4.2).
    #[must_use]
    pub fn is_fresh(&self, now: Time) -> bool {
        self.age(now) < self.lifetime
    }

    /// How long it has been stale; zero while it is fresh.
    #[must_use]
    pub fn stale_for(&self, now: Time) -> Duration {
        self.age(now).saturating_sub(self.lifetime)
    }

    /// Seconds until it is stale, negative if it is (the `ttl` of RFC 9211).
    #[must_use]
    pub fn ttl(&self, now: Time) -> i64 {
        let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
        let (age, lifetime) = (self.age(now), self.lifetime);
        if age < lifetime { seconds(lifetime - age) } else { -seconds(age - lifetime) }
    }

    /// Whether it can be validated at its origin.
    #[must_use]
    pub fn has_validator(&self) -> bool {
        self.etag.is_some() || self.last_modified.is_some()
    }

    /// Whether requests that wait for it to arrive may have it when it does, each without asking on its own.
    #[must_use]
    pub fn can_be_shared(&self) -> bool {
        !self.no_cache
            && (self.initial_age < self.lifetime || !self.stale_while_revalidate.is_zero())
    }

    /// How long after `now` a store should keep it; after that no decision here would use it.
    #[must_use]
    pub fn useful_for(&self, now: Time) -> Duration {
        let keep = if self.has_validator() { self.keep } else { Duration::ZERO };
        let longest = self.stale_while_revalidate.max(self.stale_if_error).max(keep);
        self.lifetime.saturating_add(longest).saturating_sub(self.age(now))
    }

    /// Makes it stale from `now` on (a soft purge): it is validated before it is next served, or served within
    /// its stale windows, which begin now.
    pub fn expire(&mut self, now: Time) {
        self.lifetime = self.lifetime.min(self.age(now));
    }

    /// The same for a run whose time starts elsewhere on the calendar: written by a run with the anchor `from`,
    /// read by one with the anchor `to` at `now`.
    #[must_use]
    pub fn rebase(mut self, from: WallAnchor, to: WallAnchor, now: Time) -> Self {
        let since = to.unix_nanos(now).saturating_sub(from.unix_nanos(self.received));
        self.initial_age = self.initial_age.saturating_add(Duration::from_nanos(since));
        self.received = now;
        self
    }
}

impl AsRef<Self> for StoredResponse {
    fn as_ref(&self) -> &Self {
        self
    }
}
