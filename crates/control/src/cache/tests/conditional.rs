//! Families: conditional-inm, conditional-lm, partial.

use super::{Origin, Relay, SendAs, reused, standard};

const FRESH: (&str, &str) = ("Cache-Control", "max-age=3600");
const NEW: Origin<'_> = Origin::Answers(200, &[]);

/// Status of the answer from the store to a request, three seconds after the response came.
fn from_store(fields: &[(&str, &str)], request: &[(&str, &str)]) -> u16 {
    let mut relay = Relay::new(standard());
    relay.get(&[], Origin::Answers(200, fields));
    relay.wait(3.0);
    let reply = relay.get(request, NEW);
    assert!(reply.cached, "{request:?}");
    reply.status
}

#[test]
fn entity_tags_are_compared_weakly() {
    for (etag, asked, status) in [
        ("\"abc\"", "\"abc\"", 304),
        ("\"abc\"", "\"abd\"", 200),
        ("W/\"abc\"", "W/\"abc\"", 304),
        ("\"abc\"", "W/\"abc\"", 304),
        ("W/\"abc\"", "\"abc\"", 304),
        ("\"abc\"", "\"abc\", \"1\"", 304),
        ("\"abc\"", "\"1\", \"abc\"", 304),
        ("\"a,b\"", "\"1\",\"a,b\"", 304),
        ("\"abc\"", "*", 304),
        ("abc", "abc", 304),
        ("w/\"abc\"", "w/\"abc\"", 304),
        ("W\\\"abc\"", "W\\\"abc\"", 304),
        ("\"abc\"", "abc", 200),
        ("\"abcdef\u{fc}\"", "\"abcdef\u{fc}\"", 304),
        ("\"abc\"", "", 200),
    ] {
        let status_got = from_store(&[FRESH, ("ETag", etag)], &[("If-None-Match", asked)]);
        assert_eq!(status_got, status, "{etag} {asked}");
    }
    assert_eq!(from_store(&[FRESH], &[("If-None-Match", "\"a\"")]), 200, "it has none");
}

#[test]
fn last_change_counts_where_no_tag_is_asked_for() {
    let changed = ("Last-Modified", "@-3000");
    let since = |value| [("If-Modified-Since", value)];
    for (asked, status) in [("@-3003", 304), ("@-2000", 304), ("@-4000", 200), ("foo", 200)] {
        assert_eq!(from_store(&[FRESH, changed], &since(asked)), status, "{asked}");
    }
    let both = [("If-None-Match", "\"abc\""), ("If-Modified-Since", "@-10000")];
    assert_eq!(from_store(&[FRESH, changed, ("ETag", "\"abc\"")], &both), 304);
    assert_eq!(from_store(&[FRESH, changed, ("ETag", "\"abd\"")], &both), 200);
    assert_eq!(from_store(&[FRESH, ("Date", "@0")], &since("@10")), 304, "its date stands in");
    assert_eq!(from_store(&[FRESH, ("Date", "@0")], &since("@-10")), 200);
    let rfc850 = ("Last-Modified", "Wed, 06 Nov 2024 08:49:37 GMT");
    let asked = since("Wednesday, 06-Nov-24 08:49:37 GMT");
    assert_eq!(from_store(&[FRESH, rfc850], &asked), 304);
}

#[test]
fn a_304_says_what_it_must() {
    let mut relay = Relay::new(standard());
    let fields = [FRESH, ("ETag", "\"a\""), ("Content-Type", "text/plain"), ("Vary", "foo")];
    relay.get(&[], Origin::Answers(200, &fields));
    let reply = relay.get(&[("If-None-Match", "\"a\"")], NEW);
    assert_eq!(reply.status, 304);
    assert_eq!((reply.field("etag"), reply.field("vary")), (Some("\"a\""), Some("foo")));
    assert_eq!((reply.field("content-type"), reply.field("age")), (None, Some("0")));
}

