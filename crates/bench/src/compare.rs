//! Whether one server, or version, is faster than another: by several runs of each, or by what is inside of one.

use gatewright_record::{Bucket, Difference, Distribution, bootstrap, welch};
use gatewright_workload::profile::Conclusion;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{OutcomeReport, Report, StepReport};

/// One number of a step before and after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ComparisonRow {
    /// How requests were offered.
    pub step: String,
    /// Name of the number.
    pub measure: String,
    /// Its unit: `ns`, `1/s` or `part`.
    pub unit: String,
    /// Its mean over the runs before.
    pub before: f64,
    /// Its mean over the runs after.
    pub after: f64,
    /// By how much it changed, as a part of what it was; for parts, the plain difference.
    pub difference: f64,
    /// Lower end of the interval of that; none if it cannot be told.
    pub low: Option<f64>,
    /// Upper end of it.
    pub high: Option<f64>,
    /// Difference in standard deviations from run to run (Hedges' g); of several runs only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect_size: Option<f64>,
    /// Lower end of the 95 % interval that comes of drawing runs again and again (bootstrap, percentiles); with three or
    /// more runs on both sides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap_low: Option<f64>,
    /// Upper end of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap_high: Option<f64>,
    /// What that means.
    pub verdict: Change,
}

/// What a difference means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The interval lies on the good side.
    Better,
    /// The interval lies on the bad side.
    Worse,
    /// The interval holds 0.
    NoDifferenceShown,
    /// There is too little to tell.
    Unknown,
}

pub(crate) const CONFIDENCE: f64 = 0.95;
pub(crate) const SEED: u64 = 1;
const Z: f64 = 1.959_964;
/// Fewer seconds than that tell nothing of how a rate varies.
const LEAST_PARTS: usize = 5;

/// A number of a step, and how far it may be off by what is known from this run alone.
#[derive(Clone, Copy, Debug)]
struct Told {
    value: f64,
    /// Standard error: of the logarithm, or of the value itself where it is a part.
    error: Option<f64>,
}

struct Measure {
    name: &'static str,
    unit: &'static str,
    more_is_better: bool,
    of: fn(&OutcomeReport) -> Option<Told>,
}

const MEASURES: [Measure; 13] = [
    Measure {
        name: "answered",
        unit: "1/s",
        more_is_better: true,
        of: |result| {
            let value = result.run.achieved_rate?;
            Some(Told { value, error: varies(result, |bucket| bucket.ok as f64) })
        },
    },
    time("response mean", |result| mean(&result.distributions.response_time)),
    time("response p50", |result| quantile(Some(&result.distributions.response_time), 0.5)),
    time("response p90", |result| quantile(Some(&result.distributions.response_time), 0.9)),
    time("response p95", |result| quantile(Some(&result.distributions.response_time), 0.95)),
    time("response p99", |result| quantile(Some(&result.distributions.response_time), 0.99)),
    time("service p50", |result| quantile(Some(&result.distributions.service_time), 0.5)),
    time("service p99", |result| quantile(Some(&result.distributions.service_time), 0.99)),
    time("first token p50", |result| quantile(result.distributions.ttft.as_ref(), 0.5)),
    time("first token p95", |result| quantile(result.distributions.ttft.as_ref(), 0.95)),
    time("between tokens, mean", |result| {
        // Weighted by tokens, but only as sure as its requests are many.
        let itl = result.distributions.itl.as_ref()?;
        mean_of(itl, itl.count.min(result.run.statuses.ok))
    }),
    Measure {
        name: "tokens of answers",
        unit: "1/s",
        more_is_better: true,
        of: |result| {
            let value = result.tokens.as_ref()?.output_tokens_per_second?;
            let error = varies(result, |bucket| bucket.tokens as f64);
            Some(Told { value, error })
        },
    },
    Measure { name: "failed", unit: "part", more_is_better: false, of: failed },
];

const fn time(name: &'static str, of: fn(&OutcomeReport) -> Option<Told>) -> Measure {
    Measure { name, unit: "ns", more_is_better: false, of }
}

fn quantile(distribution: Option<&Distribution>, q: f64) -> Option<Told> {
    let found = distribution?.quantiles.iter().find(|found| (found.q - q).abs() < 1e-9)?;
    let error = found
        .high
        .filter(|_| found.low > 0)
        .map(|high| (high as f64 / found.low as f64).ln() / (2.0 * Z));
    Some(Told { value: found.value as f64, error })
}

