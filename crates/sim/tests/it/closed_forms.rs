//! Closed forms at several loads, each within three standard errors by batch means: many servers with the percentiles
//! of their waits, loss systems, finite sources, processor sharing, cold starts.

use std::time::Duration;

use gatewright_control::balance::{Asks, Balancer, Pool, Position};
use gatewright_determinism::{Stream, Time};
use gatewright_record::{Estimate, Invocation, WriteError};
use gatewright_sim::{Phase, Policies, RecordSink, ReplicaStep, Simulation};

use crate::rig::{assert_mean, of_texts, queue, records, run, share, simulation};

/// Erlang B by its recursion: the share of requests that find all of `servers` busy and are lost, `load` of them
/// offered in the time of one service.
fn erlang_b(servers: u32, load: f64) -> f64 {
    (1..=servers).fold(1.0, |blocked, server| load * blocked / (f64::from(server) + load * blocked))
}

/// Erlang C: the share of requests that have to wait.
fn erlang_c(servers: u32, load: f64) -> f64 {
    let blocked = erlang_b(servers, load);
    blocked / (1.0 - load / f64::from(servers) * (1.0 - blocked))
}

/// P(wait > t) = C exp(-(c mu - lambda) t): the mean and four percentiles at loads from 0.5 to 0.9.
#[test]
fn many_servers_and_the_percentiles_of_their_waits() {
    for (servers, rho, requests) in [(2, 0.5, 600_000), (5, 0.8, 1_000_000), (30, 0.9, 2_000_000)] {
        let rate = rho * f64::from(servers);
        let law = "{ exponential = { mean = 1.0 } }";
        let (report, times) = run(&queue(servers, law, rate, requests), 1);
        let waits = erlang_c(servers, rate);
        let drain = f64::from(servers) - rate;
        assert_mean("who waits", &share(&times.waits, |wait| wait > 0.0), waits);
        assert_mean("mean wait", &times.waits, waits / drain);
        assert_mean("mean response", &times.responses, 1.0 + waits / drain);
        for beyond in [0.5, 0.25, 0.1, 0.05].map(|part| part * waits) {
            let percentile = libm::log(waits / beyond) / drain;
            assert_mean("beyond the percentile", &share(&times.waits, |t| t > percentile), beyond);
        }
        let function = &report.functions[0];
        assert!((function.in_service_mean / rate - 1.0).abs() < 0.01, "{function:?}");
    }
}

fn limited(servers: u32, room: u32, law: &str, rate: f64) -> Simulation {
    simulation(
        &format!(
            "concurrency = 1\nreplicas = {{ min = {servers} }}\nqueue = {{ capacity = {room} }}\ntimeout = \"1day\""
        ),
        &format!("service = {law}"),
        &format!("arrival = {{ poisson = {{ rate = {rate} }} }}\nrequests = 500000"),
    )
}

fn lost(simulation: &Simulation) -> Vec<f64> {
    let lost = |record: &Invocation| f64::from(u8::from(record.started.is_none()));
    records(simulation, 1).iter().map(lost).collect()
}

/// M/G/c/c: Erlang B, whatever the law of service.
#[test]
fn loss_does_not_mind_the_law() {
    assert!((erlang_b(10, 8.0) - 0.121_661).abs() < 1e-6);
    let laws = [
        "{ exponential = { mean = 1.0 } }",
        "{ fixed = 1.0 }",
        "{ hyperexponential = { mean = 1.0, cv = 2.0 } }",
    ];
    for (servers, load) in [(1, 0.5), (3, 2.0), (10, 8.0)] {
        for law in laws {
            let lost = lost(&limited(servers, 0, law, load));
            assert_mean(law, &lost, erlang_b(servers, load));
        }
    }
}

/// M/M/c/K by its birth-death chain: the share that finds `servers` busy and `room` waiting.
#[test]
fn full_queues_of_several_servers() {
    for (servers, room, load) in [(1, 2, 0.6), (3, 4, 2.7), (4, 2, 6.0)] {
        let mut weights = vec![1.0];
        for there in 1..=servers + room {
            let busy = f64::from(there.min(servers));
            weights.push(weights[weights.len() - 1] * load / busy);
        }
        let full = weights[weights.len() - 1] / weights.iter().sum::<f64>();
        let lost = lost(&limited(servers, room, "{ exponential = { mean = 1.0 } }", load));
        assert_mean("lost", &lost, full);
    }
}

