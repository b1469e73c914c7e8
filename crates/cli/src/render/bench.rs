//! What a benchmark came to: the verdict first, then what was found, then the numbers.

use std::fmt;

use gatewright_bench::{OutcomeReport, PartReport, Report, StepReport, Stop, Verdict};
use gatewright_record::{Distribution, Summary};
use gatewright_workload::profile::{Conclusion, GoodputReason, SearchEnd, Slo};
use owo_colors::OwoColorize as _;

use super::{Level, Sheet, Table, Unit, count, duration, rate};

/// A report on the console.
#[derive(Debug)]
pub(crate) struct BenchSheet<'a>(pub(crate) &'a Report);

impl fmt::Display for BenchSheet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        match &report.steps[..] {
            [] => writeln!(f, "{}\nNothing was run.", title(report)),
            [step] if report.conclusion.is_none() => one(f, report, step),
            steps => several(f, report, steps),
        }
    }
}

fn title(report: &Report) -> String {
    let name = match &report.scenario.target[..] {
        [only] => only.url.clone(),
        targets => format!("{} targets", targets.len()),
    };
    format!("bench {name}")
}

fn one(f: &mut fmt::Formatter<'_>, report: &Report, step: &StepReport) -> fmt::Result {
    let result = &step.result;
    let (level, verdict) = verdict(result);
    let seed = if step.strategy.rate().is_some() {
        format!(", seed {}", report.scenario.seed)
    } else {
        String::new()
    };
    let sheet = Sheet {
        title: format!("{} ({}{seed})", title(report), step.strategy),
        level,
        verdict,
        facts: facts(result),
        report: &result.run,
    };
    write!(f, "{sheet}")?;
    parts(f, result)?;
    objectives(f, report, std::slice::from_ref(step))
}

fn facts(result: &OutcomeReport) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    facts.extend(result.concurrency.map(|mean| ("in flight", format!("{mean:.2} in the mean"))));
    if let Some(tokens) = &result.tokens {
        let told = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), super::rate);
        let counts = format!("{} in, {} out", count(tokens.total_in), count(tokens.total_out));
        let rates = told(tokens.output_tokens_per_second);
        facts.push(("tokens", format!("{counts}, {rates} of answers")));
        if let Some(each) = tokens.tokens_per_piece.filter(|each| *each > 1.05) {
            facts.push(("pieces", format!("of {each:.1} tokens: gaps are not those of tokens")));
        }
    }
    if let Some(cpu) = result.cpu_us_per_request {
        let threads = if result.threads == 1 { "thread" } else { "threads" };
        facts.push((
            "generator",
            format!(
                "{} {threads}, {:.0} % busy, {cpu:.0} us of processor time a request, {} connections",
                result.threads,
                result.busy * 100.0,
                count(result.connections_opened),
            ),
        ));
    }
    if result.unsent > 0 {
        facts.push(("unsent", format!("{} never found a connection", count(result.unsent))));
    }
    if result.broken_conversations > 0 {
        let broken = count(result.broken_conversations);
        facts.push(("conversations", format!("{broken} ended early, by a turn that failed")));
    }
    if result.waited > 0 {
        let waited = count(result.waited);
        facts.push(("waited", format!("{waited} would have used more than --max-connections")));
    }
    for breach in &result.breaches {
        facts.push(("constraint", format!("{}: {}", breach.rule, breach.why)));
    }
    facts
}

/// The verdict first: whether the numbers are the server's, and whether it answered.
fn verdict(result: &OutcomeReport) -> (Level, String) {
    let failed = result.run.statuses.failed();
    let early = match result.stop {
        Stop::Asked => " It was ended early.",
        Stop::Constraint => " A constraint ended it early.",
        _ => "",
    };
    if let Verdict::GeneratorLimited { why } = &result.verdict {
        return (Level::Bad, format!("Not valid, the load generator was the limit: {why}.{early}"));
    }
    if result.stop == Stop::Errors {
        return (Level::Bad, format!("Stopped: {} requests failed.", count(failed)));
    }
    match (failed, result.run.requests) {
        (_, 0) => (Level::Doubtful, format!("Nothing was measured.{early}")),
        (0, _) => (Level::Good, format!("Valid: every request was answered.{early}")),
        (failed, all) => {
            let percent = failed as f64 / all as f64 * 100.0;
            let what = format!("Valid, but {} of {} requests failed", count(failed), count(all));
            (Level::Doubtful, format!("{what} ({percent:.1} %).{early}"))
        }
    }
}

