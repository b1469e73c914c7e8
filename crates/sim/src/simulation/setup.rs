use std::collections::BTreeMap;
use std::sync::Arc;

use gatewright_control::autoscale::Autoscale;
use gatewright_control::config::{
    ConfigError, Function, HumanDuration, Route, SystemFile, nearest,
};

use super::{CacheSetup, DemandSetup, FunctionSetup, Simulation};
use crate::scenario::{Demand, Scenario, Target};
use crate::{FunctionModel, Law, Model, Sampler};

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
            let ready = demand.arrival.ready();
            ready.map_err(|fault| ConfigError::new(&at, &fault.to_string(), None))?;
            asked.push(self.resolve(&at, demand)?);
        }
        let mut names: Vec<&str> = asked.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        let functions: Result<Vec<_>, _> = names.iter().map(|name| self.function(name)).collect();
        let mut simulation = Simulation {
            cold_start: self.scenario.cold_start,
            functions: functions?,
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
                limits: demand.limits(),
            });
        }
        Ok(simulation)
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

    fn function(&self, name: &str) -> Result<FunctionSetup, ConfigError> {
        let model = self.model(name)?;
        let function: &Function = &self.system.function[name];
        let deployment = function.deployment(name);
        let starts = self.scenario.cold_start
            || deployment.scale.min == 0
            || deployment.autoscale != Autoscale::Fixed;
        if starts && model.start.is_none() {
            let hint = Some("add start = { fixed = 0.5 }, in seconds, to its model".to_owned());
            let what =
                "its replicas start during the run, and its model does not say how long that takes";
            return Err(ConfigError::new(format!("function `{name}`"), what, hint));
        }
        Ok(FunctionSetup {
            name: Arc::from(name),
            start_timeout: nanos(function.start_timeout),
            deployment,
            service: model.service.sampler(),
            start: model.start.as_ref().map(Law::sampler),
            stop: sampler_or_zero(model.stop.as_ref()),
            overhead: sampler_or_zero(model.overhead.as_ref()),
            gateway: sampler_or_zero(model.gateway.as_ref()),
        })
    }

    /// The cache of a route, if it has one that stores anything.
    fn cache(
        &mut self,
        caches: &mut Vec<CacheSetup>,
        demand: &Demand,
        name: &str,
        route: &'a Route,
    ) -> Result<Option<(usize, crate::model::KeySampler)>, ConfigError> {
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

fn sampler_or_zero(law: Option<&Law>) -> Sampler {
    law.map_or(Sampler::fixed(0), Law::sampler)
}

fn nanos(span: HumanDuration) -> u64 {
    u64::try_from(span.get().as_nanos()).unwrap_or(u64::MAX)
}
