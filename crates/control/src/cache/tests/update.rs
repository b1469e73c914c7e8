//! Families: update304, updateHEAD, revalidation as in cc-response, vary misses that a 304 answers.

use std::time::Duration;

use super::{Origin, Relay, SendAs, standard};
use crate::cache::{StoredResponse, WallAnchor};

const NEW: Origin<'_> = Origin::Answers(200, &[]);
const SHORT: (&str, &str) = ("Cache-Control", "max-age=2");

#[test]
fn stale_responses_are_validated_with_what_they_have() {
    for (fields, etag, since) in [
        (&[SHORT, ("ETag", "\"a\"")][..], Some("\"a\""), false),
        (&[SHORT, ("ETag", "W/\"a\"")], Some("W/\"a\""), false),
        (&[SHORT, ("Last-Modified", "@-9")], None, true),
        (&[SHORT, ("ETag", "\"a\""), ("Last-Modified", "@-9")], Some("\"a\""), true),
        (&[("Cache-Control", "no-cache"), ("ETag", "\"a\"")], Some("\"a\""), false),
        (&[("Cache-Control", "max-age=9999, no-cache"), ("ETag", "\"a\"")], Some("\"a\""), false),
        (&[("ETag", "\"a\"")], Some("\"a\""), false),
    ] {
        let mut relay = Relay::new(standard());
        relay.get(&[], Origin::Answers(200, fields));
        relay.wait(3.0);
        let reply = relay.get(&[("If-None-Match", "\"other\"")], NEW);
        let Some(SendAs::Conditional(sent)) = &reply.sent else { panic!("{fields:?}") };
        assert_eq!(reply.asked_etag(), etag, "{fields:?}");
        assert_eq!(sent.if_modified_since.is_some(), since, "{fields:?}");
    }
}

#[test]
fn without_a_validator_it_is_fetched_whole() {
    let mut relay = Relay::new(standard());
    relay.get(&[], Origin::Answers(200, &[SHORT, ("Last-Modified", "no date")]));
    relay.wait(3.0);
    let reply = relay.get(&[("If-None-Match", "\"x\""), ("Range", "bytes=0-1")], NEW);
    assert_eq!(reply.sent, Some(SendAs::Whole));
}

#[test]
fn a_304_updates_fields_and_freshness() {
    let mut relay = Relay::new(standard());
    let old = [
        SHORT,
        ("ETag", "\"a\""),
        ("Test", "1"),
        ("Kept", "1"),
        ("Content-Length", "11"),
        ("Content-Encoding", "gzip"),
        ("Date", "@0"),
    ];
    relay.get(&[], Origin::Answers(200, &old));
    relay.wait(10.0);
    let new = [
        ("Cache-Control", "max-age=3600"),
        ("ETag", "\"a\""),
        ("Test", "2"),
        ("Test", "3"),
        ("Content-Length", "0"),
        ("Content-Encoding", "br"),
        ("Connection", "Gone"),
        ("Gone", "1"),
        ("Date", "@0"),
    ];
    let reply = relay.get(&[], Origin::Answers(304, &new));
    assert_eq!(reply.status, 200);
    for reply in [reply, relay.get(&[], NEW)] {
        for (name, value) in
            [("test", "2"), ("kept", "1"), ("content-length", "11"), ("content-encoding", "gzip")]
        {
            assert_eq!(reply.field(name), Some(value), "{name}");
        }
        assert_eq!(reply.field("gone"), None);
    }
    let again = relay.get(&[], NEW);
    assert!(again.cached);
    assert_eq!(again.field("age"), Some("0"));
    assert_eq!(again.fields.iter().filter(|(name, _)| name == "test").count(), 2);
    assert_eq!(again.fields.iter().filter(|(name, _)| name == "date").count(), 1);
}

#[test]
fn a_304_without_date_counts_from_when_it_came() {
    let mut relay = Relay::new(standard());
    let fields = [("Cache-Control", "max-age=20"), ("Last-Modified", "@-9"), ("Date", "@0")];
    relay.get(&[], Origin::Answers(200, &fields));
    relay.wait(100.0);
    relay.get(&[], Origin::Answers(304, &[]));
    relay.wait(5.0);
    let reply = relay.get(&[], NEW);
    assert!(reply.cached);
    assert_eq!(reply.field("age"), Some("5"));
}

#[test]
fn a_304_with_its_own_age_is_that_old() {
    let mut relay = Relay::new(standard());
    relay.get(&[], Origin::Answers(200, &[("Cache-Control", "max-age=20"), ("ETag", "\"a\"")]));
    relay.wait(30.0);
    relay.get(&[], Origin::Answers(304, &[("Age", "15")]));
    relay.wait(4.0);
    assert_eq!(relay.get(&[], NEW).field("age"), Some("19"));
    relay.wait(1.0);
    assert!(!relay.get(&[], NEW).cached);
}

