use std::time::Duration;

use gatewright_workload::constraint::{Backlog, Constraint, Rule};
use gatewright_workload::profile::{Conclusion, Profile, ProfileRun, StepResult};
use gatewright_workload::{Limits, Strategy};

use crate::{BenchError, Outcome, Plan, Progress, RecordSink, run};

/// Steps to be made, one after the other.
#[derive(Clone, Debug)]
pub enum Series {
    /// These.
    Listed(Vec<SeriesStep>),
    /// Those that a profile chooses, each with these limits.
    Profile(Profile, Limits),
}

/// A step that is known beforehand.
#[derive(Clone, Debug)]
pub struct SeriesStep {
    /// How requests are offered.
    pub strategy: Strategy,
    /// When it ends.
    pub limits: Limits,
}

/// What a series came to.
#[derive(Clone, Debug)]
pub struct SeriesOutcome {
    /// Its steps, in the order in which they were made.
    pub steps: Vec<StepOutcome>,
    /// What it looked for, if it looked for anything.
    pub conclusion: Option<Conclusion>,
}

/// A step of a series.
#[derive(Clone, Debug)]
pub struct StepOutcome {
    /// How requests were offered.
    pub strategy: Strategy,
    /// When it was to end.
    pub limits: Limits,
    /// What it came to.
    pub outcome: Outcome,
}

/// Whoever wants to know of the steps: told of each when it begins and, with its outcome, when it has ended.
pub type EachStep<'a> = dyn FnMut(usize, &Strategy, Option<&Outcome>) + 'a;

/// Carries out the steps of `series`, each with what else `plan` says, whose strategy and limits count for nothing.
///
/// Steps of a profile in an open loop are watched for a growing backlog as well: a rate that is too high ends early.
/// The objective of the profile, if it has one, is that of the steps.
///
/// # Errors
/// Those of [`run`], of any step.
pub fn run_series(
    plan: &Plan,
    series: &Series,
    progress: &mut dyn Progress,
    mut records: Option<&mut dyn RecordSink>,
    each: &mut EachStep<'_>,
) -> Result<SeriesOutcome, BenchError> {
    let mut steps = Steps::of(series)?;
    let mut made: Vec<StepOutcome> = Vec::new();
    let mut last = None;
    while let Some((strategy, limits)) = steps.next(last.as_ref()) {
        let number = made.len();
        let plan = step_plan(plan, series, &strategy, limits, number);
        each(number, &strategy, None);
        // Reborrowed for each step.
        let records = records.as_mut().map(|records| &mut **records as &mut dyn RecordSink);
        let outcome = run(&plan, progress, records)?;
        each(number, &strategy, Some(&outcome));
        last = Some(outcome.step_result());
        made.push(StepOutcome { strategy, limits, outcome });
    }
    Ok(SeriesOutcome { steps: made, conclusion: steps.conclusion() })
}

impl Series {
    /// Whether there may be more steps than one.
    #[must_use]
    pub const fn has_several(&self) -> bool {
        match self {
            Self::Listed(steps) => steps.len() > 1,
            Self::Profile(..) => true,
        }
    }
}

enum Steps {
    Listed(std::vec::IntoIter<SeriesStep>),
    Profile(ProfileRun, Limits),
}

impl Steps {
    fn of(series: &Series) -> Result<Self, BenchError> {
        match series {
            Series::Listed(steps) => Ok(Self::Listed(steps.clone().into_iter())),
            Series::Profile(profile, limits) => {
                profile.check()?;
                Ok(Self::Profile(profile.begin(), *limits))
            }
        }
    }

    fn next(&mut self, last: Option<&StepResult>) -> Option<(Strategy, Limits)> {
        match self {
            Self::Listed(steps) => {
                let next = steps.next().filter(|_| !last.is_some_and(|last| last.ends_all))?;
                Some((next.strategy, next.limits))
            }
            Self::Profile(run, limits) => Some((run.next_step(last)?, *limits)),
        }
    }

    fn conclusion(&self) -> Option<Conclusion> {
        match self {
            Self::Listed(_) => None,
            Self::Profile(run, _) => run.conclusion(),
        }
    }
}

fn step_plan(
    plan: &Plan,
    series: &Series,
    strategy: &Strategy,
    limits: Limits,
    number: usize,
) -> Plan {
    let mut plan = plan.clone();
    plan.strategy = strategy.clone();
    plan.limits = limits;
    // Other luck in each step, or one unlucky hour would be in all of them.
    plan.seed = plan.seed.wrapping_add(number as u64);
    let Series::Profile(profile, _) = series else { return plan };
    if plan.slo.is_none() {
        plan.slo = profile.slo().copied();
    }
    let watches =
        plan.constraints.iter().any(|constraint| matches!(constraint.rule, Rule::Backlog(_)));
    if strategy.is_open() && !watches {
        let min_seconds =
            plan.limits.duration.unwrap_or(Duration::from_secs(40)).as_secs_f64() / 4.0;
        let backlog = Backlog { min_seconds, ..Backlog::default() };
        plan.constraints.push(Constraint::new(Rule::Backlog(backlog)));
    }
    plan
}
