//! faas-sim's `custom_function_sim`: what a call of the function takes, as a program.
//!
//! A model is asked when a request begins to be served. This one depends on the device, has a slow first call in each
//! replica (a cache fills), and luck of its own.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Write as _;

use gatewright_determinism::Stream;
use gatewright_record::Invocation;
use gatewright_sim::{Call, Policies, ServiceModel};

use super::city;

#[derive(Debug, Default)]
struct Classifier {
    warm: BTreeSet<u64>,
}

impl ServiceModel for Classifier {
    fn service(&mut self, call: &Call<'_>, luck: &mut Stream) -> u64 {
        let base = match call.node.and_then(|node| node.device.as_deref()) {
            Some("rpi3") => 2.0,
            Some("tx2") => 0.4,
            Some("nuc") => 0.2,
            _ => 0.1,
        };
        let first = if self.warm.insert(call.replica) { 3.0 } else { 0.0 };
        ((base * (0.9 + 0.2 * luck.unit()) + first) * 1e9) as u64
    }
}

pub(crate) fn run() -> Result<String, Box<dyn Error>> {
    let mut policies = Policies::default();
    policies.service.insert("classify".to_owned(), Box::<Classifier>::default());
    let mut records: Vec<Invocation> = Vec::new();
    city::simulation(city::SCENARIO, "kubernetes")?.run_with(
        1,
        policies,
        Some(&mut records),
        &mut |_| (),
    )?;
    let mut text = String::new();
    for (node, times) in city::by_node(&records) {
        let least = times.iter().copied().fold(f64::INFINITY, f64::min);
        let most = times.iter().copied().fold(0.0, f64::max);
        let count = times.len();
        writeln!(
            text,
            "{node}: {count} requests, the quickest {least:.2} s, the slowest {most:.2} s"
        )?;
    }
    Ok(text)
}