#[test]
fn a_304_that_forbids_storing_ends_it() {
    let mut relay = Relay::new(standard());
    relay.get(&[], Origin::Answers(200, &[SHORT, ("ETag", "\"a\"")]));
    relay.wait(3.0);
    let reply = relay.get(&[], Origin::Answers(304, &[("Cache-Control", "no-store")]));
    assert_eq!(reply.status, 200);
    assert!(relay.store.is_empty());
}

#[test]
fn a_304_for_something_else_confirms_nothing() {
    let mut relay = Relay::new(standard());
    relay.get(&[], Origin::Answers(200, &[SHORT, ("ETag", "\"a\"")]));
    relay.wait(3.0);
    let before = relay.store.clone();
    let reply = relay.get(&[], Origin::Answers(304, &[("ETag", "\"b\"")]));
    assert_eq!(reply.status, 304, "the request is to be sent again without conditions");
    assert_eq!(relay.store, before);
}

#[test]
fn a_304_answers_the_clients_condition() {
    let mut relay = Relay::new(standard());
    let fields = [SHORT, ("Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT")];
    relay.get(&[], Origin::Answers(200, &fields));
    relay.wait(3.0);
    let asked = [("If-Modified-Since", "Wed, 01 Jan 2020 00:00:00 GMT")];
    assert_eq!(relay.get(&asked, Origin::Answers(304, &[])).status, 304);
}

#[test]
fn a_304_may_choose_a_variant_for_a_new_request() {
    let mut relay = Relay::new(standard());
    let vary = [("Cache-Control", "max-age=100"), ("Vary", "foo")];
    relay.get(&[("foo", "1")], Origin::Answers(200, &[vary[0], vary[1], ("ETag", "\"a\"")]));
    relay.get(&[("foo", "2")], Origin::Answers(200, &[vary[0], vary[1], ("ETag", "\"b\"")]));
    let reply = relay.get(&[("foo", "3")], Origin::Answers(304, &[("ETag", "\"a\"")]));
    assert_eq!(reply.asked_etag(), Some("\"b\", \"a\""));
    assert_eq!((reply.status, reply.field("etag")), (200, Some("\"a\"")));
    assert_eq!(relay.store.len(), 3, "beside the others");
    let again = relay.get(&[("foo", "3")], NEW);
    assert!(again.cached);
    assert_eq!(again.field("etag"), Some("\"a\""));
}

#[test]
fn a_head_updates_or_ages_the_stored_get() {
    let head = |fields: &[(&str, &str)], status: u16| {
        let mut relay = Relay::new(standard());
        relay.get(&[], Origin::Answers(200, &[SHORT, ("ETag", "\"a\""), ("Test", "1")]));
        relay.wait(3.0);
        let reply = relay.send("HEAD", &[], Origin::Answers(status, fields));
        assert_eq!(reply.sent, Some(SendAs::Whole), "as a HEAD, to the plain URL");
        let reply = relay.get(&[], NEW);
        (reply.cached, reply.field("test").map(str::to_owned))
    };
    let fresh = ("Cache-Control", "max-age=1000");
    assert_eq!(head(&[fresh, ("Test", "2")], 200), (true, Some("2".to_owned())));
    assert!(head(&[fresh, ("ETag", "\"a\""), ("Content-Length", "11")], 200).0);
    assert!(!head(&[fresh, ("ETag", "\"b\"")], 200).0);
    assert!(!head(&[fresh, ("Content-Length", "12")], 200).0);
    assert!(!head(&[fresh], 410).0);
}

#[test]
fn a_head_that_shows_a_change_ends_freshness() {
    let mut relay = Relay::new(standard());
    relay.get(&[], Origin::Answers(200, &[("Cache-Control", "max-age=99"), ("ETag", "\"a\"")]));
    let fresh = [("Cache-Control", "no-cache")];
    relay.send("HEAD", &fresh, Origin::Answers(200, &[("ETag", "\"b\"")]));
    let reply = relay.get(&[], NEW);
    assert_eq!((reply.cached, reply.asked_etag()), (false, Some("\"a\"")));
}

#[test]
fn another_run_finds_it_as_old_as_it_is() {
    let mut relay = Relay::new(standard());
    relay.wait(50.0);
    relay.get(&[], Origin::Answers(200, &[("Cache-Control", "max-age=99"), ("Age", "5")]));
    let stored = relay.store[0].0.clone();
    let text = serde_json::to_string(&stored).unwrap();
    let read: StoredResponse = serde_json::from_str(&text).unwrap();
    assert_eq!(read, stored);
    let from = relay.moment().anchor;
    let to = WallAnchor { unix_nanos_at_start: from.unix_nanos_at_start + 60_000_000_000 };
    let now = gatewright_determinism::Time::from_secs_f64(1.0);
    let moved = read.rebase(from, to, now);
    assert_eq!(moved.age(now), Duration::from_secs(16), "5 s old when it came, 11 s ago");
    assert_eq!(moved.useful_for(now), Duration::from_secs(83));
}
