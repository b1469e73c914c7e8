//! Families: stale, and what an operator may and may not set.

use super::{Origin, Relay, SendAs, policy, standard};
use crate::cache::CachePolicy;

const NEW: Origin<'_> = Origin::Answers(200, &[]);

/// The answer three seconds after a response came, when the origin does this.
fn later(policy: &CachePolicy, said: &str, request: &[(&str, &str)], origin: Origin<'_>) -> u16 {
    let mut relay = Relay::new(policy.clone());
    relay.get(&[], Origin::Answers(200, &[("Cache-Control", said), ("ETag", "\"a\"")]));
    relay.wait(3.0);
    let reply = relay.get(request, origin);
    if reply.cached { reply.status } else { 1_000 + reply.status }
}

#[test]
fn served_within_its_window_while_it_is_asked_for() {
    let mut relay = Relay::new(standard());
    let fields = [("Cache-Control", "max-age=1, stale-while-revalidate=4"), ("ETag", "\"a\"")];
    relay.get(&[], Origin::Answers(200, &fields));
    relay.wait(3.0);
    let reply = relay.get(&[], NEW);
    assert!(reply.cached);
    assert_eq!((reply.field("age"), reply.said.as_str()), (Some("3"), "c; hit; ttl=-2"));
    let Some(SendAs::Conditional(conditions)) = &relay.refreshing else { panic!("not refreshed") };
    assert_eq!(conditions.if_none_match.as_deref(), Some(&b"\"a\""[..]));
    relay.wait(2.0);
    assert!(!relay.get(&[], NEW).cached, "the window is over");
}

#[test]
fn served_within_its_window_when_the_origin_fails() {
    let said = "max-age=2, stale-if-error=60";
    for origin in [Origin::Closes, Origin::Answers(503, &[]), Origin::Answers(500, &[])] {
        assert_eq!(later(&standard(), said, &[], origin), 200);
        assert_eq!(later(&standard(), "max-age=2", &[], origin) / 1_000, 1);
        let asked = [("Cache-Control", "stale-if-error=60")];
        assert_eq!(later(&standard(), "max-age=2", &asked, origin), 200, "the request allows it");
        let short = later(&standard(), "max-age=1, stale-if-error=2", &[], origin);
        assert_eq!(short / 1_000, 1, "the window is over");
    }
    assert_eq!(later(&standard(), said, &[], Origin::Answers(404, &[])), 1_404, "no failure");
    assert_eq!(later(&standard(), said, &[], Origin::Answers(501, &[])), 1_501, "no failure");
}

#[test]
fn a_failure_that_was_stored_stands_in_for_no_other() {
    let mut relay = Relay::new(standard());
    let said = [("Cache-Control", "max-age=2, stale-if-error=60")];
    relay.get(&[], Origin::Answers(500, &said));
    assert_eq!(relay.get(&[], NEW).status, 500, "it said that it is fresh");
    relay.wait(3.0);
    let reply = relay.get(&[], Origin::Answers(503, &[]));
    assert_eq!((reply.cached, reply.status), (false, 503));
}

#[test]
fn the_operator_sets_windows_where_the_response_is_silent() {
    let set = policy("stale_if_error = \"1m\"\nstale_while_revalidate = \"1m\"");
    let error_only = policy("stale_if_error = \"1m\"");
    assert_eq!(later(&set, "max-age=2", &[], NEW), 200);
    assert_eq!(later(&error_only, "max-age=2", &[], Origin::Closes), 200);
    assert_eq!(later(&error_only, "max-age=0", &[], Origin::Closes), 200);
    assert_eq!(later(&set, "max-age=0", &[], NEW), 1_200, "it was never fresh");
    assert_eq!(later(&set, "foo", &[], NEW), 1_200, "it never said that it is fresh");
    assert_eq!(later(&set, "max-age=2, stale-while-revalidate=0", &[], NEW), 1_200, "it says");
}

#[test]
fn never_against_the_responses_word() {
    let set = policy("stale_if_error = \"1h\"\nstale_while_revalidate = \"1h\"");
    for said in ["must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=2"] {
        for request in [&[][..], &[("Cache-Control", "max-stale, stale-if-error=60")]] {
            let said = format!("max-age=2, {said}");
            assert_eq!(later(&set, &said, request, Origin::Closes), 1_502, "{said}");
            assert_eq!(later(&set, &said, request, NEW), 1_200, "{said}");
        }
    }
    let both = "max-age=2, must-revalidate, stale-if-error=60, stale-while-revalidate=60";
    assert_eq!(later(&standard(), both, &[], Origin::Closes), 1_502);
    let shared = "s-maxage=2, stale-if-error=60";
    assert_eq!(later(&standard(), shared, &[], Origin::Closes), 200, "it allows it itself");
}

#[test]
fn never_against_the_requests_word() {
    let said = "max-age=1, stale-if-error=60, stale-while-revalidate=60";
    for wants in ["no-cache", "max-age=2", "min-fresh=1"] {
        let request = [("Cache-Control", wants)];
        assert_eq!(later(&standard(), said, &request, Origin::Closes), 1_502, "{wants}");
        assert_eq!(later(&standard(), said, &request, NEW), 1_200, "{wants}");
    }
}

#[test]
fn a_soft_purge_begins_the_windows() {
    let mut relay = Relay::new(standard());
    let said = "max-age=3600, stale-while-revalidate=5, stale-if-error=9";
    relay.get(&[], Origin::Answers(200, &[("Cache-Control", said)]));
    relay.wait(100.0);
    let now = relay.now;
    relay.store[0].0.expire(now);
    relay.wait(4.0);
    assert!(relay.get(&[], NEW).cached && relay.refreshing.is_some());
    relay.wait(4.0);
    assert!(relay.get(&[], Origin::Closes).cached);
    relay.wait(4.0);
    assert_eq!(relay.get(&[], Origin::Closes).status, 502);
}
