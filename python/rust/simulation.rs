//! Simulations, and policies in Python for them.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use flate2::bufread::MultiGzDecoder;
use gatewright_control::config::{ConfigError, Override, SystemFile};
use gatewright_record::{RunReport, RunSummary};
use gatewright_sim::{
    FunctionReport, Model, NodeReport, Policies, RecordSink, Scenario, Simulation, SimulationError,
    SimulationReport,
};
use gatewright_workload::trace::TraceSource;
use parking_lot::Mutex;
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use serde::Serialize;

use crate::columns::{Columns, Table};
use crate::policies::{Chosen, Failure};

/// A file, or what would stand in one: its path, or its contents as JSON.
type Given = (bool, String);

/// What a run comes to, as JSON, and the records of its requests in columns.
type Left = (String, Option<Table>);

/// The result in plain numbers: times of requests in nanoseconds, those of functions in seconds.
#[derive(Serialize)]
struct Document<'a> {
    seed: u64,
    events: u64,
    report: RunReport,
    replications: Vec<RunReport>,
    demands: Vec<Demand<'a>>,
    functions: &'a [FunctionReport],
    nodes: &'a [NodeReport],
}

#[derive(Serialize)]
struct Demand<'a> {
    function: &'a str,
    route: Option<&'a str>,
    report: RunReport,
}

/// Runs a scenario: see `gatewright.simulate` in Python.
#[pyfunction]
#[pyo3(signature = (scenario, *, system, models, folder, set, seed, replications, records, autoscaler, interval, balancer, keep_alive, service, scheduler))]
#[expect(
    clippy::too_many_arguments,
    reason = "a signature for the module beside it, not for people"
)]
pub(crate) fn simulate(
    py: Python<'_>,
    scenario: Given,
    system: Option<Given>,
    models: Option<Vec<Given>>,
    folder: PathBuf,
    set: Vec<(String, String)>,
    seed: Option<u64>,
    replications: u32,
    records: bool,
    autoscaler: Vec<(String, Py<PyAny>)>,
    interval: f64,
    balancer: Vec<(String, Py<PyAny>)>,
    keep_alive: Vec<(String, Py<PyAny>)>,
    service: Vec<(String, Py<PyAny>)>,
    scheduler: Option<Py<PyAny>>,
) -> PyResult<Left> {
    let mut scenario = read(&folder, &scenario, Scenario::parse)?;
    let traces = scenario.read_traces(&|trace| source(folder.join(trace)));
    traces.map_err(|fault| wrong("scenario", &fault))?;
    // Paths are seen from the scenario's folder, as where it is a file.
    let changes = overrides(&scenario, set)?;
    let system = system.unwrap_or_else(|| (true, scenario.system.clone()));
    let system = read(&folder, &system, |text| SystemFile::parse(text, &changes))?;
    let named = || scenario.model.all().iter().map(|name| (true, name.clone())).collect();
    let mut model = Model::default();
    for given in models.unwrap_or_else(named) {
        let part = read(&folder, &given, Model::parse)?;
        model.merge(part).map_err(|fault| wrong("model", &fault))?;
    }
    let simulation = Simulation::new(&system, &model, &scenario);
    let simulation = simulation.map_err(|fault| wrong("scenario", &fault))?;
    let seed = seed.unwrap_or(scenario.seed);
    let functions: Vec<_> = simulation.functions().collect();
    let chosen = Chosen { autoscaler, interval, balancer, keep_alive, service, scheduler };
    let failure = Failure::default();
    let mut columns = records.then(Columns::default);
    let reports = if replications == 1 {
        let policies = chosen.build(py, &functions, &failure)?;
        let sink = columns.as_mut().map(|columns| columns as &mut (dyn RecordSink + Send));
        let report = py.detach(|| once(&simulation, seed, policies, sink));
        vec![report.map_err(failed)?]
    } else {
        let policies: PyResult<Vec<_>> =
            (0..replications).map(|_| chosen.build(py, &functions, &failure)).collect();
        let policies = policies?;
        let reports: Result<Vec<_>, _> = py.detach(|| all(&simulation, seed, policies));
        reports.map_err(failed)?
    };
    failure.check()?;
    let document = serde_json::to_string(&document(seed, &reports));
    let document = document.map_err(|fault| PyRuntimeError::new_err(fault.to_string()))?;
    let table = columns.map(Columns::into_table).transpose()?;
    Ok((document, table))
}

fn once(
    simulation: &Simulation,
    seed: u64,
    policies: Policies,
    sink: Option<&mut (dyn RecordSink + Send)>,
) -> Result<SimulationReport, SimulationError> {
    simulation.run_with(seed, policies, sink.map(|sink| sink as &mut dyn RecordSink), &mut |_| {})
}

