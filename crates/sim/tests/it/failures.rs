//! Upstreams that fail, and what the system makes of it: retries, breakers, checks of health, stale answers.

use gatewright_record::{CacheResult, Invocation, Status};

use crate::rig::{of_texts, records, run};

fn upstream(function: &str, model: &str, demand: &str) -> gatewright_sim::Simulation {
    of_texts(
        &format!(
            "[function.f]\nhttp = [\"http://127.0.0.1:1\", \"http://127.0.0.1:2\"]\n{function}"
        ),
        &format!("[function.f]\nservice = {{ fixed = 0.1 }}\n{model}"),
        &format!("[[demand]]\nfunction = \"f\"\n{demand}"),
    )
}

const CALM: &str = "arrival = { constant = { rate = 10 } }\nrequests = 2000";

fn share(records: &[Invocation], is: impl Fn(&Invocation) -> bool) -> f64 {
    records.iter().filter(|record| is(record)).count() as f64 / records.len() as f64
}

/// Three attempts of which a fifth fails each: 0.008 of the requests fail. What may not be repeated is not.
#[test]
fn retries_hide_faults() {
    let failed = |function: &str, faults: &str| {
        let records = records(&upstream(function, &format!("faults = {faults}"), CALM), 1);
        share(&records, |record| record.status == Status::Error)
    };
    let retries = "retries = { attempts = 3, budget = 1.0, backoff = \"1ms\" }";
    // Within three standard errors of 2,000 requests.
    let near = |found: f64, exact: f64| {
        (found - exact).abs() < 3.0 * (exact * (1.0 - exact) / 2_000.0).sqrt()
    };
    for fault in ["refused", "unavailable"] {
        let alone = failed("retries = { attempts = 1 }", &format!("{{ {fault} = 0.2 }}"));
        assert!(near(alone, 0.2), "{fault}: {alone}");
        let hidden = failed(retries, &format!("{{ {fault} = 0.2 }}"));
        assert!(near(hidden, 0.008), "{fault}: {hidden}");
    }
    let once = failed(retries, "{ unavailable = 0.2, repeatable = false }");
    assert!(near(once, 0.2), "{once}");
    let safe = failed(retries, "{ refused = 0.2, repeatable = false }");
    assert!(near(safe, 0.008), "nothing was begun: {safe}");
}

/// What is tried again waits meanwhile: whoever is there waits or is in service.
#[test]
fn pauses_between_attempts_are_waiting() {
    for fault in ["refused", "unavailable"] {
        let retries = "retries = { attempts = 3, budget = 1.0, backoff = \"1s\" }";
        let simulation = upstream(retries, &format!("faults = {{ {fault} = 0.5 }}"), CALM);
        let (report, times) = run(&simulation, 1);
        let function = &report.functions[0];
        let there = (function.queued_mean + function.in_service_mean) * report.end.as_secs_f64();
        let spent: f64 = times.responses.iter().sum();
        assert!((there - spent).abs() < 1e-6 * spent, "{fault}: {there} is not {spent}");
        assert!(function.queued_mean > function.in_service_mean, "pauses are longer than services");
    }
}

