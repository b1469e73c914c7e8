//! The balanced scenario of DSLab FaaS' own benchmark (`examples/faas-benchmark`, preset `balanced`), as far as it is
//! written down there: a day of 30 functions that are asked for equally often at random, 10 requests a second in all,
//! a cold start of half a second, ten minutes of keep-alive, 100 hosts of 4 GB. Its function's times and sizes come from
//! a trace of Azure; here they are log-normal with a mean of one second, and 170 MB.
//!
//! `cargo run --release -p gatewright-sim --example balanced -- [requests a second] [rounds]`
#![expect(clippy::print_stdout, reason = "an example that reports to who runs it")]
#![expect(
    clippy::disallowed_methods,
    reason = "the kernel tells time on a core and memory in files"
)]

use std::fmt::Write as _;

use gatewright_control::config::SystemFile;
use gatewright_sim::{Model, Scenario, Simulation};

const FUNCTIONS: u32 = 30;

fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|argument| argument.parse().ok());
    let rate: f64 = arguments.next().unwrap_or(10.0);
    let rounds = arguments.next().unwrap_or(5.0) as u64;
    let simulation = simulation(rate);
    for seed in 0..rounds {
        let start = seconds_on_core();
        let report = simulation.run(seed, None, &mut |_| ()).expect("the run adds up");
        let seconds = seconds_on_core() - start;
        let summary = report.summary();
        println!(
            "processed {} invocations ({} cold, rps = {rate}) and {} events in {seconds:.2} seconds on a core: {:.2} M invocations/s, {:.2} M events/s, {} MB held",
            summary.requests(),
            summary.cold,
            report.events,
            summary.requests() as f64 / seconds / 1e6,
            report.events as f64 / seconds / 1e6,
            kilobytes_held() / 1024,
        );
    }
}

fn simulation(rate: f64) -> Simulation {
    let (mut system, mut model, mut scenario) = (String::new(), String::new(), String::new());
    for number in 0..FUNCTIONS {
        let rate = rate / f64::from(FUNCTIONS);
        write!(
            system,
            "[function.f{number}]\npython = \"m:C\"\nreplicas = {{ min = 0, max = 1000 }}\n\
             autoscale = {{ policy = \"per_request\" }}\nkeep_alive = {{ policy = \"fixed\", idle = \"10m\" }}\n\
             requests = {{ cpu = 0, memory = \"170MB\" }}\ntimeout = \"1day\"\n"
        )
        .and_then(|()| {
            write!(
                model,
                "[function.f{number}]\nservice = {{ log_normal = {{ mean = 1, cv = 1 }} }}\nstart = {{ fixed = 0.5 }}\n"
            )
        })
        .and_then(|()| {
            write!(
                scenario,
                "[[demand]]\nfunction = \"f{number}\"\narrival = {{ poisson = {{ rate = {rate} }} }}\nduration = \"1day\"\n"
            )
        })
        .expect("text can be written to memory");
    }
    system
        .push_str("[cluster]\nnodes = [{ name = \"n\", count = 100, cpu = 4, memory = \"4GB\" }]");
    let system = SystemFile::parse(&system, &[]).expect("the system file is right");
    let model = Model::parse(&model).expect("the model is right");
    let scenario = Scenario::parse(&scenario).expect("the scenario is right");
    Simulation::new(&system, &model, &scenario).expect("they fit together")
}

/// Seconds that this thread has had a core, so that a busy machine does not count.
fn seconds_on_core() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat");
    let nanos = text.ok().and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
    nanos.expect("the kernel tells how long a thread has run") / 1e9
}

fn kilobytes_held() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("VmRSS:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}
