//! The flags that say when it ends, what is measured, and what has to hold.

use std::time::Duration;

use clap::{Args, ValueEnum};
use gatewright_bench::{AtEnd, Demand, Gate, Scenario};
use gatewright_workload::constraint::{
    Backlog, Constraint, ErrorRate, GlobalErrorRate, Mode, OverSaturation, Rule, Scope, Transient,
};
use gatewright_workload::profile::Slo;

use super::values::{parse_part, parse_span, parse_table};

/// When it ends, and which part is measured.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct Ends {
    /// How long requests are offered [default: 10s, without --requests].
    #[arg(long, value_name = "DURATION", value_parser = parse_span)]
    pub(super) duration: Option<Duration>,

    /// Requests offered at most.
    #[arg(long, alias = "max-requests", value_name = "N")]
    pub(super) requests: Option<u64>,

    /// Stop when this many requests have failed.
    #[arg(long, value_name = "N")]
    max_errors: Option<u64>,

    /// First part that is left out of the numbers: 5s, 10% or 100 (requests).
    #[arg(long, value_name = "PART", value_parser = parse_part)]
    warmup: Option<Transient>,

    /// Last part that is left out of the numbers.
    #[arg(long, value_name = "PART", value_parser = parse_part, hide_short_help = true)]
    cooldown: Option<Transient>,

    /// Stop when so many requests have been answered, well or not.
    #[arg(long, value_name = "N", hide_short_help = true)]
    min_requests: Option<u64>,

    /// Stop when this part of the last requests has failed (of 30, or of --error-window).
    #[arg(long, value_name = "PART", hide_short_help = true)]
    max_error_rate: Option<f64>,

    /// How many requests --max-error-rate looks back at.
    #[arg(long, value_name = "N", requires = "max_error_rate", hide_short_help = true)]
    error_window: Option<u32>,

    /// Stop when this part of all requests has failed, once there are 30.
    #[arg(long, value_name = "PART", hide_short_help = true)]
    max_global_error_rate: Option<f64>,

    /// Stop when requests in flight and the time to the first token grow and grow (guidellm's test; for streams).
    #[arg(long, hide_short_help = true)]
    over_saturation: bool,

    /// Stop when more is offered than is answered, by more than chance explains. Profiles do so by themselves.
    #[arg(long, hide_short_help = true)]
    backlog: bool,

    /// A constraint with all its settings, such as '{ rule = { max_error_rate = { rate = 0.1 } }, scope = "all" }';
    /// may be given again.
    #[arg(long, value_name = "TABLE", value_parser = parse_table::<Constraint>)]
    #[arg(hide_short_help = true)]
    constraint: Vec<Constraint>,

    /// The constraints above are only reported, and end nothing.
    #[arg(long, hide_short_help = true)]
    monitor: bool,

    /// The constraints above end the whole benchmark, not only the step.
    #[arg(long, hide_short_help = true)]
    stop_all: bool,

    /// What becomes of requests in flight at the end of a step.
    #[arg(long, value_enum, value_name = "HOW", hide_short_help = true)]
    at_end: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum End {
    /// They are awaited: the slowest answers count
    Drain,
    /// They are cut off, and counted as cancelled
    Cancel,
}

/// What has to hold.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Objective (exit status 3 if it is missed)")]
pub(super) struct Objective {
    /// Each request is to be answered within this time.
    #[arg(long, value_name = "DURATION", value_parser = parse_span)]
    slo_response: Option<Duration>,

    /// Its first token is to be there within this time.
    #[arg(long, value_name = "DURATION", value_parser = parse_span)]
    slo_ttft: Option<Duration>,

    /// Its tokens may be this far apart in the mean.
    #[arg(long, value_name = "DURATION", value_parser = parse_span)]
    slo_itl: Option<Duration>,

    /// Each token may take this time in the mean, the first one included.
    #[arg(long, value_name = "DURATION", value_parser = parse_span, hide_short_help = true)]
    slo_tpot: Option<Duration>,

