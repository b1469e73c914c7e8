//! The rules in small: one stored response of a key, known by three numbers.

use std::time::Duration;

use gatewright_determinism::Time;

use super::directives::Directives;

/// What is known of a stored response without looking at its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// When it was received.
    pub at: Time,
    /// How old it was then (its `Age`).
    pub initial_age: Duration,
    /// How old it may get while it is fresh.
    pub lifetime: Duration,
}

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Answer from the store; the response is this old.
    Hit {
        /// For the `Age` field.
        age: Duration,
    },
    /// Wait for the fetch of the same key that is under way.
    Collapse,
    /// Fetch from the upstream, for whoever else comes meanwhile as well.
    Fetch,
}

/// What a request finds: a stored response, if there is one, and whether its key is being fetched.
#[must_use]
pub fn look_up(now: Time, stored: Option<&Stored>, fetching: bool) -> Decision {
    match stored {
        Some(stored) if stored.is_fresh(now) => Decision::Hit { age: stored.age(now) },
        _ if fetching => Decision::Collapse,
        _ => Decision::Fetch,
    }
}

impl Stored {
    /// Age of the response at `now` (RFC 9111 section 4.2.3; the response's delay is taken as zero).
    #[must_use]
    pub fn age(&self, now: Time) -> Duration {
        self.initial_age + (now - self.at)
    }

    /// Whether it may be served without asking the upstream (RFC 9111 section 4.2).
    #[must_use]
    pub fn is_fresh(&self, now: Time) -> bool {
        self.age(now) < self.lifetime
    }
}

/// Whether a request may be answered from a cache, and its response stored: a safe method without a body of its
/// own, and no wish against it.
#[must_use]
pub fn request_cacheable(method: &str, cache_control: &Directives) -> bool {
    matches!(method, "GET" | "HEAD") && !cache_control.no_store
}

/// How long a response stays fresh in a shared cache; `None` if it must not be stored (RFC 9111 section 3).
///
/// `route` is the lifetime that the operator set for the route: it stands above the response's own, but not above
/// its `no-store` or `private`. Without it, `s-maxage` goes before `max-age`; there are no heuristics.
#[must_use]
pub fn lifetime(
    status: u16,
    authorized: bool,
    response: &Directives,
    route: Option<Duration>,
) -> Option<Duration> {
    let forbidden = response.no_store || response.private || response.no_cache;
    let private_request =
        authorized && !response.public && response.s_maxage.is_none() && !response.must_revalidate;
    if status != 200 || forbidden || private_request {
        return None;
    }
    route.or(response.s_maxage).or(response.max_age).filter(|lifetime| !lifetime.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn stored(lifetime: u64) -> Stored {
        Stored {
            at: Time::from_secs_f64(10.0),
            initial_age: SECOND,
            lifetime: SECOND * lifetime as u32,
        }
    }

    #[test]
    fn fresh_until_its_lifetime_is_over() {
        let entry = stored(5);
        let at = |seconds| look_up(Time::from_secs_f64(seconds), Some(&entry), false);
        assert_eq!(at(10.0), Decision::Hit { age: SECOND });
        assert_eq!(at(13.5), Decision::Hit { age: Duration::from_millis(4_500) });
        assert_eq!(at(14.0), Decision::Fetch);
    }

    #[test]
    fn one_fetch_for_all_who_come_meanwhile() {
        assert_eq!(look_up(Time::ZERO, None, false), Decision::Fetch);
        assert_eq!(look_up(Time::ZERO, None, true), Decision::Collapse);
        assert_eq!(look_up(Time::from_secs_f64(99.0), Some(&stored(5)), true), Decision::Collapse);
    }

    #[test]
    fn lifetime_follows_the_rules() {
        let rule = |status, authorized, fields: &str, route: Option<u64>| {
            let directives = Directives::parse([fields]);
            lifetime(status, authorized, &directives, route.map(Duration::from_secs))
                .map(|lifetime| lifetime.as_secs())
        };
        assert_eq!(rule(200, false, "max-age=5", None), Some(5));
        assert_eq!(rule(200, false, "max-age=5, s-maxage=7", None), Some(7));
        assert_eq!(rule(200, false, "max-age=5", Some(60)), Some(60));
        assert_eq!(rule(200, false, "", None), None);
        assert_eq!(rule(200, false, "max-age=0", None), None);
        assert_eq!(rule(200, false, "no-store", Some(60)), None);
        assert_eq!(rule(200, false, "private, max-age=5", Some(60)), None);
        assert_eq!(rule(500, false, "max-age=5", Some(60)), None);
        assert_eq!(rule(200, true, "max-age=5", Some(60)), None);
        assert_eq!(rule(200, true, "public, max-age=5", None), Some(5));
    }

    #[test]
    fn requests_that_a_cache_may_answer() {
        assert!(request_cacheable("GET", &Directives::default()));
        assert!(!request_cacheable("POST", &Directives::default()));
        assert!(!request_cacheable("GET", &Directives::parse(["No-Store"])));
    }
}