/// An answer of 429 is the upstream's, and passed on as it is once no other attempt is made; a retry may hide it.
/// Refusals by the gateway itself are shed. Each has the code and the status that a gateway writes.
#[test]
fn refusals_are_recorded_as_where_the_system_is_served() {
    let ends = |function: &str, faults: &str| {
        let records = records(&upstream(function, &format!("faults = {faults}"), CALM), 1);
        move |status: Status, code: Option<u16>| {
            share(&records, |record| (record.status, record.code) == (status, code))
        }
    };
    let once = "retries = { attempts = 1 }";
    let found = ends(once, "{ busy = 1.0 }");
    assert_eq!(found(Status::Ok, Some(429)), 1.0);
    let found = ends(once, "{ busy = 1.0, repeatable = false }");
    assert_eq!(found(Status::Ok, Some(429)), 1.0);
    let found = ends(once, "{ unavailable = 1.0 }");
    assert_eq!(found(Status::Error, Some(503)), 1.0);
    let found = ends(once, "{ refused = 1.0 }");
    assert_eq!(found(Status::Error, Some(502)), 1.0);
    let found = ends("timeout = \"1s\"", "{ hangs = 1.0 }");
    assert_eq!(found(Status::Timeout, Some(504)), 1.0);

    let thrice = "retries = { attempts = 3, budget = 1.0, backoff = \"1ms\" }";
    for (fault, last) in [("busy", (Status::Ok, 429)), ("refused", (Status::Error, 502))] {
        let found = ends(thrice, &format!("{{ {fault} = 0.2 }}"));
        let (passed_on, well) = (found(last.0, Some(last.1)), found(Status::Ok, Some(200)));
        assert!((passed_on - 0.008).abs() < 0.006, "{fault}: {passed_on}");
        assert_eq!(passed_on + well, 1.0, "{fault}: no code of an attempt before the last is left");
    }

    let function = "concurrency = 1\nreplicas = { min = 1 }\nqueue = { capacity = 1 }";
    let demand = "arrival = { constant = { rate = 100 } }\nrequests = 100";
    let full = crate::rig::simulation(function, "service = { fixed = 1.0 }", demand);
    let shed = |record: &Invocation| (record.status, record.code) == (Status::Shed, Some(429));
    assert!(share(&records(&full, 1), shed) > 0.9);
}

/// What hangs ends with the time limit, and leaves its slot.
#[test]
fn what_hangs_is_given_up() {
    let simulation =
        upstream("timeout = \"1s\"\nconcurrency = 1", "faults = { hangs = 0.01 }", CALM);
    let (report, _) = run(&simulation, 1);
    let statuses = report.summary().statuses;
    assert!((5..=40).contains(&statuses.timeout), "{statuses:?}");
    assert!(statuses.ok > 1_900, "{statuses:?}");
}

/// A limit that learns may rise as an attempt times out: who waits is given the room at once (the rules of the system are
/// checked after every event here).
#[test]
fn room_that_a_timeout_makes_is_given_to_who_waits() {
    for policy in ["gradient2", "aimd"] {
        let function = format!("adapt = {{ policy = \"{policy}\" }}\ntimeout = \"900ms\"");
        let model = "service = { uniform = { min = 0.1, max = 2.0 } }";
        let simulation = of_texts(
            &format!("[function.f]\nhttp = \"http://127.0.0.1:1\"\n{function}"),
            &format!("[function.f]\n{model}"),
            "[[demand]]\nfunction = \"f\"\narrival = { poisson = { rate = 60 } }\nrequests = 3000",
        );
        let (report, _) = run(&simulation, 1);
        assert!(report.summary().statuses.timeout > 1_000, "{policy}");
    }
}

/// One of two upstreams is down for a minute. Round robin gives it half of the requests; with a breaker, next to none.
#[test]
fn a_breaker_keeps_away_from_an_upstream_that_is_down() {
    let outage =
        "[[function.f.outage]]\nat = \"20s\"\nfor = \"60s\"\nreplicas = 1\nfault = \"unavailable\"";
    let demand = "arrival = { constant = { rate = 10 } }\nrequests = 1000";
    let failed = |health: &str| {
        let function = format!("balance = \"round_robin\"\nretries = {{ attempts = 1 }}\n{health}");
        let records = records(&upstream(&function, outage, demand), 1);
        let late = records.iter().filter(|record| record.sent.unwrap().as_secs_f64() >= 80.5);
        assert!(late.clone().count() > 150);
        let well = late.filter(|record| record.status == Status::Ok).count();
        let failed = records.iter().filter(|record| record.status != Status::Ok).count();
        (failed, well)
    };
    let (open, _) = failed("");
    assert!((290..=310).contains(&open), "half of 600: {open}");
    let (kept, well) = failed("breaker = {}");
    assert!(kept < open / 4, "{kept} of {open}");
    assert!(well > 150, "it is asked again when it is back: {well}");
}