/// One run for each of the seeds from `seed` on, on all cores; in that order.
fn all(
    simulation: &Simulation,
    seed: u64,
    policies: Vec<Policies>,
) -> Result<Vec<SimulationReport>, SimulationError> {
    let replications = policies.len();
    let policies: Vec<_> = policies.into_iter().map(|own| Mutex::new(Some(own))).collect();
    let reports: Vec<_> = (0..replications).map(|_| Mutex::new(None)).collect();
    let next = AtomicU32::new(0);
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 0..cores.min(replications) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(own) = policies.get(number as usize) else { break };
                    let own = own.lock().take().unwrap_or_default();
                    let seed = seed.wrapping_add(u64::from(number));
                    *reports[number as usize].lock() = Some(once(simulation, seed, own, None));
                }
            });
        }
    });
    reports.into_iter().filter_map(Mutex::into_inner).collect()
}

fn document(seed: u64, reports: &[SimulationReport]) -> Document<'_> {
    let together = |summaries: &mut dyn Iterator<Item = &RunSummary>| {
        let (mut all, mut rates) = (RunSummary::new(), [Vec::new(), Vec::new()]);
        for summary in summaries {
            all.merge(summary);
            rates[0].extend(summary.offered_rate());
            rates[1].extend(summary.achieved_rate());
        }
        let mut report = all.report();
        // They ran side by side.
        let mean = |of: &Vec<f64>| {
            (of.len() == reports.len()).then(|| of.iter().sum::<f64>() / of.len() as f64)
        };
        [report.offered_rate, report.achieved_rate] = [mean(&rates[0]), mean(&rates[1])];
        report
    };
    let summaries: Vec<_> = reports.iter().map(SimulationReport::summary).collect();
    let demands = reports[0].demands.iter().enumerate().map(|(nth, demand)| Demand {
        function: &demand.function,
        route: demand.route.as_deref(),
        report: together(&mut reports.iter().map(|report| &report.demands[nth].summary)),
    });
    Document {
        seed,
        events: reports.iter().map(|report| report.events).sum(),
        report: together(&mut summaries.iter()),
        replications: summaries.iter().map(RunSummary::report).collect(),
        demands: demands.collect(),
        functions: &reports[0].functions,
        nodes: &reports[0].nodes,
    }
}

/// Reads a file, or what stands for one.
fn read<T>(
    folder: &Path,
    (is_file, given): &Given,
    parse: impl Fn(&str) -> Result<T, ConfigError>,
) -> PyResult<T> {
    if *is_file {
        let path = folder.join(given);
        let at = path.display().to_string();
        let text = std::fs::read_to_string(&path);
        let text = text.map_err(|fault| PyOSError::new_err(format!("{at}: {fault}")))?;
        return parse(&text).map_err(|fault| wrong(&at, &fault));
    }
    let value: toml::Value = value_of(given)?;
    let text = toml::to_string(&value).map_err(|fault| PyValueError::new_err(fault.to_string()))?;
    // Its lines are nobody's: only what is wrong is said.
    parse(&text).map_err(|fault| wrong("the given dict", &fault))
}

/// Where the trace at `path` is read from, by the check and by each run; it is compressed if its name ends in `.gz`.
fn source(path: PathBuf) -> Arc<dyn TraceSource> {
    let is_zipped = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gz"));
    Arc::new(move || -> io::Result<Box<dyn BufRead + Send>> {
        let file = BufReader::new(File::open(&path)?);
        Ok(if is_zipped {
            Box::new(BufReader::new(MultiGzDecoder::new(file)))
        } else {
            Box::new(file)
        })
    })
}

/// The scenario's changes, and then those that were asked for.
fn overrides(scenario: &Scenario, set: Vec<(String, String)>) -> PyResult<Vec<Override>> {
    let mut changes = scenario.overrides();
    for (key, value) in set {
        changes.push(Override { key, value: value_of(&value)?, source: "set".to_owned() });
    }
    Ok(changes)
}

/// JSON, none of it null, as TOML.
fn value_of(json: &str) -> PyResult<toml::Value> {
    serde_json::from_str(json).map_err(|fault| {
        PyValueError::new_err(format!("a value that a file cannot hold (None, say): {fault}"))
    })
}

fn wrong(at: &str, fault: &ConfigError) -> PyErr {
    let hint = fault.hint.as_ref().map_or_else(String::new, |hint| format!(" ({hint})"));
    PyValueError::new_err(format!("{at}: {fault}{hint}"))
}

fn failed(error: SimulationError) -> PyErr {
    match error {
        SimulationError::NoStartLaw(_)
        | SimulationError::UnknownFunction(_)
        | SimulationError::NoNodes => PyValueError::new_err(error.to_string()),
        other => PyRuntimeError::new_err(other.to_string()),
    }
}
