//! What the tests share: scenarios from a few words, and series of times out of runs.

use gatewright_control::config::SystemFile;
use gatewright_record::{Estimate, Invocation, WriteError, batch_means};
use gatewright_sim::{Model, RecordSink, Scaling, Scenario, Simulation, SimulationReport};

/// A simulation of function `f`: lines of its table in the system file, of its model, and of its demand.
pub(crate) fn simulation(function: &str, model: &str, demand: &str) -> Simulation {
    let system = format!("[function.f]\nhttp = \"http://127.0.0.1:1\"\n{function}\n");
    let model = format!("[function.f]\n{model}\n");
    let scenario = format!("[[demand]]\nfunction = \"f\"\n{demand}\n");
    of_texts(&system, &model, &scenario)
}

pub(crate) fn of_texts(system: &str, model: &str, scenario: &str) -> Simulation {
    let scenario = Scenario::parse(scenario).unwrap();
    let system = SystemFile::parse(system, &scenario.overrides()).unwrap();
    Simulation::new(&system, &Model::parse(model).unwrap(), &scenario).unwrap()
}

/// `servers` servers with a queue and a time limit that are never felt, asked `rate` times a second.
pub(crate) fn queue(servers: u32, service: &str, rate: f64, requests: u64) -> Simulation {
    simulation(
        &format!(
            "concurrency = 1\nreplicas = {{ min = {servers} }}\nqueue = {{ capacity = 1000000 }}\ntimeout = \"1day\""
        ),
        &format!("service = {service}"),
        &format!("arrival = {{ poisson = {{ rate = {rate} }} }}\nrequests = {requests}"),
    )
}

/// Seconds of every request, in the order in which they ended.
#[derive(Default)]
pub(crate) struct Times {
    /// From received until handed to a replica.
    pub(crate) waits: Vec<f64>,
    /// From received until finished.
    pub(crate) responses: Vec<f64>,
    pub(crate) scalings: Vec<Scaling>,
}

impl RecordSink for Times {
    fn invocation(&mut self, invocation: &Invocation) -> Result<(), WriteError> {
        let received = invocation.received.unwrap();
        if let Some(started) = invocation.started {
            self.waits.push(started.nanos_since(received) as f64 / 1e9);
        }
        let finished = invocation.finished.unwrap();
        self.responses.push(finished.nanos_since(received) as f64 / 1e9);
        Ok(())
    }

    fn scaled(&mut self, scaling: &Scaling) -> Result<(), WriteError> {
        self.scalings.push(scaling.clone());
        Ok(())
    }
}

pub(crate) fn run(simulation: &Simulation, seed: u64) -> (SimulationReport, Times) {
    let mut times = Times::default();
    let report = simulation.run(seed, Some(&mut times), &mut |_| ()).unwrap();
    (report, times)
}

pub(crate) fn records(simulation: &Simulation, seed: u64) -> Vec<Invocation> {
    let mut records = Vec::new();
    simulation.run(seed, Some(&mut records), &mut |_| ()).unwrap();
    records
}

/// 1 for each that is so, 0 for the others: the mean is their share.
pub(crate) fn share(series: &[f64], is: impl Fn(f64) -> bool) -> Vec<f64> {
    series.iter().map(|&value| f64::from(u8::from(is(value)))).collect()
}

/// The mean of a series is the exact one within three standard errors, by batch means.
pub(crate) fn assert_mean(what: &str, series: &[f64], exact: f64) {
    let Estimate { mean, standard_error, .. } = batch_means(series, 30).unwrap();
    let off = (mean - exact) / standard_error;
    assert!(
        off.abs() < 3.0,
        "{what}: {mean} +- {standard_error}, exactly {exact}: {off:.1} errors off"
    );
    // A test that would pass with anything proves nothing.
    assert!(standard_error < 0.1 * exact, "{what}: +- {standard_error} is too wide");
}
