use std::collections::BTreeMap;

use gatewright_control::config::{ConfigError, HumanDuration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::llm::LlmModel;
use crate::{Contention, Faults, Keys, Law, LawError, Outage};

/// What a simulation must know of functions and cannot decide: the contents of a `*.model.toml`, made by
/// `gatewright calibrate` or by hand.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// The functions by name.
    #[serde(default)]
    pub function: BTreeMap<String, FunctionModel>,
    /// What machines of a kind take and cost, by the name of the device.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub device: BTreeMap<String, DeviceModel>,
    /// How requests in service on one node slow one another down, whatever function they are for. Not at all unless
    /// set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_contention: Option<Contention>,
}

/// What a machine takes and costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DeviceModel {
    /// Watts when none of its cores works.
    pub idle_watts: f64,
    /// Watts when all of them do; in proportion in between.
    pub busy_watts: f64,
    /// Price of an hour, in whatever money.
    pub price_per_hour: f64,
}

/// How one function behaves. All laws are in seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FunctionModel {
    /// From the moment a request is handed to a replica to its answer.
    pub service: Law,
    /// From the decision to start a replica to the moment it takes requests. Needed where replicas are started
    /// during a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Law>,
    /// From telling a replica to stop until it is gone. At once unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Law>,
    /// What a client sees beyond the gateway's own time: connection, network, its own delays. None unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overhead: Option<Law>,
    /// What the gateway takes from reading a request's head until it is queued or handed over. None unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Law>,
    /// From the end of `start` and of reading its data to the moment a replica takes requests: loading a model, say.
    /// None unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup: Option<Law>,
    /// How long a replica runs until it fails. For ever unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<Law>,
    /// Share of the requests that are answered with an error, 0 to 1.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub errors: f64,
    /// How else attempts fail: refused, broken off, too many, never answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faults: Option<Faults>,
    /// When some of its replicas, or the upstream, are down.
    #[serde(default, rename = "outage", skip_serializing_if = "Vec::is_empty")]
    pub outages: Vec<Outage>,
    /// What starting a process for each request takes, as OpenFaaS' forking watchdog does, before its service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork: Option<Law>,
    /// Requests that a replica serves at a time; further ones that were handed to it wait inside it, as in OpenFaaS'
    /// HTTP watchdog. As many as it is handed unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<u32>,
    /// How requests in service in one replica slow one another down. Not at all unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contention: Option<Contention>,
    /// Cores that a request in service would keep busy, 0.001 to 1000, where its node has a contention. 1 unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<f64>,
    /// The function that is called with the answer before the client gets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<String>,
    /// A language model: its replicas work requests off in steps, many at a time. `service` is then what comes before a
    /// request joins the batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llm: Option<LlmModel>,
    /// Name of measured service times by device, in place of `service` on those devices: python-pi, fio,
    /// resnet-inference-cpu and so on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<String>,
    /// What is otherwise on a device, with an image, or with "device/image" both; the most special holds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub on: BTreeMap<String, Variant>,
    /// How its cached routes behave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheModel>,
    /// What it was fitted on, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fitted: Option<Fitted>,
}

/// What is otherwise on some nodes, or with some image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Variant {
    /// See the function's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Law>,
    /// See the function's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<Law>,
    /// See the function's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setup: Option<Law>,
    /// See the function's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured: Option<String>,
}

/// How the cached routes of a function behave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CacheModel {
    /// From receiving a request that the cache answers to its answer, in seconds.
    pub hit: Law,
    /// How popular the keys are.
    pub keys: Keys,
    /// How long the upstream lets its responses live, where the route does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<HumanDuration>,
}

