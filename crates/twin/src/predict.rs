use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use gatewright_control::config::{ConfigError, SystemFile};
use gatewright_determinism::{Purpose, Stream};
use gatewright_record::{LatencyHistogram, RunSummary};
use gatewright_sim::{Law, Model, Scenario, Simulation, SimulationError, Target};
use serde::{Deserialize, Serialize};

use crate::table::Sample;

/// What a run will come to. Times in seconds; each number as a band over replications, which differ in their
/// arrivals, their luck and the refit of the model they run with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Replications behind the bands.
    pub replications: u32,
    /// Median response time.
    pub p50: Band,
    /// 95 % quantile of the response time.
    pub p95: Band,
    /// 99 % quantile of the response time.
    pub p99: Band,
    /// Requests that end well, per second.
    pub throughput: Band,
    /// Requests that do not end well, as a share of all.
    pub failed: Band,
    /// Requests answered from a cache, as a share of those that one was asked about; absent without a cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hits: Option<Band>,
    /// Where the prediction goes beyond what its model was fitted on, or is known to be weak.
    pub warnings: Vec<String>,
}

/// The middle of the replications, and the part of them that nine in ten lie in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Band {
    /// 5 % quantile.
    pub low: f64,
    /// Median.
    pub median: f64,
    /// 95 % quantile.
    pub high: f64,
}

/// How to predict.
#[derive(Clone, Copy, Debug)]
pub struct PredictOptions {
    /// Replications; 1 gives a number without a band. At least 40 for a 5..95 % band.
    pub replications: u32,
    /// Threads to run them on; the result does not depend on it.
    pub threads: u32,
}

/// Why there is no prediction.
#[derive(Debug, thiserror::Error)]
pub enum PredictError {
    /// System, model and demand do not fit together.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A simulation failed.
    #[error(transparent)]
    Simulation(#[from] SimulationError),
}

/// Loads above this share of what the replicas can do have no stable quantiles: a small error of the model, or
/// one pause of the machine, changes everything.
const NEAR_SATURATION: f64 = 0.9;
/// What is forgiven at the ends of the fitted range: measured rates are never quite the nominal ones.
const RANGE_SLACK: f64 = 0.05;

impl Default for PredictOptions {
    fn default() -> Self {
        Self { replications: 40, threads: 1 }
    }
}

/// Predicts what comes of a scenario, without running it.
///
/// `refits` are models of resampled records ([`crate::refits`]); replication n runs with the n-th of them, so that
/// the bands hold what the records left open. Without any, each replication resamples the model's own tables as
/// if their requests had been independent, which is a little too sure. Seeds are the scenario's, counted up.
///
/// # Errors
/// The files do not fit together, or a simulation broke a rule (a fault in this program).
pub fn predict(
    system: &SystemFile,
    model: &Model,
    refits: &[Model],
    scenario: &Scenario,
    options: PredictOptions,
) -> Result<Prediction, PredictError> {
    // Once with the model as it stands, so that faults are found before anything runs.
    Simulation::new(system, model, scenario)?;
    let replications = options.replications.max(1);
    let run = |number: u32| -> Result<RunSummary, PredictError> {
        let seed = scenario.seed.wrapping_add(u64::from(number));
        let refit = match refits {
            [] if number == 0 => model.clone(),
            [] => resampled(model, seed),
            _ => refits[number as usize % refits.len()].clone(),
        };
        let simulation = Simulation::new(system, &refit, scenario)?;
        Ok(simulation.run(seed, None, &mut |_| ())?.summary())
    };
    let runs = on_threads(replications, options.threads, &run)?;
    let band = |of: &dyn Fn(&RunSummary) -> f64| Band::of(runs.iter().map(of).collect());
    let quantile = |q| band(&|run| seconds_at(&run.response_time, q));
    let share = |part: u64, all: u64| part as f64 / all.max(1) as f64;
    let cached = runs.iter().any(|run| run.cache.total() > 0);
    let throughput = band(&|run| run.achieved_rate().unwrap_or(0.0));
    Ok(Prediction {
        replications,
        p50: quantile(0.5),
        p95: quantile(0.95),
        p99: quantile(0.99),
        throughput,
        failed: band(&|run| share(run.statuses.failed(), run.requests())),
        hits: cached.then(|| band(&|run| share(run.cache.hit, run.cache.total()))),
        warnings: warnings(system, model, scenario, throughput.median),
    })
}

impl Band {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let last = values.len().saturating_sub(1);
        let at = |q: f64| {
            let place = q * last as f64;
            let below = place as usize;
            let low = values.get(below).copied().unwrap_or(f64::NAN);
            let high = values.get((below + 1).min(last)).copied().unwrap_or(low);
            let between = low + (place - below as f64) * (high - low);
            // More digits mean nothing, and would not all survive being written down and read again.
            (between * 1e9).round() / 1e9
        };
        Self { low: at(0.05), median: at(0.5), high: at(0.95) }
    }