fn mean(distribution: &Distribution) -> Option<Told> {
    mean_of(distribution, distribution.count)
}

/// `samples`: how many of the samples are independent of one another.
fn mean_of(distribution: &Distribution, samples: u64) -> Option<Told> {
    let value = distribution.mean.filter(|mean| *mean > 0.0)?;
    let error = distribution.std_dev.map(|deviation| deviation / (samples as f64).sqrt() / value);
    Some(Told { value, error })
}

/// Standard error of the logarithm of a rate, by how it varies from second to second.
fn varies(result: &OutcomeReport, of: fn(&Bucket) -> f64) -> Option<f64> {
    // The last part is seldom a whole one.
    let parts = result.series.buckets.split_last()?.1;
    if parts.len() < LEAST_PARTS {
        return None;
    }
    let n = parts.len() as f64;
    let mean = parts.iter().map(of).sum::<f64>() / n;
    let squares = parts.iter().map(|part| (of(part) - mean).powi(2)).sum::<f64>();
    (mean > 0.0).then(|| (squares / (n - 1.0) / n).sqrt() / mean)
}

fn failed(result: &OutcomeReport) -> Option<Told> {
    let n = result.run.requests as f64;
    (n > 0.0).then(|| {
        let value = result.run.statuses.failed() as f64 / n;
        // Agresti and Coull's (1998) two more of each: none seen is not none at all.
        let shrunk = (value * n + 2.0) / (n + 4.0);
        Told { value, error: Some((shrunk * (1.0 - shrunk) / (n + 4.0)).sqrt()) }
    })
}

/// Lays the runs `after` beside those `before`, step by step; steps are the same if they were offered in the same
/// way. With two or more runs on both sides the intervals are Welch's, over runs; with one, they come from what is
/// inside of it, and know nothing of how runs differ from one another.
#[must_use]
pub fn compare(before: &[Report], after: &[Report]) -> Vec<ComparisonRow> {
    let mut rows = Vec::new();
    let Some(first) = before.first() else { return rows };
    for step in &first.steps {
        let same = |reports: &[Report]| -> Vec<OutcomeReport> {
            let found = |report: &Report| {
                let is_same = |other: &&StepReport| other.strategy == step.strategy;
                report.steps.iter().find(is_same).map(|step| step.result.clone())
            };
            reports.iter().filter_map(found).collect()
        };
        let (one, two) = (same(before), same(after));
        for measure in &MEASURES {
            rows.extend(row(&step.strategy.to_string(), measure, &one, &two));
        }
    }
    rows.extend(found(before, after));
    rows
}

fn row(
    step: &str,
    measure: &Measure,
    before: &[OutcomeReport],
    after: &[OutcomeReport],
) -> Option<ComparisonRow> {
    let told = |results: &[OutcomeReport]| -> Vec<Told> {
        results.iter().filter_map(measure.of).collect()
    };
    let (one, two) = (told(before), told(after));
    make(step, measure.name, measure.unit, measure.more_is_better, &one, &two)
        // That neither had a failure needs no row.
        .filter(|row| row.unit != "part" || row.before > 0.0 || row.after > 0.0)
}

fn make(
    step: &str,
    measure: &str,
    unit: &str,
    more_is_better: bool,
    before: &[Told],
    after: &[Told],
) -> Option<ComparisonRow> {
    let is_part = unit == "part";
    let mean = |told: &[Told]| {
        (!told.is_empty())
            .then(|| told.iter().map(|one| one.value).sum::<f64>() / told.len() as f64)
    };
    let (old, new) = (mean(before)?, mean(after)?);
    if !is_part && (old <= 0.0 || new <= 0.0) {
        return None;
    }
    let scale = |told: &[Told]| -> Vec<f64> {
        told.iter().map(|one| if is_part { one.value } else { one.value.ln() }).collect()
    };
    let drawn = bootstrap(&scale(before), &scale(after), CONFIDENCE, SEED);
    let difference = welch(&scale(before), &scale(after), CONFIDENCE).or_else(|| {
        let ([one], [two]) = (before, after) else { return None };
        let half = Z * (one.error?.powi(2) + two.error?.powi(2)).sqrt();
        let difference = if is_part { two.value - one.value } else { (two.value / one.value).ln() };
        let (low, high) = (difference - half, difference + half);
        Some(Difference { difference, low, high, effect_size: None })
    });
    let number = Number { step, measure, unit, more_is_better };
    Some(judged(&number, old, new, difference, drawn))
}

