use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gatewright_control::autoscale::Autoscale;
use gatewright_control::cluster::{Cluster, ImageId, Layer};
use gatewright_control::config::{
    ConfigError, Function, HumanDuration, Route, SystemFile, nearest,
};
use gatewright_control::{Act, Subject};
use gatewright_determinism::Time;

use super::checks::{check_machines, check_needs};
use super::{CacheSetup, DemandSetup, FleetSetup, FunctionSetup, Laws, LlmSetup, Simulation};
use crate::keys::KeySampler;
use crate::model::Variant;
use crate::scenario::{Demand, Scenario, Target};
use crate::sharing::ONE_CORE;
use crate::{FunctionModel, Law, Model, Sampler, measured};

impl Simulation {
    /// Puts the files together. Only functions that are asked for are deployed.
    ///
    /// # Errors
    /// A demand for what the system file does not have, a function without a model, or a model that lacks what
    /// the run needs. Nothing has run then.
    pub fn new(
        system: &SystemFile,
        model: &Model,
        scenario: &Scenario,
    ) -> Result<Self, ConfigError> {
        system.check()?;
        model.check()?;
        scenario.check()?;
        let mut setup = Builder { system, model, scenario, routes: BTreeMap::new() };
        setup.build()
    }
}

struct Builder<'a> {
    system: &'a SystemFile,
    model: &'a Model,
    scenario: &'a Scenario,
    /// Caches so far by the route's path.
    routes: BTreeMap<&'a str, usize>,
}

impl<'a> Builder<'a> {
    fn build(&mut self) -> Result<Simulation, ConfigError> {
        let mut asked = Vec::new();
        for (number, demand) in (1..).zip(&self.scenario.demand) {
            let at = format!("demand {number}");
            self.check_keys(&at, demand)?;
            let ready = demand.arrival.ready();
            ready.map_err(|fault| ConfigError::new(&at, &fault.to_string(), None))?;
            asked.push(self.resolve(&at, demand)?);
        }
        let mut names: Vec<&str> = asked.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        for name in names.clone() {
            names.extend(self.chain(name)?);
        }
        names.sort_unstable();
        names.dedup();
        let cluster = Cluster::new(&self.system.cluster, &self.system.image)?;
        check_machines(self.system, self.model, cluster.as_ref())?;
        let functions: Result<Vec<_>, _> =
            names.iter().map(|name| self.function(name, &names, cluster.as_ref())).collect();
        let functions = functions?;
        let mut simulation = Simulation {
            cold_start: self.scenario.cold_start,
            warm_up: Time::ZERO + self.scenario.warm_up.map_or(Duration::ZERO, HumanDuration::get),
            steps: self.steps(&names, cluster.as_ref())?,
            fleet: cluster.map(|cluster| self.fleet(cluster, &functions)).transpose()?,
            functions,
            node_contention: self.model.node_contention.clone(),
            caches: Vec::new(),
            demands: Vec::new(),
        };
        for (demand, (name, route)) in self.scenario.demand.iter().zip(asked) {
            let cache = match route {
                Some(route) => self.cache(&mut simulation.caches, demand, name, route)?,
                None => None,
            };
            simulation.demands.push(DemandSetup {
                function: names.binary_search(&name).expect("it is among the names"),
                route: route.map(|route| Arc::from(route.path.as_str())),
                cache,
                arrival: demand.arrival.clone(),
                limits: demand.offered(),
                as_recorded: demand.as_recorded,
            });
        }
        Ok(simulation)
    }

    /// Keys are those of a cache.
    fn check_keys(&self, at: &str, demand: &Demand) -> Result<(), ConfigError> {
        let cached = |path: &String| {
            let mut routes = self.system.routes.iter();
            // A route that is not there is a fault of its own.
            routes.find(|route| route.path == *path).is_none_or(|route| route.cache.is_some())
        };
        if demand.keys.is_none() || demand.route.as_ref().is_some_and(cached) {
            return Ok(());
        }
        let what = "they are for a `route` that has a `cache`";
        Err(ConfigError::new(format!("{at}, `keys`"), what, None))
    }

