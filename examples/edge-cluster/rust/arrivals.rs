//! faas-sim's `request_gen`: how requests arrive. Every arrival of `gatewright bench` is one here.

use std::error::Error;
use std::fmt::Write as _;

use gatewright_record::Invocation;

use super::city;

const ARRIVALS: [(&str, &str); 5] = [
    ("constant", "{ constant = { rate = 5 } }"),
    ("exponential", "{ poisson = { rate = 5 } }"),
    ("sine", "{ sine = { rate = 5, amplitude = 4, period = \"4m\" } }"),
    (
        "random walk",
        "{ random_walk = { rate = 5, deviation = 1, every = \"10s\", min = 1, max = 12 } }",
    ),
    ("ramp", "{ ramp = { from = 1, to = 9, over = \"4m\" } }"),
];

pub(crate) fn run() -> Result<String, Box<dyn Error>> {
    let mut text = String::new();
    for (name, arrival) in ARRIVALS {
        let demand =
            format!("[[demand]]\nfunction = \"classify\"\narrival = {arrival}\nduration = \"4m\"");
        let mut records: Vec<Invocation> = Vec::new();
        city::simulation(&demand, "kubernetes")?.run(1, Some(&mut records), &mut |_| ())?;
        let mut minutes = [0; 4];
        for sent in records.iter().filter_map(|record| record.sent) {
            minutes[(sent.as_nanos() / 60_000_000_000).min(3) as usize] += 1;
        }
        let counts: Vec<_> = minutes.iter().map(|count| format!("{count:5}")).collect();
        writeln!(text, "{name:<12} {} requests in each minute", counts.join(" "))?;
    }
    Ok(text)
}
