//! Runs a simulation with several seeds on all cores.

use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use gatewright_sim::{RecordSink, Simulation, SimulationReport};

use crate::failure::{Failure, Outcome};
use crate::progress::Meter;
use crate::render::count;

const TICK: Duration = Duration::from_millis(200);

/// One run of `simulation`, its records to `sink`.
pub(crate) fn once<'a>(
    simulation: &'a Simulation,
    seed: u64,
    sink: Option<&'a mut dyn RecordSink>,
    quiet: bool,
) -> Outcome<SimulationReport> {
    let mut meter = Meter::new("simulate", quiet);
    let start = Instant::now();
    let mut progress = |at: gatewright_sim::Progress| {
        let text = format!("{} requests, {} events", count(at.ended), count(at.events));
        meter.update(at.fraction, left(start.elapsed(), at.fraction), &text);
    };
    simulation.run(seed, sink, &mut progress).map_err(Failure::failed)
}

/// One run for each of the seeds `seed`, `seed + 1`, ...; their reports in that order.
pub(crate) fn all(
    simulation: &Simulation,
    seed: u64,
    replications: u32,
    quiet: bool,
) -> Outcome<Vec<SimulationReport>> {
    let next = AtomicU32::new(0);
    let done = AtomicUsize::new(0);
    let reports = Mutex::new(Vec::new());
    let (sender, ended) = channel();
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let runners = cores.min(replications as usize);
    thread::scope(|scope| {
        for _ in 0..runners {
            let (next, done, reports, sender) = (&next, &done, &reports, sender.clone());
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= replications {
                        break;
                    }
                    let own_seed = seed.wrapping_add(u64::from(number));
                    let report = simulation.run(own_seed, None, &mut |_| {});
                    done.fetch_add(1, Ordering::Relaxed);
                    reports.lock().expect("no runner panics with it").push((number, report));
                }
                // Its end is what is waited for.
                drop(sender);
            });
        }
        drop(sender);
        let mut meter = Meter::new("simulate", quiet);
        let start = Instant::now();
        while ended.recv_timeout(TICK) != Err::<(), _>(RecvTimeoutError::Disconnected) {
            let done = done.load(Ordering::Relaxed);
            let fraction = done as f64 / f64::from(replications);
            let text = format!("{done} of {replications} replications");
            meter.update(fraction, left(start.elapsed(), fraction), &text);
        }
    });
    let mut reports = reports.into_inner().expect("no runner panics with it");
    reports.sort_by_key(|(number, _)| *number);
    reports.into_iter().map(|(_, report)| report.map_err(Failure::failed)).collect()
}

/// Time left if it goes on as so far.
fn left(elapsed: Duration, fraction: f64) -> Option<Duration> {
    let rest = elapsed.as_secs_f64() * (1.0 - fraction) / fraction;
    (fraction > 0.0).then(|| Duration::try_from_secs_f64(rest).ok()).flatten()
}