/// What a model was fitted on: beyond these loads it is an extrapolation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Fitted {
    /// Requests that the service law was made from.
    pub requests: u64,
    /// Requests per second that were offered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Range>,
    /// Requests in service on one replica when one of them started, itself included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<Range>,
    /// Where the records came from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    /// When it was fitted, if whoever did so says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// What could not be learned from the records, and what was assumed instead.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// From the smallest to the largest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Model {
    /// Reads the text of a model file and checks it.
    ///
    /// # Errors
    /// The first thing wrong: syntax, an unknown key, a wrong type, a value out of range.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let model: Self =
            toml::from_str(text).map_err(|fault| ConfigError::from_toml(text, &fault))?;
        model.check()?;
        Ok(model)
    }

    /// The text of a model file.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a model is tables of numbers and text")
    }

    /// Checks what the types alone do not hold.
    ///
    /// # Errors
    /// The first thing wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        for (name, device) in &self.device {
            let numbers = [device.idle_watts, device.busy_watts, device.price_per_hour];
            if !numbers.iter().all(|number| (0.0..=1e9).contains(number)) {
                let what = "watts and prices must be 0 to 1000000000";
                return Err(ConfigError::new(format!("device `{name}`"), what, None));
            }
            if device.idle_watts > device.busy_watts {
                let what = "`idle_watts` is above `busy_watts`";
                let hint = "give `busy_watts`, of all cores at work: at least as many".to_owned();
                return Err(ConfigError::new(format!("device `{name}`"), what, Some(hint)));
            }
        }
        if let Some(Err(what)) = self.node_contention.as_ref().map(Contention::check) {
            return Err(ConfigError::new("`node_contention`", &what, None));
        }
        let shares_node = |function: &FunctionModel| {
            function.contention.is_some() && self.node_contention.is_some()
        };
        if let Some((name, _)) = self.function.iter().find(|(_, function)| shares_node(function)) {
            let what = "its `contention` and `node_contention` would both slow it down";
            let hint = Some("leave out one of them".to_owned());
            return Err(ConfigError::new(format!("function `{name}`"), what, hint));
        }
        self.function.iter().try_for_each(|(name, function)| function.check(name))
    }

    /// Adds what another model says.
    ///
    /// # Errors
    /// A function that both have; a device, or `node_contention`, of which they say different things.
    pub fn merge(&mut self, other: Self) -> Result<(), ConfigError> {
        let twice = |at: String, what: &str| {
            let hint = Some("give it one model".to_owned());
            Err(ConfigError::new(at, what, hint))
        };
        for (name, function) in other.function {
            if self.function.contains_key(&name) {
                return twice(format!("function `{name}`"), "it has two models");
            }
            self.function.insert(name, function);
        }
        for (name, device) in other.device {
            if self.device.get(&name).is_some_and(|known| *known != device) {
                return twice(format!("device `{name}`"), "it has two models");
            }
            self.device.insert(name, device);
        }
        match (&self.node_contention, other.node_contention) {
            (Some(known), Some(other)) if *known != other => {
                twice("`node_contention`".to_owned(), "two models say different things of it")
            }
            (_, None) => Ok(()),
            (_, other) => {
                self.node_contention = other;
                Ok(())
            }
        }
    }
}

impl FunctionModel {
    /// A function of which only the service law is known.
    #[must_use]
    pub const fn new(service: Law) -> Self {
        Self {
            service,
            start: None,
            stop: None,
            overhead: None,
            gateway: None,
            setup: None,
            lifetime: None,
            errors: 0.0,
            faults: None,
            outages: Vec::new(),
            fork: None,
            workers: None,
            contention: None,
            cores: None,
            then: None,
            llm: None,
            measured: None,
            on: BTreeMap::new(),
            cache: None,
            fitted: None,
        }
    }

