use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ProfileError, StepResult, check, open};
use crate::{Gaps, Strategy};

/// One request at a time, then as much as the server can do, then rates in between.
///
/// The rates are not evenly spaced: each next one halves the longest piece of the curve of response time (on a
/// logarithmic scale) over rate, so that most of them lie where the curve bends. A rate at which the server fell
/// behind is the end of the curve, wherever the second step put it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sweep {
    /// Steps in all: 3 to 1,000.
    #[schemars(range(min = 3, max = 1000))]
    pub size: u32,
    /// How gaps vary in the steps with a rate.
    pub gaps: Gaps,
    /// Requests in flight at most in the second step.
    pub max_concurrency: u32,
}

impl Default for Sweep {
    fn default() -> Self {
        Self { size: 10, gaps: Gaps::Poisson, max_concurrency: 512 }
    }
}

impl Sweep {
    pub(super) fn check(&self) -> Result<(), ProfileError> {
        let streams = f64::from(self.max_concurrency);
        check("sweep", "size", f64::from(self.size), (3.0, 1e3), "3 to 1000")?;
        check("sweep", "max_concurrency", streams, (1.0, 1e6), "1 to 1000000")?;
        Ok(open(1.0, self.gaps).check()?)
    }
}

/// A point of the curve.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    rate: f64,
    /// Logarithm of the mean response time.
    height: f64,
}

#[derive(Debug)]
pub(super) struct Run {
    sweep: Sweep,
    steps: u32,
    /// Rates at which the server kept up, in order.
    curve: Vec<Point>,
    /// The lowest rate known, or thought, to be too much.
    ceiling: f64,
    rate: f64,
}

/// The lowest rate, as a part of the ceiling: below it a response takes as long as alone.
const FLOOR: f64 = 0.1;
/// The server kept up at this part of the ceiling, if it is right.
const NEAR: f64 = 0.9;

impl Run {
    pub(super) const fn new(sweep: Sweep) -> Self {
        Self { sweep, steps: 0, curve: Vec::new(), ceiling: 0.0, rate: 0.0 }
    }

    pub(super) fn next_step(&mut self, last: Option<&StepResult>) -> Option<Strategy> {
        match (self.steps, last) {
            (0, _) | (_, None) => {}
            (1, Some(alone)) => self.curve.push(Point { rate: alone.rate, height: height(alone) }),
            (2, Some(most)) => {
                self.ceiling = most.rate;
                // One request at a time is already much for a server that does one at a time; at a low rate, a
                // request is alone as well.
                let alone = &mut self.curve[0];
                alone.rate = alone.rate.min(FLOOR * most.rate);
            }
            (_, Some(last)) if last.overloaded => self.ceiling = self.ceiling.min(self.rate),
            (_, Some(last)) => {
                let at = self.curve.partition_point(|point| point.rate < self.rate);
                self.curve.insert(at, Point { rate: self.rate, height: height(last) });
            }
        }
        if self.steps >= self.sweep.size {
            return None;
        }
        self.steps += 1;
        match self.steps {
            1 => Some(Strategy::Synchronous),
            2 => Some(Strategy::Throughput { max_concurrency: self.sweep.max_concurrency }),
            _ => {
                self.rate = self.choose()?;
                Some(open(self.rate, self.sweep.gaps))
            }
        }
    }

    fn choose(&self) -> Option<f64> {
        let (first, last) = (self.curve.first()?, self.curve.last()?);
        if !(self.ceiling > first.rate && first.rate > 0.0) {
            return None;
        }
        if self.steps == 3 {
            return Some(NEAR * self.ceiling);
        }
        // Beyond the last point the curve goes to the ceiling; how high is not known, so it counts as one more
        // doubling.
        let end = Point { rate: self.ceiling, height: last.height + std::f64::consts::LN_2 };
        let (width, rise) = (end.rate - first.rate, (end.height - first.height).max(1e-9));
        let length = |a: &Point, b: &Point| {
            let (x, y) = ((b.rate - a.rate) / width, (b.height - a.height) / rise);
            (x * x + y * y).sqrt()
        };
        let ends = self.curve.iter().skip(1).chain(std::iter::once(&end));
        let longest = self
            .curve
            .iter()
            .zip(ends)
            .max_by(|(a, b), (c, d)| length(a, b).total_cmp(&length(c, d)))?;
        Some(0.5 * (longest.0.rate + longest.1.rate))
    }
}

fn height(result: &StepResult) -> f64 {
    libm::log(result.mean_response.max(1e-9))
}
