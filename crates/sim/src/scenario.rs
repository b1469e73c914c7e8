use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gatewright_control::config::{ConfigError, HumanDuration, Override};
use gatewright_control::{Act, Subject};
use gatewright_workload::trace::{Streamed, TraceSource};
use gatewright_workload::{Limits, Strategy};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Keys;

/// What is asked of a system in a simulation: the contents of a scenario file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Path of the system file, seen from the scenario's folder.
    #[serde(default = "default_system")]
    pub system: String,
    /// Path of the model file, or several, seen from the scenario's folder.
    #[serde(default)]
    pub model: Paths,
    /// Seed of every random number.
    #[serde(default)]
    pub seed: u64,
    /// Path of the records to write, seen from the scenario's folder; none unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<String>,
    /// Whether the replicas that a function begins with have to start first. Otherwise they are ready when the
    /// first request comes.
    #[serde(default)]
    pub cold_start: bool,
    /// How long the run takes to come into its stride: requests sent before this are in no summary, and averages over
    /// time begin here. Records are written all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_up: Option<HumanDuration>,
    /// Who asks for what.
    pub demand: Vec<Demand>,
    /// What operators do and machines suffer meanwhile.
    #[serde(default, rename = "operation", skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<Step>,
    /// Keys of the system file that are changed for this run: what if?
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub change: BTreeMap<String, toml::Value>,
}

/// An operation at a moment of the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "TimedOperation")]
pub struct Step {
    /// When, from the start of the run.
    pub at: HumanDuration,
    /// What.
    #[serde(rename = "do")]
    pub act: Act,
}

/// One path or several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a path or a list of paths")]
pub enum Paths {
    /// One path.
    One(String),
    /// Several paths, perhaps none.
    Several(Vec<String>),
}

/// Who asks for one function.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Demand {
    /// Name of the function asked for, past every cache. Give this or `route`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// Path of a route of the system file, as it stands there; its cache is asked first. Give this or
    /// `function`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// How requests are offered.
    pub arrival: Strategy,
    /// How long requests are offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<HumanDuration>,
    /// Requests offered at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// The demand stops when this many of its requests have failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<u64>,
    /// How popular the keys are, in place of what the model says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Keys>,
    /// Of a `replay`: whether each request is served for as long as it took when the trace was recorded, in place of
    /// the model's `service`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub as_recorded: bool,
}

/// What a [`Demand`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// A function.
    Function(&'a str),
    /// A route, by its path.
    Route(&'a str),
}

/// The longest run: moments are counted in nanoseconds, which last for five.
const CENTURY: Duration = Duration::from_secs(36_525 * 86_400);
/// More would not fit into the numbering of requests.
const MAX_DEMANDS: usize = 1_000;

fn default_system() -> String {
    "gatewright.toml".to_owned()
}

impl Scenario {
    /// Reads the text of a scenario file and checks it.
    ///
    /// # Errors
    /// The first thing wrong: syntax, an unknown key, a wrong type, a demand that cannot be run or never ends.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let scenario: Self =
            toml::from_str(text).map_err(|fault| ConfigError::from_toml(text, &fault))?;
        scenario.check()?;
        Ok(scenario)
    }

    /// Checks what the types alone do not hold.
    ///
    /// # Errors
    /// The first thing wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.demand.is_empty() || self.demand.len() > MAX_DEMANDS {
            let what = format!("there are {}; give 1 to {MAX_DEMANDS}", self.demand.len());
            return Err(ConfigError::new("`demand`", &what, None));
        }
        let warm_up = self.warm_up.map_or(Duration::ZERO, HumanDuration::get);
        let offered = |demand: &Demand| demand.duration.is_none_or(|span| span.get() > warm_up);
        if !self.demand.iter().any(offered) {
            let hint = Some("make it shorter, or a demand's `duration` longer".to_owned());
            let what = "it outlasts every demand, so that nothing would be left to sum up";
            return Err(ConfigError::new("`warm_up`", what, hint));
        }
        let mut numbered = (1..).zip(&self.demand);
        numbered.try_for_each(|(number, demand)| demand.check(&format!("demand {number}")))
    }

    /// Has the traces read that demands replay; `open` gives the source of the file that a demand names.
    ///
    /// # Errors
    /// The first trace that cannot be read, or has nothing of what is wanted.
    pub fn read_traces(
        &mut self,
        open: &dyn Fn(&str) -> Arc<dyn TraceSource>,
    ) -> Result<(), ConfigError> {
        for (number, demand) in (1..).zip(&mut self.demand) {
            let Strategy::Replay(replay) = &mut demand.arrival else { continue };
            let at = format!("demand {number}, trace `{}`", replay.trace);
            let read = replay.stream(open(&replay.trace), self.seed);
            let hint = "its path is seen from the scenario's folder; docs/guides/simulate-a-cluster.md names the formats";
            read.map_err(|fault| ConfigError::new(at, &fault.to_string(), Some(hint.to_owned())))?;
        }
        self.check()
    }

    /// The changes to the system file, for `SystemFile::parse`.
    ///
    /// A quoted key with dots is set as it stands, so that a table replaces a table; without quotes, the dots
    /// make tables, of which only the innermost keys are set.
    #[must_use]
    pub fn overrides(&self) -> Vec<Override> {
        let mut found = Vec::new();
        for (key, value) in &self.change {
            match value {
                toml::Value::Table(table) if !key.contains('.') => flatten(key, table, &mut found),
                _ => found.push(change(key, value)),
            }
        }
        found
    }
}

