use std::fmt;
use std::time::Duration;

use gatewright_record::LatencyHistogram;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether a run measured the server or the load generator.
///
/// It is generator-limited by any of these rules:
///
/// 1. Half of the requests were noticed more than 1 ms and a tenth of the median response time after their
///    moment, or one in a hundred more than 10 ms and a tenth of the 99 % quantile.
/// 2. More than 5 % of the requests were noticed only after the end of the schedule.
/// 3. A thread was on a processor for more than 95 % of the run, or on one or waiting for one for more than 98 %
///    (in a run of at least 0.1 s; a shorter one tells nothing of this).
///
/// What counts in 1 and 2 is when the engine *noticed* that a request was due. A request that then waits
/// because the server keeps all connections busy is late too, but by the server's doing: a server that stands
/// still does not make a run generator-limited, and [`Outcome::waited`](crate::Outcome::waited) says if more connections would
/// have been used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The numbers are the server's.
    Valid,
    /// The numbers are, at least in part, the generator's own.
    GeneratorLimited {
        /// Which rule says so, with its numbers, and what to do.
        why: String,
    },
}

/// What a verdict is based on.
#[derive(Debug)]
pub(crate) struct Evidence<'a> {
    pub(crate) noticing: &'a LatencyHistogram,
    pub(crate) after_end: u64,
    pub(crate) response_time: &'a LatencyHistogram,
    pub(crate) busy: f64,
    pub(crate) starved: f64,
    pub(crate) elapsed: Duration,
}

const MEDIAN_LATE: u64 = 1_000_000;
const TAIL_LATE: u64 = 10_000_000;
const NOTICEABLE: f64 = 0.1;
const UNNOTICED: f64 = 0.05;
const SATURATED: f64 = 0.95;
const SATURATED_OR_STARVED: f64 = 0.98;
const TELLING: Duration = Duration::from_millis(100);

impl Verdict {
    /// Whether the numbers are the server's.
    #[must_use]
    pub const fn is_valid(&self) -> bool {
        matches!(self, Self::Valid)
    }

    pub(crate) fn of(evidence: &Evidence<'_>) -> Self {
        let limited = |why| Self::GeneratorLimited { why };
        let (late, response) = (evidence.noticing, evidence.response_time);
        for (q, name, bound) in [(0.5, "median", MEDIAN_LATE), (0.99, "p99", TAIL_LATE)] {
            let Some(delay) = late.quantile(q) else { continue };
            let noticeable = response.quantile_of_any(q) as f64 * NOTICEABLE;
            if delay > bound && delay as f64 > noticeable {
                return limited(format!(
                    "requests were noticed late, {name} {:?}; use more threads, a lower rate, or a machine \
                     with less other work",
                    Duration::from_micros(delay / 1_000)
                ));
            }
        }
        let part = evidence.after_end as f64 / late.count().max(1) as f64;
        if part > UNNOTICED {
            return limited(format!(
                "{:.0} % of the requests were noticed only after the end; use more threads or a lower rate",
                part * 100.0
            ));
        }
        if evidence.elapsed < TELLING {
            return Self::Valid;
        }
        let (busy, starved) = (evidence.busy, evidence.starved);
        if busy > SATURATED {
            return limited(format!(
                "a thread of the load generator was busy for {:.0} % of the time; use more threads or less load",
                busy * 100.0
            ));
        }
        if busy + starved > SATURATED_OR_STARVED {
            return limited(format!(
                "a thread of the load generator was busy for {:.0} % of the time and waited for a processor in the \
                 rest; use less load, or a machine with less other work",
                busy * 100.0
            ));
        }
        Self::Valid
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Valid => write!(f, "valid"),
            Self::GeneratorLimited { why } => write!(f, "generator-limited: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(nanos: impl IntoIterator<Item = u64>) -> LatencyHistogram {
        let mut histogram = LatencyHistogram::new();
        nanos.into_iter().for_each(|nanos| histogram.record(nanos));
        histogram
    }

    fn verdict(late: &LatencyHistogram, after_end: u64, response: u64, busy: f64) -> Verdict {
        let response_time = times(std::iter::repeat_n(response, 1_000));
        let evidence = Evidence {
            noticing: late,
            after_end,
            response_time: &response_time,
            busy,
            starved: 0.04,
            elapsed: TELLING,
        };
        Verdict::of(&evidence)
    }

    #[test]
    fn a_punctual_run_is_valid() {
        let late = times(std::iter::repeat_n(50_000, 1_000));
        assert!(verdict(&late, 0, 100_000, 0.5).is_valid());
        assert!(verdict(&times([]), 0, 100_000, 0.93).is_valid(), "a closed loop has no lateness");
    }

    #[test]
    fn what_limits_a_run_is_said() {
        let (millisecond, response) = (1_000_000, 1_000_000);
        let cases = [
            (times(std::iter::repeat_n(2 * millisecond, 1_000)), 0, 0.5, "noticed late, median 2"),
            (
                times((0..1_000).map(|i| if i < 50 { 20 * millisecond } else { 0 })),
                0,
                0.5,
                "late, p99 20",
            ),
            (times(std::iter::repeat_n(0, 1_000)), 60, 0.5, "6 % of the requests"),
            (times([]), 0, 0.97, "busy for 97 %"),
            (times([]), 0, 0.945, "and waited for a processor"),
        ];
        for (late, after_end, busy, part) in cases {
            let verdict = verdict(&late, after_end, response, busy);
            assert!(verdict.to_string().contains(part), "{verdict}");
        }
    }

    #[test]
    fn lateness_that_does_not_show_in_the_response_time_is_forgiven() {
        let late = times(std::iter::repeat_n(15_000_000, 1_000));
        assert!(verdict(&late, 0, 250_000_000, 0.5).is_valid());
        assert!(!verdict(&late, 0, 100_000_000, 0.5).is_valid());
    }
}
