//! Reads what a simulation is made of: a scenario, its system file and its models.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gatewright_control::config::{Cache, HumanDuration, Override, SystemFile, Timeouts};
use gatewright_determinism::Time;
use gatewright_sim::{Model, Scenario, Simulation};
use gatewright_workload::trace::TraceSource;

use crate::failure::{Failure, Outcome};
use crate::{render, settings};

/// What is forgiven at the ends of the fitted range: measured rates are never quite the nominal ones.
const RANGE_SLACK: f64 = 0.05;

/// A scenario with its models, read and checked, for any number of settings of its system.
#[derive(Debug)]
pub(crate) struct Script {
    path: PathBuf,
    pub(crate) scenario: Scenario,
    model: Model,
    records: Option<PathBuf>,
}

/// A scenario and what it names, read and checked.
#[derive(Debug)]
pub(crate) struct Rehearsal {
    pub(crate) scenario: Scenario,
    pub(crate) system: SystemFile,
    pub(crate) model: Model,
    /// Where the records go that the scenario asks for.
    pub(crate) records: Option<PathBuf>,
}

impl Script {
    /// Reads the scenario at `path` and its traces; `models` instead of those it names, if there are any.
    pub(crate) fn read(path: &Path, models: &[PathBuf]) -> Outcome<Self> {
        let text = settings::read(path)?;
        let wrong = |fault| Failure::of_scenario(path, fault);
        let mut scenario = Scenario::parse(&text).map_err(wrong)?;
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        scenario.read_traces(&|trace| source(folder.join(trace))).map_err(wrong)?;
        let named = || scenario.model.all().iter().map(|name| folder.join(name)).collect();
        let model = load_models(&if models.is_empty() { named() } else { models.to_vec() })?;
        let records = scenario.records.as_ref().map(|name| folder.join(name));
        Ok(Self { path: path.to_owned(), scenario, model, records })
    }

    /// Its system: the scenario's `[change]` and then `set` over the system file and the environment.
    fn system(&self, set: &[Override]) -> Outcome<SystemFile> {
        let folder = self.path.parent().unwrap_or_else(|| Path::new(""));
        let changes: Vec<_> = self.scenario.overrides().into_iter().chain(set.to_vec()).collect();
        Ok(settings::load(&folder.join(&self.scenario.system), &changes)?.system)
    }

    /// Puts it together with `set` over its system.
    pub(crate) fn simulation(&self, set: &[Override]) -> Outcome<Simulation> {
        Simulation::new(&self.system(set)?, &self.model, &self.scenario)
            .map_err(|fault| Failure::of_scenario(&self.path, fault))
    }
}

impl Rehearsal {
    /// Reads the scenario at `path`; `models` instead of those it names, if there are any; its `[change]` and
    /// then `set` over the system file and the environment.
    pub(crate) fn load(path: &Path, models: &[PathBuf], set: &[Override]) -> Outcome<Self> {
        let script = Script::read(path, models)?;
        let system = script.system(set)?;
        let Script { scenario, model, records, .. } = script;
        Ok(Self { scenario, system, model, records })
    }

    /// Puts it together.
    pub(crate) fn simulation(&self, path: &Path) -> Outcome<Simulation> {
        Simulation::new(&self.system, &self.model, &self.scenario)
            .map_err(|fault| Failure::of_scenario(path, fault))
    }

    /// Settings that matter where the system is served, and that a simulation has no model of.
    pub(crate) fn unmodelled(&self) -> Vec<String> {
        let mut found = Vec::new();
        let asked = |name: &str| self.model.function.contains_key(name);
        for (name, function) in self.system.function.iter().filter(|(name, _)| asked(name)) {
            let settings = [
                ("timeouts", function.timeouts != Timeouts::default()),
                ("memory_limit", function.memory_limit.is_some()),
                ("input", function.input.is_some()),
                ("output", function.output.is_some()),
            ];
            let set = settings.iter().filter(|(_, is_set)| *is_set);
            found.extend(set.map(|(key, _)| format!("function.{name}.{key}")));
        }
        let cache = Cache::default();
        let settings = [
            ("cache.memory", self.system.cache.memory != cache.memory),
            ("cache.shared", self.system.cache.shared.is_some()),
            ("cache.disk", self.system.cache.disk.is_some()),
        ];
        found.extend(
            settings.iter().filter(|(_, is_set)| *is_set).map(|(key, _)| (*key).to_owned()),
        );
        let checked = self.system.routes.iter().filter(|route| route.check.is_some());
        found.extend(checked.map(|route| format!("check of route {}", route.path)));
        found
    }

