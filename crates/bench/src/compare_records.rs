//! Whether one server, or version, is faster than another, by the records of their requests.

use gatewright_determinism::{Purpose, Stream};
use gatewright_record::{Difference, Invocation, Status};

use crate::ComparisonRow;
use crate::compare::{CONFIDENCE, Number, SEED, judged};

/// What the records of one run tell, in their order: 24 bytes each.
#[derive(Clone, Debug, Default)]
pub struct RunRecords {
    requests: Vec<Times>,
}

/// Of one request, in nanoseconds. A request that did not end well has none.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    response: Option<u32>,
    service: Option<u32>,
    first_byte: Option<u32>,
}

/// Records of a run are drawn in so many pieces, each of requests that followed one another: what happens to one
/// request, such as a pause of the server, happens to its neighbours (Künsch, 1989).
const PIECES: usize = 50;
const DRAWS: u64 = 1_000;
/// Places at which a distribution is known: so many evenly spaced, and as many among its greatest values.
const PLACES: usize = 1_024;
const QUANTILES: [(f64, &str); 4] = [(0.5, "p50"), (0.9, "p90"), (0.95, "p95"), (0.99, "p99")];

type Of = fn(&Times) -> Option<u32>;

const MEASURES: [(&str, Of); 3] = [
    ("response", |times| times.response),
    ("service", |times| times.service),
    ("first byte", |times| times.first_byte),
];

impl RunRecords {
    /// Takes the next record.
    pub fn add(&mut self, record: &Invocation) {
        let mut times = Times::default();
        if record.status == Status::Ok
            && let Some(finished) = record.finished
        {
            // Microseconds, which four bytes hold for more than an hour.
            let micros = |nanos: u64| u32::try_from(nanos / 1_000).unwrap_or(u32::MAX);
            let sent = record.sent.or(record.received);
            times.response =
                record.scheduled.or(sent).map(|start| micros(finished.nanos_since(start)));
            times.service = sent.map(|start| micros(finished.nanos_since(start)));
            let first = record.first_byte.zip(sent);
            times.first_byte = first.map(|(first, start)| micros(first.nanos_since(start)));
        }
        self.requests.push(times);
    }
}

/// Lays the records of the runs `after` beside those of `before`. The intervals come of drawing again and again
/// (bootstrap, percentiles): of several runs, runs, and of each run pieces of requests that followed one another.
#[must_use]
pub fn compare_records(before: &[RunRecords], after: &[RunRecords]) -> Vec<ComparisonRow> {
    let mut rows = Vec::new();
    for (name, of) in MEASURES {
        let grid = grid(before.iter().chain(after), of);
        let counted = |runs: &[RunRecords]| -> Vec<Run> {
            runs.iter().map(|run| Run::of(run, of, &grid)).collect()
        };
        let (one, two) = (counted(before), counted(after));
        let drawn: Vec<_> = (0..DRAWS)
            .map(|draw| {
                let mut luck = Stream::new(SEED, Purpose::Resample, draw);
                (draw_from(&one, &grid, &mut luck), draw_from(&two, &grid, &mut luck))
            })
            .collect();
        let (old, new) = (all(&one, &grid), all(&two, &grid));
        let mut row = |what: &str, value: &dyn Fn(&Piece) -> Option<f64>| {
            let ratios = drawn.iter().map(|(one, two)| Some((value(two)? / value(one)?).ln()));
            let numbers = (value(&old)?, value(&new)?);
            rows.push(ratio_row(&format!("{name} {what}"), numbers, ratios.collect()));
            Some(())
        };
        let _told = row("mean", &|piece| piece.mean());
        for (q, what) in QUANTILES {
            let _told = row(what, &|piece| piece.quantile(q, &grid));
        }
    }
    rows.extend(failed(before, after));
    rows
}

/// `ratios` are logarithms.
fn ratio_row(measure: &str, (old, new): (f64, f64), ratios: Option<Vec<f64>>) -> ComparisonRow {
    let difference = (new / old).ln();
    let interval = ratios.map(interval).map(|(low, high)| Difference {
        difference,
        low,
        high,
        effect_size: None,
    });
    let number = Number { step: "requests", measure, unit: "ns", more_is_better: false };
    judged(&number, old, new, interval, None)
}

