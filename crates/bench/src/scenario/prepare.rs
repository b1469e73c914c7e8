use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;
use gatewright_workload::profile::Profile;
use gatewright_workload::trace::{Recorded, TraceError};
use gatewright_workload::{Limits, Replay, Strategy};

use super::check::Before;
use super::{Demand, Scenario, TargetSpec};
use crate::target::ParsedTarget;
use crate::{
    AnswerKind, BenchError, Data, DataSpec, Dialogue, OpenAi, Plan, Replies, Series, SeriesStep,
    Target, TracePrompts, WeightedTarget,
};

/// A scenario with its files read: ready to be run.
#[derive(Debug)]
pub struct Prepared {
    /// What the steps have in common; each has a strategy and limits of its own.
    pub plan: Plan,
    /// The steps.
    pub series: Series,
    /// What [`Prepared::check`] does.
    pub(super) before: Before,
}

/// Why a scenario cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// A part is missing, or two do not go together.
    #[error("{what}")]
    Part {
        /// What is wrong.
        what: String,
        /// What to do.
        hint: &'static str,
    },
    /// A file cannot be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A trace cannot be read.
    #[error("{path}: {source}")]
    Trace {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TraceError,
    },
    /// It cannot be carried out.
    #[error(transparent)]
    Bench(#[from] BenchError),
}

pub(super) fn part(what: impl Into<String>, hint: &'static str) -> ScenarioError {
    ScenarioError::Part { what: what.into(), hint }
}

