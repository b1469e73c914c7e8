//! Closed forms of queueing theory, each within three standard errors by batch means.

use crate::rig::{assert_mean, queue, run, share, simulation};

const EXPONENTIAL: &str = "{ exponential = { mean = 1.0 } }";

/// M/M/1: W = 1 / (mu - lambda), and the response time is exponential.
#[test]
fn one_server() {
    for (rate, requests) in [(0.5, 400_000), (0.8, 2_000_000)] {
        let (report, times) = run(&queue(1, EXPONENTIAL, rate, requests), 1);
        let mean = 1.0 / (1.0 - rate);
        assert_mean("mean wait", &times.waits, mean - 1.0);
        assert_mean("mean response", &times.responses, mean);
        for p in [0.5f64, 0.9, 0.95, 0.99] {
            let quantile = -libm::log(1.0 - p) * mean;
            assert_mean("beyond the quantile", &share(&times.responses, |t| t > quantile), 1.0 - p);
        }
        let function = &report.functions[0];
        assert!((function.in_service_mean - rate).abs() < 0.01, "{function:?}");
        assert!((function.queued_mean - rate * (mean - 1.0)).abs() < 0.15, "{function:?}");
        assert_eq!((function.replicas_mean, function.replicas_max), (1.0, 1));
    }
}

/// M/M/10 at 0.8: Erlang C. P(wait) = 0.409180, Wq = 0.204590.
#[test]
fn ten_servers() {
    let (_, times) = run(&queue(10, EXPONENTIAL, 8.0, 2_000_000), 1);
    assert_mean("mean wait", &times.waits, 0.204_590);
    assert_mean("who waits", &share(&times.waits, |wait| wait > 0.0), 0.409_180);
}

/// M/G/1 at 0.8 (Pollaczek-Khinchine): Wq = rho (1 + cv^2) / (2 (1 - rho)).
#[test]
fn one_server_of_any_law() {
    let laws = [
        ("{ fixed = 1.0 }", 2.0),
        ("{ erlang = { mean = 1.0, stages = 2 } }", 3.0),
        ("{ hyperexponential = { mean = 1.0, cv = 2.0 } }", 10.0),
        ("{ log_normal = { mean = 1.0, cv = 0.5 } }", 2.5),
    ];
    for (law, wait) in laws {
        let (_, times) = run(&queue(1, law, 0.8, 2_000_000), 1);
        assert_mean(law, &times.waits, wait);
    }
}

/// M/M/1/5 at 0.8: 0.088819 of the requests are lost.
#[test]
fn full_queue() {
    let simulation = simulation(
        "concurrency = 1\nqueue = { capacity = 4 }\ntimeout = \"1day\"",
        "service = { exponential = { mean = 1.0 } }",
        "arrival = { poisson = { rate = 0.8 } }\nrequests = 1000000",
    );
    let mut records = Vec::new();
    let report = simulation.run(1, Some(&mut records), &mut |_| ()).unwrap();
    let lost: Vec<f64> = records.iter().map(|r| f64::from(u8::from(r.started.is_none()))).collect();
    assert_mean("lost", &lost, 0.088_819);
    let totals = report.functions[0].totals;
    assert_eq!(totals.shed as f64, lost.iter().sum::<f64>());
    assert_eq!(report.summary().reasons["queue full"], totals.shed);
}

/// Exact mean value analysis of `streams` customers that think `think` seconds and are served by one server of mean
/// `service`: response time and throughput.
fn mean_value_analysis(streams: u32, think: f64, service: f64) -> (f64, f64) {
    let (mut response, mut rate, mut queued) = (0.0, 0.0, 0.0);
    for customers in 1..=streams {
        response = service * (1.0 + queued);
        rate = f64::from(customers) / (think + response);
        queued = rate * response;
    }
    (response, rate)
}

