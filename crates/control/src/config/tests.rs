use super::*;

const SQUARE: &str = r#"
[gateway]
listen = "127.0.0.1:9000"

[function.square]
python = "models:MyAwesomeModel"
args = [0.25]
replicas = { min = 1, max = 8 }
concurrency = 1
autoscale = { policy = "kpa", target = 0.7 }
queue = { capacity = 1000 }
timeout = "30s"
retries = { attempts = 2, budget = 0.2 }
balance = "least_outstanding"

[function.restaurants]
http = "http://127.0.0.1:9100"

[[route]]
path = "/restaurant/{id}"
to = "restaurants:/api/restaurant/{id}"
cache = { ttl = "1h" }
"#;

fn fault(text: &str) -> ConfigError {
    SystemFile::parse(text, &[]).expect_err("this text is wrong")
}

fn line_and_hint(text: &str) -> (String, Option<String>) {
    let fault = fault(text);
    (fault.to_string(), fault.hint)
}

#[test]
fn reads_the_whole_and_keeps_it() {
    let file = SystemFile::parse(SQUARE, &[]).unwrap();
    let square = &file.function["square"];
    assert_eq!(square.runtime(), Ok(Runtime::Python("models:MyAwesomeModel")));
    assert_eq!(square.deployment("square").scale, Scale { min: 1, max: 8 });
    assert_eq!(file.function["restaurants"].deployment("r").concurrency, None);
    assert_eq!(file.routes[0].target(), ("restaurants", Some("/api/restaurant/{id}")));
    let shown = toml::to_string(&file).unwrap();
    assert_eq!(SystemFile::parse(&shown, &[]).unwrap(), file);
}

#[test]
fn everything_has_a_default() {
    let file = SystemFile::parse("[function.f]\npython = \"m:C\"", &[]).unwrap();
    assert_eq!(
        file.function["f"].deployment("f"),
        Deployment { name: "f".into(), ..Deployment::default() }
    );
    assert_eq!(SystemFile::parse("", &[]).unwrap(), SystemFile::default());
}

#[test]
fn an_unknown_key_has_its_line_and_the_nearest_known_one() {
    let (line, hint) = line_and_hint("[function.f]\npython = \"m:C\"\nreplica = 3\n");
    assert_eq!(line, "line 3, column 1: unknown key `replica`");
    assert_eq!(hint.as_deref(), Some("did you mean `replicas`?"));
    let (line, hint) = line_and_hint("[function.f]\npython = \"m:C\"\nbalance = \"roundrobin\"\n");
    assert_eq!(line, "line 3, column 11: unknown value `roundrobin`");
    assert_eq!(hint.as_deref(), Some("did you mean `round_robin`?"));
}

#[test]
fn a_wrong_type_or_unit_has_its_line() {
    let (line, _) = line_and_hint("[function.f]\npython = 3\n");
    assert!(line.starts_with("line 2, column 10: invalid type: integer `3`"), "{line}");
    let (line, _) = line_and_hint("[gateway]\nmax_body = \"many\"\n");
    assert!(line.contains("line 2") && line.contains("`many` is no size"), "{line}");
    let (line, _) = line_and_hint("[gateway]\ndrain = \"30\"\n");
    assert!(line.contains("line 2") && line.contains("`30` is no duration"), "{line}");
    let (line, hint) = line_and_hint("[hub]\nremote_liveness = \"0.4s\"\n");
    assert_eq!(
        line,
        "hub.remote_liveness: 400ms is less than a worker that is well may take to answer"
    );
    assert_eq!(hint.as_deref(), Some("give at least 500ms"));
    assert!(line_and_hint("[hub]\nliveness = \"0s\"\n").0.starts_with("hub.liveness: 0s is less"));
    let both = "[function.f]\npython = \"m:C\"\nconcurrency = 2\nbatch = { max_size = 2, max_wait = \"1ms\" }";
    assert!(line_and_hint(both).0.contains("`concurrency` is not for functions with `batch`"));
    let (line, _) = line_and_hint("[gateway\n");
    assert!(line.starts_with("line 1"), "{line}");
}