    /// Whether a value lies in the band.
    #[must_use]
    pub fn holds(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
}

pub(crate) fn seconds_at(times: &LatencyHistogram, q: f64) -> f64 {
    times.quantile_of_any(q) as f64 / 1e9
}

/// Runs 0..`count` on some threads; the results are in order, whichever thread made them.
fn on_threads<T: Send, E: Send>(
    count: u32,
    threads: u32,
    run: &(impl Fn(u32) -> Result<T, E> + Sync),
) -> Result<Vec<T>, E> {
    let next = AtomicU32::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return done;
            }
            done.push((number, run(number)));
        }
    };
    let mut all: Vec<_> = thread::scope(|scope| {
        let others: Vec<_> = (1..threads.clamp(1, count)).map(|_| scope.spawn(work)).collect();
        let mut all = work();
        for other in others {
            all.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        all
    });
    all.sort_by_key(|(number, _)| *number);
    all.into_iter().map(|(_, result)| result).collect()
}

/// The model with every empirical service law drawn anew from itself, as often as requests were measured.
fn resampled(model: &Model, seed: u64) -> Model {
    let mut model = model.clone();
    for (number, function) in (0..).zip(model.function.values_mut()) {
        let requests = function.fitted.as_ref().map_or(0, |fitted| fitted.requests);
        if requests == 0 || !matches!(function.service, Law::Empirical(_)) {
            continue;
        }
        let mut luck = Stream::new(seed, Purpose::Resample, number);
        let sampler = function.service.sampler();
        let sample: Sample = (0..requests).map(|_| sampler.draw(&mut luck)).collect();
        if let Some(law) = sample.law() {
            function.service = law;
        }
    }
    model
}

fn warnings(
    system: &SystemFile,
    model: &Model,
    scenario: &Scenario,
    throughput: f64,
) -> Vec<String> {
    let mut found = Vec::new();
    for demand in &scenario.demand {
        let name = match demand.target() {
            Ok(Target::Function(name)) => name,
            Ok(Target::Route(path)) => {
                let route = system.routes.iter().find(|route| route.path == path);
                let Some(route) = route else { continue };
                route.target().0
            }
            Err(_) => continue,
        };
        let Some(known) = model.function.get(name) else { continue };
        let rate = demand.arrival.rate().unwrap_or(throughput);
        match known.fitted.as_ref().and_then(|fitted| fitted.rate) {
            Some(range)
                if rate < range.min * (1.0 - RANGE_SLACK)
                    || rate > range.max * (1.0 + RANGE_SLACK) =>
            {
                found.push(format!(
                    "function `{name}` is asked {rate:.1} times a second; its model was fitted on {:.1} to {:.1}",
                    range.min, range.max
                ));
            }
            Some(_) => {}
            None => found.push(format!(
                "function `{name}` has a model that was not fitted on any measurement"
            )),
        }
        let load = load(system, known.service.mean(), name, rate);
        if demand.route.is_none() && load.is_some_and(|load| load > NEAR_SATURATION) {
            found.push(format!(
                "function `{name}` is loaded to {:.0} % of what its replicas can do; so near to saturation no quantile is sure",
                load.unwrap_or_default() * 100.0
            ));
        }
    }
    found
}

/// Load as a share of all slots of all replicas; `None` if they have no limit.
fn load(system: &SystemFile, service: Option<f64>, name: &str, rate: f64) -> Option<f64> {
    let deployment = system.function.get(name)?.deployment(name);
    let slots = f64::from(deployment.concurrency?) * f64::from(deployment.scale.max);
    Some(rate * service? / slots)
}
