//! What is written down of a benchmark, so that it can be shown again, compared, and run again.

use std::num::NonZero;
use std::time::SystemTime;

use gatewright_workload::profile::{Conclusion, Profile};
use gatewright_workload::{Limits, Strategy};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::gate::GateResult;
use crate::{OutcomeReport, Scenario, SeriesOutcome, StepOutcome, Stop, Verdict};

/// A benchmark and what it came to. Times of requests are in nanoseconds, rates per second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// Name of this format.
    pub schema: String,
    /// Version of the program that wrote it.
    pub version: String,
    /// When the benchmark began: date and time of day, UTC.
    pub started: String,
    /// The machine that made the load.
    pub machine: Machine,
    /// What was run.
    pub scenario: Scenario,
    /// Whether the numbers are the server's: that of the first step where they are not, if there is one.
    pub verdict: Verdict,
    /// Whether every gate and objective holds; absent if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds: Option<bool>,
    /// What was found, if something was looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conclusion: Option<Conclusion>,
    /// The steps, in the order in which they were made.
    pub steps: Vec<StepReport>,
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Machine {
    /// Its operating system.
    pub os: String,
    /// Kind of its processors.
    pub arch: String,
    /// Processors that the program may use.
    pub processors: usize,
}

/// A step and what it came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepReport {
    /// How requests were offered.
    pub strategy: Strategy,
    /// When it was to end.
    pub limits: Limits,
    /// How its gates stand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<GateResult>,
    /// Whether it met the objective, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slo_met: Option<bool>,
    /// What it came to.
    pub result: OutcomeReport,
}

/// Name of the format of a [`Report`].
pub const SCHEMA: &str = "gatewright.bench/1";

impl Report {
    /// What `scenario`, begun at `started`, came to.
    #[must_use]
    pub fn new(scenario: &Scenario, started: SystemTime, outcome: &SeriesOutcome) -> Self {
        let steps: Vec<_> =
            outcome.steps.iter().map(|step| StepReport::of(scenario, step)).collect();
        let limited = steps.iter().find(|step| !step.result.verdict.is_valid());
        Self {
            schema: SCHEMA.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: humantime::format_rfc3339_seconds(started).to_string(),
            machine: Machine::this_one(),
            scenario: scenario.redacted(),
            verdict: limited.map_or(Verdict::Valid, |step| step.result.verdict.clone()),
            holds: holds(scenario, &steps, outcome.conclusion.as_ref()),
            conclusion: outcome.conclusion.clone(),
            steps,
        }
    }

    /// Whether a limit of failed requests ended a step.
    #[must_use]
    pub fn stopped_by_errors(&self) -> bool {
        self.steps.iter().any(|step| step.result.stop == Stop::Errors)
    }
}

/// A profile that looks for where the objective ceases to hold is judged by whether it found anything.
fn holds(scenario: &Scenario, steps: &[StepReport], found: Option<&Conclusion>) -> Option<bool> {
    let looks = matches!(
        scenario.profile,
        Some(Profile::Search(_) | Profile::Goodput(_) | Profile::Knee(_) | Profile::Sweep(_))
    );
    let found = match found {
        Some(Conclusion::Search(end)) => Some(end.rate.is_some()),
        Some(Conclusion::Goodput(end)) => Some(end.met.is_some()),
        Some(Conclusion::Knee(_)) | None => None,
    };
    let of_steps = steps.iter().flat_map(|step| {
        let slo = step.slo_met.filter(|_| !looks);
        step.gates.iter().map(|gate| gate.holds).chain(slo)
    });
    let all: Vec<_> = of_steps.chain(found).collect();
    (!all.is_empty()).then(|| all.iter().all(|holds| *holds))
}

impl StepReport {
    fn of(scenario: &Scenario, step: &StepOutcome) -> Self {
        let result = step.outcome.report();
        let slo = scenario.slo.or_else(|| scenario.profile.as_ref()?.slo().copied());
        let slo_met = slo.zip(result.attainment.as_ref()).map(|(slo, attainment)| {
            attainment.counted > 0 && attainment.share() >= slo.attainment
        });
        Self {
            strategy: step.strategy.clone(),
            limits: step.limits,
            gates: scenario.gate.iter().map(|gate| gate.judge(&result)).collect(),
            slo_met,
            result,
        }
    }
}

impl Machine {
    fn this_one() -> Self {
        Self {
            os: std::env::consts::OS.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            processors: std::thread::available_parallelism().map_or(1, NonZero::get),
        }
    }
}
