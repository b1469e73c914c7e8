//! Families: cc-freshness, cc-parse, age-parse, expires, expires-parse, heuristic, status, cdn-cache-control.

use super::{policy, reused, standard};

type Fields<'a> = &'a [(&'a str, &'a str)];

fn check(cases: &[(Fields<'_>, bool)]) {
    for (fields, expected) in cases {
        assert_eq!(reused(&standard(), 200, fields), *expected, "{fields:?}");
    }
}

#[test]
fn cache_control_gives_the_lifetime() {
    check(&[
        (&[], false),
        (&[("Cache-Control", "max-age=3600")], true),
        (&[("Cache-Control", "max-age=2")], false),
        (&[("Cache-Control", "max-age=0")], false),
        (&[("Cache-Control", "max-age=2147483647")], true),
        (&[("Cache-Control", "max-age=2147483649")], true),
        (&[("Cache-Control", "max-age=99999999999")], true),
        (&[("Cache-Control", "max-age=-3600")], false),
        (&[("Cache-Control", "foobar, MaX-aGe=3600")], true),
        (&[("Cache-Control", "max-age=3600"), ("Expires", "@-7200"), ("Date", "@0")], true),
        (&[("Cache-Control", "max-age=3600"), ("Expires", "0"), ("Date", "@0")], true),
        (&[("Cache-Control", "max-age=0"), ("Expires", "@3600"), ("Date", "@0")], false),
        (&[("Cache-Control", "s-maxage=3600")], true),
        (&[("Cache-Control", "max-age=3600, s-maxage=1")], false),
        (&[("Cache-Control", "s-maxage=1, max-age=3600")], false),
        (&[("Cache-Control", "max-age=3600"), ("Cache-Control", "s-maxage=1")], false),
        (&[("Cache-Control", "max-age=0, s-maxage=3600"), ("Expires", "@-10")], true),
        (&[("Cache-Control", "extension=\"max-age=3600\", max-age=1")], false),
        (&[("Cache-Control", "max-age=1, extension=\"max-age=3600\"")], false),
        (&[("Cache-Control", "max-age=003600")], true),
        (&[("Cache-Control", "max-age='3600'")], false),
        (&[("Cache-Control", "max-age=3600, immutable")], true),
    ]);
}

#[test]
fn the_age_it_came_with_counts() {
    let fresh = ("Cache-Control", "max-age=3600");
    check(&[
        (&[fresh, ("Age", "3600")], false),
        (&[fresh, ("Age", "3590")], true),
        (&[fresh, ("Date", "@-7200")], false),
        (&[fresh, ("Date", "@7200")], true),
        (&[fresh, ("Age", "abc")], true),
        (&[fresh, ("Age", "-7200")], true),
        (&[fresh, ("Age", "7200.0")], true),
        (&[fresh, ("Age", "2147483648")], false),
        (&[fresh, ("Age", "99999999999999999999999")], false),
        (&[fresh, ("Age", "7200, 0")], false),
        (&[fresh, ("Age", "0, 7200")], true),
        (&[fresh, ("Age", "7200"), ("Age", "0")], false),
        (&[fresh, ("Age", "0"), ("Age", "7200")], true),
        (&[fresh, ("Age", "0, 0")], true),
    ]);
}

#[test]
fn expires_counts_from_date() {
    check(&[
        (&[("Expires", "@2592000"), ("Date", "@0")], true),
        (&[("Expires", "@2592000")], true),
        (&[("Expires", "@-2592000"), ("Date", "@0")], false),
        (&[("Expires", "@0"), ("Date", "@0")], false),
        (&[("Expires", "@300"), ("Date", "@400")], false),
        (&[("Expires", "0"), ("Date", "@0")], false),
        (&[("Expires", "@10"), ("Date", "foo")], true),
        (&[("Date", "@-10"), ("Expires", "@10"), ("Age", "25")], false),
        (&[("Date", "@10"), ("Expires", "@20"), ("Age", "15")], false),
        (&[("Expires", "@100"), ("Expires", "@100")], true),
        (&[("Expires", "@100"), ("Expires", "@200")], false),
        (&[("Expires", "Sun, 21 Nov 2286 04:46:39 GMT")], true),
        (&[("Expires", "Thursday, 18-Aug-50 02:01:18 GMT")], true),
        (&[("Expires", "Thu Aug  8 02:01:18 2050")], true),
        (&[("Expires", "THU, 18 AUG 2050 02:01:18 gMT")], true),
        (&[("Expires", "Thu, 18 Aug 2050 02:01:18 UTC")], false),
        (&[("Expires", "Thu, 18 Aug 50 02:01:18 GMT")], false),
        (&[("Expires", "Thu, 18-Aug-2050 02:01:18 GMT")], false),
        (&[("Expires", "Thu, 18 Aug 2050 2:01:18 GMT")], false),
    ]);
}

#[test]
fn freshness_is_only_guessed_when_it_is_switched_on() {
    let guessing = policy("heuristic = \"1d\"");
    let old = [("Last-Modified", "@-86400"), ("Date", "@0")];
    assert!(!reused(&standard(), 200, &old));
    for status in [200, 203, 204, 404, 405, 410, 414, 501] {
        assert!(reused(&guessing, status, &old), "{status}");
    }
    for status in [201, 202, 403, 502, 503, 504, 599] {
        assert!(!reused(&guessing, status, &old), "{status}");
    }
    let public = [old[0], old[1], ("Cache-Control", "public")];
    assert!(reused(&guessing, 599, &public));
    assert!(
        !reused(&guessing, 200, &[("Last-Modified", "@-10"), ("Date", "@0")]),
        "a tenth is 1 s"
    );
    assert!(!reused(&policy("heuristic = \"2s\""), 200, &old), "bounded");
    assert!(!reused(&guessing, 200, &[old[0], ("Cache-Control", "max-age=1")]), "it said");
}

#[test]
fn every_final_status_is_stored_when_it_says_so() {
    let fresh = [("Cache-Control", "max-age=100000"), ("Date", "@0")];
    for status in
        [200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 502, 503, 504, 599]
    {
        assert!(reused(&standard(), status, &fresh), "{status}");
        assert!(!reused(&standard(), status, &[("Expires", "@-5000"), ("Date", "@0")]), "{status}");
    }
    for status in [101, 206, 304, 412, 416] {
        assert!(!reused(&standard(), status, &fresh), "{status}");
    }
    let understood = [("Cache-Control", "max-age=3600, no-store, must-understand")];
    assert!(reused(&standard(), 200, &understood));
    assert!(!reused(&standard(), 599, &understood));
}

#[test]
fn a_field_aimed_at_this_cache_replaces_the_others() {
    let no_store = ("Cache-Control", "no-store");
    let fresh = ("Cache-Control", "max-age=10000");
    check(&[
        (&[("CDN-Cache-Control", "max-age=3600")], true),
        (&[("CDN-Cache-Control", "max-age=99999999999")], true),
        (&[("CDN-Cache-Control", "max-age=3600"), ("Age", "7200")], false),
        (&[("CDN-Cache-Control", "max-age=0"), ("Expires", "@10000"), ("Date", "@0")], false),
        (&[("CDN-Cache-Control", "foobar, max-age=3600"), ("Expires", "0")], true),
        (&[("CDN-Cache-Control", "max-age=1"), fresh], false),
        (&[("CDN-Cache-Control", "max-age=3600"), ("Cache-Control", "max-age=1")], true),
        (&[("CDN-Cache-Control", "private"), fresh, ("Expires", "@10000")], false),
        (&[("CDN-Cache-Control", "no-cache"), fresh, ("Expires", "@10000")], false),
        (&[("CDN-Cache-Control", "no-store"), fresh], false),
        (&[("CDN-Cache-Control", "foobar"), fresh, ("Expires", "@10000")], false),
        (&[("CDN-Cache-Control", "max-age=10000"), no_store], true),
        (&[("CDN-Cache-Control", "max-age=10000, &&&&&"), no_store], false),
        (&[("CDN-Cache-Control", "max-age=\"10000\""), no_store], false),
        (&[("CDN-Cache-Control", "max-age =100"), ("Cache-Control", "max-age=1")], false),
    ]);
    let deaf = policy("targeted = []");
    assert!(!reused(&deaf, 200, &[("CDN-Cache-Control", "max-age=3600")]));
}

#[test]
fn the_operator_sets_lifetimes() {
    let set = policy("ttl = \"1h\"\nnegative_ttl = { 404 = \"10s\", 5xx = \"1s\" }");
    assert!(reused(&set, 200, &[]));
    assert!(reused(&set, 200, &[("Cache-Control", "max-age=1"), ("Age", "7200")]));
    assert!(reused(&set, 404, &[]));
    assert!(!reused(&set, 410, &[]) && !reused(&set, 500, &[("Cache-Control", "max-age=60")]));
    for said in ["no-store", "private", "no-cache"] {
        assert!(!reused(&set, 200, &[("Cache-Control", said)]), "{said}");
    }
    let default = policy("default_ttl = \"1h\"");
    assert!(reused(&default, 200, &[]) && reused(&default, 302, &[]));
    assert!(!reused(&default, 404, &[]) && !reused(&default, 201, &[]));
    assert!(!reused(&default, 200, &[("Cache-Control", "max-age=1")]));
    let short = policy("ttl = \"1s\"");
    assert!(!reused(&short, 200, &[("Cache-Control", "max-age=3600")]));
}