/// Which number is compared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Number<'a> {
    pub(crate) step: &'a str,
    pub(crate) measure: &'a str,
    pub(crate) unit: &'a str,
    pub(crate) more_is_better: bool,
}

/// What a difference means: of logarithms, or of the values themselves where they are parts. `drawn`: the interval by
/// drawing runs.
pub(crate) fn judged(
    number: &Number<'_>,
    old: f64,
    new: f64,
    difference: Option<Difference>,
    drawn: Option<(f64, f64)>,
) -> ComparisonRow {
    let is_part = number.unit == "part";
    let plain = |x: f64| if is_part { x } else { x.exp_m1() };
    let verdict = match difference {
        None => Change::Unknown,
        Some(told) if told.low <= 0.0 && told.high >= 0.0 => Change::NoDifferenceShown,
        Some(told) if (told.low > 0.0) == number.more_is_better => Change::Better,
        Some(_) => Change::Worse,
    };
    let fallback = if is_part { new - old } else { new / old - 1.0 };
    ComparisonRow {
        step: number.step.to_owned(),
        measure: number.measure.to_owned(),
        unit: number.unit.to_owned(),
        before: old,
        after: new,
        difference: difference.map_or(fallback, |told| plain(told.difference)),
        low: difference.map(|told| plain(told.low)),
        high: difference.map(|told| plain(told.high)),
        effect_size: difference.and_then(|told| told.effect_size),
        bootstrap_low: drawn.map(|(low, _)| plain(low)),
        bootstrap_high: drawn.map(|(_, high)| plain(high)),
        verdict,
    }
}

/// What searches found.
fn found(before: &[Report], after: &[Report]) -> Option<ComparisonRow> {
    let told = |reports: &[Report]| -> Vec<Told> {
        let rate = |report: &Report| match report.conclusion.as_ref()? {
            Conclusion::Search(end) => {
                let value = end.rate?;
                let error = end.high.zip(end.low).filter(|(_, low)| *low > 0.0);
                let error = error.map(|(high, low)| (high / low).ln() / (2.0 * Z));
                Some(Told { value, error })
            }
            Conclusion::Goodput(end) => Some(Told { value: end.rate?, error: None }),
            Conclusion::Knee(knee) => Some(Told { value: knee.as_ref()?.throughput, error: None }),
        };
        reports.iter().filter_map(rate).collect()
    };
    make("found", "rate", "1/s", true, &told(before), &told(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(values: &[(f64, f64)]) -> Vec<Told> {
        values.iter().map(|&(value, error)| Told { value, error: Some(error) }).collect()
    }

    #[test]
    fn several_runs_are_compared_by_how_they_vary() {
        let before = told(&[(100.0, 0.001), (103.0, 0.001), (98.0, 0.001)]);
        let near = told(&[(101.0, 0.001), (104.0, 0.001), (99.0, 0.001)]);
        let far = told(&[(150.0, 0.001), (148.0, 0.001), (153.0, 0.001)]);
        let time = |after: &[Told]| make("s", "p50", "ns", false, &before, after).unwrap();
        assert_eq!(time(&near).verdict, Change::NoDifferenceShown);
        let row = time(&far);
        assert_eq!(row.verdict, Change::Worse);
        assert!((row.difference - 0.498).abs() < 0.01, "{row:?}");
        assert!(row.low.unwrap() > 0.4 && row.high.unwrap() < 0.6, "{row:?}");
        assert!(row.effect_size.unwrap() > 5.0);
        let rate = make("s", "answered", "1/s", true, &before, &far).unwrap();
        assert_eq!(rate.verdict, Change::Better);
    }

    #[test]
    fn one_run_each_is_compared_by_its_own_intervals() {
        let row = |error| {
            make("s", "p99", "ns", false, &told(&[(100.0, error)]), &told(&[(110.0, error)]))
                .unwrap()
        };
        assert_eq!(row(0.1).verdict, Change::NoDifferenceShown);
        assert_eq!(row(0.01).verdict, Change::Worse);
        let none = [Told { value: 1.0, error: None }];
        let row = make("s", "p99", "ns", false, &none, &none).unwrap();
        assert_eq!((row.verdict, row.low), (Change::Unknown, None));
        assert_eq!(make("s", "p99", "ns", false, &[], &none), None);
    }
}
