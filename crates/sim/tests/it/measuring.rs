//! What is measured of a run: the warm-up left out, samples taken now and then.

use std::time::Duration;

use gatewright_record::{Invocation, WriteError};
use gatewright_sim::{RecordSink, Sample, Scenario};

use crate::rig::{of_texts, records, run};

const SYSTEM: &str = "[function.f]\npython = \"m:C\"\nreplicas = { min = 2 }\n[cluster]\nnodes = [{ name = \"n\", count = 2, cpu = 2, memory = \"1GiB\" }]";
const MODEL: &str = "[function.f]\nservice = { fixed = 0.5 }\nstart = { fixed = 5 }";

/// Replicas that take 5 s to start, one request a second: without the first 10 s it looks as if they had always run.
#[test]
fn a_warm_up_is_left_out() {
    let scenario = |warm_up: &str| {
        of_texts(
            SYSTEM,
            MODEL,
            &format!(
                "cold_start = true\n{warm_up}\n[[demand]]\nfunction = \"f\"\narrival = {{ constant = {{ rate = 1 }} }}\nduration = \"100s\""
            ),
        )
    };
    let (all, _) = run(&scenario(""), 1);
    assert!(all.summary().response_time.max() > Some(5_000_000_000));
    let (warm, _) = run(&scenario("warm_up = \"10s\""), 1);
    let summary = warm.summary();
    assert_eq!((summary.requests(), summary.cold), (90, 0));
    assert_eq!(summary.response_time.max(), Some(500_000_000));
    assert!((summary.offered_rate().unwrap() - 1.0).abs() < 1e-9);
    let [before, after] = [&all, &warm].map(|report| report.functions[0].replicas_mean);
    assert!(before < 1.95 && (after - 2.0).abs() < 1e-9, "{before} {after}");
    assert!((warm.functions[0].in_service_mean - 0.5).abs() < 0.01, "{warm:?}");
    assert_eq!(
        records(&scenario("warm_up = \"10s\""), 1).len(),
        100,
        "they are written all the same"
    );
    let fault = Scenario::parse(
        "warm_up = \"2m\"\n[[demand]]\nfunction = \"f\"\narrival = { constant = { rate = 1 } }\nduration = \"100s\"",
    );
    assert!(fault.unwrap_err().to_string().contains("nothing would be left"));
}

#[derive(Default)]
struct Samples(Vec<Sample>);

impl RecordSink for Samples {
    fn invocation(&mut self, _: &Invocation) -> Result<(), WriteError> {
        Ok(())
    }

    fn sample_every(&self) -> Option<Duration> {
        Some(Duration::from_secs(2))
    }

    fn sampled(&mut self, sample: &Sample) -> Result<(), WriteError> {
        self.0.push(sample.clone());
        Ok(())
    }
}

/// One request of 0.5 s every second, each replica one at a time and half a node of two cores: by hand.
#[test]
fn samples_show_the_load_over_time() {
    let system = SYSTEM
        .replace("{ min = 2 }", "{ min = 1 }")
        .replace("\"m:C\"", "\"m:C\"\nrequests = { cpu = 1 }");
    let simulation = of_texts(
        &system,
        MODEL,
        "[[demand]]\nfunction = \"f\"\narrival = { constant = { rate = 1 } }\nrequests = 6",
    );
    let mut samples = Samples::default();
    let report = simulation.run(1, Some(&mut samples), &mut |_| ()).unwrap();
    let bare = simulation.run(1, None, &mut |_| ()).unwrap();
    assert_eq!(report.functions, bare.functions, "looking changes nothing");
    let samples = samples.0;
    let at: Vec<f64> = samples.iter().map(|sample| sample.at.as_secs_f64()).collect();
    assert_eq!(at, [2.0, 4.0]);
    for sample in &samples {
        let (function, replica) = (&sample.functions[0], &sample.replicas[0]);
        assert_eq!(
            (function.running, function.queued_mean, function.in_service_mean),
            (1, 0.0, 0.5)
        );
        assert_eq!((replica.utilisation, replica.in_service_mean), (0.5, 0.5));
        let node = sample.nodes.iter().find(|node| Some(&node.node) == replica.node.as_ref());
        let node = node.unwrap();
        assert_eq!((node.replicas, node.requested, node.busy), (1, 0.5, 0.25));
    }
}

/// A replica with two requests at a time is no busier than with one.
#[test]
fn a_replica_is_busy_once() {
    let simulation = of_texts(
        "[function.f]\npython = \"m:C\"\nconcurrency = 2",
        "[function.f]\nservice = { fixed = 1 }",
        "[[demand]]\nfunction = \"f\"\narrival = { concurrent = { streams = 2 } }\nduration = \"5s\"",
    );
    let mut samples = Samples::default();
    simulation.run(1, Some(&mut samples), &mut |_| ()).unwrap();
    let load =
        |sample: &Sample| (sample.replicas[0].utilisation, sample.replicas[0].in_service_mean);
    assert_eq!(samples.0.iter().map(load).collect::<Vec<_>>(), [(1.0, 2.0); 2]);
}
