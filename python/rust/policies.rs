//! Policies of an experiment, written in Python.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use gatewright_control::autoscale::{Autoscaler, Sample};
use gatewright_control::balance::{Asks, Balancer, Pool, Position};
use gatewright_determinism::{Stream, Time};
use gatewright_sim::Policies;
use parking_lot::Mutex;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyType;

/// What was chosen in Python, by function; for every function, where the name is empty.
pub(crate) struct Chosen {
    pub(crate) autoscaler: Vec<(String, Py<PyAny>)>,
    /// Seconds between two questions to an autoscaler.
    pub(crate) interval: f64,
    pub(crate) balancer: Vec<(String, Py<PyAny>)>,
}

/// The first error that a policy raised; after it, no policy is asked again.
#[derive(Clone, Default)]
pub(crate) struct Failure(Arc<Mutex<Option<PyErr>>>);

/// What an autoscaler is told.
#[pyclass(frozen, get_all, module = "gatewright")]
pub(crate) struct ScalerView {
    /// Seconds since the start of the run.
    now: f64,
    /// Requests in service or waiting, on average since it was asked last.
    concurrency: f64,
    /// Requests that arrived since then.
    arrivals: u64,
    /// Requests that wait.
    queued: u32,
    /// Replicas that run.
    ready: u32,
    /// Replicas that start.
    starting: u32,
    /// Fewest and most replicas.
    min: u32,
    max: u32,
}

struct Scaler {
    decide: Py<PyAny>,
    interval: Duration,
    failure: Failure,
}

struct Chooser {
    choose: Py<PyAny>,
    failure: Failure,
}

impl Chosen {
    /// Policies for one run: of a class, an instance is made for each run and function.
    pub(crate) fn build(
        &self,
        py: Python<'_>,
        functions: &[&str],
        failure: &Failure,
    ) -> PyResult<Policies> {
        let interval = Duration::try_from_secs_f64(self.interval).ok();
        let interval = interval.filter(|interval| *interval >= Duration::from_millis(1));
        let Some(interval) = interval else {
            return Err(PyValueError::new_err("interval: give seconds, 0.001 or more"));
        };
        let instance = |policy: &Py<PyAny>| {
            let policy = policy.bind(py);
            let is_class = policy.is_instance_of::<PyType>();
            let policy = if is_class { policy.call0()? } else { policy.clone() };
            Ok::<_, PyErr>(policy.unbind())
        };
        let meant = |name: &str| -> Vec<String> {
            let names = if name.is_empty() { functions } else { &[name] };
            names.iter().map(|name| (*name).to_owned()).collect()
        };
        let mut policies = Policies::default();
        for (name, decide) in &self.autoscaler {
            for function in meant(name) {
                let decide = instance(decide)?;
                let scaler = Scaler { decide, interval, failure: failure.clone() };
                policies.autoscaler.insert(function, Box::new(scaler));
            }
        }
        for (name, choose) in &self.balancer {
            for function in meant(name) {
                let chooser = Chooser { choose: instance(choose)?, failure: failure.clone() };
                policies.balancer.insert(function, Box::new(chooser));
            }
        }
        Ok(policies)
    }
}

impl Failure {
    /// Raises it, if there was one.
    pub(crate) fn check(&self) -> PyResult<()> {
        self.0.lock().take().map_or(Ok(()), Err)
    }

    /// What `ask` says, unless it fails or something has before.
    fn guard<T>(&self, ask: impl FnOnce(Python<'_>) -> PyResult<T>) -> Option<T> {
        if self.0.lock().is_some() {
            return None;
        }
        let answer = Python::attach(ask);
        match answer {
            Ok(answer) => Some(answer),
            Err(error) => {
                self.0.lock().get_or_insert(error);
                None
            }
        }
    }
}

impl fmt::Debug for Scaler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scaler").field("interval", &self.interval).finish_non_exhaustive()
    }
}

impl Autoscaler for Scaler {
    fn interval(&self) -> Duration {
        self.interval
    }

    fn decide(&mut self, now: Time, sample: &Sample) -> Option<u32> {
        let view = ScalerView {
            now: now.as_secs_f64(),
            concurrency: sample.concurrency,
            arrivals: sample.arrivals,
            queued: sample.queued,
            ready: sample.ready,
            starting: sample.starting,
            min: sample.scale.min,
            max: sample.scale.max,
        };
        self.failure.guard(|py| self.decide.call1(py, (view,))?.extract::<Option<u32>>(py))?
    }
}

impl fmt::Debug for Chooser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chooser").finish_non_exhaustive()
    }
}

impl Balancer for Chooser {
    fn pick(&mut self, pool: &Pool, asks: Asks, _: &mut Stream) -> Option<Position> {
        let mut free = pool.available().to_vec();
        free.sort_unstable();
        let loads: Vec<(usize, u32)> =
            free.iter().map(|&position| (position.index(), pool.load(position))).collect();
        let chosen = self.failure.guard(|py| {
            let number = loads.len();
            let chosen: usize = self.choose.call1(py, (loads, asks.key))?.extract(py)?;
            if chosen >= number {
                let what =
                    format!("a balancer chose {chosen} of {number} replicas; the first is 0");
                return Err(PyValueError::new_err(what));
            }
            Ok(chosen)
        });
        free.get(chosen.unwrap_or(0)).copied()
    }
}