/// A closed loop whose clients take one second each time before their request arrives (N = 10, Z = 1, S = 0.1),
/// against mean value analysis: X = 7.854177, R = 0.273208.
#[test]
fn closed_loop() {
    let (response, rate) = mean_value_analysis(10, 1.0, 0.1);
    assert!((response - 0.273_208).abs() < 1e-6 && (rate - 7.854_177).abs() < 1e-6);
    let simulation = simulation(
        "concurrency = 1\ntimeout = \"1day\"",
        "service = { exponential = { mean = 0.1 } }\noverhead = { exponential = { mean = 1.0 } }",
        "arrival = { concurrent = { streams = 10 } }\nrequests = 1000000",
    );
    let (report, times) = run(&simulation, 1);
    assert_mean("response", &times.responses, response);
    let achieved = report.summary().achieved_rate().unwrap();
    assert!((achieved / rate - 1.0).abs() < 0.005, "{achieved}");
}

/// Users who think for an exponential second are the same closed network.
#[test]
fn users_who_think() {
    let (response, rate) = mean_value_analysis(10, 1.0, 0.1);
    let simulation = simulation(
        "concurrency = 1\ntimeout = \"1day\"",
        "service = { exponential = { mean = 0.1 } }",
        "arrival = { users = { users = 10, think = { mean = \"1s\", cv = 1 } } }\nrequests = 500000",
    );
    let (report, times) = run(&simulation, 1);
    assert_mean("response", &times.responses, response);
    let achieved = report.summary().achieved_rate().unwrap();
    assert!((achieved / rate - 1.0).abs() < 0.01, "{achieved}");
}

/// Visitors who come at random, ask four times in the mean and think in between are an open Jackson network: at
/// 2 x 4 requests a second and S = 0.1, R = S / (1 - 0.8), however long they think.
#[test]
fn visitors_who_think() {
    let simulation = simulation(
        "concurrency = 1\nqueue = { capacity = 1000000 }\ntimeout = \"1day\"",
        "service = { exponential = { mean = 0.1 } }",
        "arrival = { sessions = { rate = 2, turns = { mean = 4 }, think = { mean = \"3s\", cv = 2 } } }\nrequests = 1000000",
    );
    let (_, times) = run(&simulation, 1);
    assert_mean("response", &times.responses, 0.5);
}

/// Without thinking, the servers are never idle: X = c / S exactly in the mean, R = N S / c.
#[test]
fn closed_loop_without_thinking() {
    let simulation = simulation(
        "concurrency = 1\nreplicas = { min = 3 }\ntimeout = \"1day\"",
        "service = { exponential = { mean = 0.1 } }",
        "arrival = { throughput = { max_concurrency = 12 } }\nrequests = 500000",
    );
    let (report, times) = run(&simulation, 1);
    assert_mean("response", &times.responses, 0.4);
    assert!((report.functions[0].in_service_mean - 3.0).abs() < 0.001);
    let achieved = report.summary().achieved_rate().unwrap();
    assert!((achieved / 30.0 - 1.0).abs() < 0.01, "{achieved}");
}

/// One key that lives `T`, fetched in `S`, asked for `lambda` times a second: of 1 + lambda (S + T) requests in a
/// cycle, one fetches, lambda S wait for it and lambda T find it.
#[test]
fn cache_of_one_key() {
    let simulation = crate::rig::of_texts(
        "[function.f]\nhttp = \"http://127.0.0.1:1\"\n[[route]]\npath = \"/f\"\nto = \"f:/f\"\ncache = { ttl = \"2s\" }",
        "[function.f]\nservice = { fixed = 0.5 }\n[function.f.cache]\nhit = { fixed = 0.001 }\nkeys = { uniform = { count = 1 } }",
        "[[demand]]\nroute = \"/f\"\narrival = { poisson = { rate = 4 } }\nrequests = 300000",
    );
    let (report, times) = run(&simulation, 1);
    let cycle = 1.0 + 4.0 * 2.5;
    assert_mean("hits", &share(&times.responses, |time| time < 0.002), 8.0 / cycle);
    let summary = report.summary();
    assert_eq!(summary.cache.total(), 300_000);
    assert_eq!(report.functions[0].totals.arrived, summary.cache.miss);
    let collapsed = summary.cache.collapsed as f64 / summary.cache.miss as f64;
    assert!((collapsed - 2.0).abs() < 0.05, "{collapsed}");
    // A miss takes the whole fetch; who waits for it, half of it on average.
    assert!((times.waits.len() as u64) == summary.cache.miss);
}
