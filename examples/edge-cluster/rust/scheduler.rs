//! faas-sim's `custom_scheduler`: who says which node a replica goes to.
//!
//! A priority gives each node that can hold the replica a score; the highest takes it. This one wants a GPU, and spreads.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Write as _;

use gatewright_control::cluster::{Cluster, NodeId};
use gatewright_control::placement::{Priority, Want};
use gatewright_determinism::Stream;
use gatewright_record::Invocation;
use gatewright_sim::Policies;

use super::city;

#[derive(Debug)]
struct GpusFirst;

impl Priority for GpusFirst {
    fn score(
        &mut self,
        cluster: &Cluster,
        _: &Want<'_>,
        node: NodeId,
        _: i64,
        _: &mut Stream,
    ) -> i64 {
        let node = cluster.node(node);
        let has_gpu = matches!(node.device.as_deref(), Some("tx2" | "nx" | "nano"));
        let gpu = if has_gpu { 10 } else { 0 };
        gpu - node.replicas().len() as i64
    }
}

pub(crate) fn run() -> Result<String, Box<dyn Error>> {
    let city = city::simulation(city::SCENARIO, "skippy")?;
    let own = Policies { priority: Some(Box::new(GpusFirst)), ..Policies::default() };
    let mut text = String::new();
    for (name, policies) in [("skippy", Policies::default()), ("gpus first", own)] {
        let mut records: Vec<Invocation> = Vec::new();
        let report = city.run_with(1, policies, Some(&mut records), &mut |_| ())?;
        let nodes: BTreeSet<_> = records.iter().filter_map(|one| one.node.as_deref()).collect();
        let p95 = report.summary().response_time.quantile(0.95).unwrap_or_default() as f64 / 1e9;
        writeln!(text, "{name}: 95 % within {p95:.2} s, on {} nodes", nodes.len())?;
    }
    Ok(text)
}
