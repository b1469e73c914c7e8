use std::io::BufRead;

use gatewright_determinism::Time;

use super::{TraceError, TraceProblem};

/// Longer lines are no traces: a day of counts for one function has about 10 kB, a prompt of a million tokens in
/// blocks as much.
const MAX_LINE: usize = 1 << 20;

/// Lines of a text, one after the other in the same memory.
#[derive(Debug)]
pub(super) struct Lines<R> {
    input: R,
    buffer: Vec<u8>,
    /// Number of the line that was read last, from 1.
    number: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) const fn new(input: R) -> Self {
        Self { input, buffer: Vec::new(), number: 0 }
    }

    /// The next line that is not empty, without its end.
    pub(super) fn next_line(&mut self) -> Result<Option<&str>, TraceError> {
        loop {
            self.buffer.clear();
            self.number += 1;
            let mut bounded = std::io::Read::take(&mut self.input, MAX_LINE as u64 + 1);
            let read = bounded.read_until(b'\n', &mut self.buffer);
            match read {
                Err(error) => return Err(self.error(error.into())),
                Ok(0) => return Ok(None),
                Ok(count) if count > MAX_LINE => {
                    return Err(self.error(TraceProblem::TooLong(MAX_LINE)));
                }
                Ok(_) if self.buffer.trim_ascii().is_empty() => {}
                Ok(_) => break,
            }
        }
        match std::str::from_utf8(self.buffer.trim_ascii_end()) {
            // A byte order mark is no part of the first column.
            Ok(line) => Ok(Some(line.trim_start_matches('\u{feff}'))),
            Err(_) => Err(self.error(TraceProblem::NotText)),
        }
    }

    /// Something is wrong with the line that was read last.
    pub(super) const fn error(&self, problem: TraceProblem) -> TraceError {
        TraceError { line: self.number, problem }
    }
}

/// A century in nanoseconds.
const CENTURY: u64 = 36_525 * 86_400 * 1_000_000_000;

/// A moment of a trace, from its beginning.
pub(super) fn within_a_century(at: Time) -> Result<Time, TraceProblem> {
    if at <= Time::from_nanos(CENTURY) { Ok(at) } else { Err(TraceProblem::Late) }
}

/// The next column of a line.
pub(super) fn column<'a>(
    columns: &mut impl Iterator<Item = &'a str>,
    name: &'static str,
) -> Result<&'a str, TraceProblem> {
    Ok(columns.next().ok_or(TraceProblem::Missing(name))?.trim())
}

/// The next column of a line, a number that is not negative.
pub(super) fn number<'a, T: std::str::FromStr>(
    columns: &mut impl Iterator<Item = &'a str>,
    name: &'static str,
) -> Result<T, TraceProblem> {
    let text = column(columns, name)?;
    text.parse().map_err(|_| wrong(name, text, "a whole number"))
}

/// The next column of a line, a finite number.
pub(super) fn real<'a>(
    columns: &mut impl Iterator<Item = &'a str>,
    name: &'static str,
) -> Result<f64, TraceProblem> {
    let text = column(columns, name)?;
    let value: Option<f64> = text.parse().ok().filter(|value: &f64| value.is_finite());
    value.ok_or_else(|| wrong(name, text, "a number"))
}

pub(super) fn wrong(column: &'static str, text: &str, wanted: &'static str) -> TraceProblem {
    TraceProblem::Column { column, text: text.chars().take(40).collect(), wanted }
}