fn failed(before: &[RunRecords], after: &[RunRecords]) -> Option<ComparisonRow> {
    // 0 or 1 for each request, drawn like the times.
    let of: Of = |times| Some(u32::from(times.response.is_none()));
    let grid = [0, 1];
    let counted = |runs: &[RunRecords]| -> Vec<Run> {
        runs.iter().map(|run| Run::of(run, of, &grid)).collect()
    };
    let (one, two) = (counted(before), counted(after));
    let part = |piece: &Piece| piece.sum as f64 / piece.count.max(1) as f64;
    let (old, new) = (part(&all(&one, &grid)), part(&all(&two, &grid)));
    let differences = (0..DRAWS).map(|draw| {
        let mut luck = Stream::new(SEED, Purpose::Resample, draw);
        let before = part(&draw_from(&one, &grid, &mut luck));
        part(&draw_from(&two, &grid, &mut luck)) - before
    });
    let (low, high) = interval(differences.collect());
    let difference = Difference { difference: new - old, low, high, effect_size: None };
    let number =
        Number { step: "requests", measure: "failed", unit: "part", more_is_better: false };
    (old > 0.0 || new > 0.0).then(|| judged(&number, old, new, Some(difference), None))
}

fn interval(mut drawn: Vec<f64>) -> (f64, f64) {
    drawn.sort_by(f64::total_cmp);
    let tail = ((1.0 - CONFIDENCE) / 2.0 * drawn.len() as f64) as usize;
    (drawn[tail], drawn[drawn.len() - 1 - tail])
}

/// A piece of a run, or several together: how many values lie up to each place of the grid, above the one before.
#[derive(Clone, Debug, Default)]
struct Piece {
    counts: Vec<u32>,
    count: u64,
    /// In microseconds.
    sum: u64,
}

#[derive(Debug)]
struct Run {
    pieces: Vec<Piece>,
}

impl Run {
    fn of(run: &RunRecords, of: Of, grid: &[u32]) -> Self {
        let length = run.requests.len().div_ceil(PIECES).max(1);
        let piece = |requests: &[Times]| {
            let mut piece = Piece { counts: vec![0; grid.len()], ..Piece::default() };
            for value in requests.iter().filter_map(of) {
                let place = grid.partition_point(|&place| place < value).min(grid.len() - 1);
                piece.counts[place] += 1;
                piece.count += 1;
                piece.sum += u64::from(value);
            }
            piece
        };
        Self { pieces: run.requests.chunks(length).map(piece).collect() }
    }
}

impl Piece {
    fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        self.count += other.count;
        self.sum += other.sum;
    }

    /// In nanoseconds.
    fn mean(&self) -> Option<f64> {
        (self.sum > 0).then(|| self.sum as f64 * 1e3 / self.count as f64)
    }

    /// In nanoseconds; none if so few values cannot tell it with 95 % confidence.
    fn quantile(&self, q: f64, grid: &[u32]) -> Option<f64> {
        let least = ((1.0 - CONFIDENCE).ln() / q.ln()).ceil();
        if (self.count as f64) < least {
            return None;
        }
        let wanted = (q * self.count as f64).ceil() as u64;
        let mut seen = 0;
        let place = self.counts.iter().position(|&count| {
            seen += u64::from(count);
            seen >= wanted
        })?;
        (grid[place] > 0).then(|| f64::from(grid[place]) * 1e3)
    }
}

/// Values at which distributions are known, in order, the greatest one included.
fn grid<'a>(runs: impl Iterator<Item = &'a RunRecords>, of: Of) -> Vec<u32> {
    let mut values: Vec<u32> = runs.flat_map(|run| &run.requests).filter_map(of).collect();
    values.sort_unstable();
    let count = values.len();
    if count > 2 * PLACES {
        let even = (1..=PLACES).map(|nth| values[nth * count / PLACES - 1]);
        let greatest = values[count - PLACES..].iter().copied();
        values = even.chain(greatest).collect();
        values.sort_unstable();
    }
    values.dedup();
    if values.is_empty() { vec![0] } else { values }
}

fn all(runs: &[Run], grid: &[u32]) -> Piece {
    let mut sum = Piece { counts: vec![0; grid.len()], ..Piece::default() };
    runs.iter().flat_map(|run| &run.pieces).for_each(|piece| sum.add(piece));
    sum
}