    /// What the scenario and the model plan for after the run has ended.
    pub(crate) fn unreached(&self, end: Time) -> Vec<String> {
        let ended = |what: String| {
            let span = HumanDuration::new(Duration::from_millis((end.as_secs_f64() * 1e3) as u64));
            format!("{what} was not reached: the run ended after {span}")
        };
        let is_late = |at: HumanDuration| Time::ZERO + at.get() > end;
        let steps = (1..).zip(&self.scenario.operations).filter(|(_, step)| is_late(step.at));
        let steps =
            steps.map(|(number, step)| ended(format!("operation {number}, at {},", step.at)));
        let outages = self.model.function.iter().flat_map(|(name, function)| {
            let late = (1..).zip(&function.outages).filter(|(_, outage)| is_late(outage.at));
            late.map(move |(number, outage)| {
                format!("outage {number} of function `{name}`, at {},", outage.at)
            })
        });
        steps.chain(outages.map(ended)).collect()
    }

    /// Where the scenario goes beyond what its models were fitted on.
    pub(crate) fn extrapolations(&self) -> Vec<String> {
        let mut found = self.unlimited();
        for demand in &self.scenario.demand {
            let Some(rate) = demand.arrival.rate() else { continue };
            let of_route = |path: &String| {
                let route = self.system.routes.iter().find(|route| route.path == *path);
                route.map(|route| route.target().0.to_owned())
            };
            let name = demand.function.clone().or_else(|| demand.route.as_ref().and_then(of_route));
            let Some(name) = name else { continue };
            let fitted = self.model.function.get(&name).and_then(|model| model.fitted.as_ref());
            let Some(range) = fitted.and_then(|fitted| fitted.rate) else { continue };
            let forgiven = (range.min * (1.0 - RANGE_SLACK))..=(range.max * (1.0 + RANGE_SLACK));
            if !forgiven.contains(&rate) {
                found.push(format!(
                    "function `{name}`: {} is beyond the loads that its model was fitted on, {} to {}",
                    render::rate(rate),
                    render::rate(range.min),
                    render::rate(range.max)
                ));
            }
        }
        found
    }

    /// What of the system's rate limits a simulation leaves out: its requests have no clients to tell apart.
    fn unlimited(&self) -> Vec<String> {
        let say = |what: String| format!("{what}: its `limit` is not part of a simulation");
        let routes = self.system.routes.iter().filter(|route| route.limit.is_some());
        let functions =
            self.system.function.iter().filter(|(_, function)| function.limit.is_some());
        let functions = functions.map(|(name, _)| say(format!("function `{name}`")));
        functions.chain(routes.map(|route| say(format!("route `{}`", route.path)))).collect()
    }
}

/// Where the trace at `path` is read from, by the check and by each run.
fn source(path: PathBuf) -> Arc<dyn TraceSource> {
    Arc::new(move || gatewright_bench::open_trace(&path))
}

/// Reads model files into one model.
pub(crate) fn load_models(paths: &[PathBuf]) -> Outcome<Model> {
    let mut all = Model::default();
    for path in paths {
        let text = std::fs::read_to_string(path).map_err(|fault| {
            let failure = Failure::of_reading(path, &fault);
            if fault.kind() == std::io::ErrorKind::NotFound {
                return failure.hint("`gatewright calibrate` makes a model from records");
            }
            failure
        })?;
        let model = Model::parse(&text).map_err(|fault| Failure::of_model(path, fault))?;
        all.merge(model).map_err(|fault| Failure::of_model(path, fault))?;
    }
    Ok(all)
}
