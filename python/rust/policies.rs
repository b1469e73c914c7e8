//! Policies of an experiment, written in Python.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use gatewright_control::autoscale::{Autoscaler, Sample};
use gatewright_control::balance::{Asks, Balancer, Pool, Position};
use gatewright_control::cluster::{Cluster, Node, NodeId};
use gatewright_control::keep_alive::{KeepAliveRule, Plan, Worth};
use gatewright_control::placement::{Priority, Want};
use gatewright_determinism::{Stream, Time};
use gatewright_sim::{Call, Policies, ServiceModel};
use parking_lot::Mutex;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};

/// What was chosen in Python, by function; for every function, where the name is empty.
pub(crate) struct Chosen {
    pub(crate) autoscaler: Vec<(String, Py<PyAny>)>,
    /// Seconds between two questions to an autoscaler.
    pub(crate) interval: f64,
    pub(crate) balancer: Vec<(String, Py<PyAny>)>,
    pub(crate) keep_alive: Vec<(String, Py<PyAny>)>,
    pub(crate) service: Vec<(String, Py<PyAny>)>,
    /// For all functions.
    pub(crate) scheduler: Option<Py<PyAny>>,
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

/// A node that could hold a replica, for a scheduler; the one of a request, for a model.
#[pyclass(frozen, get_all, module = "gatewright")]
pub(crate) struct NodeView {
    name: String,
    arch: String,
    device: Option<String>,
    labels: Py<PyDict>,
    /// Cores that are not taken, and all.
    free_cpu: f64,
    cpu: f64,
    /// Bytes that are not taken, and all.
    free_memory: u64,
    memory: u64,
    /// Replicas there.
    replicas: usize,
    /// Whether it holds the image that the replica runs.
    has_image: bool,
}

/// A replica that looks for a node.
#[pyclass(frozen, get_all, module = "gatewright")]
pub(crate) struct WantView {
    function: String,
    /// The image that it runs, if its function names any.
    image: Option<String>,
    /// Cores that it takes.
    cpu: f64,
    /// Bytes that it takes.
    memory: u64,
}

/// An attempt that begins to be served.
#[pyclass(frozen, get_all, module = "gatewright")]
pub(crate) struct CallView {
    /// Seconds since the start of the run.
    now: f64,
    /// Number of the request in the run.
    request: u64,
    /// 1 for the first.
    attempt: u32,
    /// Number of the replica in the run.
    replica: u64,
    /// Requests that the replica now works on, this one included.
    in_flight: u32,
    /// Whether the request found no running replica when it came.
    cold: bool,
    /// The replica's node, if there are nodes.
    node: Option<Py<NodeView>>,
    /// The attempt's own luck, for `random.Random(seed)`: the same in every run of the same seed.
    seed: u64,
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

struct Keeper {
    policy: Py<PyAny>,
    failure: Failure,
}

struct Server {
    serve: Py<PyAny>,
    failure: Failure,
}

struct Scorer {
    score: Py<PyAny>,
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
        for (name, policy) in &self.keep_alive {
            for function in meant(name) {
                let keeper = Keeper { policy: instance(policy)?, failure: failure.clone() };
                policies.keep_alive.insert(function, Box::new(keeper));
            }
        }
        for (name, serve) in &self.service {
            for function in meant(name) {
                let server = Server { serve: instance(serve)?, failure: failure.clone() };
                policies.service.insert(function, Box::new(server));
            }
        }
        if let Some(score) = &self.scheduler {
            let scorer = Scorer { score: instance(score)?, failure: failure.clone() };
            policies.priority = Some(Box::new(scorer));
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

/// A number of seconds that a policy gave, as a duration.
fn seconds(what: &str, given: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(given)
        .map_err(|_| PyValueError::new_err(format!("{what} is {given} seconds; give 0 or more")))
}

/// Seconds to stay, or for ever; or those and when to start one anew, and how long that one stays.
#[derive(FromPyObject)]
enum Stay {
    Prewarm(Option<f64>, (f64, f64)),
    Keep(Option<f64>),
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").finish_non_exhaustive()
    }
}

impl KeepAliveRule for Keeper {
    fn arrived(&mut self, idle: Option<Duration>) {
        self.failure.guard(|py| {
            let policy = self.policy.bind(py);
            if policy.hasattr("arrived")? {
                policy.call_method1("arrived", (idle.map(|idle| idle.as_secs_f64()),))?;
            }
            Ok(())
        });
    }

