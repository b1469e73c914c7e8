//! How many events a second: ten servers in parallel behind one queue at load 0.8 (M/M/10), by the whole
//! simulation with its histograms, and by a bare loop over `std::collections::BinaryHeap` that decides nothing and
//! keeps no distribution. An event is an arrival or an end of service.
//!
//! `cargo run --release -p gatewright-sim --example mmc -- [requests] [rounds]`
#![expect(clippy::print_stdout, reason = "an example that reports to who runs it")]
#![expect(clippy::disallowed_types, reason = "it measures how long virtual time takes to pass")]
#![expect(clippy::disallowed_methods, reason = "the kernel tells the time on a core in a file")]

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Instant;

use gatewright_control::config::SystemFile;
use gatewright_determinism::{Purpose, Stream};
use gatewright_sim::{Model, Scenario, Simulation};

const SERVERS: u32 = 10;
const RATE: f64 = 8.0;

/// Measures the thread's time on a core, so that a busy machine does not count, and the wall clock's where the
/// kernel does not tell.
struct Watch {
    wall: Instant,
    core: Option<f64>,
}

impl Watch {
    fn start() -> Self {
        Self { wall: Instant::now(), core: Self::on_core() }
    }

    fn seconds(&self) -> f64 {
        let core = self.core.and_then(|start| Some(Self::on_core()? - start));
        core.unwrap_or_else(|| self.wall.elapsed().as_secs_f64())
    }

    fn on_core() -> Option<f64> {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        Some(text.split_whitespace().next()?.parse::<f64>().ok()? / 1e9)
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|argument| argument.parse().ok());
    let requests: u64 = arguments.next().unwrap_or(2_000_000);
    let rounds: u64 = arguments.next().unwrap_or(3);
    println!("M/M/{SERVERS} at load 0.8, {requests} requests a round");
    let (mut best, mut best_bare) = (0.0f64, 0.0f64);
    for round in 0..rounds {
        let (simulated, wait) = simulate(requests, round);
        let (bare, bare_wait) = bare_heap(requests, round);
        (best, best_bare) = (best.max(simulated), best_bare.max(bare));
        println!(
            "simulate {simulated:6.2} M events/s (mean wait {wait:.4}), bare heap {bare:6.2} (mean wait {bare_wait:.4}), ratio {:.2}",
            simulated / bare
        );
    }
    println!("best: simulate {best:.2}, bare heap {best_bare:.2}, ratio {:.2}", best / best_bare);
    println!("mean wait by Erlang C: 0.2046");
}

/// Million events a second, and the mean wait.
fn simulate(requests: u64, seed: u64) -> (f64, f64) {
    let system = format!(
        "[function.f]\npython = \"m:C\"\nreplicas = {{ min = {SERVERS} }}\ntimeout = \"1day\"\nqueue = {{ capacity = 1000000 }}"
    );
    let system = SystemFile::parse(&system, &[]).expect("the system file is right");
    let model = Model::parse("[function.f]\nservice = { exponential = { mean = 1.0 } }");
    let model = model.expect("the model is right");
    let scenario = format!(
        "[[demand]]\nfunction = \"f\"\narrival = {{ poisson = {{ rate = {RATE} }} }}\nrequests = {requests}"
    );
    let scenario = Scenario::parse(&scenario).expect("the scenario is right");
    let simulation = Simulation::new(&system, &model, &scenario).expect("they fit together");
    let start = Watch::start();
    let report = simulation.run(seed, None, &mut |_| ()).expect("the run adds up");
    let rate = report.events as f64 / start.seconds() / 1e6;
    (rate, report.summary().queue_wait.mean().unwrap_or_default() / 1e9)
}

/// The same queue by hand: nothing but a heap, a list of who waits, and two random numbers a request.
fn bare_heap(requests: u64, seed: u64) -> (f64, f64) {
    let mut arrivals = Stream::new(seed, Purpose::Arrival, 0);
    let mut services = Stream::new(seed, Purpose::Service, 0);
    let mut heap: BinaryHeap<Reverse<(u64, u64, bool)>> = BinaryHeap::new();
    let mut queue: VecDeque<u64> = VecDeque::new();
    let (mut sequence, mut events, mut offered, mut busy, mut waited) = (1, 0u64, 0, 0, 0u128);
    heap.push(Reverse((0, 0, true)));
    let mut draw = |mean: f64| (services.exponential() * mean * 1e9) as u64;
    let start = Watch::start();
    while let Some(Reverse((now, _, is_arrival))) = heap.pop() {
        events += 1;
        if is_arrival {
            offered += 1;
            if offered < requests {
                let gap = (arrivals.exponential() / RATE * 1e9) as u64;
                heap.push(Reverse((now + gap, sequence, true)));
                sequence += 1;
            }
            if busy == SERVERS {
                queue.push_back(now);
                continue;
            }
            busy += 1;
        } else if let Some(arrived) = queue.pop_front() {
            waited += u128::from(now - arrived);
        } else {
            busy -= 1;
            continue;
        }
        heap.push(Reverse((now + draw(1.0), sequence, false)));
        sequence += 1;
    }
    let rate = events as f64 / start.seconds() / 1e6;
    (rate, waited as f64 / requests as f64 / 1e9)
}
