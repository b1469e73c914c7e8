//! Clusters of more and more nodes, ten replicas on each, at load 0.8: what a request costs, and what memory is held
//! in the end. Neither is to grow with the nodes beyond what their number alone takes, nor memory with the requests.
//!
//! `cargo run --release -p gatewright-sim --example fleet -- [requests] [most nodes]`
#![expect(clippy::print_stdout, reason = "an example that reports to who runs it")]
#![expect(
    clippy::disallowed_methods,
    reason = "the kernel tells time on a core and memory in files"
)]

use gatewright_control::config::SystemFile;
use gatewright_sim::{Model, Scenario, Simulation};

const REPLICAS_PER_NODE: u64 = 10;

fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|argument| argument.parse().ok());
    let requests: u64 = arguments.next().unwrap_or(1_000_000);
    let most: u64 = arguments.next().unwrap_or(10_000);
    println!("   nodes  replicas   requests  deploy s  run s  M events/s  ns/request  memory MB");
    for nodes in [1, 10, 100, 1_000, 10_000, 100_000].into_iter().filter(|nodes| *nodes <= most) {
        report(nodes, requests);
    }
    report(most, 4 * requests);
}

fn report(nodes: u64, requests: u64) {
    let replicas = nodes * REPLICAS_PER_NODE;
    let simulate = |requests: u64| {
        let start = seconds_on_core();
        let report = simulation(nodes, requests).run(1, None, &mut |_| ());
        (seconds_on_core() - start, report.expect("the run adds up"))
    };
    // What one request takes is what it takes to begin.
    let (deploy, _) = simulate(1);
    let (seconds, report) = simulate(requests);
    let run = (seconds - deploy).max(1e-9);
    println!(
        "{nodes:8} {replicas:9} {requests:10} {deploy:9.2} {run:6.2} {:11.2} {:11.0} {:10}",
        report.events as f64 / run / 1e6,
        run / requests as f64 * 1e9,
        memory_held().map_or_else(|| "?".to_owned(), |kilobytes| (kilobytes / 1024).to_string()),
    );
}

fn simulation(nodes: u64, requests: u64) -> Simulation {
    let replicas = nodes * REPLICAS_PER_NODE;
    let rate = replicas as f64 * 0.8;
    let system = format!(
        "[function.f]\npython = \"m:C\"\nreplicas = {{ min = {replicas}, max = {replicas} }}\n\
         requests = {{ cpu = \"100m\", memory = \"64MiB\" }}\ntimeout = \"1h\"\n\
         [cluster]\nnodes = [{{ name = \"n\", count = {nodes}, cpu = 1, memory = \"1GiB\" }}]"
    );
    let scenario = format!(
        "[[demand]]\nfunction = \"f\"\narrival = {{ poisson = {{ rate = {rate} }} }}\nrequests = {requests}"
    );
    let system = SystemFile::parse(&system, &[]).expect("the system file is right");
    let model = Model::parse("[function.f]\nservice = { exponential = { mean = 1 } }");
    let scenario = Scenario::parse(&scenario).expect("the scenario is right");
    let model = model.expect("the model is right");
    Simulation::new(&system, &model, &scenario).expect("they fit together")
}

/// Seconds that this thread has had a core, so that a busy machine does not count.
fn seconds_on_core() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat");
    let nanos = text.ok().and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
    nanos.expect("the kernel tells how long a thread has run") / 1e9
}

/// Kilobytes of memory that the process holds.
fn memory_held() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