    /// The function that a demand leads to, and its route.
    fn resolve(
        &self,
        at: &str,
        demand: &'a Demand,
    ) -> Result<(&'a str, Option<&'a Route>), ConfigError> {
        match demand.target().map_err(|what| ConfigError::new(at, what, None))? {
            Target::Function(name) => {
                if self.system.function.contains_key(name) {
                    return Ok((name, None));
                }
                let hint = nearest(name, self.system.function.keys().map(String::as_str));
                let what = format!("the system file has no function `{name}`");
                Err(ConfigError::new(at, &what, hint))
            }
            Target::Route(path) => {
                let found = self.system.routes.iter().find(|route| route.path == path);
                if let Some(route) = found {
                    return Ok((route.target().0, Some(route)));
                }
                let hint = nearest(path, self.system.routes.iter().map(|route| &*route.path));
                let what = format!("the system file has no route `{path}`");
                Err(ConfigError::new(at, &what, hint))
            }
        }
    }

    fn model(&self, name: &str) -> Result<&'a FunctionModel, ConfigError> {
        self.model.function.get(name).ok_or_else(|| {
            let hint = format!(
                "calibrate one from records, or write a model file with [function.{name}] and service = {{ fixed = 0.1 }}"
            );
            ConfigError::new(format!("function `{name}`"), "it has no model", Some(hint))
        })
    }

    /// The functions that are called with a function's answer, one after another.
    fn chain(&self, name: &'a str) -> Result<Vec<&'a str>, ConfigError> {
        let mut chain = vec![name];
        let mut last = name;
        while let Some(next) = &self.model(last)?.then {
            let at = || format!("function `{last}`, `then`");
            if !self.system.function.contains_key(next) {
                let hint = nearest(next, self.system.function.keys().map(String::as_str));
                let what = format!("the system file has no function `{next}`");
                return Err(ConfigError::new(at(), &what, hint));
            }
            if chain.contains(&next.as_str()) {
                let what = format!("{} -> {next} never ends", chain.join(" -> "));
                return Err(ConfigError::new(at(), &what, None));
            }
            chain.push(next);
            last = next;
        }
        Ok(chain)
    }

    fn function(
        &self,
        name: &str,
        names: &[&str],
        cluster: Option<&Cluster>,
    ) -> Result<FunctionSetup, ConfigError> {
        let model = self.model(name)?;
        let function: &Function = &self.system.function[name];
        check_needs(name, function, model, cluster)?;
        let deployment = function.deployment(name);
        let operated = self.scenario.operations.iter().any(|step| step.starts(name));
        let starts = self.scenario.cold_start
            || deployment.scale.min == 0
            || deployment.autoscale != Autoscale::Fixed
            || model.lifetime.is_some()
            || operated;
        let mut setup = FunctionSetup {
            name: Arc::from(name),
            start_timeout: nanos(function.start_timeout),
            laws: vec![laws(model, &[], None)?],
            variants: BTreeMap::new(),
            stop: sampler_or_zero(model.stop.as_ref()),
            overhead: sampler_or_zero(model.overhead.as_ref()),
            gateway: sampler_or_zero(model.gateway.as_ref()),
            lifetime: model.lifetime.as_ref().map(Law::sampler),
            errors: model.errors,
            faults: model.faults,
            outages: model.outages.clone(),
            fork: sampler_or_zero(model.fork.as_ref()),
            workers: model.workers.unwrap_or(u32::MAX),
            contention: model.contention.clone(),
            busy: (model.cores.unwrap_or(1.0) * f64::from(ONE_CORE)) as u32,
            llm: model.llm.as_ref().map(|llm| LlmSetup {
                model: llm.clone(),
                prompt: llm.prompt.sampler(),
                output: llm.output.sampler(),
            }),
            then: model.then.as_ref().and_then(|then| names.iter().position(|name| name == then)),
            deep: false,
            plain: false,
            deployment,
        };
        if let Some(cluster) = cluster {
            variants(&mut setup, model, cluster)?;
        }
        if starts && setup.laws.iter().any(|laws| laws.start.is_none()) {
            let hint = Some("add start = { fixed = 0.5 }, in seconds, to its model".to_owned());
            let what =
                "its replicas start during the run, and its model does not say how long that takes";
            return Err(ConfigError::new(format!("function `{name}`"), what, hint));
        }
        let data = &setup.deployment.data;
        let moves = cluster.is_some() && !(data.reads.is_empty() && data.writes.is_empty());
        setup.deep = moves
            || setup.laws.len() > 1
            || setup.contention.is_some()
            || self.model.node_contention.is_some() && cluster.is_some()
            || setup.llm.is_some()
            || setup.workers < u32::MAX
            || !setup.fork.is_zero();
        let fails = setup.faults.is_some() || !setup.outages.is_empty() || setup.errors > 0.0;
        setup.plain = !setup.deep && !fails && setup.deployment.batch.is_none();
        Ok(setup)
    }

    fn fleet(
        &self,
        cluster: Cluster,
        functions: &[FunctionSetup],
    ) -> Result<FleetSetup, ConfigError> {
        let topology = cluster.topology();
        let choices = functions.iter().flat_map(|function| &function.deployment.images);
        let mut numbers: BTreeMap<Layer, u32> = BTreeMap::new();
        let mut layers = BTreeMap::new();
        let mut images = Vec::new();
        for name in self.system.image.keys() {
            images.push(Arc::from(name.as_str()));
            let Some(id) = cluster.image_named(name) else { continue };
            for node in cluster.nodes() {
                let Some(found) = cluster.image(id).layers(&node.arch) else { continue };
                layers.entry((id, node.arch.clone())).or_insert_with(|| {
                    let mut number = |layer: &Layer| {
                        let next = numbers.len() as u32;
                        (*numbers.entry(layer.clone()).or_insert(next), layer.size)
                    };
                    found.iter().map(&mut number).collect()
                });
            }
        }
        let mut pulls = Vec::new();
        if choices.count() > 0 {
            let routes = topology.routes_from(cluster.registry());
            for node in cluster.nodes() {
                let route = topology.route(&routes, node.vertex);
                if route.is_none() {
                    let what = "no way leads to it from the registry";
                    return Err(ConfigError::new(format!("node `{}`", node.name), what, None));
                }
                pulls.push(route);
            }
        }
        Ok(FleetSetup {
            placement: self.system.cluster.placement.clone(),
            nodes: cluster.nodes().iter().map(|node| Arc::from(node.name.as_str())).collect(),
            images,
            registry: Arc::from(topology.name(cluster.registry())),
            layers,
            pulls,
            devices: self.model.device.clone(),
            cluster,
        })
    }

    /// Whether an operation asks for what there may be.
    fn check_amount(&self, act: &Act) -> Result<(), String> {
        match act {
            Act::ScaleUp { by: 0, .. } | Act::ScaleDown { by: 0, .. } => {
                Err("`by` is 0; give at least 1".to_owned())
            }
            Act::ScaleTo { function: name, replicas } => {
                let function = self.system.function.get(name);
                let most =
                    function.map_or(u32::MAX, |function| function.deployment(name).scale.max);
                if *replicas <= most {
                    return Ok(());
                }
                Err(format!("`replicas` is {replicas}, and replicas.max of `{name}` is {most}"))
            }
            _ => Ok(()),
        }
    }

    /// The operations in the order of their moments, checked.
    fn steps(
        &self,
        names: &[&str],
        cluster: Option<&Cluster>,
    ) -> Result<Vec<(Time, Act)>, ConfigError> {
        let mut steps = Vec::new();
        for (number, step) in (1..).zip(&self.scenario.operations) {
            let at = || format!("operation {number}");
            self.check_amount(&step.act).map_err(|what| ConfigError::new(at(), &what, None))?;
            match step.act.subject() {
                Subject::Function(function) if !names.contains(&function) => {
                    let hint = nearest(function, names.iter().copied());
                    let what = format!("no demand leads to a function `{function}`");
                    return Err(ConfigError::new(at(), &what, hint));
                }
                Subject::Node(node)
                    if cluster.is_none_or(|cluster| cluster.node_named(node).is_none()) =>
                {
                    let what = format!("the cluster has no node `{node}`");
                    return Err(ConfigError::new(at(), &what, None));
                }
                Subject::Function(_) | Subject::Node(_) => {}
            }
            steps.push((Time::ZERO + step.at.get(), step.act.clone()));
        }
        steps.sort_by_key(|(at, _)| *at);
        Ok(steps)
    }

    /// The cache of a route, if it has one that stores anything.
    fn cache(
        &mut self,
        caches: &mut Vec<CacheSetup>,
        demand: &Demand,
        name: &str,
        route: &'a Route,
    ) -> Result<Option<(usize, KeySampler)>, ConfigError> {
        let Some(rule) = &route.cache else { return Ok(None) };
        let Some(model) = &self.model(name)?.cache else {
            let hint = format!(
                "add [function.{name}.cache] with hit = {{ fixed = 0.0001 }} and keys = {{ uniform = {{ count = 100 }} }}"
            );
            let what =
                format!("its route `{}` is cached, and its model has no `cache`", route.path);
            return Err(ConfigError::new(format!("function `{name}`"), &what, Some(hint)));
        };
        let keys = demand.keys.as_ref().unwrap_or(&model.keys);
        let count = u32::try_from(keys.count()).unwrap_or(u32::MAX);
        let index = *self.routes.entry(&route.path).or_insert_with(|| {
            caches.push(CacheSetup {
                keys: 0,
                policy: Arc::new(rule.clone()),
                lifetime: model.lifetime.map(HumanDuration::get),
                hit: model.hit.sampler(),
            });
            caches.len() - 1
        });
        caches[index].keys = caches[index].keys.max(count);
        Ok(Some((index, keys.sampler())))
    }
}

