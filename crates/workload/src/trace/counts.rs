use std::collections::BTreeMap;
use std::io::BufRead;
use std::sync::Arc;
use std::time::Duration;

use gatewright_determinism::{Purpose, Stream, Time};

use super::lines::{Lines, column, number, real, within_a_century};
use super::{TraceError, TraceProblem, TraceRequest};

const MINUTE: u64 = 60_000_000_000;
/// Counts that are not zero, 16 bytes each.
const MAX_COUNTS: usize = 50_000_000;
const MAX_FUNCTIONS: u32 = 1_000_000;
/// Invocations in one minute of all functions.
const MAX_IN_MINUTE: u64 = 50_000_000;

/// A trace that tells how often each function was called in each minute. Where in the minute is drawn: given
/// their number, the arrivals of a Poisson process are uniformly distributed.
#[derive(Debug)]
pub(super) struct PerMinute {
    functions: Vec<Arc<str>>,
    /// By minute, then in the order of the trace.
    counts: std::vec::IntoIter<Count>,
    /// The first count of the next minute.
    next: Option<Count>,
    seed: u64,
    /// Requests of the current minute, the last one first.
    minute: Vec<(Time, u32, Option<Duration>)>,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    minute: u32,
    function: u32,
    count: u32,
    /// Mean duration in milliseconds; not a number if it is not told.
    duration_ms: f32,
}

/// Counts as they are read.
#[derive(Default)]
struct Gathered {
    functions: BTreeMap<Arc<str>, u32>,
    names: Vec<Arc<str>>,
    counts: Vec<Count>,
}

impl Gathered {
    fn function(&mut self, name: &str) -> Result<u32, TraceProblem> {
        if let Some(&known) = self.functions.get(name) {
            return Ok(known);
        }
        let number = self.names.len() as u32;
        if number >= MAX_FUNCTIONS {
            return Err(TraceProblem::TooMuch("a million functions"));
        }
        let name: Arc<str> = name.into();
        self.functions.insert(Arc::clone(&name), number);
        self.names.push(name);
        Ok(number)
    }

    fn add(&mut self, count: Count) -> Result<(), TraceProblem> {
        if count.count == 0 {
            return Ok(());
        }
        if self.counts.len() >= MAX_COUNTS {
            return Err(TraceProblem::TooMuch("50 million minutes with invocations"));
        }
        self.counts.push(count);
        Ok(())
    }

    fn into_requests(mut self, seed: u64) -> Result<PerMinute, TraceProblem> {
        // Stable, so the order inside of a minute is that of the trace.
        self.counts.sort_by_key(|count| count.minute);
        let mut in_minute = 0;
        let mut last = None;
        for count in &self.counts {
            in_minute = if last == Some(count.minute) { in_minute } else { 0 };
            in_minute += u64::from(count.count);
            last = Some(count.minute);
            if in_minute > MAX_IN_MINUTE {
                return Err(TraceProblem::TooMuch("50 million invocations in a minute"));
            }
        }
        let mut counts = self.counts.into_iter();
        let next = counts.next();
        Ok(PerMinute { functions: self.names, counts, next, seed, minute: Vec::new() })
    }
}

pub(super) fn read_azure<R: BufRead>(
    mut lines: Lines<R>,
    seed: u64,
) -> Result<PerMinute, TraceError> {
    let mut gathered = Gathered::default();
    loop {
        let row = match lines.next_line()? {
            None => break,
            Some(line) => azure_row(line, &mut gathered),
        };
        row.map_err(|problem| lines.error(problem))?;
    }
    gathered.into_requests(seed).map_err(|problem| lines.error(problem))
}

fn azure_row(line: &str, gathered: &mut Gathered) -> Result<(), TraceProblem> {
    let mut columns = line.split(',');
    column(&mut columns, "HashOwner")?;
    column(&mut columns, "HashApp")?;
    let function = gathered.function(column(&mut columns, "HashFunction")?)?;
    column(&mut columns, "Trigger")?;
    let mut minute = 0;
    let mut columns = columns.peekable();
    while columns.peek().is_some() {
        let count = number(&mut columns, "count of a minute")?;
        gathered.add(Count { minute, function, count, duration_ms: f32::NAN })?;
        minute += 1;
    }
    Ok(())
}

pub(super) fn read_opendc<R: BufRead>(
    mut lines: Lines<R>,
    seed: u64,
) -> Result<PerMinute, TraceError> {
    let mut gathered = Gathered::default();
    let mut first = None;
    loop {
        let row = match lines.next_line()? {
            None => break,
            Some(line) => opendc_row(line, &mut first, &mut gathered),
        };
        row.map_err(|problem| lines.error(problem))?;
    }
    gathered.into_requests(seed).map_err(|problem| lines.error(problem))
}

/// `first`: the minute of the trace's first row, from which the others count.
fn opendc_row(
    line: &str,
    first: &mut Option<u64>,
    gathered: &mut Gathered,
) -> Result<(), TraceProblem> {
    let mut columns = line.split(',');
    let millis: u64 = number(&mut columns, "Timestamp [ms]")?;
    let count = number(&mut columns, "Invocations")?;
    let duration_ms = real(&mut columns, "Avg Exec time per Invocation")? as f32;
    let function = gathered.function(column(&mut columns.skip(4), "name")?)?;
    let minute = millis / 60_000;
    let since = minute.checked_sub(*first.get_or_insert(minute)).ok_or(TraceProblem::Disorder)?;
    within_a_century(Time::from_nanos(since.saturating_mul(MINUTE)))?;
    let minute = u32::try_from(since).map_err(|_| TraceProblem::Late)?;
    gathered.add(Count { minute, function, count, duration_ms })
}

impl PerMinute {
    pub(super) fn next(&mut self) -> Option<TraceRequest> {
        if self.minute.is_empty() {
            self.fill();
        }
        let (at, function, duration) = self.minute.pop()?;
        let function = self.functions.get(function as usize).cloned();
        Some(TraceRequest { at, function, duration, ..TraceRequest::default() })
    }

    /// Draws the moments of the next minute that has any.
    fn fill(&mut self) {
        let Some(first) = self.next else { return };
        let start = u64::from(first.minute) * MINUTE;
        while let Some(count) = self.next.filter(|count| count.minute == first.minute) {
            let id = u64::from(count.minute) << 32 | u64::from(count.function);
            let mut luck = Stream::new(self.seed, Purpose::Arrival, id);
            let millis = f64::from(count.duration_ms);
            let known = (0.0..1e12).contains(&millis);
            let duration = known.then(|| Duration::from_secs_f64(millis / 1e3));
            for _ in 0..count.count {
                let at = Time::from_nanos(start + luck.below(MINUTE));
                self.minute.push((at, count.function, duration));
            }
            self.next = self.counts.next();
        }
        self.minute.sort_unstable_by_key(|&(at, function, _)| std::cmp::Reverse((at, function)));
    }
}