    /// Part of the requests that has to meet these [default: 0.99].
    #[arg(long, value_name = "PART")]
    slo_attainment: Option<f64>,

    /// What the numbers have to meet, such as "errors <= 1%".
    ///
    /// A quantity, a point of it, and a limit. Quantities: response, service, lateness, ttft, itl, tpot, gap, each with
    /// mean, max, p50, p90, p95, p99, p99.9; errors, rate, output_tokens. A quantile that so few requests cannot tell
    /// is missed. May be given again.
    #[arg(long, value_name = "GATE", value_parser = |text: &str| text.parse::<Gate>())]
    gate: Vec<Gate>,
}

const DEFAULT_DURATION: Duration = Duration::from_secs(10);

impl Ends {
    pub(super) fn apply(&self, scenario: &mut Scenario) {
        let limits = &mut scenario.limits;
        if self.duration.is_some() || self.requests.is_some() {
            (limits.duration, limits.requests) = (self.duration, self.requests);
            for demand in &mut scenario.demand {
                (demand.duration, demand.requests) = (None, None);
            }
        } else if !limits.are_finite() && scenario.profile.is_some() {
            limits.duration = Some(DEFAULT_DURATION);
        } else if !limits.are_finite() {
            let is_endless = |demand: &&mut Demand| {
                demand.duration.is_none()
                    && demand.requests.is_none()
                    && !demand.arrival.is_finite()
            };
            for demand in scenario.demand.iter_mut().filter(is_endless) {
                demand.duration = Some(DEFAULT_DURATION);
            }
        }
        limits.errors = self.max_errors.or(limits.errors);
        let window = &mut scenario.window;
        window.warmup = self.warmup.or(window.warmup);
        window.cooldown = self.cooldown.or(window.cooldown);
        scenario.constraint.extend(self.constraints());
        match self.at_end {
            Some(End::Drain) => scenario.at_end = AtEnd::Drain,
            Some(End::Cancel) => scenario.at_end = AtEnd::Cancel,
            None => {}
        }
    }

    fn constraints(&self) -> Vec<Constraint> {
        let window = |rate| ErrorRate { rate, window: self.error_window.unwrap_or(30) };
        let rules = [
            self.min_requests.map(|count| Rule::MinRequests { count }),
            self.max_error_rate.map(|rate| Rule::MaxErrorRate(window(rate))),
            self.max_global_error_rate
                .map(|rate| Rule::MaxGlobalErrorRate(GlobalErrorRate { rate, minimum: 30 })),
            self.over_saturation.then(|| Rule::OverSaturation(OverSaturation::default())),
            self.backlog.then(|| Rule::Backlog(Backlog::default())),
        ];
        let scope = if self.stop_all { Scope::All } else { Scope::Current };
        let mode = if self.monitor { Mode::Monitor } else { Mode::Enforce };
        let named = rules.into_iter().flatten();
        let named = named.map(|rule| Constraint { scope, mode, ..Constraint::new(rule) });
        named.chain(self.constraint.iter().copied()).collect()
    }
}

impl Objective {
    pub(super) fn apply(&self, scenario: &mut Scenario) {
        let asked = [self.slo_response, self.slo_ttft, self.slo_itl, self.slo_tpot];
        if asked.iter().any(Option::is_some) || self.slo_attainment.is_some() {
            let [response, ttft, itl, tpot] = asked;
            let old = scenario.slo;
            let attainment = self.slo_attainment.or_else(|| Some(old?.attainment)).unwrap_or(0.99);
            let or = |new: Option<Duration>, of: fn(Slo) -> Option<Duration>| {
                new.or_else(|| old.and_then(of))
            };
            scenario.slo = Some(Slo {
                response: or(response, |slo| slo.response),
                ttft: or(ttft, |slo| slo.ttft),
                itl: or(itl, |slo| slo.itl),
                tpot: or(tpot, |slo| slo.tpot),
                attainment,
            });
        }
        scenario.gate.extend(self.gate.iter().cloned());
    }
}
