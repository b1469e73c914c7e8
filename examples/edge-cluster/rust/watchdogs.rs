//! faas-sim's `watchdogs`: a process that takes several requests at a time, and one process for each request.
//!
//! OpenFaaS' HTTP watchdog keeps its program (`workers`: so many work at a time), its forking one starts it for each
//! request (`fork`: what that takes).

use std::error::Error;
use std::fmt::Write as _;

use gatewright_control::config::SystemFile;
use gatewright_sim::{Model, Scenario, Simulation};

const SYSTEM: &str = "[function.f]\npython = \"models:F\"\nconcurrency = 4\nreplicas = { min = 1 }\ntimeout = \"1h\"";
const SCENARIO: &str =
    "[[demand]]\nfunction = \"f\"\narrival = { poisson = { rate = 6 } }\nduration = \"10m\"";
const MODELS: [(&str, &str); 3] = [
    ("http, 4 workers", "workers = 4"),
    ("http, 2 workers", "workers = 2"),
    ("forking", "fork = { log_normal = { mean = 0.12, cv = 0.3 } }"),
];

pub(crate) fn run() -> Result<String, Box<dyn Error>> {
    let (system, scenario) = (SystemFile::parse(SYSTEM, &[])?, Scenario::parse(SCENARIO)?);
    let mut text = String::new();
    for (name, model) in MODELS {
        let model =
            format!("[function.f]\nservice = {{ exponential = {{ mean = 0.25 }} }}\n{model}");
        let simulation = Simulation::new(&system, &Model::parse(&model)?, &scenario)?;
        let summary = simulation.run(1, None, &mut |_| ())?.summary();
        let [p50, p95] = [0.5, 0.95].map(|q| summary.response_time.quantile(q).unwrap_or_default());
        writeln!(text, "{name:<16} p50 {:.3} s, p95 {:.3} s", p50 as f64 / 1e9, p95 as f64 / 1e9)?;
    }
    Ok(text)
}
