use std::fmt::{self, Write as _};

use gatewright_record::{CacheCounts, RunReport, StatusCounts, Summary};
use owo_colors::OwoColorize as _;

use super::{Table, Unit, count, duration, rate};

/// What a run comes to, on one screen: the verdict first, then rates and counts, then times.
///
/// Benchmarks and simulations are both shown by it, so that they can be laid side by side.
#[derive(Debug)]
pub(crate) struct Sheet<'a> {
    /// What was run: "bench http://...", "simulate scenario.toml".
    pub(crate) title: String,
    /// How good the run is.
    pub(crate) level: Level,
    /// Why, in a sentence.
    pub(crate) verdict: String,
    /// Lines that only one kind of run has, with their labels.
    pub(crate) facts: Vec<(&'static str, String)>,
    pub(crate) report: &'a RunReport,
}

/// How good a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Good,
    Doubtful,
    Bad,
}

const LABEL_WIDTH: usize = 12;

impl fmt::Display for Sheet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.level {
            Level::Good => self.verdict.green().to_string(),
            Level::Doubtful => self.verdict.yellow().to_string(),
            Level::Bad => self.verdict.red().bold().to_string(),
        };
        writeln!(f, "{}\n{verdict}\n", self.title.bold())?;
        for (label, text) in self.lines() {
            writeln!(f, "{label:LABEL_WIDTH$}{text}")?;
        }
        write!(f, "\n{}", times(self.report))
    }
}

impl Sheet<'_> {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let report = self.report;
        let span = duration(report.span_ns as f64);
        let mut lines = vec![(
            "requests",
            format!("{}: {}", count(report.requests), statuses(&report.statuses)),
        )];
        lines.extend(report.offered_rate.map(|offered| ("offered", rate(offered))));
        lines.extend(
            report.achieved_rate.map(|done| ("achieved", format!("{} over {span}", rate(done)))),
        );
        let codes = counts(report.codes.iter().map(|(code, n)| (*n, code.to_string())));
        if report.codes.len() > 1 || report.codes.keys().any(|code| !(200..300).contains(code)) {
            lines.push(("codes", codes));
        }
        if !report.reasons.is_empty() {
            let mut reasons: Vec<_> =
                report.reasons.iter().map(|(why, n)| (*n, why.clone())).collect();
            reasons.sort_by_key(|(n, _)| std::cmp::Reverse(*n));
            reasons.truncate(MAX_REASONS);
            lines.push(("reasons", counts(reasons)));
        }
        if report.cache.total() > 0 {
            lines.push(("cache", cache(&report.cache)));
        }
        if report.cold > 0 {
            lines.push(("cold starts", format!("{} requests waited for one", count(report.cold))));
        }
        if report.retries > 0 {
            lines.push(("retries", count(report.retries)));
        }
        lines.extend(self.facts.iter().cloned());
        lines
    }
}

const MAX_REASONS: usize = 5;

fn statuses(statuses: &StatusCounts) -> String {
    counts([
        (statuses.ok, "ok"),
        (statuses.error, "error"),
        (statuses.timeout, "timeout"),
        (statuses.shed, "shed"),
        (statuses.cancelled, "cancelled"),
        (statuses.lost, "lost"),
    ])
}

fn cache(cache: &CacheCounts) -> String {
    counts([
        (cache.hit, "hit"),
        (cache.stale, "stale"),
        (cache.miss, "miss"),
        (cache.collapsed, "collapsed"),
        (cache.revalidated, "revalidated"),
        (cache.bypass, "bypass"),
    ])
}

/// "240 ok, 3 error": those that are not zero; "0" if all are.
fn counts<N: fmt::Display>(counts: impl IntoIterator<Item = (u64, N)>) -> String {
    let mut text = String::new();
    for (n, name) in counts.into_iter().filter(|(n, _)| *n > 0) {
        let gap = if text.is_empty() { "" } else { ", " };
        write!(text, "{gap}{} {name}", count(n)).expect("a String takes everything");
    }
    if text.is_empty() { "none".to_owned() } else { text }
}

/// The table of times. Rows without samples are left out; a percentile that the samples cannot tell is "-".
fn times(report: &RunReport) -> Table {
    let header = ["", "unit", "mean", "p50", "p90", "p95", "p99", "p99.9", "max"];
    let mut table = Table::new(&header);
    let rows = [
        ("response time", &report.response_time),
        ("service time", &report.service_time),
        (LATENESS, &report.lateness),
        ("queue wait", &report.queue_wait),
        ("failed after", &report.failed_time),
    ];
    let is_told = |name: &str, summary: &Summary| {
        // A generator that is never late is a simulated one.
        summary.count > 0 && !(name == LATENESS && summary.max == Some(0))
    };
    for (name, summary) in rows.into_iter().filter(|(name, summary)| is_told(name, summary)) {
        table.row(row(name, summary));
    }
    table
}

const LATENESS: &str = "lateness";

fn row(name: &str, summary: &Summary) -> Vec<String> {
    let unit = Unit::of(summary.mean.unwrap_or_default());
    let quantiles = [summary.p50, summary.p90, summary.p95, summary.p99, summary.p999, summary.max];
    let numbers = std::iter::once(summary.mean)
        .chain(quantiles.map(|quantile| quantile.map(|nanos| nanos as f64)));
    [name.to_owned(), unit.name().to_owned()]
        .into_iter()
        .chain(numbers.map(|n| n.map_or_else(|| "-".to_owned(), |nanos| unit.number(nanos))))
        .collect()
}