#[test]
fn what_types_do_not_hold_is_checked() {
    let function =
        |rest: &str| fault(&format!("[function.f]\npython = \"m:C\"\n{rest}")).to_string();
    assert_eq!(
        function("http = \"http://x\""),
        "function `f`: it has more than one of `python`, `http`, `process` and `remote`"
    );
    assert_eq!(
        function("replicas = { min = 3, max = 2 }"),
        "function `f`: replicas.min is above replicas.max"
    );
    assert_eq!(function("concurrency = 0"), "function `f`: concurrency must be at least 1");
    assert_eq!(
        function("autoscale = { policy = \"kpa\", target = 7.0 }"),
        "function `f`: autoscale.target: must be above 0 and at most 1"
    );
    assert_eq!(
        fault("[function.f]\n").to_string(),
        "function `f`: it has nothing to run: give it `python`, `http`, `process` or `remote = true`"
    );
    assert_eq!(
        fault("[function.f]\npython = \"m\"").to_string(),
        "function `f`: `python` names no class"
    );
    assert_eq!(fault("[function.\"a b\"]\npython = \"m:C\"").at.as_deref(), Some("function `a b`"));
}

#[test]
fn a_route_leads_somewhere() {
    let error =
        fault("[function.square]\npython = \"m:C\"\n[[route]]\npath = \"/s\"\nto = \"sqare\"\n");
    assert_eq!(error.to_string(), "route `/s`: there is no function `sqare`");
    assert_eq!(error.hint.as_deref(), Some("did you mean `square`?"));
}

#[test]
fn overrides_change_any_key_and_are_named_when_wrong() {
    let set = |key: &str, value: &str| Override::new(key, value, "--set");
    let overrides = [
        set("function.square.replicas.max", "16"),
        set("gateway.listen", "127.0.0.1:1"),
        set("cache.memory", "1GiB"),
        set("route.0.cache.ttl", "5s"),
    ];
    let file = SystemFile::parse(SQUARE, &overrides).unwrap();
    assert_eq!(file.function["square"].replicas.max, Some(16));
    assert_eq!(file.gateway.listen, "127.0.0.1:1");
    assert_eq!(file.cache.memory.bytes(), 1 << 30);
    let policy = file.routes[0].cache.as_ref().unwrap();
    assert_eq!(policy.ttl, Some(HumanDuration::from_secs(5)));
    let wrong = SystemFile::parse(SQUARE, &[set("route.1.path", "/x")]).unwrap_err();
    assert_eq!(
        wrong.to_string(),
        "--set `route.1.path`: `1` is no place in a list of 1, counted from 0"
    );

    let disk = [set("cache.disk.path", "kept"), set("cache.disk.size", "16MiB")];
    SystemFile::parse(SQUARE, &disk).expect("two keys that only make sense together");

    let wrong =
        SystemFile::parse(SQUARE, &[set("function.square.replicas.mux", "16")]).unwrap_err();
    assert_eq!(wrong.to_string(), "--set `function.square.replicas.mux`: unknown key `mux`");
    assert_eq!(wrong.hint.as_deref(), Some("did you mean `max`?"));
}

#[test]
fn what_only_simulations_heed_is_known() {
    let has_nodes = |text: &str| SystemFile::parse(text, &[]).unwrap().has_nodes();
    assert!(!has_nodes("[function.f]\npython = \"m:C\"\nautoscale = { policy = \"kpa\" }"));
    assert!(has_nodes("[cluster]\nnodes = [{ name = \"n\", count = 2 }]"));
    assert!(has_nodes("[function.f]\npython = \"m:C\"\nrequests = { cpu = \"2\" }"));
}

#[test]
fn workers_are_left_processors() {
    let threads = |text: &str| SystemFile::parse(text, &[]).map(|file| file.threads(5));
    assert_eq!(threads("[function.f]\nhttp = \"http://a\""), Ok(5));
    assert_eq!(threads("[function.f]\npython = \"m:C\""), Ok(3));
    assert_eq!(threads("[gateway]\nthreads = 7\n[function.f]\npython = \"m:C\""), Ok(7));
    assert!(threads("[gateway]\nthreads = 0").is_err());
    assert!(threads("[gateway]\nthreads = 1025").is_err());
}
