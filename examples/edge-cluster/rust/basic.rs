//! faas-sim's `basic`: deploy a function in a city, send requests, look at what became of them.

use std::error::Error;
use std::fmt::Write as _;

use gatewright_record::Invocation;

use super::city;

pub(crate) fn run() -> Result<String, Box<dyn Error>> {
    let mut records: Vec<Invocation> = Vec::new();
    let report =
        city::simulation(city::SCENARIO, "kubernetes")?.run(1, Some(&mut records), &mut |_| ())?;
    let times = city::by_node(&records);
    let mut text = format!("{} requests\n", records.len());
    for node in report.nodes.iter().filter(|node| node.replicas_max > 0) {
        let own = times.get(&*node.node).map_or(&[][..], Vec::as_slice);
        let (count, mean, pulled) = (own.len(), city::mean(own), node.pulled / 1_000_000);
        writeln!(
            text,
            "{}: {count} requests, {mean:.3} s on average, pulled {pulled} MB",
            node.node
        )?;
    }
    Ok(text)
}
