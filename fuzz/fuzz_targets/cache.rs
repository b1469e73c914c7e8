//! A request and a response made of whatever bytes come: the rules of the cache decide about them without a fault, and
//! keep their promises.
#![no_main]

use gatewright_control::cache::{
    CachePolicy, Exchange, Found, Moment, Plan, Request, Shape, Storing, Target, WallAnchor, decide,
    storing,
};
use gatewright_determinism::Time;
use libfuzzer_sys::fuzz_target;

const REQUEST: [&str; 8] = [
    "cache-control",
    "range",
    "if-range",
    "if-none-match",
    "if-modified-since",
    "accept-language",
    "pragma",
    "authorization",
];
const RESPONSE: [&str; 9] = [
    "cache-control",
    "cdn-cache-control",
    "vary",
    "etag",
    "last-modified",
    "expires",
    "age",
    "date",
    "cache-tag",
];

fuzz_target!(|bytes: &[u8]| {
    // Lines of a request up to an empty one, then those of its response; the first byte says which field it is.
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let mut read = |names: &[&'static str]| -> Vec<(&'static str, Vec<u8>)> {
        let own = lines.by_ref().take_while(|line| !line.is_empty());
        own.map(|line| (names[usize::from(line[0]) % names.len()], line[1..].to_vec())).collect()
    };
    let (asked, answered) = (read(&REQUEST), read(&RESPONSE));
    let policy = CachePolicy::default();
    let request = Request::read("GET", &asked, &policy);
    let anchor = WallAnchor { unix_nanos_at_start: 1_795_219_200_000_000_000 };
    let exchange = Exchange {
        request: &request,
        target: Target { scheme: "http", authority: "h", path: "/", query: None },
        status: 200,
        response: &answered,
        sent: Time::ZERO,
        received: Time::ZERO,
        anchor,
    };
    let Storing::Store { mut stored, .. } = storing(&exchange, &policy) else { return };
    assert!(stored.selecting.fits(&asked), "it is for the request that it answered");
    let length = 10;
    stored.length = Some(length);
    for seconds in [0.0, 1.0, 1e6] {
        let moment = Moment { now: Time::from_secs_f64(seconds), anchor };
        let variants = [&*stored];
        let found = Found { variants: &variants, fetching: false, uncacheable: false };
        let Plan::Serve(serve) = decide(&request, &found, moment) else { continue };
        assert!(!stored.no_cache, "never without asking");
        if let Shape::Part(part) = serve.shape {
            assert!(part.first <= part.last && part.last < length, "{part:?}");
        }
    }
});
