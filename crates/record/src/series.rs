use gatewright_determinism::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What happened in each second of a run, or in each two, four, ... of a long one, so that memory does not grow
/// with it: at most [`TimeSeries::BUCKETS`] parts of about a kilobyte.
#[derive(Clone, Debug)]
pub struct TimeSeries {
    /// Width of a part, in nanoseconds.
    width: u64,
    buckets: Vec<Counts>,
}

#[derive(Clone, Debug, Default)]
struct Counts {
    sent: u64,
    ok: u64,
    failed: u64,
    tokens: u64,
    bytes: u64,
    latency: Option<Box<Coarse>>,
    first: Option<Box<Coarse>>,
}

/// Times in parts that are a sixteenth of their size wide, from a microsecond to an hour and a quarter.
#[derive(Clone, Debug)]
struct Coarse {
    parts: [u32; PARTS],
    count: u64,
    sum: u64,
    max: u64,
}

/// Parts of an octave.
const FINE: u32 = 16;
const OCTAVES: u32 = 32;
const PARTS: usize = (FINE * OCTAVES) as usize;
/// Logarithm of the time below which all times are one: 1.024 us.
const LEAST: u32 = 10;

/// A part of a [`TimeSeries`] in plain numbers; times in nanoseconds, of requests that ended well in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Bucket {
    /// Its start, in seconds since the start of the step.
    pub at_s: f64,
    /// Requests that were sent in it.
    pub sent: u64,
    /// Requests that ended well in it.
    pub ok: u64,
    /// Requests that did not.
    pub failed: u64,
    /// Requests that were sent and had not ended, at its end.
    pub in_flight: u64,
    /// Tokens of the answers that were complete in it.
    pub tokens: u64,
    /// Bytes of the answers that were complete in it.
    pub bytes: u64,
    /// Mean response time.
    pub mean_ns: Option<f64>,
    /// Median, within 5 %.
    pub p50_ns: Option<u64>,
    /// 95 % quantile, within 5 %.
    pub p95_ns: Option<u64>,
    /// 99 % quantile, within 5 %.
    pub p99_ns: Option<u64>,
    /// Longest.
    pub max_ns: Option<u64>,
    /// Median time to the first token from the sending, within 5 %.
    pub ttft_p50_ns: Option<u64>,
}

/// A [`TimeSeries`] in plain numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SeriesReport {
    /// Width of a part, in seconds.
    pub width_s: f64,
    /// The parts, one after the other, the warm-up included.
    pub buckets: Vec<Bucket>,
}

impl Default for TimeSeries {
    fn default() -> Self {
        Self { width: 1_000_000_000, buckets: Vec::new() }
    }
}

impl Coarse {
    fn record(&mut self, nanos: u64) {
        self.parts[part_of(nanos)] += 1;
        self.count += 1;
        self.sum = self.sum.saturating_add(nanos);
        self.max = self.max.max(nanos);
    }

    fn merge(&mut self, other: &Self) {
        self.parts.iter_mut().zip(&other.parts).for_each(|(own, other)| *own += other);
        self.count += other.count;
        self.sum = self.sum.saturating_add(other.sum);
        self.max = self.max.max(other.max);
    }

    /// The middle of the part in which quantile `q` lies.
    fn quantile(&self, q: f64) -> Option<u64> {
        let rank = ((self.count as f64 * q) as u64 + 1).min(self.count);
        let mut seen = 0;
        for (part, count) in self.parts.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= rank && rank > 0 {
                return Some(middle_of(part).min(self.max));
            }
        }
        None
    }
}

impl Default for Coarse {
    fn default() -> Self {
        Self { parts: [0; PARTS], count: 0, sum: 0, max: 0 }
    }
}

fn part_of(nanos: u64) -> usize {
    let nanos = nanos.max(1 << LEAST);
    let octave = nanos.ilog2();
    let fine = (nanos >> (octave - 4)) as u32 - FINE;
    (((octave - LEAST) * FINE + fine) as usize).min(PARTS - 1)
}

fn middle_of(part: usize) -> u64 {
    let (octave, fine) = (part as u32 / FINE + LEAST, part as u64 % u64::from(FINE));
    let step = 1 << (octave - 4);
    (1 << octave) + fine * step + step / 2
}

impl TimeSeries {
    /// Parts at most.
    pub const BUCKETS: usize = 600;

    fn at(&mut self, now: Time) -> &mut Counts {
        while now.as_nanos() / self.width >= Self::BUCKETS as u64 {
            self.widen();
        }
        let part = (now.as_nanos() / self.width) as usize;
        if self.buckets.len() <= part {
            self.buckets.resize_with(part + 1, Counts::default);
        }
        &mut self.buckets[part]
    }

    /// Two parts become one.
    fn widen(&mut self) {
        self.width *= 2;
        let parts = std::mem::take(&mut self.buckets);
        for (number, part) in parts.into_iter().enumerate() {
            if number % 2 == 0 {
                self.buckets.push(part);
            } else if let Some(last) = self.buckets.last_mut() {
                last.merge(&part);
            }
        }
    }

    /// A request was sent.
    pub fn sent(&mut self, now: Time) {
        self.at(now).sent += 1;
    }

