//! What the tests share: a system whose truth is known, and its records as a gateway and a client would have them.

use gatewright_control::config::SystemFile;
use gatewright_determinism::Time;
use gatewright_record::{Invocation, World};
use gatewright_sim::{Model, Scenario, Simulation, SimulationReport};
use gatewright_twin::RecordedRun;

pub(crate) const SYSTEM: &str = r#"
[function.square]
python = "models:MyAwesomeModel"
replicas = { min = 4 }

[function.lunch]
http = "http://127.0.0.1:9100"

[[route]]
path = "/lunch/{id}"
to = "lunch:/{id}"
cache = { ttl = "3s" }
"#;

/// The truth.
pub(crate) const TRUTH: &str = r#"
[function.square]
service = { log_normal = { mean = 0.05, cv = 0.5 } }
overhead = { fixed = 0.0007 }
gateway = { uniform = { min = 0.00005, max = 0.00015 } }

[function.lunch]
service = { gamma = { mean = 0.2, cv = 0.4 } }
gateway = { fixed = 0.0001 }
[function.lunch.cache]
hit = { exponential = { mean = 0.0003 } }
keys = { zipf = { count = 50, exponent = 1.0 } }
"#;

pub(crate) fn system() -> SystemFile {
    SystemFile::parse(SYSTEM, &[]).unwrap()
}

pub(crate) fn model(text: &str) -> Model {
    Model::parse(text).unwrap()
}

pub(crate) fn square(rate: f64, requests: u64) -> Scenario {
    Scenario::parse(&format!(
        "[[demand]]\nfunction = \"square\"\narrival = {{ poisson = {{ rate = {rate} }} }}\nrequests = {requests}"
    ))
    .unwrap()
}

pub(crate) fn lunch(rate: f64, requests: u64) -> Scenario {
    Scenario::parse(&format!(
        "[[demand]]\nroute = \"/lunch/{{id}}\"\narrival = {{ poisson = {{ rate = {rate} }} }}\nrequests = {requests}"
    ))
    .unwrap()
}

pub(crate) fn simulate(
    model: &Model,
    scenario: &Scenario,
    seed: u64,
) -> (SimulationReport, Vec<Invocation>) {
    let mut records = Vec::new();
    let simulation = Simulation::new(&system(), model, scenario).unwrap();
    let report = simulation.run(seed, Some(&mut records), &mut |_| ()).unwrap();
    (report, records)
}

/// As the gateway would have recorded it: its own clock, and nothing of the client.
pub(crate) fn at_gateway(records: &[Invocation]) -> RecordedRun {
    let shift = |moment: Option<Time>| moment.map(|moment| moment.plus_nanos(77_000_000_000));
    let records = records.iter().map(|record| Invocation {
        world: World::Serve,
        scheduled: None,
        sent: None,
        received: shift(record.received),
        queued_out: shift(record.started),
        started: shift(record.started),
        finished: shift(record.finished),
        ..record.clone()
    });
    RecordedRun {
        source: "served.jsonl".into(),
        records: records.collect(),
        ..RecordedRun::default()
    }
}

/// As the load generator would have recorded it: nothing of what happens inside.
pub(crate) fn at_client(records: &[Invocation]) -> RecordedRun {
    let records = records.iter().map(|record| Invocation {
        world: World::Bench,
        id: record.id,
        function: "bench".into(),
        scheduled: record.scheduled,
        sent: record.sent,
        finished: record.finished,
        attempts: 1,
        status: record.status,
        ..Invocation::default()
    });
    RecordedRun {
        source: "bench.jsonl".into(),
        records: records.collect(),
        ..RecordedRun::default()
    }
}
