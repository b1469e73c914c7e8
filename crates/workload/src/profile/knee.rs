use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ProfileError, StepResult, check};
use crate::Strategy;

/// One step for each number of streams, and two straight lines through throughput over concurrency: where they
/// meet is the knee.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Knee {
    /// Numbers of streams, at least 5 of them, rising; none for `count` ones from `min_streams` to `max_streams`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<u32>,
    /// Smallest number of streams, without `streams`.
    #[serde(default = "one")]
    pub min_streams: u32,
    /// Largest number of streams, without `streams`.
    #[serde(default = "many")]
    pub max_streams: u32,
    /// How many numbers, geometrically spaced, without `streams`: at least 5.
    #[serde(default = "count")]
    pub count: u32,
    /// Whether more steps are made around a knee that was found.
    #[serde(default)]
    pub adaptive: bool,
    /// How many of them on each side.
    #[serde(default = "five")]
    pub points_each_side: u32,
    /// How far apart at most, in streams.
    #[serde(default = "five")]
    pub max_step: u32,
}

const fn one() -> u32 {
    1
}

const fn many() -> u32 {
    256
}

const fn count() -> u32 {
    9
}

const fn five() -> u32 {
    5
}

impl Default for Knee {
    fn default() -> Self {
        Self {
            streams: Vec::new(),
            min_streams: one(),
            max_streams: many(),
            count: count(),
            adaptive: false,
            points_each_side: five(),
            max_step: five(),
        }
    }
}

/// A knee that was found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KneeFit {
    /// Requests in flight at the knee.
    pub concurrency: f64,
    /// Throughput there: tokens of answers per second where they are known, else requests per second.
    pub throughput: f64,
    /// Slope behind the knee over the slope before it.
    pub slope_ratio: f64,
    /// Part of the squared error of one line that two lines take away.
    pub error_reduction: f64,
    /// Throughput at the breakpoint over the highest.
    pub peak_ratio: f64,
}

const MAX_SLOPE_RATIO: f64 = 0.25;
const MIN_ERROR_REDUCTION: f64 = 0.5;
const MIN_PEAK_RATIO: f64 = 0.85;

impl Knee {
    fn grid(&self) -> Vec<u32> {
        if !self.streams.is_empty() {
            return self.streams.clone();
        }
        let (low, high) = (f64::from(self.min_streams.max(1)), f64::from(self.max_streams));
        let steps = f64::from(self.count.max(2) - 1);
        let place = |i: u32| low * libm::pow(high / low, f64::from(i) / steps);
        let mut grid: Vec<u32> = (0..self.count).map(|i| libm::round(place(i)) as u32).collect();
        grid.dedup();
        grid
    }

    pub(super) fn check(&self) -> Result<(), ProfileError> {
        let profile = "knee";
        let grid = self.grid();
        let rises = grid.windows(2).all(|pair| pair[0] < pair[1]);
        let usable = if rises { grid.len() } else { 0 };
        check(profile, "number of rising streams", usable as f64, (5.0, 1e3), "5 to 1000")?;
        check(
            profile,
            "points_each_side",
            f64::from(self.points_each_side),
            (1.0, 1e2),
            "1 to 100",
        )?;
        check(profile, "max_step", f64::from(self.max_step), (1.0, 1e6), "1 to 1000000")?;
        let streams = |&streams: &u32| Strategy::Concurrent { streams }.check();
        Ok(grid.iter().try_for_each(streams)?)
    }
}

#[derive(Debug)]
pub(super) struct Run {
    knee: Knee,
    grid: std::vec::IntoIter<u32>,
    refined: bool,
    streams: u32,
    /// Streams, concurrency and throughput.
    points: Vec<(u32, f64, f64)>,
}

impl Run {
    pub(super) fn new(knee: &Knee) -> Self {
        let grid = knee.grid().into_iter();
        Self { knee: knee.clone(), grid, refined: false, streams: 0, points: Vec::new() }
    }

    pub(super) fn next_step(&mut self, last: Option<&StepResult>) -> Option<Strategy> {
        if let Some(last) = last {
            let throughput = last.output_tokens_rate.unwrap_or(last.rate);
            let at = self.points.partition_point(|point| point.0 < self.streams);
            self.points.insert(at, (self.streams, last.concurrency, throughput));
        }
        let next = self.grid.next().or_else(|| self.refine());
        self.streams = next?;
        Some(Strategy::Concurrent { streams: self.streams })
    }

