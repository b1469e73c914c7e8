use gatewright_bench::{Report, StepReport};
use gatewright_record::Distribution;

use crate::failure::{Failure, Outcome};

const QUANTILES: [(f64, &str); 5] =
    [(0.5, "p50"), (0.9, "p90"), (0.95, "p95"), (0.99, "p99"), (0.999, "p999")];

/// The distributions of a step.
type Of = fn(&StepReport) -> Option<&Distribution>;

const DISTRIBUTIONS: [(&str, Of); 7] = [
    ("response_time", |step| Some(&step.result.distributions.response_time)),
    ("service_time", |step| Some(&step.result.distributions.service_time)),
    ("lateness", |step| Some(&step.result.distributions.lateness)),
    ("ttft", |step| step.result.distributions.ttft.as_ref()),
    ("itl", |step| step.result.distributions.itl.as_ref()),
    ("tpot", |step| step.result.distributions.tpot.as_ref()),
    ("longest_gap", |step| step.result.distributions.longest_gap.as_ref()),
];

/// A line for each step of each report; times in milliseconds, rates per second, what cannot be told is empty.
pub(crate) fn bench_csv(reports: &[Report]) -> Outcome<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let failed = |fault: &dyn std::fmt::Display| {
        Failure::failed(format!("cannot write the result as CSV: {fault}"))
    };
    writer.write_record(header()).map_err(|fault| failed(&fault))?;
    for report in reports {
        for (number, step) in (1..).zip(&report.steps) {
            writer.write_record(row(report, number, step)).map_err(|fault| failed(&fault))?;
        }
    }
    let bytes = writer.into_inner().map_err(|fault| failed(&fault))?;
    String::from_utf8(bytes).map_err(|fault| failed(&fault))
}

fn header() -> Vec<String> {
    let fixed = [
        "name",
        "started",
        "step",
        "strategy",
        "valid",
        "holds",
        "requests",
        "ok",
        "failed",
        "cancelled",
        "offered_rate",
        "achieved_rate",
        "concurrency",
        "output_tokens_per_second",
        "tokens_in",
        "tokens_out",
    ];
    let mut header: Vec<_> = fixed.map(str::to_owned).to_vec();
    for (name, _) in DISTRIBUTIONS {
        header.push(format!("{name}_mean_ms"));
        header.extend(QUANTILES.map(|(_, quantile)| format!("{name}_{quantile}_ms")));
        header.push(format!("{name}_max_ms"));
    }
    header
}

fn row(report: &Report, number: u64, step: &StepReport) -> Vec<String> {
    let (result, run) = (&step.result, &step.result.run);
    let text = |number: Option<f64>| number.map_or_else(String::new, |number| number.to_string());
    let tokens = result.tokens.as_ref();
    let holds = step.gates.iter().all(|gate| gate.holds) && step.slo_met != Some(false);
    let mut row = vec![
        report.scenario.name.clone(),
        report.started.clone(),
        number.to_string(),
        step.strategy.to_string(),
        result.verdict.is_valid().to_string(),
        holds.to_string(),
        run.requests.to_string(),
        run.statuses.ok.to_string(),
        run.statuses.failed().to_string(),
        run.statuses.cancelled.to_string(),
        text(run.offered_rate),
        text(run.achieved_rate),
        text(result.concurrency),
        text(tokens.and_then(|tokens| tokens.output_tokens_per_second)),
        text(tokens.map(|tokens| tokens.total_in as f64)),
        text(tokens.map(|tokens| tokens.total_out as f64)),
    ];
    let millis = |nanos: Option<f64>| text(nanos.map(|nanos| nanos / 1e6));
    for (_, of) in DISTRIBUTIONS {
        let told = of(step);
        row.push(millis(told.and_then(|told| told.mean)));
        for (q, _) in QUANTILES {
            row.push(millis(told.and_then(|told| told.quantile(q))));
        }
        row.push(millis(told.and_then(|told| told.max).map(|max| max as f64)));
    }
    row
}