    /// A request ended well after `response` nanoseconds; its first token was there after `first`.
    pub fn ended(&mut self, now: Time, response: u64, first: Option<u64>, tokens: u64, bytes: u64) {
        let part = self.at(now);
        part.ok += 1;
        part.tokens += tokens;
        part.bytes += bytes;
        part.latency.get_or_insert_default().record(response);
        if let Some(first) = first {
            part.first.get_or_insert_default().record(first);
        }
    }

    /// A request did not end well. `was_sent`: it had been sent.
    pub fn failed(&mut self, now: Time, was_sent: bool) {
        let part = self.at(now);
        part.failed += 1;
        // What was never sent was never in flight either.
        part.sent += u64::from(!was_sent);
    }

    /// Adds what happened in `other`.
    pub fn merge(&mut self, other: &Self) {
        let mut other = other.clone();
        while self.width < other.width {
            self.widen();
        }
        while other.width < self.width {
            other.widen();
        }
        if self.buckets.len() < other.buckets.len() {
            self.buckets.resize_with(other.buckets.len(), Counts::default);
        }
        for (own, other) in self.buckets.iter_mut().zip(&other.buckets) {
            own.merge(other);
        }
    }

    /// The series in plain numbers.
    #[must_use]
    pub fn report(&self) -> SeriesReport {
        let width_s = self.width as f64 / 1e9;
        let mut in_flight = 0u64;
        let buckets = self.buckets.iter().enumerate().map(|(number, part)| {
            in_flight = (in_flight + part.sent).saturating_sub(part.ok + part.failed);
            let latency = part.latency.as_deref();
            let quantile = |q| latency.and_then(|latency| latency.quantile(q));
            Bucket {
                at_s: number as f64 * width_s,
                sent: part.sent,
                ok: part.ok,
                failed: part.failed,
                in_flight,
                tokens: part.tokens,
                bytes: part.bytes,
                mean_ns: latency.map(|latency| latency.sum as f64 / latency.count as f64),
                p50_ns: quantile(0.5),
                p95_ns: quantile(0.95),
                p99_ns: quantile(0.99),
                max_ns: latency.map(|latency| latency.max),
                ttft_p50_ns: part.first.as_deref().and_then(|first| first.quantile(0.5)),
            }
        });
        SeriesReport { width_s, buckets: buckets.collect() }
    }
}

impl Counts {
    fn merge(&mut self, other: &Self) {
        self.sent += other.sent;
        self.ok += other.ok;
        self.failed += other.failed;
        self.tokens += other.tokens;
        self.bytes += other.bytes;
        for (own, other) in [(&mut self.latency, &other.latency), (&mut self.first, &other.first)] {
            if let Some(other) = other {
                own.get_or_insert_default().merge(other);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn each_second_has_its_own_numbers() {
        let mut series = TimeSeries::default();
        for millis in [100, 200, 300, 1_900] {
            series.sent(at(millis));
        }
        series.ended(at(400), 300_000_000, Some(50_000_000), 7, 10);
        series.ended(at(1_100), 900_000_000, None, 3, 5);
        series.failed(at(2_500), true);
        series.failed(at(2_600), false);
        let told = series.report();
        assert_eq!((told.width_s, told.buckets.len()), (1.0, 3));
        let in_flight: Vec<_> = told.buckets.iter().map(|bucket| bucket.in_flight).collect();
        assert_eq!(in_flight, [2, 2, 1]);
        let first = &told.buckets[0];
        assert_eq!((first.sent, first.ok, first.tokens, first.bytes), (3, 1, 7, 10));
        assert_eq!((first.mean_ns, first.max_ns), (Some(3e8), Some(300_000_000)));
        assert!((first.p99_ns.unwrap() as f64 / 3e8 - 1.0).abs() < 0.05);
        assert!((first.ttft_p50_ns.unwrap() as f64 / 5e7 - 1.0).abs() < 0.05);
        assert_eq!((told.buckets[2].failed, told.buckets[2].p50_ns), (2, None));
    }

    #[test]
    fn long_runs_have_wider_parts_and_no_more_memory() {
        let mut series = TimeSeries::default();
        for second in 0..10_000 {
            series.sent(at(second * 1_000));
            series.ended(at(second * 1_000 + 1), 1_000_000, None, 1, 1);
        }
        let mut short = TimeSeries::default();
        short.sent(at(0));
        series.merge(&short);
        short.merge(&series);
        for series in [series, short] {
            let told = series.report();
            assert_eq!((told.width_s, told.buckets.len()), (32.0, 313));
            assert_eq!(told.buckets.iter().map(|bucket| bucket.tokens).sum::<u64>(), 10_000);
        }
    }

    #[test]
    fn quantiles_are_near_the_exact_ones() {
        let mut coarse = Coarse::default();
        (1..=10_000).for_each(|i| coarse.record(i * 10_000));
        for q in [0.5, 0.9, 0.99] {
            let (told, exact) = (coarse.quantile(q).unwrap() as f64, q * 1e8);
            assert!((told / exact - 1.0).abs() < 0.05, "{q}: {told}");
        }
        for nanos in [0, 1, 1_023, 1_024, 1_025, 5_000_000_000, u64::MAX] {
            assert!(part_of(nanos) < PARTS);
        }
    }
}