    /// A second grid around the knee.
    fn refine(&mut self) -> Option<u32> {
        if self.refined || !self.knee.adaptive {
            return None;
        }
        self.refined = true;
        let middle = libm::round(self.fit()?.concurrency) as u32;
        let side = self.knee.points_each_side;
        let step = (middle / (2 * side)).clamp(1, self.knee.max_step);
        let range = (0..=2 * side).map(|i| (middle + i * step).saturating_sub(side * step));
        let known = |streams: &u32| self.points.iter().any(|point| point.0 == *streams);
        let grid: Vec<u32> = range.filter(|streams| *streams > 0 && !known(streams)).collect();
        self.grid = grid.into_iter();
        self.grid.next()
    }

    pub(super) fn fit(&self) -> Option<KneeFit> {
        let points: Vec<(f64, f64)> = self.points.iter().map(|&(_, x, y)| (x, y)).collect();
        fit(&points)
    }
}

/// A straight line by least squares.
#[derive(Clone, Copy)]
struct Line {
    slope: f64,
    at_zero: f64,
    error: f64,
}

fn line(points: &[(f64, f64)]) -> Line {
    let n = points.len() as f64;
    let x = points.iter().map(|point| point.0).sum::<f64>() / n;
    let y = points.iter().map(|point| point.1).sum::<f64>() / n;
    let xx: f64 = points.iter().map(|point| (point.0 - x) * (point.0 - x)).sum();
    let xy: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let slope = if xx > 0.0 { xy / xx } else { 0.0 };
    let at_zero = y - slope * x;
    let off = |point: &(f64, f64)| point.1 - at_zero - slope * point.0;
    Line { slope, at_zero, error: points.iter().map(|point| off(point) * off(point)).sum() }
}

fn fit(points: &[(f64, f64)]) -> Option<KneeFit> {
    if points.len() < 5 {
        return None;
    }
    let bounds = |value: fn(&(f64, f64)) -> f64| {
        let low = points.iter().map(value).fold(f64::INFINITY, f64::min);
        (low, points.iter().map(value).fold(f64::NEG_INFINITY, f64::max))
    };
    let ((x_low, x_high), (y_low, y_high)) = (bounds(|point| point.0), bounds(|point| point.1));
    if x_high <= x_low || y_high <= y_low {
        return None;
    }
    let scale =
        |&(x, y): &(f64, f64)| ((x - x_low) / (x_high - x_low), (y - y_low) / (y_high - y_low));
    let scaled: Vec<_> = points.iter().map(scale).collect();
    let one = line(&scaled).error;
    // The breakpoint belongs to both lines; each has at least two points.
    let splits = 1..scaled.len() - 1;
    let both = |at: usize| (line(&scaled[..=at]), line(&scaled[at..]));
    let error = |at: &usize| {
        let (before, behind) = both(*at);
        before.error + behind.error
    };
    let at = splits.min_by(|a, b| error(a).total_cmp(&error(b)))?;
    let (before, behind) = both(at);
    let slope_ratio = behind.slope / before.slope;
    let error_reduction = 1.0 - (before.error + behind.error) / one.max(1e-300);
    let peak_ratio = points[at].1 / y_high;
    let found = before.slope > 0.0
        && slope_ratio <= MAX_SLOPE_RATIO
        && error_reduction >= MIN_ERROR_REDUCTION
        && peak_ratio >= MIN_PEAK_RATIO;
    found.then(|| {
        let x = (behind.at_zero - before.at_zero) / (before.slope - behind.slope);
        let y = before.at_zero + before.slope * x;
        KneeFit {
            concurrency: x_low + x * (x_high - x_low),
            throughput: y_low + y * (y_high - y_low),
            slope_ratio,
            error_reduction,
            peak_ratio,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_lines_meet_at_the_knee() {
        let points: Vec<_> =
            (1..=16).map(|x| (f64::from(x), 10.0 * f64::from(x).min(8.0))).collect();
        let fit = fit(&points).unwrap();
        assert!(
            (fit.concurrency - 8.0).abs() < 1e-9 && (fit.throughput - 80.0).abs() < 1e-9,
            "{fit:?}"
        );
    }

    #[test]
    fn a_straight_line_has_no_knee() {
        let points: Vec<_> = (1..=16).map(|x| (f64::from(x), 10.0 * f64::from(x))).collect();
        assert_eq!(fit(&points), None);
        assert_eq!(fit(&[(1.0, 1.0); 9]), None);
    }
}