fn flatten(path: &str, table: &toml::Table, found: &mut Vec<Override>) {
    for (key, value) in table {
        let path = format!("{path}.{key}");
        match value {
            toml::Value::Table(inner) => flatten(&path, inner, found),
            _ => found.push(change(&path, value)),
        }
    }
}

fn change(key: &str, value: &toml::Value) -> Override {
    Override { key: key.to_owned(), value: value.clone(), source: "[change]".to_owned() }
}

impl Step {
    /// Whether it may lead to replicas of a function being started.
    pub(crate) fn starts(&self, name: &str) -> bool {
        match self.act.subject() {
            Subject::Function(function) => {
                function == name && !matches!(self.act, Act::Remove { .. })
            }
            Subject::Node(_) => true,
        }
    }
}

impl Demand {
    /// Demand for a function until a number of requests were offered.
    #[must_use]
    pub fn new(function: impl Into<String>, arrival: Strategy, requests: u64) -> Self {
        Self {
            function: Some(function.into()),
            route: None,
            arrival,
            duration: None,
            requests: Some(requests),
            errors: None,
            keys: None,
            as_recorded: false,
        }
    }

    /// What it asks for.
    ///
    /// # Errors
    /// Neither function nor route is given, or both.
    pub fn target(&self) -> Result<Target<'_>, &'static str> {
        match (&self.function, &self.route) {
            (Some(function), None) => Ok(Target::Function(function)),
            (None, Some(route)) => Ok(Target::Route(route)),
            (None, None) => Err("it asks for nothing: give it `function` or `route`"),
            (Some(_), Some(_)) => Err("it has both `function` and `route`: give it one of them"),
        }
    }

    /// When it stops.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            requests: self.requests,
            duration: self.duration.map(HumanDuration::get),
            errors: self.errors,
        }
    }

    /// When it stops, or its trace ends.
    pub(crate) fn offered(&self) -> Limits {
        let trace = match &self.arrival {
            Strategy::Replay(replay) => replay.streamed.as_deref().map(Streamed::count),
            _ => None,
        };
        let limits = self.limits();
        match (limits.requests, limits.duration) {
            (None, None) => Limits { requests: trace, ..limits },
            _ => limits,
        }
    }

    fn check(&self, at: &str) -> Result<(), ConfigError> {
        let wrong = |what: &str| Err(ConfigError::new(at, what, None));
        self.target().or_else(|what| wrong(what).map(|()| Target::Function("")))?;
        self.arrival.check().or_else(|fault| wrong(&fault.to_string()))?;
        self.limits().check().or_else(|fault| wrong(&fault.to_string()))?;
        if self.duration.is_some_and(|span| span.get() > CENTURY) {
            return wrong("its `duration` is more than a century");
        }
        if !self.limits().are_finite() && !self.arrival.is_finite() {
            let hint = Some("give it `duration` or `requests`".to_owned());
            return Err(ConfigError::new(at, "it never ends", hint));
        }
        self.check_recorded(at)?;
        self.keys.as_ref().map_or(Ok(()), |keys| keys.check(&format!("{at}, `keys`")))
    }
}

