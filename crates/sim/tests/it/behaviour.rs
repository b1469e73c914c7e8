//! The rules of the system in virtual time, and the simulation's own promises.

use gatewright_control::config::SystemFile;
use gatewright_determinism::Time;
use gatewright_record::{
    CacheResult, Format, Invocation, RecordWriter, RunSummary, Status, WriteError,
};
use gatewright_sim::{Model, RecordSink, Scenario, Simulation, SimulationReport};

use crate::rig::{of_texts, queue, records, run, simulation};

const SYSTEM: &str = r#"
[function.square]
python = "models:MyAwesomeModel"
replicas = { min = 0, max = 6 }
autoscale = { policy = "kpa", target = 0.7, stable_window = "6s", scale_to_zero_grace = "5s" }
timeout = "5s"
queue = { capacity = 40 }

[function.restaurants]
http = "http://127.0.0.1:9100"
concurrency = 4

[[route]]
path = "/restaurant/{id}"
to = "restaurants:/api/restaurant/{id}"
cache = { ttl = "20s" }
"#;

const MODEL: &str = r#"
[function.square]
service = { log_normal = { mean = 0.25, cv = 0.3 } }
start = { gamma = { mean = 0.8, cv = 0.4 } }
stop = { fixed = 0.1 }
overhead = { exponential = { mean = 0.002 } }
gateway = { fixed = 0.00005 }

[function.restaurants]
service = { weibull = { mean = 0.3, shape = 0.8 } }
[function.restaurants.cache]
hit = { empirical = [0.0001, 0.0002, 0.0005] }
keys = { zipf = { count = 200, exponent = 0.9 } }
"#;

const SCENARIO: &str = r#"
[[demand]]
function = "square"
arrival = { poisson = { rate = 12 } }
duration = "1m"

[[demand]]
function = "square"
arrival = { constant = { rate = 0.5 } }
duration = "2m"

[[demand]]
route = "/restaurant/{id}"
arrival = { poisson = { rate = 50 } }
duration = "1m"

[[demand]]
route = "/restaurant/{id}"
arrival = { concurrent = { streams = 3 } }
requests = 500
"#;