impl Scenario {
    /// Reads what the scenario names and checks it. Relative paths begin in `folder`; `variable` tells variables of
    /// the environment, for keys.
    ///
    /// # Errors
    /// The first thing that is missing, cannot be read or cannot be carried out.
    pub fn prepare(
        &self,
        folder: &Path,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Prepared, ScenarioError> {
        let series = self.series(folder)?;
        let (strategy, limits) = series.first();
        let mut plan = Plan::new(Target::default(), strategy, limits);
        plan.name.clone_from(&self.name);
        plan.seed = self.seed;
        let recorded = series.recorded();
        let data = self.data.clone().or_else(|| self.traced(recorded));
        let data = data.map(|data| data.open(folder, self.seed, recorded));
        plan.data = data.transpose().map_err(BenchError::from)?.or_else(|| self.said());
        plan.mix = self.targets(folder, variable, plan.data.as_ref())?;
        plan.window = self.window;
        plan.constraints.clone_from(&self.constraint);
        plan.at_end = self.at_end;
        plan.slo = self.slo.or_else(|| self.profile.as_ref()?.slo().copied());
        plan.connect_timeout = self.client.connect_timeout;
        plan.timeout = self.client.timeout;
        plan.max_connections = self.client.max_connections;
        plan.http2 = self.client.http2;
        plan.streams_per_connection = self.client.streams_per_connection;
        plan.threads = self.client.threads;
        plan.request_ids = self.client.request_ids;
        plan.retries = self.client.retries;
        plan.trust = self.client.trust(folder);
        plan.unix_socket = self.client.unix_socket.as_ref().map(|path| folder.join(path));
        // What is wrong with a request is said before anybody is asked.
        ParsedTarget::of(&plan)?;
        for step in series.listed() {
            Plan { strategy: step.strategy.clone(), limits: step.limits, ..plan.clone() }
                .check()?;
        }
        if let Series::Profile(profile, limits) = &series {
            profile.check().map_err(BenchError::from)?;
            Plan { strategy: Strategy::Synchronous, limits: *limits, ..plan.clone() }.check()?;
        }
        let (check, follow) = (self.client.check, self.client.follow_redirects);
        Ok(Prepared { plan, series, before: Before { check, follow } })
    }

    /// The same as a report may keep it: without the values of headers that hold keys.
    #[must_use]
    pub fn redacted(&self) -> Self {
        let target = self.target.iter().map(TargetSpec::redacted).collect();
        Self { target, ..self.clone() }
    }

    /// Prompts as long as those of the trace that is replayed, where nobody says which are asked.
    fn traced(&self, recorded: Option<&Arc<Recorded>>) -> Option<DataSpec> {
        let asks = |target: &TargetSpec| {
            target.openai.as_ref().is_some_and(|openai| openai.prompts.is_empty())
        };
        let has_tokens = recorded.is_some_and(|recorded| recorded.has_tokens());
        (has_tokens && self.target.iter().any(asks))
            .then(|| DataSpec { trace: Some(TracePrompts::default()), ..DataSpec::default() })
    }

    /// The prompts of the one target as data, if its requests are turns of conversations.
    fn said(&self) -> Option<Data> {
        let [TargetSpec { openai: Some(openai), .. }] = &self.target[..] else { return None };
        let has_turns =
            self.demand.iter().any(|demand| matches!(demand.arrival, Strategy::Sessions { .. }));
        let goes_on = openai.api.has_turns() && openai.replies != Replies::Recorded;
        (has_turns && goes_on && !openai.prompts.is_empty())
            .then(|| Data::of_prompts(&openai.prompts))
    }

    fn series(&self, folder: &Path) -> Result<Series, ScenarioError> {
        match (&self.profile, &self.demand[..]) {
            (Some(_), [_, ..]) => {
                Err(part("`demand` and `profile` both say how requests are offered", "give one"))
            }
            (Some(profile), []) => {
                let mut profile = profile.clone();
                match &mut profile {
                    Profile::Series { strategies } => {
                        strategies.iter_mut().try_for_each(|one| read(one, folder, self.seed))?;
                    }
                    Profile::Replay(replay) => {
                        let mut strategy = Strategy::Replay(replay.clone());
                        read(&mut strategy, folder, self.seed)?;
                        profile = Profile::Series { strategies: vec![strategy] };
                    }
                    _ => {}
                }
                Ok(Series::Profile(profile, self.limits))
            }
            (None, []) => Err(part(
                "nothing says how requests are offered",
                "add [[demand]] with an arrival, or [profile]",
            )),
            (None, demands) => {
                let step = |demand: &Demand| {
                    let mut strategy = demand.arrival.clone();
                    read(&mut strategy, folder, self.seed)?;
                    Ok(SeriesStep { strategy, limits: demand.limits(&self.limits) })
                };
                Ok(Series::Listed(demands.iter().map(step).collect::<Result<_, ScenarioError>>()?))
            }
        }
    }

    fn targets(
        &self,
        folder: &Path,
        variable: &dyn Fn(&str) -> Option<String>,
        data: Option<&Data>,
    ) -> Result<Vec<WeightedTarget>, ScenarioError> {
        if self.target.is_empty() {
            return Err(part("nothing says what to ask for", "give a URL, or add [[target]]"));
        }
        let mut targets = Vec::new();
        for target in &self.target {
            if target.url.is_empty() {
                return Err(part("a target has no URL", "give one, such as http://127.0.0.1:8000"));
            }
            let key = target.api_key_env.as_ref().map(|name| {
                variable(name).ok_or_else(|| {
                    let what = format!("the variable {name}, which should hold a key, is not set");
                    part(what, "set it, or leave api_key_env out")
                })
            });
            targets.extend(target.weighted(folder, key.transpose()?, data)?);
        }
        Ok(targets)
    }
}

/// Reads the trace of a replay.
fn read(strategy: &mut Strategy, folder: &Path, seed: u64) -> Result<(), ScenarioError> {
    let Strategy::Replay(replay) = strategy else { return Ok(()) };
    let path = folder.join(&replay.trace);
    let input =
        open_trace(&path).map_err(|source| ScenarioError::File { path: path.clone(), source })?;
    replay.read(input, seed).map_err(|source| ScenarioError::Trace { path, source })
}

/// Opens the file of a trace, compressed if its name ends in `.gz`.
///
/// # Errors
/// There is no such file, or it may not be read.
pub fn open_trace(path: &Path) -> io::Result<Box<dyn BufRead + Send>> {
    let is_zipped = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gz"));
    let file = BufReader::new(File::open(path)?);
    Ok(if is_zipped { Box::new(BufReader::new(MultiGzDecoder::new(file))) } else { Box::new(file) })
}

impl TargetSpec {
    fn weighted(
        &self,
        folder: &Path,
        key: Option<String>,
        data: Option<&Data>,
    ) -> Result<Vec<WeightedTarget>, ScenarioError> {
        if let Some(openai) = &self.openai {
            if self.body.is_some() || self.body_file.is_some() || self.method.is_some() {
                let what = "a target of OpenAI's API has neither method nor body of its own";
                return Err(part(what, "leave them out, or leave openai out"));
            }
            let mut targets = OpenAi {
                url: self.url.clone(),
                api: openai.api,
                model: openai.model.clone(),
                prompts: openai.prompts.clone(),
                max_tokens: openai.max_tokens,
                exact_tokens: openai.exact_tokens,
                stream: openai.stream,
                replies: openai.replies,
                tools: openai.tools(),
                path: openai.path.clone(),
                extra: openai.extra.clone(),
                api_key: key,
                headers: self.headers.clone(),
            }
            .targets(data.filter(|data| openai.prompts.is_empty() || data.is_of_prompts()))?;
            let weight = self.weight / targets.len() as f64;
            for target in &mut targets {
                target.weight = weight;
                target.name.clone_from(&self.name);
            }
            return Ok(targets);
        }
        let body = self.bytes(folder)?;
        let method = match (&self.method, &body) {
            (Some(method), _) => method.to_ascii_uppercase(),
            (None, Some(_)) => "POST".to_owned(),
            (None, None) => "GET".to_owned(),
        };
        let mut headers = self.headers.clone();
        let is_json = |body: &[u8]| serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
        let typed = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        if !typed && body.as_deref().is_some_and(is_json) {
            headers.push(("content-type".to_owned(), "application/json".to_owned()));
        }
        if let Some(key) = key {
            headers.push(("authorization".to_owned(), format!("Bearer {key}")));
        }
        let body = body.unwrap_or_default();
        let target = Target { url: self.url.clone(), method, headers, body };
        let (name, weight) = (self.name.clone(), self.weight);
        let (answer, dialogue) = (AnswerKind::Opaque, Dialogue::default());
        Ok(vec![WeightedTarget { name, weight, target, answer, dialogue }])
    }