/// The laws of a function where these variants hold, the most special last, on this device.
fn laws(
    model: &FunctionModel,
    variants: &[&Variant],
    device: Option<&str>,
) -> Result<Laws, ConfigError> {
    let (mut start, mut setup) = (model.start.clone(), model.setup.clone());
    for variant in variants {
        start = variant.start.clone().or(start);
        setup = variant.setup.clone().or(setup);
    }
    let own = variants.iter().rev().map(|variant| (variant.service.as_ref(), &variant.measured));
    // What the function measured goes before its `service`, which is for where nothing was.
    let mut own = own.chain([(None, &model.measured), (Some(&model.service), &None)]);
    let said = own.find_map(|(service, measured)| match (service, measured, device) {
        (Some(law), ..) => Some(Ok(law.clone())),
        (None, Some(workload), Some(device)) => Some(measured::law(workload, device)),
        _ => None,
    });
    let service = said.unwrap_or_else(|| Ok(model.service.clone()))?;
    Ok(Laws {
        service: service.sampler(),
        start: start.as_ref().map(Law::sampler),
        setup: sampler_or_zero(setup.as_ref()),
    })
}

/// The laws on each kind of node that a replica can go to, with each image.
fn variants(
    setup: &mut FunctionSetup,
    model: &FunctionModel,
    cluster: &Cluster,
) -> Result<(), ConfigError> {
    let at = |fault: ConfigError| {
        let part = fault.at.unwrap_or_default();
        ConfigError::new(format!("function `{}`, {part}", setup.name), &fault.what, fault.hint)
    };
    let any_measured =
        model.measured.is_some() || model.on.values().any(|on| on.measured.is_some());
    if model.on.is_empty() && !any_measured {
        return Ok(());
    }
    let mut images: Vec<Option<ImageId>> = Vec::new();
    for choice in &setup.deployment.images {
        images.push(cluster.image_named(&choice.image));
    }
    if images.is_empty() {
        images.push(None);
    }
    let mut known = BTreeMap::new();
    for node in cluster.nodes() {
        for &image in &images {
            let runs = image.is_none_or(|image| cluster.image(image).layers(&node.arch).is_some());
            let key = (node.device.clone().unwrap_or_default(), image);
            if !runs || known.contains_key(&key) {
                continue;
            }
            let image_name = image.map(|image| cluster.image(image).name.as_str());
            let both = format!("{}/{}", key.0, image_name.unwrap_or_default());
            let on = [image_name.unwrap_or_default(), &key.0, &both];
            let on: Vec<&Variant> = on.iter().filter_map(|name| model.on.get(*name)).collect();
            setup.laws.push(laws(model, &on, node.device.as_deref()).map_err(at)?);
            known.insert(key, setup.laws.len() - 1);
        }
    }
    setup.variants = known;
    Ok(())
}

fn sampler_or_zero(law: Option<&Law>) -> Sampler {
    law.map_or(Sampler::fixed(0), Law::sampler)
}

fn nanos(span: HumanDuration) -> u64 {
    u64::try_from(span.get().as_nanos()).unwrap_or(u64::MAX)
}
