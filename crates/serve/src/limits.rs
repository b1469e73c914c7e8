//! Rate limits: `gatewright_control::limit` decides, here are the clients that it is told of, and what they are told.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use gatewright_control::config::{LimitBy, RateLimit};
use gatewright_control::limit::{Limiter, Standing};
use gatewright_determinism::Time;
use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The limit of a route or a function.
#[derive(Debug)]
pub(crate) struct Limit {
    by: LimitBy,
    limiter: Mutex<Limiter>,
    /// Between two requests at the sustained rate.
    interval: Duration,
    /// Nobody can foresee where a client's place in the table is.
    hash: RandomState,
    /// "route" or "function".
    name: &'static str,
    /// How `RateLimit-Policy` describes it.
    policy: String,
}

/// What tells clients apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker<'a> {
    pub(crate) address: Option<IpAddr>,
    /// Name of its API key.
    pub(crate) key: Option<&'a str>,
    pub(crate) headers: &'a HeaderMap,
}

/// What limits say of a request: `RateLimit-Policy` and `RateLimit`
/// (draft-ietf-httpapi-ratelimit-headers-11).
#[derive(Debug)]
pub(crate) struct Told {
    policy: HeaderValue,
    state: HeaderValue,
    /// How long to wait, if the request may not be made.
    pub(crate) wait: Option<Duration>,
}

impl Limit {
    pub(crate) fn new(described: &RateLimit, name: &'static str) -> Self {
        let (requests, every) = (described.requests, described.every.get());
        // The draft knows whole seconds only.
        let whole = every.subsec_nanos() == 0;
        let window = if whole { format!(";w={}", every.as_secs()) } else { String::new() };
        let limiter = described.limiter();
        Self {
            by: described.by.clone(),
            interval: limiter.interval(),
            limiter: Mutex::new(limiter),
            hash: RandomState::new(),
            name,
            policy: format!("\"{name}\";q={requests}{window}"),
        }
    }

    fn client(&self, asker: &Asker<'_>) -> u64 {
        let address = || match asker.address.map(|address| address.to_canonical()) {
            // Whoever has one address of IPv6 has the 2^64 beside it.
            Some(IpAddr::V6(address)) => self.hash.hash_one((6, u128::from(address) >> 64)),
            Some(IpAddr::V4(address)) => self.hash.hash_one((4, u32::from(address))),
            None => 0,
        };
        match &self.by {
            LimitBy::All => 0,
            LimitBy::Address => address(),
            LimitBy::Key => asker.key.map_or_else(address, |key| self.hash.hash_one(("key", key))),
            LimitBy::Header(name) => match asker.headers.get(name.as_str()) {
                Some(value) => self.hash.hash_one(("header", value.as_bytes())),
                None => address(),
            },
        }
    }
}

/// Asks all limits of a request, and counts it if none is against it.
pub(crate) fn ask(limits: [Option<&Limit>; 2], asker: &Asker<'_>, now: Time) -> Option<Told> {
    // Always in the same order, so that two requests never wait for each other.
    let mut asked: Vec<_> = limits
        .into_iter()
        .flatten()
        .map(|limit| (limit, limit.client(asker), limit.limiter.lock()))
        .collect();
    if asked.is_empty() {
        return None;
    }
    let standings: Vec<_> =
        asked.iter().map(|(limit, client, limiter)| (*limit, limiter.look(now, *client))).collect();
    let admitted = standings.iter().all(|(_, standing)| standing.conforms);
    if admitted {
        asked.iter_mut().for_each(|(_, client, limiter)| limiter.take(now, *client));
    }
    drop(asked);
    Some(Told::new(&standings, admitted))
}

impl Told {
    fn new(standings: &[(&Limit, Standing)], admitted: bool) -> Self {
        let policies: Vec<_> = standings.iter().map(|(limit, _)| limit.policy.as_str()).collect();
        let states = standings.iter().map(|(limit, standing)| {
            // A request that another limit refused was not counted: one more may be made than after it.
            let uncounted = u32::from(standing.conforms && !admitted);
            let remaining = standing.remaining + u64::from(uncounted);
            let whole = standing.whole.saturating_sub(limit.interval * uncounted);
            let after = if remaining > 0 { whole } else { standing.next };
            format!("\"{}\";r={remaining};t={}", limit.name, seconds(after))
        });
        let states: Vec<_> = states.collect();
        let refusing = standings.iter().filter(|(_, standing)| !standing.conforms);
        let line = |text: String| {
            HeaderValue::try_from(text).expect("letters, digits and quotes are a header value")
        };
        Self {
            policy: line(policies.join(", ")),
            state: line(states.join(", ")),
            wait: refusing.map(|(_, standing)| standing.next).max(),
        }
    }

    /// Tells the client, beside what an upstream says of its own limits.
    pub(crate) fn add_to(self, headers: &mut HeaderMap) {
        headers.append(RATE_LIMIT_POLICY, self.policy);
        headers.append(RATE_LIMIT, self.state);
    }
}

