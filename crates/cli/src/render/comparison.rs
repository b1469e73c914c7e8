use std::fmt;

use gatewright_bench::{Change, ComparisonRow};
use owo_colors::OwoColorize as _;

use super::{Table, duration, rate};

/// Benchmarks beside one another, on the console.
#[derive(Debug)]
pub(crate) struct Comparison<'a> {
    rows: &'a [ComparisonRow],
    runs: (usize, usize),
    by: By,
}

/// Where intervals come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// From how runs differ.
    Runs,
    /// From what is inside of one run each.
    Insides,
    /// From drawing requests again and again.
    Records,
}

/// `runs`: how many there are before and after.
pub(crate) fn comparison(rows: &[ComparisonRow], runs: (usize, usize), by: By) -> Comparison<'_> {
    Comparison { rows, runs, by }
}

impl fmt::Display for Comparison<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |change| self.rows.iter().filter(|row| row.verdict == change).count();
        let (better, worse) = (of(Change::Better), of(Change::Worse));
        let verdict = match (better, worse) {
            (0, 0) => "No difference shown.".to_owned(),
            (better, 0) => format!("Better in {better} of {} numbers.", self.rows.len()),
            (0, worse) => format!("Worse in {worse} of {} numbers.", self.rows.len()),
            (better, worse) => {
                format!("Better in {better} and worse in {worse} of {} numbers.", self.rows.len())
            }
        };
        let verdict = match (better, worse) {
            (0, 0) => verdict,
            (_, 0) => verdict.green().to_string(),
            _ => verdict.red().to_string(),
        };
        writeln!(f, "{verdict}")?;
        let (before, after) = self.runs;
        let hint = "several of each would know how runs differ";
        match self.by {
            By::Runs => {
                writeln!(f, "Intervals of 95 % over {before} and {after} runs (Welch).\n")?;
            }
            By::Insides => {
                writeln!(f, "Intervals of 95 % from inside of one run each; {hint}.\n")?;
            }
            By::Records if before > 1 && after > 1 => {
                let of = format!("of {before} and {after} runs, and requests of each");
                writeln!(f, "Intervals of 95 % by drawing again and again, {of} (bootstrap).\n")?;
            }
            By::Records => {
                let how = "by drawing requests again and again (bootstrap)";
                writeln!(f, "Intervals of 95 % {how}; {hint}.\n")?;
            }
        }
        let mut header = vec!["step", "", "before", "after", "difference", "from", "to"];
        let has_effect = self.rows.iter().any(|row| row.effect_size.is_some());
        if has_effect {
            header.push("effect size");
        }
        let has_drawn = self.rows.iter().any(|row| row.bootstrap_low.is_some());
        if has_drawn {
            header.extend(["drawn from", "drawn to"]);
        }
        header.push("verdict");
        let mut table = Table::new(&header);
        let mut last = "";
        for row in self.rows {
            let step = if row.step == last { "" } else { row.step.as_str() };
            last = &row.step;
            table.row(cells(row, step, has_effect, has_drawn));
        }
        write!(f, "{table}")?;
        if has_drawn {
            let what = "the interval that comes of drawing runs again and again (bootstrap)";
            write!(f, "\ndrawn: {what}\n")?;
        }
        Ok(())
    }
}

fn cells(row: &ComparisonRow, step: &str, has_effect: bool, has_drawn: bool) -> Vec<String> {
    let value = |value: f64| match row.unit.as_str() {
        "ns" => duration(value),
        "1/s" => rate(value),
        _ => format!("{:.2} %", value * 100.0),
    };
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let percent = |part: f64| format!("{:+.1} %", part * 100.0);
    let mut cells = vec![
        step.to_owned(),
        row.measure.clone(),
        value(row.before),
        value(row.after),
        percent(row.difference),
        or_none(row.low.map(percent)),
        or_none(row.high.map(percent)),
    ];
    if has_effect {
        cells.push(or_none(row.effect_size.map(|effect| format!("{effect:+.2}"))));
    }
    if has_drawn {
        cells.push(or_none(row.bootstrap_low.map(percent)));
        cells.push(or_none(row.bootstrap_high.map(percent)));
    }
    let verdict = match row.verdict {
        Change::Better => "better",
        Change::Worse => "worse",
        Change::NoDifferenceShown => "no difference shown",
        Change::Unknown => "too little to tell",
    };
    cells.push(verdict.to_owned());
    cells
}