fn bytes(simulation: &Simulation, seed: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = RecordWriter::new(&mut bytes, Format::JsonLines).unwrap();
    simulation.run(seed, Some(&mut writer), &mut |_| ()).unwrap();
    writer.finish().unwrap();
    bytes
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// Golden bytes: whatever changes them changes every simulation ever written down.
#[test]
fn the_same_seed_gives_the_same_bytes() {
    let simulation = of_texts(SYSTEM, MODEL, SCENARIO);
    let first = bytes(&simulation, 1);
    assert_eq!(first, bytes(&simulation, 1));
    assert_ne!(first, bytes(&simulation, 2));
    assert_eq!(format!("{:016x}", hash(&first)), GOLDEN);
}

/// Whoever writes no records counts most requests in a shorter way.
#[test]
fn a_run_comes_to_the_same_with_and_without_records() {
    let open = "arrival = { poisson = { rate = 20 } }\nrequests = 3000";
    let closed = "arrival = { concurrent = { streams = 8 } }\nrequests = 3000";
    let users =
        "arrival = { users = { users = 20, think = { mean = \"200ms\" } } }\nrequests = 3000";
    let law = "service = { exponential = { mean = 0.15 } }\n";
    let cases = [
        ("", "", open),
        ("", "", closed),
        ("", "", users),
        ("queue = { capacity = 2 }\ntimeout = \"300ms\"", "", open),
        ("batch = { max_size = 4, max_wait = \"20ms\" }", "", open),
        (
            "retries = { attempts = 3, backoff = \"10ms\" }",
            "faults = { refused = 0.1, busy = 0.1 }",
            open,
        ),
        ("", "errors = 0.1", open),
        ("", "workers = 2", open),
        (
            "autoscale = { policy = \"per_request\" }\nkeep_alive = { policy = \"fixed\", idle = \"1s\" }",
            "start = { fixed = 0.2 }",
            open,
        ),
    ];
    for (function, model, demand) in cases {
        let replicas = if function.contains("autoscale") { "min = 0, max = 9" } else { "min = 4" };
        let single = if function.contains("batch") { "" } else { "concurrency = 1" };
        let function = format!("{single}\nreplicas = {{ {replicas} }}\n{function}");
        let simulation = simulation(&function, &format!("{law}{model}"), demand);
        let mut records = Vec::new();
        let with = simulation.run(3, Some(&mut records), &mut |_| ()).unwrap();
        let without = simulation.run(3, None, &mut |_| ()).unwrap();
        let all = |report: &SimulationReport| {
            let of_demands = report.demands.iter().map(|demand| demand.summary.report());
            let of_demands: Vec<_> = of_demands.collect();
            (report.events, report.end, of_demands, format!("{:?}", report.functions))
        };
        assert_eq!(all(&with), all(&without), "{function}\n{model}\n{demand}");
        let mut counted = RunSummary::new();
        records.iter().for_each(|record| counted.add(record));
        let (mut counted, told) = (counted.report(), without.demands[0].summary.report());
        // What only a record tells, and what only the scenario knows.
        (counted.bytes_in, counted.bytes_out) = (told.bytes_in, told.bytes_out);
        assert_eq!(counted, told, "{function}\n{model}\n{demand}");
    }
}

const GOLDEN: &str = "652601144d623c00";

#[test]
fn autoscaling_stays_within_its_bounds() {
    let (report, times) = run(&of_texts(SYSTEM, MODEL, SCENARIO), 3);
    let square = &report.functions[1];
    assert_eq!(&*square.function, "square");
    assert!(square.replicas_max <= 6 && square.replicas_max > 2, "{square:?}");
    assert!(times.scalings.iter().all(|scaling| scaling.to <= 6 && scaling.from != scaling.to));
    assert_eq!(times.scalings.len() as u64, square.scalings);
    assert!(square.replicas_mean < square.replica_seconds / report.end.as_secs_f64());
    assert_eq!(square.totals.arrived, square.totals.ended());
    let restaurants = &report.functions[0];
    assert_eq!((restaurants.replicas_mean, restaurants.scalings), (1.0, 0));
}

#[test]
fn a_function_at_zero_is_woken_and_put_to_sleep_again() {
    let simulation = simulation(
        "concurrency = 1\nreplicas = { min = 0, max = 1 }\nautoscale = { policy = \"kpa\", stable_window = \"6s\", scale_to_zero_grace = \"4s\" }",
        "service = { fixed = 0.25 }\nstart = { fixed = 1.5 }",
        "arrival = { constant = { rate = 0.02 } }\nrequests = 3",
    );
    let records = records(&simulation, 1);
    assert_eq!(records.len(), 3);
    for record in &records {
        assert!(record.cold && record.status == Status::Ok, "{record:?}");
        assert_eq!(record.response_nanos(), Some(1_750_000_000));
    }
    let (report, _) = run(&simulation, 1);
    assert_eq!(report.functions[0].totals.replicas_started, 3);
    let seconds = report.functions[0].replica_seconds;
    assert!((15.0..60.0).contains(&seconds), "three short lives, not 100 s: {seconds}");
}

#[test]
fn replicas_are_there_at_the_start_unless_the_run_begins_cold() {
    let texts = |cold: bool| {
        of_texts(
            "[function.f]\npython = \"m:C\"\nreplicas = { min = 2 }",
            "[function.f]\nservice = { fixed = 0.1 }\nstart = { fixed = 2.0 }",
            &format!(
                "cold_start = {cold}\n[[demand]]\nfunction = \"f\"\narrival = {{ constant = {{ rate = 1 }} }}\nrequests = 4"
            ),
        )
    };
    let first = |cold| records(&texts(cold), 1)[0].clone();
    assert_eq!(first(false).response_nanos(), Some(100_000_000));
    assert!(!first(false).cold);
    assert_eq!(first(true).response_nanos(), Some(2_100_000_000));
    assert!(first(true).cold);
}

#[test]
fn a_start_that_takes_too_long_has_failed() {
    let simulation = simulation(
        "concurrency = 1\nreplicas = { min = 1 }\nstart_timeout = \"2s\"",
        "service = { fixed = 0.1 }\nstart = { fixed = 3.0 }",
        "arrival = { constant = { rate = 1 } }\nrequests = 30",
    );
    // Warm, it is never started; cold, it never comes up.
    assert_eq!(run(&simulation, 1).0.summary().statuses.ok, 30);
    let cold = of_texts(
        "[function.f]\npython = \"m:C\"\nstart_timeout = \"2s\"",
        "[function.f]\nservice = { fixed = 0.1 }\nstart = { fixed = 3.0 }",
        "cold_start = true\n[[demand]]\nfunction = \"f\"\narrival = { constant = { rate = 1 } }\nrequests = 30",
    );
    let summary = run(&cold, 1).0.summary();
    assert_eq!(summary.statuses.shed, 30);
    assert_eq!(summary.reasons["no replica available"], 30);
}

/// One replica, three seconds a request, a time limit of one: the first is given up but holds its slot, the queue
/// of one fills, the rest is refused.
#[test]
fn deadlines_and_full_queues_are_counted() {
    let simulation = simulation(
        "concurrency = 1\nqueue = { capacity = 1 }\ntimeout = \"1s\"",
        "service = { fixed = 3.0 }",
        "arrival = { constant = { rate = 10 } }\nrequests = 15",
    );
    let records = records(&simulation, 1);
    let count = |status| records.iter().filter(|record| record.status == status).count();
    assert_eq!(count(Status::Timeout), 3);
    assert_eq!(count(Status::Shed), 12);
    for record in records.iter().filter(|record| record.status == Status::Timeout) {
        assert_eq!(record.response_nanos(), Some(1_000_000_000));
        assert_eq!(record.reason.as_deref(), Some("deadline"));
    }
    // Only the first was ever handed to the replica, which had not finished it.
    assert_eq!(records.iter().filter(|record| record.started.is_some()).count(), 1);
}

/// Common random numbers: another balancer, queue and number of replicas meet the same requests.
#[test]
fn policies_are_compared_on_the_same_luck() {
    let with = |function: &str| {
        let simulation = simulation(
            function,
            "service = { exponential = { mean = 0.5 } }\noverhead = { exponential = { mean = 0.01 } }",
            "arrival = { poisson = { rate = 5 } }\nrequests = 2000",
        );
        let mut records = records(&simulation, 4);
        records.sort_by_key(|record| record.id);
        records
    };
    let luck = |record: &Invocation| {
        let service = record.finished.unwrap() - record.started.unwrap();
        (record.id, record.scheduled, record.received, service)
    };
    let one = with("concurrency = 1\nreplicas = { min = 4 }\nbalance = \"round_robin\"");
    let other = with("concurrency = 3\nreplicas = { min = 2 }\nbalance = \"power_of_two\"");
    assert!(one.iter().map(luck).eq(other.iter().map(luck)));
    assert!(one.iter().map(|r| r.replica).ne(other.iter().map(|r| r.replica)));
}

#[test]
fn a_cache_hides_the_upstream() {
    let simulation = of_texts(SYSTEM, MODEL, SCENARIO);
    let records = records(&simulation, 1);
    let cached: Vec<_> = records.iter().filter(|record| record.cache.is_some()).collect();
    assert!(cached.iter().all(|record| record.route.as_deref() == Some("/restaurant/{id}")));
    for record in &cached {
        let fetched = record.cache == Some(CacheResult::Miss);
        assert_eq!(record.attempts, u32::from(fetched), "{record:?}");
        assert_eq!(record.started.is_some(), fetched);
    }
    // One fetch of a key at a time, and none while it is fresh.
    let mut fetches: Vec<(u64, Time, Time)> = Vec::new();
    for record in cached.iter().filter(|record| record.cache == Some(CacheResult::Miss)) {
        fetches.push((
            record.cache_key.unwrap(),
            record.received.unwrap(),
            record.finished.unwrap(),
        ));
    }
    fetches.sort_unstable();
    assert!(fetches.len() > 200);
    for pair in fetches.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
        assert!(pair[1].1 >= pair[0].2.plus_nanos(20_000_000_000), "{pair:?}");
    }
}

