use std::collections::VecDeque;
use std::time::Duration;

use gatewright_determinism::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{KeepAliveRule, Plan, Worth};
use crate::config::HumanDuration;

/// Settings of the hybrid histogram policy; the defaults are those of "Serverless in the Wild: Characterizing and
/// Optimizing the Serverless Workload at a Large Cloud Provider" (Shahrad and others, ATC 2020), section 4.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HybridHistogram {
    /// Longest idle time in the histogram; without a pattern, replicas stay for so long.
    pub range: HumanDuration,
    /// Width of its bins; `range` has 1 to 100,000 of them.
    pub bin: HumanDuration,
    /// Share of idle times that lie below the head, 0 to 1: a replica is warm again by then.
    pub head: f64,
    /// Share of idle times that lie below the tail, 0 to 1: a replica stays until then.
    pub tail: f64,
    /// By how much the head is shortened and the tail lengthened, 0 to 1.
    pub margin: f64,
    /// Coefficient of variation of the bins' counts below which the histogram has no pattern.
    pub cv: f64,
    /// Share of idle times beyond the range from which on the histogram does not apply, 0 to 1.
    pub out_of_bounds: f64,
    /// By how much a forecast idle time is shortened and lengthened then, 0 to 1.
    pub forecast_margin: f64,
}

/// Idle times that a forecast is made from.
const RECENT: usize = 16;

/// The histogram, and the rule of figure 10: a standard keep-alive while nothing is known, the histogram's head and tail
/// while it has a pattern, a forecast when idle times are mostly longer than it.
///
/// The paper forecasts with a fitted ARIMA model; here the forecast is the mean of the last idle times, which is what
/// such a model gives for times without memory.
#[derive(Debug)]
struct Rule {
    settings: HybridHistogram,
    counts: Vec<u32>,
    total: u64,
    /// Sum of the squares of the counts.
    squares: u64,
    beyond: u64,
    recent: VecDeque<Duration>,
}

impl Default for HybridHistogram {
    fn default() -> Self {
        Self {
            range: HumanDuration::from_secs(4 * 3_600),
            bin: HumanDuration::from_secs(60),
            head: 0.05,
            tail: 0.99,
            margin: 0.1,
            cv: 2.0,
            out_of_bounds: 0.5,
            forecast_margin: 0.15,
        }
    }
}

impl HybridHistogram {
    fn bins(&self) -> u128 {
        self.range.get().as_nanos() / self.bin.get().as_nanos().max(1)
    }

    pub(super) fn rule(&self) -> Box<dyn KeepAliveRule> {
        Box::new(Rule {
            settings: self.clone(),
            counts: vec![0; self.bins() as usize],
            total: 0,
            squares: 0,
            beyond: 0,
            recent: VecDeque::new(),
        })
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let bins = self.bins();
        if self.bin.get().is_zero() || !(1..=100_000).contains(&bins) {
            return Err("range: must be 1 to 100000 times `bin`".to_owned());
        }
        let shares = [
            ("head", self.head),
            ("tail", self.tail),
            ("margin", self.margin),
            ("out_of_bounds", self.out_of_bounds),
            ("forecast_margin", self.forecast_margin),
        ];
        if let Some((key, _)) = shares.iter().find(|(_, share)| !(0.0..=1.0).contains(share)) {
            return Err(format!("{key}: must be 0 to 1"));
        }
        if self.head > self.tail {
            return Err("head: must be at most tail".to_owned());
        }
        if self.cv >= 0.0 { Ok(()) } else { Err("cv: must be at least 0".to_owned()) }
    }
}

impl Rule {
    /// Variation of the counts: n S2 / S1^2 - 1 is the square of standard deviation over mean.
    fn cv(&self) -> f64 {
        if self.total == 0 {
            return 0.0;
        }
        let (bins, total) = (self.counts.len() as f64, self.total as f64);
        (bins * self.squares as f64 / (total * total) - 1.0).max(0.0).sqrt()
    }

    /// The first bin up to whose end at least this share of the idle times lie.
    fn percentile(&self, share: f64) -> u32 {
        let wanted = share * self.total as f64;
        let mut below = 0.0;
        let reached = self.counts.iter().position(|&count| {
            below += f64::from(count);
            below >= wanted && below > 0.0
        });
        reached.unwrap_or(0) as u32
    }

    fn forecast(&self) -> Duration {
        let sum: Duration = self.recent.iter().sum();
        sum / (self.recent.len().max(1) as u32)
    }
}

impl KeepAliveRule for Rule {
    fn arrived(&mut self, idle: Option<Duration>) {
        let Some(idle) = idle else { return };
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(idle);
        let bin = idle.as_nanos() / self.settings.bin.get().as_nanos().max(1);
        match self.counts.get_mut(usize::try_from(bin).unwrap_or(usize::MAX)) {
            Some(count) => {
                self.squares += 2 * u64::from(*count) + 1;
                *count += 1;
                self.total += 1;
            }
            None => self.beyond += 1,
        }
    }

    fn idle(&mut self) -> Plan {
        let settings = &self.settings;
        let all = self.beyond + self.total;
        let range = settings.range.get();
        if all > 0 && self.beyond as f64 / all as f64 >= settings.out_of_bounds {
            let forecast = self.forecast();
            let margin = settings.forecast_margin;
            let away = forecast.mul_f64(1.0 - margin);
            return Plan {
                keep: Some(Duration::ZERO),
                prewarm: Some((away, forecast.mul_f64(2.0 * margin))),
            };
        }
        if self.cv() < settings.cv {
            return Plan::keep(Some(range));
        }
        let bin = settings.bin.get();
        let head = (bin * self.percentile(settings.head)).mul_f64(1.0 - settings.margin);
        let tail = (bin * (self.percentile(settings.tail) + 1)).mul_f64(1.0 + settings.margin);
        if head.is_zero() {
            return Plan::keep(Some(tail));
        }
        Plan { keep: Some(Duration::ZERO), prewarm: Some((head, tail - head)) }
    }

    fn worth(&self, used: Time, _: &Worth, _: f64) -> f64 {
        used.as_secs_f64()
    }
}
