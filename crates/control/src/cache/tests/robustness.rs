//! Whatever bytes come: no panic, and the invariants of a shared cache.

use proptest::prelude::*;

use super::*;

/// Names that mean something here.
const NAMES: [&str; 22] = [
    "cache-control",
    "cdn-cache-control",
    "pragma",
    "age",
    "date",
    "expires",
    "last-modified",
    "etag",
    "vary",
    "connection",
    "authorization",
    "range",
    "if-range",
    "if-none-match",
    "if-modified-since",
    "if-match",
    "set-cookie",
    "location",
    "content-location",
    "content-length",
    "content-language",
    "accept-language",
];

fn line() -> impl Strategy<Value = (String, Vec<u8>)> {
    let sensible = prop::sample::select(vec![
        "no-store",
        "no-cache",
        "private",
        "public",
        "max-age=5, must-revalidate",
        "s-maxage=9",
        "max-age=3, stale-while-revalidate=9, stale-if-error=9",
        "max-stale",
        "only-if-cached",
        "\"a\"",
        "W/\"a\"",
        "*",
        "accept-language",
        "bytes=1-2",
        "7",
        "/a",
        "Sat, 21 Nov 2026 00:00:09 GMT",
        "Sat Nov 21 00:00:01 2026",
    ]);
    let value = prop_oneof![
        3 => sensible.prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ];
    (prop::sample::select(NAMES.to_vec()), value).prop_map(|(name, value)| (name.to_owned(), value))
}

fn lines() -> impl Strategy<Value = Lines> {
    prop::collection::vec(line(), 0..6)
}

#[derive(Clone, Debug)]
struct Step {
    method: &'static str,
    request: Lines,
    status: u16,
    response: Lines,
    pause: u64,
}

fn step() -> impl Strategy<Value = Step> {
    let method = prop::sample::select(vec!["GET", "GET", "GET", "HEAD", "POST", "OPTIONS"]);
    let status = prop::sample::select(vec![200, 200, 206, 304, 404, 503, 599]);
    (method, lines(), status, lines(), 0_u64..8_000_000_000).prop_map(
        |(method, request, status, response, pause)| Step {
            method,
            request,
            status,
            response,
            pause,
        },
    )
}

