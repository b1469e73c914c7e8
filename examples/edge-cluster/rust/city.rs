//! The city that the examples share: a classifier on Raspberry Pis, Jetsons, NUCs and servers.

use std::collections::BTreeMap;

use gatewright_control::config::{ConfigError, Override, SystemFile};
use gatewright_record::Invocation;
use gatewright_sim::{Model, Scenario, Simulation};

/// The demand of the city's scenario file.
pub(crate) const SCENARIO: &str = include_str!("../city-scenario.toml");

/// The city with this demand and its replicas placed by this policy.
pub(crate) fn simulation(scenario: &str, placement: &str) -> Result<Simulation, ConfigError> {
    let placement = Override::new("cluster.placement.policy", placement, "the example");
    let system = SystemFile::parse(include_str!("../city.toml"), &[placement])?;
    let model = Model::parse(include_str!("../city.model.toml"))?;
    Simulation::new(&system, &model, &Scenario::parse(scenario)?)
}

/// Response times in seconds by node.
pub(crate) fn by_node(records: &[Invocation]) -> BTreeMap<&str, Vec<f64>> {
    let mut times: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for record in records {
        if let (Some(sent), Some(finished)) = (record.sent, record.finished) {
            let node = record.node.as_deref().unwrap_or("none");
            times.entry(node).or_default().push((finished - sent).as_secs_f64());
        }
    }
    times
}

/// The mean, or 0 of nothing.
pub(crate) fn mean(times: &[f64]) -> f64 {
    times.iter().sum::<f64>() / times.len().max(1) as f64
}
