use std::collections::BTreeSet;
use std::io::BufRead;
use std::sync::Arc;
use std::time::Duration;

use gatewright_determinism::Time;

use super::lines::{Lines, column, number, real, within_a_century, wrong};
use super::{TraceError, TraceProblem, TraceRequest};

/// The Azure LLM inference trace of 2023 (Patel et al., "Splitwise", ISCA 2024). Moments count from its first
/// request.
#[derive(Debug)]
pub(super) struct Llm<R> {
    lines: Lines<R>,
    first: Option<u64>,
    last: u64,
}

impl<R: BufRead> Llm<R> {
    pub(super) const fn new(lines: Lines<R>) -> Self {
        Self { lines, first: None, last: 0 }
    }

    pub(super) fn next(&mut self) -> Option<Result<TraceRequest, TraceError>> {
        let parsed = match self.lines.next_line() {
            Err(error) => return Some(Err(error)),
            Ok(None) => return None,
            Ok(Some(line)) => parse_llm(line),
        };
        let parsed = parsed.and_then(|(nanos, tokens_in, tokens_out)| {
            let first = *self.first.get_or_insert(nanos);
            if nanos < self.last {
                return Err(TraceProblem::Disorder);
            }
            self.last = nanos;
            Ok(TraceRequest {
                at: within_a_century(Time::from_nanos(nanos - first))?,
                tokens_in: Some(tokens_in),
                tokens_out: Some(tokens_out),
                ..TraceRequest::default()
            })
        });
        Some(parsed.map_err(|problem| self.lines.error(problem)))
    }
}

fn parse_llm(line: &str) -> Result<(u64, u32, u32), TraceProblem> {
    let mut columns = line.split(',');
    let text = column(&mut columns, "TIMESTAMP")?;
    let nanos = unix_nanos(text)
        .ok_or_else(|| wrong("TIMESTAMP", text, "a moment such as 2023-11-16 18:15:46.6805900"))?;
    let tokens_in = number(&mut columns, "ContextTokens")?;
    Ok((nanos, tokens_in, number(&mut columns, "GeneratedTokens")?))
}

/// Nanoseconds since 1970 of `year-month-day hour:minute:second[.fraction]`.
fn unix_nanos(text: &str) -> Option<u64> {
    let (date, time) = text.split_once([' ', 'T'])?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut time = time.splitn(3, ':').map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    let in_range = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 61;
    if !in_range || fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let fraction = format!("{fraction:0<9}").parse::<u64>().ok()?;
    // Days of the civil calendar, the year taken to begin in March (Hinnant, "chrono-compatible low-level date
    // algorithms", 2013).
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    seconds.checked_mul(1_000_000_000)?.checked_add(fraction)
}

/// The Azure Functions trace of 2021 (Zhang et al., SOSP 2021): invocations by their end and duration.
#[derive(Debug)]
pub(super) struct Functions<R> {
    lines: Lines<R>,
    /// Each name once.
    names: BTreeSet<Arc<str>>,
}

const MAX_NAMES: usize = 1_000_000;

impl<R: BufRead> Functions<R> {
    pub(super) const fn new(lines: Lines<R>) -> Self {
        Self { lines, names: BTreeSet::new() }
    }

    pub(super) const fn error(&self, problem: TraceProblem) -> TraceError {
        self.lines.error(problem)
    }

    pub(super) fn next(&mut self) -> Option<Result<TraceRequest, TraceError>> {
        let parsed = match self.lines.next_line() {
            Err(error) => return Some(Err(error)),
            Ok(None) => return None,
            Ok(Some(line)) => parse_invocation(line, &mut self.names),
        };
        Some(parsed.map_err(|problem| self.lines.error(problem)))
    }
}

fn parse_invocation(
    line: &str,
    names: &mut BTreeSet<Arc<str>>,
) -> Result<TraceRequest, TraceProblem> {
    let mut columns = line.split(',');
    column(&mut columns, "app")?;
    let name = column(&mut columns, "func")?;
    let end = real(&mut columns, "end_timestamp")?;
    let duration = real(&mut columns, "duration")?;
    if !(0.0..=1e9).contains(&duration) {
        return Err(wrong("duration", &duration.to_string(), "a number of seconds from 0 on"));
    }
    let function = match names.get(name) {
        Some(known) => Arc::clone(known),
        None if names.len() >= MAX_NAMES => {
            return Err(TraceProblem::TooMuch("a million functions"));
        }
        None => {
            let name: Arc<str> = name.into();
            names.insert(Arc::clone(&name));
            name
        }
    };
    Ok(TraceRequest {
        // What was running when the trace begins came at its beginning.
        at: within_a_century(Time::from_secs_f64(end - duration))?,
        function: Some(function),
        duration: Some(Duration::from_secs_f64(duration)),
        ..TraceRequest::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_the_calendar_are_counted_right() {
        let table = [
            ("1970-01-01 00:00:00", 0),
            ("2000-02-29 23:59:59.5", 951_868_799_500_000_000),
            ("2023-11-16 18:15:46.6805900", 1_700_158_546_680_590_000),
            ("2024-03-01T00:00:00", 1_709_251_200_000_000_000),
        ];
        for (text, nanos) in table {
            assert_eq!(unix_nanos(text), Some(nanos), "{text}");
        }
        for text in ["", "2023-11-16", "2023-13-01 00:00:00", "2023-01-01 24:00:00", "x-y-z 1:2:3"]
        {
            assert_eq!(unix_nanos(text), None, "{text}");
        }
    }
}