fn draw_from(runs: &[Run], grid: &[u32], luck: &mut Stream) -> Piece {
    let mut sum = Piece { counts: vec![0; grid.len()], ..Piece::default() };
    for _ in runs {
        let run = &runs[luck.below(runs.len() as u64) as usize];
        for _ in &run.pieces {
            sum.add(&run.pieces[luck.below(run.pieces.len() as u64) as usize]);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use gatewright_determinism::Time;

    use super::*;
    use crate::Change;

    /// Exponential times with a mean in milliseconds; every `fails`th request fails.
    fn run(seed: u64, mean: f64, count: u64, fails: u64) -> RunRecords {
        let mut run = RunRecords::default();
        for id in 0..count {
            let luck = Stream::new(seed, Purpose::Content, id).unit();
            let took = (-(1.0 - luck).ln() * mean * 1e6) as u64;
            let sent = Time::from_nanos(id * 1_000_000);
            let status = if id % fails == fails - 1 { Status::Error } else { Status::Ok };
            run.add(&Invocation {
                id,
                scheduled: Some(sent),
                sent: Some(sent),
                first_byte: Some(sent.plus_nanos(took / 2)),
                finished: Some(sent.plus_nanos(took)),
                status,
                ..Invocation::default()
            });
        }
        run
    }

    fn row<'a>(rows: &'a [ComparisonRow], measure: &str) -> &'a ComparisonRow {
        rows.iter().find(|row| row.measure == measure).unwrap()
    }

    #[test]
    fn a_slower_server_is_found_and_the_same_one_is_not() {
        let before = run(1, 10.0, 4_000, 1_000_000);
        let rows = compare_records(&[before.clone()], &[run(2, 12.0, 4_000, 20)]);
        for measure in ["response mean", "response p50", "service p99", "first byte p90"] {
            let row = row(&rows, measure);
            assert_eq!(row.verdict, Change::Worse, "{row:?}");
            let (low, high) = (row.low.unwrap(), row.high.unwrap());
            assert!(low < 0.2 && high > 0.2 && high - low < 0.5, "{row:?}");
        }
        let exact = 10.0 * 2f64.ln() * 1e6;
        assert!((row(&rows, "response p50").before / exact - 1.0).abs() < 0.05, "{rows:?}");
        let failures = row(&rows, "failed");
        assert_eq!((failures.verdict, failures.before), (Change::Worse, 0.0));
        assert!((failures.difference - 0.05).abs() < 0.001, "{failures:?}");
        let same = compare_records(&[before], &[run(3, 10.0, 4_000, 1_000_000)]);
        assert!(same.iter().all(|row| row.verdict == Change::NoDifferenceShown), "{same:?}");
        assert!(same.iter().all(|row| row.measure != "failed"));
    }

    #[test]
    fn intervals_hold_the_truth_as_often_as_they_say() {
        let hits = (0..60).filter(|nth| {
            let rows = compare_records(
                &[run(1_000 + nth, 10.0, 400, 1_000_000)],
                &[run(2_000 + nth, 10.0, 400, 1_000_000)],
            );
            row(&rows, "response p50").verdict == Change::NoDifferenceShown
        });
        // 57 of 60 are expected.
        assert!(hits.count() >= 51);
    }

    #[test]
    fn runs_that_differ_from_one_another_are_less_sure() {
        let runs = |means: [f64; 3], seed| {
            means.map(|mean| run(seed + mean as u64, mean, 1_000, 1_000_000))
        };
        let width = |before: [f64; 3], after: [f64; 3]| {
            let rows = compare_records(&runs(before, 1), &runs(after, 100));
            let row = row(&rows, "response p50");
            row.high.unwrap() - row.low.unwrap()
        };
        assert!(
            width([8.0, 10.0, 12.0], [8.0, 10.0, 12.0])
                > 1.5 * width([10.0, 10.0, 10.0], [10.0, 10.0, 10.0])
        );
        let few = compare_records(&[run(1, 10.0, 40, 100)], &[run(2, 10.0, 40, 100)]);
        assert!(few.iter().all(|row| !row.measure.ends_with("p99")), "{few:?}");
        assert!(compare_records(&[RunRecords::default()], &[RunRecords::default()]).is_empty());
    }
}