/// Tables of tokens, targets, codes and turns, as far as there is more than one of them.
fn parts(f: &mut fmt::Formatter<'_>, result: &OutcomeReport) -> fmt::Result {
    let told = &result.distributions;
    let rows = [
        ("first token", &told.ttft),
        ("first of answer", &told.first_output),
        ("between tokens", &told.itl),
        ("per token", &told.tpot),
        ("longest gap", &told.longest_gap),
    ];
    let same = told.first_output == told.ttft;
    let mut table = Table::new(&["", "unit", "mean", "p50", "p90", "p95", "p99", "p99.9", "max"]);
    let mut any = false;
    for (name, distribution) in rows {
        let Some(distribution) = distribution else { continue };
        if name == "first of answer" && same {
            continue;
        }
        any = true;
        table.row(row(name, distribution));
    }
    if any {
        write!(f, "\n{table}")?;
    }
    split(f, "target", &result.targets, 1)?;
    split(f, "code", &result.codes, 2)?;
    split(f, "turn", &result.turns, 1)
}

fn row(name: &str, distribution: &Distribution) -> Vec<String> {
    let unit = Unit::of(distribution.mean.unwrap_or_default());
    let quantiles = [0.5, 0.9, 0.95, 0.99, 0.999].map(|q| distribution.quantile(q));
    let max = distribution.max.map(|max| max as f64);
    let numbers = std::iter::once(distribution.mean).chain(quantiles).chain([max]);
    [name.to_owned(), unit.name().to_owned()]
        .into_iter()
        .chain(numbers.map(|n| n.map_or_else(|| "-".to_owned(), |nanos| unit.number(nanos))))
        .collect()
}

/// A row for each part, if there are at least so many.
fn split(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    parts: &[PartReport],
    least: usize,
) -> fmt::Result {
    if parts.len() < least {
        return Ok(());
    }
    let mut table = Table::new(&[what, "requests", "failed", "mean", "p50", "p95", "p99"]);
    for part in parts {
        let time = |nanos: Option<f64>| nanos.map_or_else(|| "-".to_owned(), duration);
        let Summary { mean, p50, p95, p99, .. } = part.response_time;
        let quantiles = [p50, p95, p99].map(|q| time(q.map(|nanos| nanos as f64)));
        let [p50, p95, p99] = quantiles;
        table.row([
            part.name.clone(),
            count(part.statuses.total()),
            count(part.statuses.failed()),
            time(mean),
            p50,
            p95,
            p99,
        ]);
    }
    write!(f, "\n{table}")
}

fn several(f: &mut fmt::Formatter<'_>, report: &Report, steps: &[StepReport]) -> fmt::Result {
    writeln!(f, "{}", title(report).bold())?;
    match &report.verdict {
        Verdict::Valid => writeln!(f, "{}", "Valid.".green())?,
        Verdict::GeneratorLimited { why } => {
            let text = format!("Not valid, the load generator was the limit in a step: {why}.");
            writeln!(f, "{}", text.red().bold())?;
        }
    }
    if let Some(conclusion) = &report.conclusion {
        let slo = report.scenario.slo.or_else(|| report.scenario.profile.as_ref()?.slo().copied());
        writeln!(f, "{}", found(conclusion, slo.as_ref()).bold())?;
    }
    write!(f, "\n{}", steps_table(report, steps))?;
    objectives(f, report, steps)
}

fn steps_table(report: &Report, steps: &[StepReport]) -> Table {
    let has_tokens = steps.iter().any(|step| step.result.distributions.ttft.is_some());
    let has_slo = steps.iter().any(|step| step.result.attainment.is_some());
    let mut header =
        vec!["step", "offered", "achieved", "in flight", "failed", "p50", "p95", "p99"];
    header.push("service p50");
    if has_tokens {
        header.extend(["ttft p50", "ttft p95", "itl mean", "tokens"]);
    }
    if has_slo {
        header.push("in time");
    }
    header.push("note");
    let mut table = Table::new(&header);
    let time = |nanos: Option<f64>| nanos.map_or_else(|| "-".to_owned(), duration);
    let told = |of: Option<f64>| of.map_or_else(|| "-".to_owned(), rate);
    for step in steps {
        let result = &step.result;
        let tokens = &result.distributions;
        let response = &tokens.response_time;
        let mut row = vec![
            step.strategy.to_string(),
            told(result.run.offered_rate),
            told(result.run.achieved_rate),
            result.concurrency.map_or_else(|| "-".to_owned(), |mean| format!("{mean:.1}")),
            count(result.run.statuses.failed()),
            time(response.quantile(0.5)),
            time(response.quantile(0.95)),
            time(response.quantile(0.99)),
            time(tokens.service_time.quantile(0.5)),
        ];
        if has_tokens {
            let of = |of: &Option<Distribution>, q| of.as_ref().and_then(|told| told.quantile(q));
            row.push(time(of(&tokens.ttft, 0.5)));
            row.push(time(of(&tokens.ttft, 0.95)));
            row.push(time(tokens.itl.as_ref().and_then(|itl| itl.mean)));
            row.push(told(result.tokens.as_ref().and_then(|told| told.output_tokens_per_second)));
        }
        if has_slo {
            let share = result.attainment.as_ref().map(|attainment| attainment.share() * 100.0);
            row.push(share.map_or_else(|| "-".to_owned(), |share| format!("{share:.1} %")));
        }
        row.push(note(step, report.scenario.gate.is_empty()));
        table.row(row);
    }
    table
}

