//! Policies of an experiment, in the place of those that have names.

use std::time::Duration;

use gatewright_control::autoscale::{Autoscaler, Sample};
use gatewright_control::balance::{Asks, Balancer, Pool, Position};
use gatewright_control::cluster::{Cluster, NodeId};
use gatewright_control::keep_alive::{KeepAliveRule, Plan, Worth};
use gatewright_control::placement::{Priority, Want};
use gatewright_determinism::{Stream, Time};
use gatewright_sim::{Call, Policies, ServiceModel};

use crate::rig::{Times, of_texts, queue, records, simulation};

/// 1, 2, 3, 4, 1, ... replicas, changed every ten seconds.
#[derive(Debug)]
struct Sawtooth(u32);

impl Autoscaler for Sawtooth {
    fn interval(&self) -> Duration {
        Duration::from_secs(10)
    }

    fn decide(&mut self, _: Time, _: &Sample) -> Option<u32> {
        self.0 = self.0 % 4 + 1;
        Some(self.0)
    }
}

/// Always the first that has a free slot.
#[derive(Debug)]
struct First;

impl Balancer for First {
    fn pick(&mut self, pool: &Pool, _: Asks, _: &mut Stream) -> Option<Position> {
        pool.available().iter().copied().min()
    }
}

#[test]
fn policies_of_an_experiment_take_the_place_of_the_named_ones() {
    let simulation = simulation(
        "replicas = { min = 1, max = 3 }\nconcurrency = 2",
        "service = { fixed = 0.01 }\nstart = { fixed = 0 }",
        "arrival = { constant = { rate = 10 } }\nduration = \"100s\"",
    );
    let policies = || {
        let mut policies = Policies::default();
        policies.autoscaler.insert("f".to_owned(), Box::new(Sawtooth(0)));
        policies.balancer.insert("f".to_owned(), Box::new(First));
        policies
    };
    let mut times = Times::default();
    simulation.run_with(1, policies(), Some(&mut times), &mut |_| ()).unwrap();
    let decided: Vec<_> = times.scalings.iter().map(|scaling| scaling.to).collect();
    // 1 (as it is), 2, 3, 3 of 4, 1, 2, 3, 3 of 4, 1.
    assert_eq!(decided, [2, 3, 1, 2, 3, 1]);
    let mut records = Vec::new();
    simulation.run_with(1, policies(), Some(&mut records), &mut |_| ()).unwrap();
    assert!(records.iter().all(|record| record.replica == Some(0)), "the first is never busy");

    let mut policies = Policies::default();
    policies.balancer.insert("g".to_owned(), Box::new(First));
    let fault = simulation.run_with(1, policies, None, &mut |_| ()).unwrap_err().to_string();
    assert!(fault.contains("function `g`, and no demand leads"), "{fault}");
}

/// The last node by name.
#[derive(Debug)]
struct Last;

impl Priority for Last {
    fn score(
        &mut self,
        cluster: &Cluster,
        _: &Want<'_>,
        node: NodeId,
        _: i64,
        _: &mut Stream,
    ) -> i64 {
        i64::from(cluster.node(node).name.as_bytes()[0])
    }
}

/// Replicas stay for two and a half seconds.
#[derive(Debug)]
struct Moment;

impl KeepAliveRule for Moment {
    fn idle(&mut self) -> Plan {
        Plan { keep: Some(Duration::from_millis(2_500)), prewarm: None }
    }

    fn worth(&self, used: Time, _: &Worth, _: f64) -> f64 {
        used.as_secs_f64()
    }
}

/// The longer, the more are there; and on which node it was asked for, and whether cold.
#[derive(Debug)]
struct Crowded;

impl ServiceModel for Crowded {
    fn service(&mut self, call: &Call<'_>, _: &mut Stream) -> u64 {
        assert_eq!(call.node.map(|node| node.name.as_str()), Some("c"));
        // Those of 5 s find the replica that started for those of 0 s.
        assert_eq!(call.cold, !(4.0..9.0).contains(&call.now.as_secs_f64()));
        u64::from(call.in_flight) * 1_000_000_000
    }
}

#[test]
fn placement_keep_alive_and_service_of_ones_own() {
    let system = "[function.f]\npython = \"m:C\"\nreplicas = { min = 0, max = 1 }\nconcurrency = 2\n\
        requests = { cpu = 1 }\n[cluster]\nnodes = [{ name = \"a\", cpu = 4 }, { name = \"c\", cpu = 4 }, \
        { name = \"b\", cpu = 4 }]";
    let model = "[function.f]\nservice = { fixed = 0 }\nstart = { fixed = 1 }";
    let demand =
        "[[demand]]\nfunction = \"f\"\narrival = { constant = { rate = 0.2 } }\nrequests = 3\n";
    let scenario = demand.repeat(2);
    let simulation = of_texts(system, model, &scenario);
    let mut policies = Policies::default();
    policies.keep_alive.insert("f".to_owned(), Box::new(Moment));
    policies.service.insert("f".to_owned(), Box::new(Crowded));
    policies.priority = Some(Box::new(Last));
    let mut kept = Vec::new();
    simulation.run_with(1, policies, Some(&mut kept), &mut |_| ()).unwrap();
    let seconds = |time: Option<Time>| time.unwrap().as_secs_f64();
    let mut of: Vec<_> = kept
        .iter()
        .map(|record| (seconds(record.sent), record.cold, seconds(record.finished)))
        .collect();
    of.sort_by(|a, b| a.partial_cmp(b).unwrap());
    // Two at a time, after the start of a replica that stays from 3 to 5.5, and no longer than 9.5 from 7 on.
    let expected = [
        (0.0, true, 2.0),
        (0.0, true, 3.0),
        (5.0, false, 6.0),
        (5.0, false, 7.0),
        (10.0, true, 12.0),
        (10.0, true, 13.0),
    ];
    assert_eq!(of, expected);
    assert!(kept.iter().all(|record| record.node.as_deref() == Some("c")));
    let policies = Policies { priority: Some(Box::new(Last)), ..Policies::default() };
    let nowhere =
        queue(1, "{ fixed = 1 }", 0.5, 1).run_with(1, policies, None, &mut |_| ()).unwrap_err();
    assert!(nowhere.to_string().contains("chooses nodes, and the system has none"), "{nowhere}");
    let elsewhere = |seed| records(&simulation, seed)[0].node.as_deref() != Some("c");
    assert!((1..9).any(elsewhere), "the placement that is named draws among equals");
}
