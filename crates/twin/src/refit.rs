use gatewright_determinism::{Purpose, Stream, Time};
use gatewright_record::Invocation;
use gatewright_sim::Model;

use crate::{CalibrateError, CalibrateOptions, RecordedRun, calibrate};

/// Length of the pieces of time that are drawn together: requests of one busy period are alike, and drawing them
/// one by one would make the model look surer than it is (Künsch 1989).
const BLOCK: u64 = 2_000_000_000;

/// Models fitted to `count` resamples of the records, by the moving-block bootstrap over pieces of two seconds (a
/// tenth of the run, if it is short): what the records leave open is how these differ.
///
/// # Errors
/// As [`calibrate`]; a resample that lacks what the records have is drawn again a few times first.
pub fn refits(
    runs: &[RecordedRun],
    options: &CalibrateOptions,
    count: u32,
    seed: u64,
) -> Result<Vec<Model>, CalibrateError> {
    const TRIES: u64 = 10;
    let one = |number: u64| {
        let mut last = Err(CalibrateError::NoRecords);
        for attempt in 0..TRIES {
            let mut luck = Stream::new(seed, Purpose::Resample, number * TRIES + attempt);
            let resampled: Vec<_> = runs.iter().map(|run| resample(run, &mut luck)).collect();
            last = calibrate(&resampled, options);
            if last.is_ok() {
                break;
            }
        }
        last
    };
    (0..u64::from(count)).map(one).collect()
}

/// A run of the same length made of blocks of this one.
fn resample(run: &RecordedRun, luck: &mut Stream) -> RecordedRun {
    let mut ordered: Vec<&Invocation> = run.records.iter().collect();
    ordered.sort_by_key(|record| (begin(record), record.id));
    let (Some(first), Some(last)) = (ordered.first(), ordered.last()) else { return run.clone() };
    let (first, last) = (begin(first), begin(last));
    let span = last.nanos_since(first) + 1;
    let block = BLOCK.min(span.div_ceil(10));
    let blocks = span.div_ceil(block);
    let mut records = Vec::with_capacity(run.records.len());
    for place in 0..blocks {
        let from = first.plus_nanos(luck.below(span - block + 1));
        let to = from.plus_nanos(block.min(span - place * block));
        let head = ordered.partition_point(|record| begin(record) < from);
        let tail = ordered.partition_point(|record| begin(record) < to);
        let shift = first.plus_nanos(place * block);
        records.extend(ordered[head..tail].iter().map(|record| moved(record, from, shift)));
    }
    RecordedRun { records, ..run.clone() }
}

fn begin(record: &Invocation) -> Time {
    record.scheduled.or(record.sent).or(record.received).unwrap_or_default()
}

/// The record as if what was at `from` had been at `to`.
fn moved(record: &Invocation, from: Time, to: Time) -> Invocation {
    let shift = |moment: Option<Time>| moment.map(|moment| to.plus_nanos(moment.nanos_since(from)));
    Invocation {
        scheduled: shift(record.scheduled),
        sent: shift(record.sent),
        received: shift(record.received),
        queued_out: shift(record.queued_out),
        started: shift(record.started),
        first_byte: shift(record.first_byte),
        finished: shift(record.finished),
        ..record.clone()
    }
}