impl Demand {
    /// Whether what is to be as it was recorded was recorded.
    fn check_recorded(&self, at: &str) -> Result<(), ConfigError> {
        if !self.as_recorded {
            return Ok(());
        }
        let wrong = |what: &str| Err(ConfigError::new(format!("{at}, `as_recorded`"), what, None));
        let Strategy::Replay(replay) = &self.arrival else {
            return wrong("it is for an `arrival` that is a `replay`");
        };
        if self.route.is_some() {
            return wrong("it is for a demand for a `function`, not for a `route`");
        }
        let silent = replay.recorded.as_ref().is_some_and(|trace| !trace.tells_durations())
            || replay.streamed.as_ref().is_some_and(|trace| !trace.tells_durations());
        if silent { wrong("the trace does not tell how long requests took") } else { Ok(()) }
    }
}

impl Default for Paths {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl Paths {
    /// The paths in order.
    #[must_use]
    pub fn all(&self) -> &[String] {
        match self {
            Self::One(path) => std::slice::from_ref(path),
            Self::Several(paths) => paths,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
system = "gatewright.toml"
model = "square.model.toml"
seed = 1

[[demand]]
function = "square"
arrival = { poisson = { rate = 120 } }
duration = "10m"

[change]
"function.square.replicas.max" = 16
"function.square.autoscale" = { policy = "kpa" }
"#;

    #[test]
    fn reads_what_it_writes() {
        let scenario = Scenario::parse(TEXT).unwrap();
        assert_eq!(scenario.model.all(), ["square.model.toml"]);
        assert_eq!(scenario.demand[0].target(), Ok(Target::Function("square")));
        assert_eq!(Scenario::parse(&toml::to_string(&scenario).unwrap()).unwrap(), scenario);
    }

    #[test]
    fn changes_are_overrides_however_they_are_written() {
        let keys = |text: &str| -> Vec<String> {
            let overrides = Scenario::parse(text).unwrap().overrides();
            overrides.into_iter().map(|change| format!("{}={}", change.key, change.value)).collect()
        };
        let quoted = keys(TEXT);
        assert_eq!(quoted.len(), 2);
        assert!(quoted[0].starts_with("function.square.autoscale={"), "{quoted:?}");
        assert_eq!(quoted[1], "function.square.replicas.max=16");
        let bare = TEXT.replace("\"function.square.replicas.max\"", "function.square.replicas.max");
        assert!(keys(&bare).contains(&"function.square.replicas.max=16".to_owned()));
    }

    #[test]
    fn every_act_has_its_name() {
        let of_functions = ["scale_up", "scale_down", "scale_to", "suspend", "reload", "remove"];
        let number = |name| match name {
            "scale_to" => ", replicas = 2",
            "scale_up" | "scale_down" => ", by = 2",
            _ => "",
        };
        let acts =
            of_functions.map(|name| (name, format!("function = \"square\"{}", number(name))));
        let acts = acts.into_iter();
        let acts = acts.chain(["node_lost", "node_back"].map(|name| (name, "node = \"n\"".into())));
        for (name, fields) in acts {
            let step = |act: &str, fields: &str| {
                let step =
                    format!("[[operation]]\nat = \"1s\"\ndo = {{ {act} = {{ {fields} }} }}\n");
                Scenario::parse(&TEXT.replace("[change]", &format!("{step}[change]")))
            };
            let scenario = step(name, &fields).unwrap();
            assert_eq!(Scenario::parse(&toml::to_string(&scenario).unwrap()).unwrap(), scenario);
            let misspelt = step(&format!("{name}x"), &fields).unwrap_err();
            assert_eq!(misspelt.hint, Some(format!("did you mean `{name}`?")));
            let unknown = step(name, &format!("{fields}, more = 1")).unwrap_err();
            assert!(unknown.what.contains("more, available"), "{unknown}");
        }
    }

    #[test]
    fn faults_are_named_with_their_place() {
        let fault = |from: &str, to: &str| Scenario::parse(&TEXT.replace(from, to)).unwrap_err();
        let unknown = fault("seed", "sead");
        assert_eq!(unknown.to_string(), "line 4, column 1: unknown key `sead`");
        assert_eq!(unknown.hint.as_deref(), Some("did you mean `seed`?"));
        let endless = fault("duration = \"10m\"", "");
        assert_eq!(endless.to_string(), "demand 1: it never ends");
        assert!(
            fault("rate = 120", "rate = 0").to_string().starts_with("demand 1: poisson: rate 0")
        );
        assert!(fault("\"10m\"", "\"ten\"").to_string().contains("`ten` is no duration"));
        assert!(fault("function = \"square\"\n", "").to_string().contains("asks for nothing"));
        assert!(
            fault("\"square.model.toml\"", "3").to_string().contains("a path or a list of paths")
        );
    }
}