fn note(step: &StepReport, without_gates: bool) -> String {
    let result = &step.result;
    if !result.verdict.is_valid() {
        return "not valid".to_owned();
    }
    if let Some(breach) = result.breaches.first() {
        return breach.rule.clone();
    }
    let missed = step.gates.iter().filter(|gate| !gate.holds).count();
    match (missed, step.slo_met) {
        (0, Some(false)) => "missed".to_owned(),
        (0, Some(true)) => "met".to_owned(),
        (0, None) if without_gates => String::new(),
        (0, None) => "ok".to_owned(),
        (missed, _) => format!("{missed} gates missed"),
    }
}

/// What a profile found, in a sentence.
fn found(conclusion: &Conclusion, slo: Option<&Slo>) -> String {
    let slo = slo.map_or_else(|| "the objective".to_owned(), told_slo);
    match conclusion {
        Conclusion::Search(end) => {
            let why = match end.reason {
                SearchEnd::Converged => "",
                SearchEnd::MaxRateReached => " It is met at the highest rate that is allowed.",
                SearchEnd::MaxStepsReached => " More steps (--size) would narrow it down.",
                SearchEnd::ObjectiveUnmet => " It is missed with one request at a time.",
                SearchEnd::Stopped => " A constraint or Ctrl-C ended the search.",
            };
            match (end.rate, end.low, end.high) {
                (None, ..) => format!("No rate meets {slo}.{why}"),
                (Some(found), Some(low), Some(high)) => format!(
                    "Up to {} it meets {slo} (95 % interval: {} to {}).{why}",
                    rate(found),
                    rate(low),
                    rate(high)
                ),
                (Some(found), ..) => format!("Up to {} it meets {slo}.{why}", rate(found)),
            }
        }
        Conclusion::Goodput(end) => {
            let why = match end.reason {
                GoodputReason::MaxStreamsReached => " No more streams are allowed.",
                GoodputReason::MaxProbesExhausted => " More steps (--size) would narrow it down.",
                _ => "",
            };
            match (end.met, end.rate) {
                (Some(streams), Some(done)) => {
                    format!("Up to {streams} streams ({}) it meets {slo}.{why}", rate(done))
                }
                (Some(streams), None) => format!("Up to {streams} streams it meets {slo}.{why}"),
                (None, _) => format!("It does not meet {slo}, even with one stream.{why}"),
            }
        }
        Conclusion::Knee(Some(knee)) => format!(
            "Beyond {:.1} requests in flight more of them bring next to nothing: {} there.",
            knee.concurrency,
            rate(knee.throughput)
        ),
        Conclusion::Knee(None) => "No knee: throughput grows to the last step.".to_owned(),
    }
}

/// An objective in words.
fn told_slo(slo: &Slo) -> String {
    let parts = [
        ("response", slo.response),
        ("first token", slo.ttft),
        ("between tokens", slo.itl),
        ("per token", slo.tpot),
    ];
    let parts: Vec<_> = parts
        .into_iter()
        .filter_map(|(name, limit)| Some(format!("{name} <= {:?}", limit?)))
        .collect();
    format!("{} for {} % of the requests", parts.join(", "), round(slo.attainment * 100.0))
}

fn round(percent: f64) -> f64 {
    (percent * 1e3).round() / 1e3
}

/// How gates and objective stand.
fn objectives(f: &mut fmt::Formatter<'_>, report: &Report, steps: &[StepReport]) -> fmt::Result {
    let mut lines = Vec::new();
    let is_one = steps.len() == 1;
    for (number, step) in (1..).zip(steps) {
        let place = if is_one { String::new() } else { format!("step {number}: ") };
        for gate in &step.gates {
            if gate.holds && !is_one {
                continue;
            }
            let measured = gate.measured.map(|measured| gate.gate.told(measured));
            let measured = measured.unwrap_or_else(|| "too few samples".to_owned());
            lines.push((gate.holds, format!("{place}{} ({measured})", gate.gate)));
        }
        let slo = report.scenario.slo.filter(|_| is_one);
        if let (Some(slo), Some(met), Some(share)) = (slo, step.slo_met, &step.result.attainment) {
            let share = format!("{} ({:.2} %)", told_slo(&slo), share.share() * 100.0);
            lines.push((met, share));
        }
    }
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(f)?;
    for (holds, text) in lines {
        if holds {
            writeln!(f, "{}    {text}", "holds".green())?;
        } else {
            writeln!(f, "{}   {text}", "MISSED".red().bold())?;
        }
    }
    Ok(())
}