/// Whole seconds, rounded up.
fn seconds(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(json: &str) -> Limit {
        Limit::new(&serde_json::from_str(json).unwrap(), "route")
    }

    fn same(
        limit: &Limit,
        one: (&str, Option<&str>, &str),
        other: (&str, Option<&str>, &str),
    ) -> bool {
        let client = |(address, key, header): (&str, Option<&str>, &str)| {
            let mut headers = HeaderMap::new();
            if !header.is_empty() {
                headers.insert("x-tenant", HeaderValue::from_str(header).unwrap());
            }
            limit.client(&Asker { address: Some(address.parse().unwrap()), key, headers: &headers })
        };
        client(one) == client(other)
    }

    #[test]
    fn clients_are_told_apart_by_what_the_file_says() {
        let by = |by: &str| limit(&format!("{{\"requests\": 1, \"by\": \"{by}\"}}"));
        let (address, key, all, header) =
            (by("address"), by("key"), by("all"), by("header:X-Tenant"));
        let plain = ("1.2.3.4", None, "");
        assert!(!same(&address, plain, ("1.2.3.5", None, "")));
        assert!(same(&address, plain, ("::ffff:1.2.3.4", Some("k"), "t")));
        assert!(same(&address, ("2001:db8::1", None, ""), ("2001:db8::ffff:1", None, "")));
        assert!(!same(&address, ("2001:db8::1", None, ""), ("2001:db8:0:1::1", None, "")));
        assert!(same(&key, ("1.2.3.4", Some("k"), ""), ("1.2.3.5", Some("k"), "")));
        assert!(!same(&key, ("1.2.3.4", Some("k"), ""), ("1.2.3.4", Some("l"), "")));
        assert!(!same(&key, plain, ("1.2.3.5", None, "")), "by address where there is no key");
        assert!(same(&all, plain, ("1.2.3.5", Some("k"), "t")));
        assert!(same(&header, ("1.2.3.4", None, "t"), ("1.2.3.5", None, "t")));
        assert!(!same(&header, ("1.2.3.4", None, "t"), ("1.2.3.4", None, "u")));
    }

    #[test]
    fn one_limit_that_is_against_it_spends_nothing_of_the_other() {
        let wide = limit("{\"requests\": 10, \"every\": \"10s\", \"by\": \"all\"}");
        let narrow = Limit {
            name: "function",
            ..limit("{\"requests\": 1, \"every\": \"60s\", \"by\": \"all\"}")
        };
        let headers = HeaderMap::new();
        let asker = Asker { address: None, key: None, headers: &headers };
        let now = Time::from_nanos(1);
        let ask = || {
            let told = ask([Some(&wide), Some(&narrow)], &asker, now).unwrap();
            let wait = told.wait.map(|wait| wait.as_secs());
            let mut headers = HeaderMap::new();
            told.add_to(&mut headers);
            (wait, headers[&RATE_LIMIT].to_str().unwrap().to_owned())
        };
        assert_eq!(ask(), (None, "\"route\";r=9;t=1, \"function\";r=0;t=60".to_owned()));
        for _ in 0..20 {
            assert_eq!(ask(), (Some(60), "\"route\";r=9;t=1, \"function\";r=0;t=60".to_owned()));
        }
        let both =
            [Some(&narrow), Some(&limit("{\"requests\": 1, \"every\": \"9s\", \"by\": \"all\"}"))];
        super::ask(both, &asker, now + Duration::from_secs(60)).unwrap();
        let told = super::ask(both, &asker, now + Duration::from_secs(61)).unwrap();
        assert_eq!(
            told.wait,
            Some(Duration::from_secs(59)),
            "both are against it: the longer wait"
        );
        assert_eq!(wide.policy, "\"route\";q=10;w=10");
        assert_eq!(limit("{\"requests\": 3, \"every\": \"250ms\"}").policy, "\"route\";q=3");
        assert!(super::ask([None, None], &asker, now).is_none());
    }

    #[test]
    fn what_an_upstream_says_of_its_own_limits_stays() {
        let limit = limit("{\"requests\": 2, \"by\": \"all\"}");
        let asker = Asker { address: None, key: None, headers: &HeaderMap::new() };
        let told = ask([Some(&limit), None], &asker, Time::from_nanos(1)).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(RATE_LIMIT, HeaderValue::from_static("\"theirs\";r=7"));
        headers.insert(RATE_LIMIT_POLICY, HeaderValue::from_static("\"theirs\";q=9"));
        told.add_to(&mut headers);
        let lines = |name| headers.get_all(name).iter().count();
        assert_eq!((lines(RATE_LIMIT), lines(RATE_LIMIT_POLICY)), (2, 2));
        assert_eq!(headers[&RATE_LIMIT], "\"theirs\";r=7");
    }
}
