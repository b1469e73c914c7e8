use std::time::Duration;

use gatewright_workload::Strategy;
use gatewright_workload::constraint::{Backlog, Constraint, Rule};
use gatewright_workload::profile::{Conclusion, Profile};

use crate::{BenchError, Outcome, Plan, Progress, RecordSink, run};

/// What a profile came to.
#[derive(Clone, Debug)]
pub struct ProfileOutcome {
    /// Its steps, in the order in which they were made.
    pub steps: Vec<ProfileStep>,
    /// What it looked for, if it looked for anything.
    pub conclusion: Option<Conclusion>,
}

/// A step of a profile.
#[derive(Clone, Debug)]
pub struct ProfileStep {
    /// How requests were offered.
    pub strategy: Strategy,
    /// What it came to.
    pub outcome: Outcome,
}

/// Carries out the steps of `profile`, each with the limits and the targets of `plan`, whose strategy counts for
/// nothing. `each` is told of every step when it
/// begins and, with its outcome, when it has ended.
///
/// Steps in an open loop are watched for a growing backlog as well: a rate that is too high ends early. The
/// objective of the profile, if it has one, is that of the steps.
///
/// # Errors
/// Those of [`run`], of any step.
pub fn run_profile(
    plan: &Plan,
    profile: &Profile,
    progress: &mut dyn Progress,
    mut records: Option<&mut dyn RecordSink>,
    each: &mut dyn FnMut(usize, &Strategy, Option<&Outcome>),
) -> Result<ProfileOutcome, BenchError> {
    profile.check()?;
    let mut state = profile.begin();
    let mut steps: Vec<ProfileStep> = Vec::new();
    let mut last = None;
    while let Some(strategy) = state.next_step(last.as_ref()) {
        let number = steps.len();
        let plan = step_plan(plan, profile, &strategy, number);
        each(number, &strategy, None);
        // Reborrowed for each step.
        let records = records.as_mut().map(|records| &mut **records as &mut dyn RecordSink);
        let outcome = run(&plan, progress, records)?;
        each(number, &strategy, Some(&outcome));
        last = Some(outcome.step_result());
        steps.push(ProfileStep { strategy, outcome });
    }
    Ok(ProfileOutcome { steps, conclusion: state.conclusion() })
}

fn step_plan(plan: &Plan, profile: &Profile, strategy: &Strategy, number: usize) -> Plan {
    let mut plan = plan.clone();
    plan.strategy = strategy.clone();
    // Other luck in each step, or one unlucky hour would be in all of them.
    plan.seed = plan.seed.wrapping_add(number as u64);
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