#[test]
fn a_closed_loop_asks_again_when_it_was_answered() {
    let simulation = simulation(
        "concurrency = 1",
        "service = { fixed = 0.1 }\noverhead = { fixed = 0.02 }",
        "arrival = \"synchronous\"\nduration = \"1s\"",
    );
    let records = records(&simulation, 1);
    let sent: Vec<_> = records.iter().map(|record| record.sent.unwrap().as_nanos()).collect();
    assert_eq!(sent, (0..9).map(|n| n * 120_000_000).collect::<Vec<_>>());
    assert!(records.iter().all(|record| record.scheduled.is_none()));
}

#[test]
fn a_loop_of_immediate_answers_does_not_stand_still() {
    let simulation = simulation(
        "concurrency = 1",
        "service = { fixed = 0 }",
        "arrival = { concurrent = { streams = 2 } }\nduration = \"100ms\"",
    );
    let (report, _) = run(&simulation, 1);
    assert_eq!(report.summary().requests(), 20_000);
}

/// A replica that overruns its time is killed and replaced: that takes as long as the model says, and it must say.
#[test]
fn a_killed_replica_is_started_again() {
    let with = |model: &str| {
        simulation(
            "concurrency = 1\nmax_execution = \"1s\"\nretries = { attempts = 1 }",
            model,
            "arrival = { constant = { rate = 0.1 } }\nrequests = 3",
        )
    };
    let (report, _) = run(&with("service = { fixed = 3.0 }\nstart = { fixed = 0.5 }"), 1);
    let totals = report.functions[0].totals;
    assert_eq!((totals.timed_out, totals.replicas_lost, totals.replicas_started), (3, 3, 4));
    let error = with("service = { fixed = 3.0 }").run(1, None, &mut |_| ()).unwrap_err();
    assert!(
        error.to_string().starts_with("function `f` started a replica during the run"),
        "{error}"
    );
}