/// Machine repair: 12 users who think for exponential times and share 1, 3 or 5 servers. With n of them there, the
/// others ask at (12 - n) / Z and are answered at min(n, c) / S.
#[test]
fn users_of_several_servers() {
    let (users, think, service) = (12u32, 2.0, 0.5);
    for servers in [1u32, 3, 5] {
        let mut weights = vec![1.0];
        for there in 1..=users {
            let born = f64::from(users - there + 1) / think;
            let done = f64::from(there.min(servers)) / service;
            weights.push(weights[weights.len() - 1] * born / done);
        }
        let total: f64 = weights.iter().sum();
        let mean = |of: &dyn Fn(u32) -> f64| {
            (0..=users).zip(&weights).map(|(n, weight)| of(n) * weight / total).sum::<f64>()
        };
        let rate = mean(&|n| f64::from(n.min(servers))) / service;
        let there = mean(&|n| f64::from(n));
        let simulation = simulation(
            &format!("concurrency = 1\nreplicas = {{ min = {servers} }}\ntimeout = \"1day\""),
            &format!("service = {{ exponential = {{ mean = {service} }} }}"),
            &format!(
                "arrival = {{ users = {{ users = {users}, think = {{ mean = \"{think}s\", cv = 1 }} }} }}\nrequests = 500000"
            ),
        );
        let (report, times) = run(&simulation, 1);
        // Little's law: what is there, over the rate at which it leaves.
        assert_mean("response", &times.responses, there / rate);
        let busy = report.functions[0].in_service_mean;
        assert!(
            (busy / (rate * service) - 1.0).abs() < 0.01,
            "{busy} busy, not {}",
            rate * service
        );
    }
}

/// M/G/1 processor sharing at low and high load: E[S] / (1 - rho), whatever the law.
#[test]
fn processor_sharing_at_other_loads() {
    for (rho, requests) in [(0.3, 300_000), (0.85, 2_000_000)] {
        for law in ["{ fixed = 1.0 }", "{ gamma = { mean = 1.0, cv = 1.8 } }"] {
            let simulation = simulation(
                "timeout = \"1day\"",
                &format!("service = {law}\ncontention = {{ processor_sharing = {{ cores = 1 }} }}"),
                &format!("arrival = {{ poisson = {{ rate = {rho} }} }}\nrequests = {requests}"),
            );
            let (_, times) = run(&simulation, 1);
            assert_mean(law, &times.responses, 1.0 / (1.0 - rho));
        }
    }
}

/// Requests of no length at exponential gaps, one replica that stays `T` after each: exp(-lambda T) of them find none.
#[test]
fn cold_starts_under_exponential_arrivals() {
    for (rate, stay) in [(0.5f64, 1.0), (0.5, 4.0), (2.0, 2.0)] {
        let simulation = simulation(
            &format!(
                "concurrency = 1\nreplicas = {{ min = 0, max = 1 }}\nkeep_alive = {{ policy = \"fixed\", idle = \"{stay}s\" }}"
            ),
            "service = { fixed = 0 }\nstart = { fixed = 0 }",
            &format!("arrival = {{ poisson = {{ rate = {rate} }} }}\nrequests = 300000"),
        );
        let cold = |record: &Invocation| f64::from(u8::from(record.cold));
        let cold: Vec<f64> = records(&simulation, 1).iter().map(cold).collect();
        assert_mean("cold", &cold, libm::exp(-rate * stay));
    }
}

/// The estimates that the tests here go by are none too narrow: of 40 seeds, the mean wait of M/M/1 at 0.5 is within
/// two standard errors 30 times at least (38 of 40 are expected).
#[test]
fn standard_errors_are_honest() {
    let law = "{ exponential = { mean = 1.0 } }";
    let simulation = queue(1, law, 0.5, 60_000);
    let within = (1..=40).filter(|&seed| {
        let (_, times) = run(&simulation, seed);
        let Estimate { mean, standard_error, .. } =
            gatewright_record::batch_means(&times.waits, 30).unwrap();
        (mean - 1.0).abs() < 2.0 * standard_error
    });
    let within = within.count();
    assert!(within >= 30, "{within} of 40");
}

