use std::collections::VecDeque;

use gatewright_determinism::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConstraintError, check};

/// A test for over-saturation that needs no streaming: it watches the backlog, requests that were due less those
/// that have ended, in an open loop.
///
/// Over the second half of the run so far (and not before three mean response times of the first answers have
/// passed, so that the filling of an empty server does not count), the backlog's changes from one look to the
/// next are taken as a sample: a server that keeps up has a mean change of 0, and one change makes up for another
/// rather than adding to it, so that Student's t of their mean errs to the safe side. Overloaded is who has a t
/// above `threshold` and a growth of more than `least_growth` of what was offered.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Backlog {
    /// Nothing ends before so many seconds.
    pub min_seconds: f64,
    /// Mean change over its standard error from which on it is no chance. As it is looked at many times, much
    /// more than in a test that is made once: 4.5.
    pub threshold: f64,
    /// Growth that counts, as a part of what was offered, 0 to 1: 0.02.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub least_growth: f64,
}

impl Default for Backlog {
    fn default() -> Self {
        Self { min_seconds: 10.0, threshold: 4.5, least_growth: 0.02 }
    }
}

impl Backlog {
    pub(super) fn check(&self) -> Result<(), ConstraintError> {
        let rule = "backlog";
        check(rule, "min_seconds", self.min_seconds, 0.0, 1e9, "a number of seconds from 0 on")?;
        check(rule, "threshold", self.threshold, 0.0, 1e3, "0 to 1000")?;
        check(rule, "least_growth", self.least_growth, 0.0, 1.0, "0 to 1")
    }
}

/// Looks that are kept at most; when there are more, every second one is forgotten.
const MAX_LOOKS: usize = 1_024;
const LEAST_LOOKS: usize = 10;
/// Answers from which it is learned how long a request takes.
const FIRST_ANSWERS: u64 = 20;

#[derive(Clone, Debug)]
pub(super) struct Detector {
    rule: Backlog,
    looks: VecDeque<Look>,
    /// Time from one look to the next, doubled when there are too many.
    spacing: f64,
    /// Mean response time of the first answers, in seconds.
    filling: Option<f64>,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    seconds: f64,
    offered: u64,
    backlog: f64,
}

impl Detector {
    pub(super) const fn new(rule: Backlog) -> Self {
        Self { rule, looks: VecDeque::new(), spacing: 0.25, filling: None }
    }

    pub(super) fn tick(&mut self, now: Time, offered: u64, ended: u64, mean_response: Option<f64>) {
        if ended >= FIRST_ANSWERS && self.filling.is_none() {
            self.filling = mean_response.map(|nanos| 3.0 * nanos / 1e9);
        }
        let seconds = now.as_secs_f64();
        let is_due =
            self.looks.back().is_none_or(|last| seconds >= last.seconds + 0.9 * self.spacing);
        if !is_due {
            return;
        }
        let backlog = offered.saturating_sub(ended) as f64;
        self.looks.push_back(Look { seconds, offered, backlog });
        if self.looks.len() > MAX_LOOKS {
            let mut keep = false;
            self.looks.retain(|_| {
                keep = !keep;
                keep
            });
            self.spacing *= 2.0;
        }
    }

    pub(super) fn why(&self) -> Option<String> {
        let last = *self.looks.back()?;
        if last.seconds < self.rule.min_seconds {
            return None;
        }
        let from = (0.5 * last.seconds).max(self.filling?);
        let start = self.looks.partition_point(|look| look.seconds < from);
        let count = self.looks.len() - start;
        if count <= LEAST_LOOKS {
            return None;
        }
        let first = self.looks[start];
        let n = (count - 1) as f64;
        let growth = last.backlog - first.backlog;
        let mean = growth / n;
        let pairs = self.looks.range(start..).zip(self.looks.range(start + 1..));
        let squares: f64 = pairs
            .map(|(a, b)| {
                let change = b.backlog - a.backlog - mean;
                change * change
            })
            .sum();
        let error = (squares / (n - 1.0) / n).sqrt();
        let offered = (last.offered - first.offered) as f64;
        let overloaded =
            mean > self.rule.threshold * error && growth > self.rule.least_growth * offered;
        overloaded.then(|| {
            let seconds = last.seconds - first.seconds;
            format!(
                "the backlog grew from {:.0} to {:.0} requests in {seconds:.1} s, while {offered:.0} were due",
                first.backlog, last.backlog
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use gatewright_determinism::{Purpose, Stream};

    use super::*;

    /// A queue with `servers` servers and exponential service times of `mean` seconds at `rate` Poisson arrivals a
    /// second; when the rule sees it.
    fn found_after(rate: f64, servers: usize, mean: f64, seconds: f64, seed: u64) -> Option<f64> {
        let mut detector = Detector::new(Backlog::default());
        let mut luck = Stream::new(seed, Purpose::Service, 0);
        let mut free = vec![0.0f64; servers];
        let (mut ends, mut at) = (std::collections::BTreeSet::new(), 0.0);
        let (mut offered, mut ended, mut total) = (0, 0u64, 0.0);
        let mut look = 0.25;
        while look < seconds {
            at += luck.exponential() / rate;
            while look < at {
                while let Some(&(end, took)) =
                    ends.first().filter(|&&(end, _)| (end as f64) < look * 1e9)
                {
                    ends.remove(&(end, took));
                    ended += 1;
                    total += took as f64;
                }
                let mean = (ended > 0).then(|| total / ended as f64);
                detector.tick(Time::from_secs_f64(look), offered, ended, mean);
                if detector.why().is_some() {
                    return Some(look);
                }
                look += 0.25;
            }
            offered += 1;
            let server = free.iter_mut().min_by(|a, b| a.total_cmp(b)).unwrap();
            *server = server.max(at) + luck.exponential() * mean;
            ends.insert(((*server * 1e9) as u64, ((*server - at) * 1e9) as u64));
        }
        None
    }

    #[test]
    fn a_server_that_keeps_up_is_left_alone() {
        let mut false_alarms = 0;
        for seed in 0..30 {
            for (rate, servers, mean) in [(90.0, 1, 0.01), (95.0, 10, 0.1), (8.0, 100, 10.0)] {
                false_alarms += u32::from(found_after(rate, servers, mean, 120.0, seed).is_some());
            }
        }
        assert!(false_alarms <= 1, "{false_alarms} of 90");
    }

    #[test]
    fn a_server_that_falls_behind_is_found() {
        for (rate, servers, mean, within) in
            [(150.0, 1, 0.01, 15.0), (110.0, 10, 0.1, 250.0), (20.0, 4, 1.0, 20.0)]
        {
            for seed in 0..20 {
                let found = found_after(rate, servers, mean, 300.0, seed);
                assert!(found.is_some_and(|found| found <= within), "{rate} {seed}: {found:?}");
            }
        }
    }
}