    fn check(&self, name: &str) -> Result<(), ConfigError> {
        let wrong = |key: &str, fault: &LawError| {
            ConfigError::new(format!("function `{name}`, `{key}`"), &fault.to_string(), None)
        };
        let laws = [
            ("service", Some(&self.service)),
            ("start", self.start.as_ref()),
            ("stop", self.stop.as_ref()),
            ("overhead", self.overhead.as_ref()),
            ("gateway", self.gateway.as_ref()),
            ("setup", self.setup.as_ref()),
            ("lifetime", self.lifetime.as_ref()),
            ("fork", self.fork.as_ref()),
            ("cache.hit", self.cache.as_ref().map(|cache| &cache.hit)),
        ];
        for (key, law) in laws {
            law.map_or(Ok(()), Law::check).map_err(|fault| wrong(key, &fault))?;
        }
        for (on, variant) in &self.on {
            for law in [&variant.service, &variant.start, &variant.setup].into_iter().flatten() {
                law.check().map_err(|fault| wrong(&format!("on.{on}"), &fault))?;
            }
        }
        let wrong = |what: &str| Err(ConfigError::new(format!("function `{name}`"), what, None));
        if !(0.0..=1.0).contains(&self.errors) {
            return wrong("`errors` must be 0 to 1");
        }
        if let Some(Err(what)) = self.faults.as_ref().map(Faults::check) {
            return wrong(&format!("faults: {what}"));
        }
        if let Some((number, Err(what))) =
            (1..).zip(self.outages.iter().map(Outage::check)).find(|(_, check)| check.is_err())
        {
            return wrong(&format!("outage {number}: {what}"));
        }
        if self.workers == Some(0) {
            return wrong("`workers` must be at least 1");
        }
        if let Some(Err(what)) = self.contention.as_ref().map(Contention::check) {
            return wrong(&format!("contention: {what}"));
        }
        if self.cores.is_some_and(|cores| !(0.001..=1_000.0).contains(&cores)) {
            return wrong("`cores` must be 0.001 to 1000");
        }
        if let Some(Err(what)) = self.llm.as_ref().map(LlmModel::check) {
            return wrong(&format!("llm: {what}"));
        }
        if self.llm.is_some() && (self.contention.is_some() || self.workers.is_some()) {
            return wrong(
                "`llm` says how requests share a replica: leave out `contention` and `workers`",
            );
        }
        match &self.cache {
            Some(cache) => cache.keys.check(&format!("function `{name}`, `cache.keys`")),
            None => Ok(()),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
[function.square]
service = { log_normal = { mean = 0.25, cv = 0.1 } }
start = { fixed = 0.3 }
overhead = { fixed = 0.0004 }

[function.square.fitted]
requests = 1200
rate = { min = 4, max = 12 }

[function.restaurants]
service = { empirical = [0.1, 0.2] }

[function.restaurants.cache]
hit = { fixed = 0.0001 }
keys = { zipf = { count = 100, exponent = 0.9 } }
lifetime = "1h"
"#;

    #[test]
    fn reads_what_it_writes() {
        let model = Model::parse(TEXT).unwrap();
        assert_eq!(model.function["square"].fitted.as_ref().unwrap().requests, 1_200);
        assert_eq!(Model::parse(&model.to_toml()).unwrap(), model);
    }

    #[test]
    fn faults_are_named_with_their_place() {
        let fault = |from: &str, to: &str| Model::parse(&TEXT.replace(from, to)).unwrap_err();
        let unknown = fault("overhead", "overheat");
        assert_eq!(unknown.to_string(), "line 5, column 1: unknown key `overheat`");
        assert_eq!(unknown.hint.as_deref(), Some("did you mean `overhead`?"));
        let range = fault("cv = 0.1", "cv = -1").to_string();
        assert_eq!(range, "function `square`, `service`: log_normal: cv is -1; give 0 to 100");
        let keys = fault("count = 100", "count = 0").to_string();
        assert_eq!(
            keys,
            "function `restaurants`, `cache.keys`: there are 0 keys; give 1 to 1000000"
        );
        let missing = fault("service = { empirical = [0.1, 0.2] }", "").to_string();
        assert!(missing.contains("missing field `service`"), "{missing}");
    }

    #[test]
    fn a_function_has_one_model() {
        let mut model = Model::parse(TEXT).unwrap();
        let again = model.clone();
        let fault = model.merge(again).unwrap_err();
        assert_eq!(fault.to_string(), "function `restaurants`: it has two models");
        let other = Model::parse("[function.other]\nservice = { fixed = 1 }").unwrap();
        model.merge(other).unwrap();
        assert_eq!(model.function.len(), 3);
    }

    #[test]
    fn models_agree_on_what_they_share() {
        let of = |text: &str| Model::parse(text).unwrap();
        let told = "node_contention = { linear = { slope = 0.1 } }\n[device.nuc]\nbusy_watts = 5";
        let mut model = of(told);
        model.merge(of(told)).unwrap();
        model.merge(of("[device.nano]\nbusy_watts = 2")).unwrap();
        assert_eq!((model.device.len(), model.node_contention.is_some()), (2, true));
        let device = model.merge(of("[device.nuc]\nbusy_watts = 6")).unwrap_err();
        assert_eq!(device.to_string(), "device `nuc`: it has two models");
        let other = of("node_contention = { linear = { slope = 0.2 } }");
        let contention = model.merge(other).unwrap_err().to_string();
        assert_eq!(contention, "`node_contention`: two models say different things of it");
    }
}