/// Gives a request to the replica that was made last of those with a free slot.
#[derive(Debug, Default)]
struct Newest {
    joined: Vec<u64>,
    count: u64,
}

impl Balancer for Newest {
    fn pick(&mut self, pool: &Pool, _: Asks, _: &mut Stream) -> Option<Position> {
        pool.available().iter().copied().max_by_key(|position| self.joined[position.index()])
    }

    fn joined(&mut self, _: &Pool, position: Position, _: Time) {
        self.count += 1;
        let places = self.joined.len().max(position.index() + 1);
        self.joined.resize(places, 0);
        self.joined[position.index()] = self.count;
    }
}

/// How many replicas began to start from a moment on.
struct Starts {
    from: Time,
    count: u64,
}

impl RecordSink for Starts {
    fn invocation(&mut self, _: &Invocation) -> Result<(), WriteError> {
        Ok(())
    }

    fn replica(&mut self, step: &ReplicaStep) -> Result<(), WriteError> {
        self.count += u64::from(step.phase == Phase::Deploy && step.at >= self.from);
        Ok(())
    }
}

/// The mean over replications is that of the reference within three standard errors of their difference: the reference
/// has an error of its own, as that of the replications but over 9 million requests in place of 2.9.
fn assert_alike(what: &str, replications: &[f64], reference: f64) {
    let batches = replications.len() as u32;
    let Estimate { mean, standard_error, .. } =
        gatewright_record::batch_means(replications, batches).unwrap();
    let error = standard_error * (1.0f64 + 2.9 / 9.0).sqrt();
    let off = (mean - reference) / error;
    assert!(off.abs() < 3.0, "{what}: {mean} +- {error}, there {reference}: {off:.1} errors off");
    assert!(error < 0.02 * reference, "{what}: +- {error} is too wide");
}

/// The example of SimFaaS (Mahmoudi and Khazaei, "SimFaaS: a performance simulator for serverless computing platforms",
/// CLOSER 2021): 0.9 requests a second, 1.991 s of service, 2.244 s where a replica has to start, replicas that stay for
/// 600 s, the newest first. A reference simulation of ten times its length has 0.001329 +- 0.00001 of them cold, 7.695
/// replicas, and 1.792 at work. Each within three standard errors by replications, whose first hour is left out.
#[test]
fn cold_starts_of_overlapping_requests() {
    let from = Duration::from_secs(3_600);
    let simulation = of_texts(
        "[function.f]\nhttp = \"http://127.0.0.1:1\"\nconcurrency = 1\nreplicas = { min = 0, max = 1000 }\nautoscale = { policy = \"per_request\" }\nkeep_alive = { policy = \"fixed\", idle = \"600s\" }\nqueue = { capacity = 1000 }\ntimeout = \"1day\"",
        "[function.f]\nservice = { exponential = { mean = 1.991 } }\nstart = { fixed = 0.253 }",
        "warm_up = \"1h\"\n[[demand]]\nfunction = \"f\"\narrival = { poisson = { rate = 0.9 } }\nrequests = 100000",
    );
    let (mut cold, mut replicas, mut at_work) = (Vec::new(), Vec::new(), Vec::new());
    for seed in 1..=30 {
        let mut policies = Policies::default();
        policies.balancer.insert("f".to_owned(), Box::new(Newest::default()));
        let mut starts = Starts { from: Time::ZERO + from, count: 0 };
        let report = simulation.run_with(seed, policies, Some(&mut starts), &mut |_| ()).unwrap();
        let [function] = &report.functions[..] else { panic!("one function") };
        // Each started replica is a cold start there.
        cold.push(starts.count as f64 / report.summary().report().requests as f64);
        replicas.push(function.replicas_mean);
        at_work.push(function.in_service_mean);
    }
    // What is at work is rate times service (Little's law); there, cold requests are at work 0.253 s longer.
    assert_mean("at work", &at_work, 0.9 * 1.991);
    assert_alike("cold", &cold, 0.001_329);
    assert_alike("replicas", &replicas, 7.695);
}
