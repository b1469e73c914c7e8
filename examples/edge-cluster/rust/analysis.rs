//! faas-sim's `analysis`: what is behind the averages.
//!
//! A sink sees every record once and keeps what it is asked for: here how long requests waited and were served, by node,
//! without the records themselves. For the fourteen data frames of faas-sim see `gatewright simulate --frames`.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;

use gatewright_record::{Invocation, WriteError};
use gatewright_sim::RecordSink;

use super::city;

#[derive(Default)]
struct Table(BTreeMap<String, Row>);

#[derive(Default)]
struct Row {
    requests: u32,
    waited: f64,
    served: f64,
}

impl RecordSink for Table {
    fn invocation(&mut self, one: &Invocation) -> Result<(), WriteError> {
        if let (Some(node), Some(sent), Some(started), Some(finished)) =
            (&one.node, one.sent, one.started, one.finished)
        {
            let row = self.0.entry(node.to_string()).or_default();
            row.requests += 1;
            row.waited += (started - sent).as_secs_f64();
            row.served += (finished - started).as_secs_f64();
        }
        Ok(())
    }
}

pub(crate) fn run() -> Result<String, Box<dyn Error>> {
    let mut table = Table::default();
    city::simulation(city::SCENARIO, "kubernetes")?.run(1, Some(&mut table), &mut |_| ())?;
    let mut text = "node            waited, s  served, s  requests\n".to_owned();
    for (node, row) in &table.0 {
        let of = |sum: f64| sum / f64::from(row.requests);
        let (waited, served) = (of(row.waited), of(row.served));
        writeln!(text, "{node:<15} {waited:9.3}  {served:9.3}  {:8}", row.requests)?;
    }
    Ok(text)
}
