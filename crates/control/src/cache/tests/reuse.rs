//! Families: cc-response, cc-request, pragma, auth, vary, method, invalidation, headers, other.

use super::{BODY, Origin, Relay, SendAs, policy, reused, standard};

const FRESH: (&str, &str) = ("Cache-Control", "max-age=3600");
const NEW: Origin<'_> = Origin::Answers(200, &[]);

/// Whether what was stored three seconds ago answers another request.
fn answers(stored_for: &[(&str, &str)], fields: &[(&str, &str)], request: &[(&str, &str)]) -> bool {
    let mut relay = Relay::new(standard());
    relay.get(stored_for, Origin::Answers(200, fields));
    relay.wait(3.0);
    relay.get(request, NEW).cached
}

#[test]
fn responses_say_whether_they_are_stored() {
    for said in ["private", "No-StOrE", "no-cache", "NO-CACHE", "private=\"\""] {
        let fields = [("Cache-Control", said), FRESH, ("Expires", "@10000")];
        assert!(!reused(&standard(), 200, &fields), "{said}");
    }
    assert!(reused(&standard(), 200, &[("Cache-Control", "max-age=10000, must-revalidate")]));
}

#[test]
fn a_later_no_store_leaves_what_is_stored() {
    let mut relay = Relay::new(standard());
    relay.get(&[], Origin::Answers(200, &[FRESH, ("a", "1")]));
    let no_store = Origin::Answers(200, &[("Cache-Control", "no-store"), ("a", "2")]);
    relay.get(&[("Cache-Control", "no-cache")], no_store);
    assert_eq!(relay.get(&[], NEW).field("a"), Some("1"));
}

#[test]
fn fields_are_withheld_from_the_store() {
    let mut relay = Relay::new(standard());
    let fields = [
        ("Cache-Control", "no-cache=\"a, B\""),
        FRESH,
        ("a", "1"),
        ("b", "2"),
        ("c", "3"),
        ("Connection", "d, Keep-Alive"),
        ("d", "4"),
        ("Keep-Alive", "5"),
        ("Proxy-Authenticate", "6"),
        ("Transfer-Encoding", "chunked"),
        ("Age", "7"),
        ("Set-Cookie", "e=f"),
        ("Content-Length", "11"),
    ];
    let first = relay.get(&[], Origin::Answers(200, &fields));
    assert_eq!(first.field("a"), Some("1"), "the first answer is whole");
    let second = relay.get(&[], NEW);
    assert!(second.cached);
    for name in
        ["a", "b", "d", "connection", "keep-alive", "proxy-authenticate", "transfer-encoding"]
    {
        assert_eq!(second.field(name), None, "{name}");
    }
    for (name, value) in [("c", "3"), ("set-cookie", "e=f"), ("content-length", "11"), ("age", "7")]
    {
        assert_eq!(second.field(name), Some(value), "{name}");
    }
}

#[test]
fn cookies_are_stored_where_the_response_says_how_long() {
    let cookie = [("Set-Cookie", "a=b")];
    let both = [("Set-Cookie", "a=b"), FRESH];
    assert!(reused(&standard(), 200, &both));
    assert!(!reused(&policy("ttl = \"1h\""), 200, &cookie), "only the operator says");
    assert!(!reused(&policy("set_cookie = \"refuse\""), 200, &both));
    let mut relay = Relay::new(policy("set_cookie = \"strip\"\nttl = \"1h\""));
    relay.get(&[], Origin::Answers(200, &cookie));
    let reply = relay.get(&[("Cookie", "x=y")], NEW);
    assert!(reply.cached && reply.field("set-cookie").is_none());
}

#[test]
fn requests_say_what_they_would_take() {
    let aged = [("Cache-Control", "max-age=1500"), ("Age", "1000")];
    let stale = [("Cache-Control", "max-age=2"), ("ETag", "\"x\"")];
    for (fields, said, expected) in [
        (&[FRESH][..], "max-age=0", false),
        (&[FRESH], "max-age=1", false),
        (&[FRESH], "max-age=3", true),
        (&[FRESH], "max-age=x", false),
        (&aged, "max-age=600", false),
        (&aged, "min-fresh=1000", false),
        (&aged, "min-fresh=400", true),
        (&stale, "max-stale=1000", true),
        (&stale, "max-stale", true),
        (&stale, "max-stale=0", false),
        (&stale, "max-stale=1000, min-fresh=1", false),
        (&[FRESH], "no-cache", false),
        (&[FRESH], "no-store", false),
        (&[FRESH], "only-if-cached", true),
        (&[FRESH], "no-transform, foo=bar", true),
        (&[("Cache-Control", "max-age=2, must-revalidate"), ("ETag", "\"x\"")], "max-stale", false),
        (&[("Cache-Control", "s-maxage=2"), ("ETag", "\"x\"")], "max-stale", false),
    ] {
        assert_eq!(answers(&[], fields, &[("Cache-Control", said)]), expected, "{fields:?} {said}");
    }
    let deaf = policy("client_directives = false");
    let mut relay = Relay::new(deaf);
    relay.get(&[("Cache-Control", "no-store")], Origin::Answers(200, &[FRESH]));
    assert!(relay.get(&[("Cache-Control", "no-cache")], NEW).cached);
}