/// A reply together with what must hold of it.
fn run(relay: &mut Relay, step: &Step) -> Result<(), TestCaseError> {
    relay.now = relay.now.plus_nanos(step.pause);
    let policy = relay.policy.clone();
    let request = Request::read(step.method, &step.request, &policy);
    let metas: Vec<_> = relay.store.iter().map(|(meta, _)| meta.clone()).collect();
    let found = Found { variants: &metas, fetching: false, uncacheable: false };
    let plan = decide(&request, &found, relay.moment());
    if let Plan::Serve(serve) = &plan {
        let stored = &metas[serve.variant];
        prop_assert!(stored.selecting.fits(&step.request));
        prop_assert!(!stored.no_cache && !request.directives().no_cache);
        prop_assert!(
            stored.is_fresh(relay.now)
                || serve.revalidate.is_some()
                || request.directives().max_stale.is_some()
        );
    }
    let text = |lines: &Lines| -> Vec<(String, String)> {
        let text = |bytes: &[u8]| bytes.iter().map(|&byte| char::from(byte)).collect();
        lines.iter().map(|(name, value)| (name.clone(), text(value))).collect()
    };
    let (request, response) = (text(&step.request), text(&step.response));
    let request: Vec<_> = request.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let response: Vec<_> = response.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let reply = relay.send(step.method, &request, Origin::Answers(step.status, &response));
    prop_assert_eq!(
        reply.cached,
        matches!(plan, Plan::Serve(_)) || reply.said.contains("stale-if-error")
    );
    for (stored, fields) in &relay.store {
        prop_assert!(!fields.iter().any(|(name, _)| is_of_connection(name) || name == "age"));
        prop_assert!(!matches!(stored.status, 206 | 304));
        let never_stale = stored.no_cache;
        prop_assert!(!never_stale || stored.stale_if_error.is_zero());
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_sequence_keeps_the_rules(steps in prop::collection::vec(step(), 1..8)) {
        let mut relay = Relay::new(policy("heuristic = \"1d\"\nstale_if_error = \"1h\"\nstale_while_revalidate = \"4s\""));
        for step in &steps {
            run(&mut relay, step)?;
        }
    }

    #[test]
    fn a_response_that_says_no_is_never_stored(
        mut response in lines(),
        request in lines(),
        said in prop::sample::select(vec!["no-store", "private"]),
    ) {
        response.retain(|(name, value)| name != "cdn-cache-control" && !value.windows(4).any(|part| part == b"must"));
        response.retain(|(name, value)| name != "cache-control" || !value.contains(&b'"'));
        response.push(("cache-control".to_owned(), said.as_bytes().to_vec()));
        let policy = policy("ttl = \"1h\"\nnegative_ttl = { 4xx = \"1h\", 5xx = \"1h\" }");
        for status in [200, 404, 503] {
            let read = Request::read("GET", &request, &policy);
            let exchange = Exchange {
                request: &read, target: TARGET, status, response: &response,
                sent: Time::ZERO, received: Time::ZERO, anchor: START,
            };
            prop_assert!(matches!(storing(&exchange, &policy), Storing::Refuse(_)));
        }
    }

    #[test]
    fn any_bytes_are_borne(request in prop::collection::vec((prop::sample::select(NAMES.to_vec()), prop::collection::vec(any::<u8>(), 0..60)), 0..8)) {
        let policy = standard();
        let read = Request::read("GET", &request, &policy);
        let exchange = Exchange {
            request: &read, target: TARGET, status: 200, response: &request,
            sent: Time::MAX, received: Time::ZERO, anchor: WallAnchor { unix_nanos_at_start: u64::MAX },
        };
        if let Storing::Store { stored, .. } = storing(&exchange, &policy) {
            let moment = Moment { now: Time::MAX, anchor: START };
            let _shape = read.shape_of(&stored, moment);
            let _effect = head_effect(&stored, 200, &request);
            prop_assert!(stored.useful_for(Time::ZERO) <= Duration::MAX);
        }
        let _key = PrimaryKey::of(&TARGET, &request, &policy.key);
        let _gone = invalidated(Method::Unsafe, 200, &TARGET, &request);
    }
}

#[test]
fn requests_wait_for_one_another_only_when_it_helps() {
    let policy = standard();
    let plan = |request: &[(&str, &str)], stored: &[StoredResponse], uncacheable: bool| {
        let lines: Lines =
            request.iter().map(|(n, v)| ((*n).to_owned(), v.as_bytes().to_vec())).collect();
        let read = Request::read("GET", &lines, &policy);
        let found = Found { variants: stored, fetching: true, uncacheable };
        decide(&read, &found, Moment { now: Time::from_secs_f64(100.0), anchor: START })
    };
    let waits = |plan: Plan| matches!(plan, Plan::Collapse);
    assert!(waits(plan(&[], &[], false)));
    assert!(
        waits(plan(&[("if-none-match", "\"a\"")], &[], false)),
        "its answer is made from the whole"
    );
    for own in [("authorization", "x"), ("range", "bytes=0-1"), ("cache-control", "no-cache")] {
        assert!(!waits(plan(&[own], &[], false)), "{own:?}");
    }
    assert!(!waits(plan(&[], &[], true)), "nothing would come of it");
    let mut relay = Relay::new(standard());
    relay.get(&[], Origin::Answers(200, &[("cache-control", "max-age=2"), ("etag", "\"a\"")]));
    let mut stale = relay.store[0].0.clone();
    assert!(waits(plan(&[], std::slice::from_ref(&stale), false)));
    assert!(stale.can_be_shared());
    stale.no_cache = true;
    assert!(!waits(plan(&[], std::slice::from_ref(&stale), false)), "each must ask by itself");
    assert!(!stale.can_be_shared());
    stale.no_cache = false;
    stale.stale_while_revalidate = Duration::from_secs(1_000);
    let Plan::Serve(serve) = plan(&[], std::slice::from_ref(&stale), false) else {
        panic!("stale")
    };
    assert_eq!(serve.revalidate, None, "it is being asked for already");
}