#[test]
fn errors_end_a_demand() {
    let simulation = simulation(
        "concurrency = 1\ntimeout = \"100ms\"",
        "service = { fixed = 3600 }",
        "arrival = { constant = { rate = 100 } }\nerrors = 5\nduration = \"1h\"",
    );
    let requests = run(&simulation, 1).0.summary().requests();
    assert!((5..30).contains(&requests), "{requests}");
}

#[test]
fn progress_is_told_up_to_the_end() {
    let mut told = Vec::new();
    let simulation = queue(1, "{ fixed = 0.5 }", 1.0, 200_000);
    let report = simulation.run(1, None, &mut |progress| told.push(progress)).unwrap();
    assert!(told.len() >= 2);
    assert!(told.is_sorted_by(|a, b| a.fraction <= b.fraction && a.now <= b.now));
    let last = told.last().unwrap();
    assert_eq!((last.ended, last.fraction, last.now), (200_000, 1.0, report.end));
    assert_eq!(last.events, report.events);
    assert!(report.events >= 400_000);
}

#[test]
fn a_sink_that_fails_ends_the_run() {
    struct Full;
    impl RecordSink for Full {
        fn invocation(&mut self, _: &Invocation) -> Result<(), WriteError> {
            Err(std::io::Error::other("no space left").into())
        }
    }
    let error = queue(1, "{ fixed = 0.5 }", 1.0, 10).run(1, Some(&mut Full), &mut |_| ());
    assert_eq!(error.unwrap_err().to_string(), "cannot write records: no space left");
}

