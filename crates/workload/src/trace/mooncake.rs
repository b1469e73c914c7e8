use std::io::BufRead;

use gatewright_determinism::Time;
use serde::Deserialize;

use super::lines::{Lines, within_a_century, wrong};
use super::{TraceError, TraceProblem, TraceRequest};

/// A Mooncake trace (Qin et al., FAST 2025).
#[derive(Debug)]
pub(super) struct Mooncake<R> {
    lines: Lines<R>,
    /// The line that told the format.
    first: Option<String>,
    last: Time,
}

#[derive(Deserialize)]
struct Line {
    timestamp: f64,
    input_length: u32,
    output_length: u32,
    #[serde(default)]
    hash_ids: Vec<u64>,
}

impl<R: BufRead> Mooncake<R> {
    pub(super) const fn new(lines: Lines<R>, first: String) -> Self {
        Self { lines, first: Some(first), last: Time::ZERO }
    }

    pub(super) fn next(&mut self) -> Option<Result<TraceRequest, TraceError>> {
        let parsed = match self.first.take() {
            Some(line) => parse(&line),
            None => match self.lines.next_line() {
                Err(error) => return Some(Err(error)),
                Ok(None) => return None,
                Ok(Some(line)) => parse(line),
            },
        };
        let in_order = parsed.and_then(|request| {
            if request.at < self.last {
                return Err(TraceProblem::Disorder);
            }
            self.last = request.at;
            Ok(request)
        });
        Some(in_order.map_err(|problem| self.lines.error(problem)))
    }
}

fn parse(line: &str) -> Result<TraceRequest, TraceProblem> {
    let line: Line = serde_json::from_str(line)?;
    if line.timestamp < 0.0 {
        let text = line.timestamp.to_string();
        return Err(wrong("timestamp", &text, "a number of milliseconds from 0 on"));
    }
    Ok(TraceRequest {
        at: within_a_century(Time::from_secs_f64(line.timestamp / 1e3))?,
        tokens_in: Some(line.input_length),
        tokens_out: Some(line.output_length),
        blocks: line.hash_ids,
        ..TraceRequest::default()
    })
}