    fn idle(&mut self) -> Plan {
        let plan = self.failure.guard(|py| {
            let policy = self.policy.bind(py);
            let stay = if policy.hasattr("idle")? {
                policy.call_method0("idle")?
            } else {
                policy.call0()?
            };
            let (keep, prewarm) = match stay.extract()? {
                Stay::Keep(keep) => (keep, None),
                Stay::Prewarm(keep, prewarm) => (keep, Some(prewarm)),
            };
            let keep = keep.map(|keep| seconds("a keep-alive", keep)).transpose()?;
            let prewarm = prewarm.map(|(away, stay)| {
                Ok::<_, PyErr>((seconds("a keep-alive", away)?, seconds("a keep-alive", stay)?))
            });
            Ok(Plan { keep, prewarm: prewarm.transpose()? })
        });
        plan.unwrap_or(Plan { keep: None, prewarm: None })
    }

    fn worth(&self, used: Time, about: &Worth, _: f64) -> f64 {
        let used = used.as_secs_f64();
        let worth = self.failure.guard(|py| {
            let policy = self.policy.bind(py);
            if !policy.hasattr("worth")? {
                return Ok(used);
            }
            let about = (used, about.requests, about.start_seconds, about.memory);
            policy.call_method1("worth", about)?.extract()
        });
        worth.unwrap_or(used)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

impl ServiceModel for Server {
    fn service(&mut self, call: &Call<'_>, luck: &mut Stream) -> u64 {
        let span = self.failure.guard(|py| {
            let node = call.node.map(|node| NodeView::of(py, node, false)).transpose()?;
            let view = CallView {
                now: call.now.as_secs_f64(),
                request: call.request,
                attempt: call.attempt,
                replica: call.replica,
                in_flight: call.in_flight,
                cold: call.cold,
                node: node.map(|node| Py::new(py, node)).transpose()?,
                seed: luck.bits(),
            };
            seconds("a service", self.serve.call1(py, (view,))?.extract(py)?)
        });
        span.map_or(0, |span| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl fmt::Debug for Scorer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scorer").finish_non_exhaustive()
    }
}

/// A score has six digits behind the point.
const SCORE_UNIT: f64 = 1e6;

impl Priority for Scorer {
    fn score(
        &mut self,
        cluster: &Cluster,
        want: &Want<'_>,
        node: NodeId,
        _: i64,
        _: &mut Stream,
    ) -> i64 {
        let score = self.failure.guard(|py| {
            let node = cluster.node(node);
            let has_image = want.image.is_some_and(|image| node.has_image(image));
            let view = WantView {
                function: want.deployment.name.clone(),
                image: want.image.map(|image| cluster.image(image).name.clone()),
                cpu: want.requests.cpu as f64 / 1e3,
                memory: want.requests.memory,
            };
            let node = NodeView::of(py, node, has_image)?;
            self.score.call1(py, (view, node))?.extract::<f64>(py)
        });
        // The conversion is saturating; what is no number is the worst.
        score.map_or(0, |score| if score.is_nan() { i64::MIN } else { (score * SCORE_UNIT) as i64 })
    }
}

impl NodeView {
    fn of(py: Python<'_>, node: &Node, has_image: bool) -> PyResult<Self> {
        let labels = PyDict::new(py);
        for (name, value) in &node.labels {
            labels.set_item(name, value)?;
        }
        Ok(Self {
            name: node.name.clone(),
            arch: node.arch.clone(),
            device: node.device.clone(),
            labels: labels.unbind(),
            free_cpu: node.free().cpu as f64 / 1e3,
            cpu: node.capacity.cpu as f64 / 1e3,
            free_memory: node.free().memory,
            memory: node.capacity.memory,
            replicas: node.replicas().len(),
            has_image,
        })
    }
}