#[test]
fn what_is_missing_is_named_before_anything_runs() {
    let fault = |system: &str, model: &str, scenario: &str| {
        let system = SystemFile::parse(system, &[]).unwrap();
        let scenario = Scenario::parse(scenario).unwrap();
        let fault = Simulation::new(&system, &Model::parse(model).unwrap(), &scenario).unwrap_err();
        (fault.to_string(), fault.hint.unwrap_or_default())
    };
    let (what, hint) = fault(SYSTEM, "", SCENARIO);
    assert_eq!(what, "function `restaurants`: it has no model");
    assert!(hint.contains("calibrate"), "{hint}");
    let (what, hint) = fault(SYSTEM, MODEL, &SCENARIO.replace("\"square\"", "\"sqare\""));
    assert_eq!(what, "demand 1: the system file has no function `sqare`");
    assert_eq!(hint, "did you mean `square`?");
    let (what, _) = fault(SYSTEM, MODEL, &SCENARIO.replace("/restaurant/{id}", "/restaurants"));
    assert_eq!(what, "demand 3: the system file has no route `/restaurants`");
    let (what, hint) = fault(
        SYSTEM,
        &MODEL.replace("start =", "stop =").replacen("stop = { fixed = 0.1 }", "", 1),
        SCENARIO,
    );
    assert!(what.starts_with("function `square`: its replicas start during the run"), "{what}");
    assert!(hint.contains("start = "), "{hint}");
    let uncached = &MODEL[..MODEL.find("[function.restaurants.cache]").unwrap()];
    let (what, _) = fault(SYSTEM, uncached, SCENARIO);
    assert!(
        what.contains("its route `/restaurant/{id}` is cached, and its model has no `cache`"),
        "{what}"
    );
}

#[test]
fn stale_windows_are_those_of_the_gateway() {
    let system = |policy: &str| {
        format!(
            "[function.f]\nhttp = \"http://127.0.0.1:1\"\n[[route]]\npath = \"/f\"\nto = \"f:/f\"\ncache = {policy}"
        )
    };
    let model = "[function.f]\nservice = { fixed = 0.5 }\n[function.f.cache]\nhit = { fixed = 0.001 }\n\
                 keys = { uniform = { count = 1 } }";
    let scenario = "[[demand]]\nroute = \"/f\"\n\
                    arrival = { constant = { rate = 10 } }\nduration = \"1m\"";
    let results = |policy: &str| {
        let records = records(&of_texts(&system(policy), model, scenario), 1);
        let count = |result: CacheResult| {
            records.iter().filter(|record| record.cache == Some(result)).count()
        };
        assert!(records.iter().all(|record| record.cache.is_some()));
        (count(CacheResult::Miss), count(CacheResult::Stale), count(CacheResult::Collapsed))
    };
    // A fetch takes half a second, in which five requests come; its response is fresh for two seconds after it.
    let (miss, stale, collapsed) = results("{ ttl = \"2s\" }");
    assert!(miss > 20 && stale == 0 && collapsed >= 4 * miss, "{miss} {stale} {collapsed}");
    // With a window, only the first request ever waits.
    let (miss, stale, collapsed) = results("{ ttl = \"2s\", stale_while_revalidate = \"1m\" }");
    assert!(miss == 1 && stale > 80 && collapsed <= 5, "{miss} {stale} {collapsed}");
    // What cannot be stored makes nobody wait, once that is known.
    let (miss, stale, collapsed) = results("{}");
    assert!(miss > 500 && stale == 0 && collapsed <= 5, "{miss} {stale} {collapsed}");
}