#[test]
fn the_clients_conditions_are_answered_after_a_whole_fetch() {
    let mut relay = Relay::new(standard());
    let asked = [("If-None-Match", "\"a\"")];
    let reply = relay.get(&asked, Origin::Answers(200, &[FRESH, ("ETag", "\"a\"")]));
    assert_eq!((reply.sent, reply.status), (Some(SendAs::Whole), 304));
    assert!(relay.get(&[], NEW).cached, "so the next client finds it");
    let mut relay = Relay::new(standard());
    let reply = relay.get(&asked, Origin::Answers(200, &[("Cache-Control", "no-store")]));
    assert_eq!(reply.status, 200);
}

#[test]
fn conditions_for_the_origin_go_to_the_origin() {
    let mut relay = Relay::new(standard());
    relay.get(&[], Origin::Answers(200, &[FRESH, ("ETag", "\"a\"")]));
    for name in ["If-Match", "If-Unmodified-Since"] {
        let reply = relay.get(&[(name, "\"a\"")], Origin::Answers(412, &[]));
        assert_eq!((reply.sent, reply.status), (Some(SendAs::AsReceived), 412), "{name}");
    }
    assert!(relay.get(&[], NEW).cached);
}

#[test]
fn parts_are_served_from_a_stored_whole() {
    let mut relay = Relay::new(standard());
    relay.get(&[], Origin::Answers(200, &[FRESH, ("a", "1")]));
    for (range, status, content_range) in [
        ("bytes=0-1", 206, Some("bytes 0-1/11")),
        ("bytes=1-", 206, Some("bytes 1-10/11")),
        ("bytes=-1", 206, Some("bytes 10-10/11")),
        ("bytes=11-", 416, None),
        ("bytes=0-1,5-6", 200, None),
        ("lines=1", 200, None),
    ] {
        let reply = relay.get(&[("Range", range)], NEW);
        assert!(reply.cached, "{range}");
        assert_eq!(
            (reply.status, reply.field("content-range")),
            (status, content_range),
            "{range}"
        );
        assert_eq!(reply.field("a"), Some("1"));
    }
    assert_eq!(from_store(&[FRESH], &[("Range", "bytes=0-"), ("Range", "bytes=1-")]), 200);
}

#[test]
fn if_range_needs_the_same_strong_validator() {
    let range = ("Range", "bytes=0-1");
    let fields = [FRESH, ("ETag", "\"a\""), ("Last-Modified", "@-100"), ("Date", "@0")];
    let date = "Fri, 20 Nov 2026 23:58:20 GMT";
    for (asked, status) in [
        ("\"a\"", 206),
        ("\"b\"", 200),
        ("W/\"a\"", 200),
        (date, 206),
        ("Fri, 20 Nov 2026 23:58:21 GMT", 200),
        ("x", 200),
    ] {
        assert_eq!(from_store(&fields, &[range, ("If-Range", asked)]), status, "{asked}");
    }
    let weak = [FRESH, ("ETag", "W/\"a\"")];
    assert_eq!(from_store(&weak, &[range, ("If-Range", "W/\"a\"")]), 200);
    let just_now = [FRESH, ("Last-Modified", "@0"), ("Date", "@0")];
    let asked = [range, ("If-Range", "Sat, 21 Nov 2026 00:00:00 GMT")];
    assert_eq!(from_store(&just_now, &asked), 200, "it may have changed within the second");
}

#[test]
fn a_range_that_is_not_stored_goes_to_the_origin_as_it_is() {
    let mut relay = Relay::new(standard());
    let fields = [FRESH, ("Content-Range", "bytes 6-10/11")];
    let reply = relay.get(&[("Range", "bytes=-5")], Origin::Answers(206, &fields));
    assert_eq!((reply.sent, reply.status), (Some(SendAs::AsReceived), 206));
    assert!(relay.store.is_empty(), "a part is no whole");
    assert!(!reused(&standard(), 206, &fields));
}