/// The upstream is down for half an hour: what is in the cache is served stale, within its window.
#[test]
fn stale_answers_stand_in_for_an_upstream_that_is_down() {
    let stale = |rule: &str| {
        let simulation = of_texts(
            &format!(
                "[function.f]\nhttp = \"http://127.0.0.1:1\"\nretries = {{ attempts = 1 }}\n[[route]]\npath = \"/f\"\nto = \"f:/f\"\ncache = {{ ttl = \"10s\"{rule} }}"
            ),
            "[function.f]\nservice = { fixed = 0.1 }\n[[function.f.outage]]\nat = \"60s\"\nfor = \"30m\"\nfault = \"refused\"\n[function.f.cache]\nhit = { fixed = 0.001 }\nkeys = { uniform = { count = 3 } }",
            "[[demand]]\nroute = \"/f\"\narrival = { constant = { rate = 5 } }\nduration = \"10m\"",
        );
        let records = records(&simulation, 1);
        let later: Vec<_> = records
            .into_iter()
            .filter(|record| record.sent.unwrap().as_secs_f64() > 75.0)
            .collect();
        share(&later, |record| record.cache == Some(CacheResult::Stale))
    };
    assert_eq!(stale(""), 0.0);
    assert_eq!(stale(", stale_if_error = \"1h\""), 1.0);
    let short = stale(", stale_if_error = \"100s\"");
    assert!((0.1..0.3).contains(&short), "100 s of 525: {short}");
}

/// Who waited for another one's fetch has its code; who is answered from what is stale is answered well.
#[test]
fn codes_of_what_comes_from_a_cache() {
    let records_of = |rule: &str| {
        let simulation = of_texts(
            &format!(
                "[function.f]\nhttp = \"http://127.0.0.1:1\"\nretries = {{ attempts = 1 }}\n[[route]]\npath = \"/f\"\nto = \"f:/f\"\ncache = {{ ttl = \"10s\"{rule} }}"
            ),
            "[function.f]\nservice = { fixed = 1 }\n[[function.f.outage]]\nat = \"60s\"\nfor = \"1m\"\nfault = \"unavailable\"\n[function.f.cache]\nhit = { fixed = 0.001 }\nkeys = { uniform = { count = 1 } }",
            "[[demand]]\nroute = \"/f\"\narrival = { constant = { rate = 20 } }\nduration = \"100s\"",
        );
        records(&simulation, 1)
    };
    let failed = records_of("");
    let failed: Vec<_> = failed.iter().filter(|record| record.status == Status::Error).collect();
    assert!(failed.iter().any(|record| record.cache == Some(CacheResult::Collapsed)));
    assert!(failed.iter().all(|record| record.code == Some(503)));
    let stale = records_of(", stale_if_error = \"1h\"");
    let stood_in = share(&stale, |record| record.cache == Some(CacheResult::Stale));
    assert!(stood_in > 0.01, "{stood_in}");
    assert!(stale.iter().all(|record| (record.status, record.code) == (Status::Ok, Some(200))));
}

#[test]
fn shares_of_faults_are_checked() {
    let model = "[function.f]\nservice = { fixed = 1 }\nfaults = { refused = 0.6, hangs = 0.6 }";
    let fault = gatewright_sim::Model::parse(model).unwrap_err().to_string();
    assert!(fault.contains("add up to 1.2, above 1"), "{fault}");
}

/// Half of the requests of a hundred seconds fail; with checks, only those of the seconds until these have told.
#[test]
fn checks_of_health_keep_away_from_an_upstream_that_is_down() {
    let down = "[[function.f.outage]]\nat = \"10s\"\nfor = \"100s\"\nreplicas = 1\nfault = \"unavailable\"";
    let failed = |checks: &str| {
        let function = format!("retries = {{ attempts = 1 }}\n{checks}");
        let records = records(&upstream(&function, down, CALM), 1);
        share(&records, |record| record.status == Status::Error)
    };
    let (without, with) = (failed(""), failed("health = { path = \"/\", interval = \"1s\" }"));
    assert!((without - 0.25).abs() < 0.03, "{without}");
    assert!(with > 0.0 && with < 0.03, "{with}");
}