#[test]
fn only_if_cached_is_never_sent_on() {
    let mut relay = Relay::new(standard());
    let only = [("Cache-Control", "only-if-cached")];
    assert_eq!(relay.get(&only, Origin::Answers(200, &[FRESH])).status, 504);
    relay.get(&[], Origin::Answers(200, &[("Cache-Control", "max-age=1"), ("ETag", "\"x\"")]));
    relay.wait(2.0);
    assert_eq!(relay.get(&only, NEW).status, 504);
}

#[test]
fn pragma_speaks_only_without_cache_control() {
    assert!(!answers(&[], &[FRESH], &[("Pragma", "foo, No-Cache")]));
    assert!(answers(&[], &[FRESH], &[("Pragma", "no-cache"), ("Cache-Control", "foo")]));
    assert!(answers(&[], &[FRESH], &[("Pragma", "foo")]));
    assert!(
        reused(&standard(), 200, &[FRESH, ("Pragma", "no-cache")]),
        "in responses it says nothing"
    );
}

#[test]
fn a_request_with_no_store_leaves_nothing() {
    let mut relay = Relay::new(standard());
    relay.get(&[("Cache-Control", "no-store")], Origin::Answers(200, &[FRESH]));
    assert!(relay.store.is_empty());
}

#[test]
fn responses_to_credentials_are_stored_if_they_are_for_all() {
    let user = [("Authorization", "Basic x")];
    for (said, expected) in [
        ("max-age=3600", false),
        ("max-age=3600, public", true),
        ("max-age=3600, must-revalidate", true),
        ("max-age=3600, proxy-revalidate", false),
        ("s-maxage=3600", true),
    ] {
        assert_eq!(answers(&user, &[("Cache-Control", said)], &[]), expected, "{said}");
    }
    assert!(answers(&[], &[FRESH], &user), "what is for all is for users too");
}

#[test]
fn variants_are_stored_side_by_side() {
    let mut relay = Relay::new(standard());
    let vary = [FRESH, ("Vary", "Foo")];
    relay.get(&[("foo", "1")], Origin::Answers(200, &[vary[0], vary[1], ("a", "1")]));
    let second = relay.get(&[("foo", "2")], Origin::Answers(200, &[vary[0], vary[1], ("a", "2")]));
    assert!(!second.cached && second.said.contains("fwd=vary-miss"));
    assert_eq!(relay.get(&[("foo", "1"), ("bar", "x")], NEW).field("a"), Some("1"));
    assert_eq!(relay.get(&[("foo", "2")], NEW).field("a"), Some("2"));
    assert!(!relay.get(&[], NEW).cached);
    assert!(!reused(&standard(), 200, &[FRESH, ("Vary", "foo, *")]));
}

#[test]
fn unsafe_methods_invalidate_what_they_change() {
    for (method, status, cached) in [
        ("POST", 200, false),
        ("PUT", 201, false),
        ("DELETE", 204, false),
        ("M-SEARCH", 200, false),
        ("PATCH", 303, false),
        ("POST", 500, true),
        ("PUT", 404, true),
        ("OPTIONS", 200, true),
    ] {
        let mut relay = Relay::new(standard());
        relay.get(&[], Origin::Answers(200, &[FRESH]));
        let reply = relay.send(method, &[], Origin::Answers(status, &[]));
        assert_eq!(reply.sent, Some(SendAs::AsReceived), "{method}");
        assert_eq!(relay.get(&[], NEW).cached, cached, "{method} {status}");
    }
}

#[test]
fn a_response_to_post_answers_get_if_it_says_so() {
    let after_post = |fields: &[(&str, &str)]| {
        let mut relay = Relay::new(policy("default_ttl = \"1h\""));
        relay.send("POST", &[], Origin::Answers(200, fields));
        relay.get(&[], NEW).cached
    };
    assert!(after_post(&[FRESH, ("Content-Location", "/a")]));
    assert!(!after_post(&[FRESH]));
    assert!(!after_post(&[FRESH, ("Content-Location", "/b")]));
    assert!(!after_post(&[("Content-Location", "/a")]), "it does not say how long");
}

#[test]
fn head_is_answered_from_a_stored_get_but_not_stored_for_it() {
    let mut relay = Relay::new(standard());
    relay.send("HEAD", &[], Origin::Answers(200, &[FRESH]));
    assert!(relay.store.is_empty());
    relay.get(&[], Origin::Answers(200, &[FRESH]));
    assert!(relay.send("HEAD", &[("range", "bytes=0-1")], NEW).status == 200);
    assert!(relay.send("HEAD", &[], NEW).cached);
}

#[test]
fn age_is_made_and_date_is_left_alone() {
    let mut relay = Relay::new(standard());
    let first = relay.get(&[], Origin::Answers(200, &[FRESH, ("Date", "@0"), ("Age", "30")]));
    relay.wait(3.2);
    let second = relay.get(&[], NEW);
    assert_eq!(second.field("age"), Some("33"));
    assert_eq!(second.field("date"), first.field("date"));
    assert_eq!(second.said, "c; hit; ttl=3566");
    assert_eq!(relay.store[0].0.length, Some(BODY));
}