    fn bytes(&self, folder: &Path) -> Result<Option<Vec<u8>>, ScenarioError> {
        match (&self.body, &self.body_file) {
            (Some(_), Some(_)) => {
                Err(part("`body` and `body_file` both say what the body is", "give one"))
            }
            (Some(text), None) => Ok(Some(text.clone().into_bytes())),
            (None, Some(path)) => {
                let path = folder.join(path);
                let bytes = std::fs::read(&path);
                bytes.map(Some).map_err(|source| ScenarioError::File { path, source })
            }
            (None, None) => Ok(None),
        }
    }
}

impl Series {
    /// What a plan needs before the first step is chosen.
    fn first(&self) -> (Strategy, Limits) {
        match self {
            Self::Listed(steps) => match steps.first() {
                Some(step) => (step.strategy.clone(), step.limits),
                None => (Strategy::Synchronous, Limits::default()),
            },
            Self::Profile(_, limits) => (Strategy::Synchronous, *limits),
        }
    }

    /// The first trace that is replayed.
    fn recorded(&self) -> Option<&Arc<Recorded>> {
        let of = |strategy| match strategy {
            &Strategy::Replay(Replay { recorded: Some(ref recorded), .. }) => Some(recorded),
            _ => None,
        };
        match self {
            Self::Listed(steps) => steps.iter().find_map(|step| of(&step.strategy)),
            Self::Profile(Profile::Series { strategies }, _) => strategies.iter().find_map(of),
            Self::Profile(..) => None,
        }
    }

    fn listed(&self) -> &[SeriesStep] {
        match self {
            Self::Listed(steps) => steps,
            Self::Profile(..) => &[],
        }
    }
}
