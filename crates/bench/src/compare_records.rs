//! Whether one server, or version, is faster than another, by the records of their requests.

use std::ops::Range;

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
const QUANTILES: [f64; 4] = [0.5, 0.9, 0.95, 0.99];

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
        let places = places(before.iter().chain(after), of);
        let (one, two) = (Side::of(before, of, &places), Side::of(after, of, &places));
        let drawn = drawn(&one, &two);
        let (old, new) = (one.told(&one.once()), two.told(&two.once()));
        for (nth, what) in ["mean", "p50", "p90", "p95", "p99"].iter().enumerate() {
            let Some((old, new)) = old[nth].zip(new[nth]) else { continue };
            let ratios = drawn.iter().map(|(one, two)| Some((two[nth]? / one[nth]?).ln()));
            let interval = ratios.collect::<Option<_>>().map(interval);
            let difference = (new / old).ln();
            let difference =
                interval.map(|(low, high)| Difference { difference, low, high, effect_size: None });
            let measure = &*format!("{name} {what}");
            let number = Number { step: "requests", measure, unit: "ns", more_is_better: false };
            rows.push(judged(&number, old * 1e3, new * 1e3, difference, None));
        }
    }
    rows.extend(failed(before, after));
    rows
}

fn failed(before: &[RunRecords], after: &[RunRecords]) -> Option<ComparisonRow> {
    // 0 or 1 for each request, drawn like the times.
    let of: Of = |times| Some(u32::from(times.response.is_none()));
    let (one, two) = (Side::of(before, of, &[0, 1]), Side::of(after, of, &[0, 1]));
    let part = |told: &Told| told[0].unwrap_or(0.0);
    let (old, new) = (part(&one.told(&one.once())), part(&two.told(&two.once())));
    let differences = drawn(&one, &two).iter().map(|(one, two)| part(two) - part(one)).collect();
    let (low, high) = interval(differences);
    let difference = Difference { difference: new - old, low, high, effect_size: None };
    let number =
        Number { step: "requests", measure: "failed", unit: "part", more_is_better: false };
    (old > 0.0 || new > 0.0).then(|| judged(&number, old, new, Some(difference), None))
}

/// Mean and quantiles of what was drawn; none where so few values cannot tell.
type Told = [Option<f64>; 1 + QUANTILES.len()];

fn drawn(one: &Side, two: &Side) -> Vec<(Told, Told)> {
    let draw = |draw| {
        let mut luck = Stream::new(SEED, Purpose::Resample, draw);
        (one.told(&one.drawn(&mut luck)), two.told(&two.drawn(&mut luck)))
    };
    (0..DRAWS).map(draw).collect()
}

fn interval(mut drawn: Vec<f64>) -> (f64, f64) {
    drawn.sort_by(f64::total_cmp);
    let tail = ((1.0 - CONFIDENCE) / 2.0 * drawn.len() as f64) as usize;
    (drawn[tail], drawn[drawn.len() - 1 - tail])
}

/// The runs of one side, in pieces.
#[derive(Debug)]
struct Side {
    /// How often a value is in a piece, by value.
    values: Vec<Counted>,
    /// Number of the values of each piece, and their sum.
    pieces: Vec<(u64, u64)>,
    /// Which pieces each run has.
    runs: Vec<Range<usize>>,
}

#[derive(Clone, Copy, Debug)]
struct Counted {
    value: u32,
    piece: u32,
    count: u32,
}

impl Side {
    fn of(runs: &[RunRecords], of: Of, places: &[u32]) -> Self {
        let mut side = Self { values: Vec::new(), pieces: Vec::new(), runs: Vec::new() };
        for run in runs {
            let first = side.pieces.len();
            let length = run.requests.len().div_ceil(PIECES).max(1);
            for requests in run.requests.chunks(length) {
                let piece = side.pieces.len() as u32;
                side.pieces.push((0, 0));
                let known = side.values.len();
                for value in requests.iter().filter_map(of) {
                    side.pieces[piece as usize].0 += 1;
                    side.pieces[piece as usize].1 += u64::from(value);
                    let place = places.partition_point(|&place| place < value);
                    let value = places[place.min(places.len() - 1)];
                    side.values.push(Counted { value, piece, count: 1 });
                }
                side.values[known..].sort_unstable_by_key(|counted| counted.value);
            }
            side.runs.push(first..side.pieces.len());
        }
        side.values.dedup_by(|next, kept| {
            let same = (next.value, next.piece) == (kept.value, kept.piece);
            kept.count += if same { next.count } else { 0 };
            same
        });
        side.values.sort_by_key(|counted| counted.value);
        side
    }

    /// Every piece once.
    fn once(&self) -> Vec<u32> {
        vec![1; self.pieces.len()]
    }

    /// How often each piece is drawn.
    fn drawn(&self, luck: &mut Stream) -> Vec<u32> {
        let mut times = vec![0; self.pieces.len()];
        for _ in &self.runs {
            let run = &self.runs[luck.below(self.runs.len() as u64) as usize];
            for _ in run.clone() {
                times[run.start + luck.below(run.len() as u64) as usize] += 1;
            }
        }
        times
    }

    /// `times`: how often each piece counts.
    fn told(&self, times: &[u32]) -> Told {
        let mut told = Told::default();
        let weighted = times.iter().zip(&self.pieces);
        let (count, sum) = weighted.fold((0, 0), |(count, sum), (&times, piece)| {
            (count + u64::from(times) * piece.0, sum + u64::from(times) * piece.1)
        });
        if count == 0 || sum == 0 {
            return told;
        }
        told[0] = Some(sum as f64 / count as f64);
        let least = |q: f64| ((1.0 - CONFIDENCE).ln() / q.ln()).ceil();
        let known = QUANTILES.iter().take_while(|&&q| count as f64 >= least(q));
        let mut wanted = known.map(|q| (q * count as f64).ceil() as u64).zip(1..).peekable();
        let mut seen = 0;
        for counted in &self.values {
            seen += u64::from(times[counted.piece as usize]) * u64::from(counted.count);
            while let Some((_, nth)) = wanted.next_if(|(wanted, _)| seen >= *wanted) {
                told[nth] = (counted.value > 0).then_some(f64::from(counted.value));
            }
        }
        told
    }
}

/// Values at which distributions are told, in order, the greatest one included.
fn places<'a>(runs: impl Iterator<Item = &'a RunRecords>, of: Of) -> Vec<u32> {
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
        let rows = compare_records(std::slice::from_ref(&before), &[run(2, 12.0, 4_000, 20)]);
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
