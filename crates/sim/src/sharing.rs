//! How requests in service together slow one another down.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use gatewright_determinism::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much slower a request gets when others are in service beside it, in one replica or on one node. The service law
/// is the time of a request that is alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Contention {
    /// Cores are shared out equally: n requests on c cores are max(1, n / c) times slower.
    ProcessorSharing {
        /// Cores, above 0; with 1, one request at a time would keep them busy. Unless set, 1 in a replica, and as many
        /// as it has on a node.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cores: Option<f64>,
    },
    /// n requests are 1 + slope (n - 1) times slower.
    Linear {
        /// 0 to 100; 1 is processor sharing on one core.
        slope: f64,
    },
    /// The universal scalability law (Gunther): n requests are 1 + sigma (n - 1) + kappa n (n - 1) times slower.
    Usl {
        /// Contention, 0 to 1.
        sigma: f64,
        /// Coherence, 0 to 1.
        kappa: f64,
    },
    /// As measured: how many times slower with 1, 2, 3, ... requests; with more than there are entries, in proportion
    /// to the last.
    Table(Vec<f64>),
}

impl Contention {
    /// How many times slower requests are than one alone when together they would keep `busy` cores busy, a request
    /// that would keep half a core busy counting as half a one. `own` is how many cores there are.
    #[must_use]
    pub fn slow_down(&self, busy: f64, own: f64) -> f64 {
        let count = busy.max(1.0);
        match self {
            Self::ProcessorSharing { cores } => (busy / cores.unwrap_or(own)).max(1.0),
            Self::Linear { slope } => 1.0 + slope * (count - 1.0),
            Self::Usl { sigma, kappa } => {
                1.0 + sigma * (count - 1.0) + kappa * count * (count - 1.0)
            }
            Self::Table(table) => match table.get(libm::ceil(count) as usize - 1) {
                Some(factor) => *factor,
                None => table.last().map_or(1.0, |last| last * count / table.len() as f64),
            },
        }
    }

    /// What is wrong with it, if anything.
    ///
    /// # Errors
    /// The first number out of range.
    pub fn check(&self) -> Result<(), String> {
        let within = |name: &str, value: f64, least: f64, most: f64| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(format!("{name} is {value}; give {least} to {most}"))
            }
        };
        match self {
            Self::ProcessorSharing { cores } => {
                cores.map_or(Ok(()), |cores| within("cores", cores, 0.001, 1e6))
            }
            Self::Linear { slope } => within("slope", *slope, 0.0, 100.0),
            Self::Usl { sigma, kappa } => {
                within("sigma", *sigma, 0.0, 1.0)?;
                within("kappa", *kappa, 0.0, 1.0)
            }
            Self::Table(table) if table.is_empty() => Err("the table is empty".to_owned()),
            Self::Table(table) => {
                table.iter().try_for_each(|factor| within("a factor", *factor, 0.01, 1e6))
            }
        }
    }
}

/// Requests in service together. Each has so much work, and all are worked off at one rate that depends on how many
/// cores they would keep busy; so only the one with the least work left needs an event, whatever the number.
#[derive(Clone, Debug)]
pub(crate) struct Shared<T> {
    /// Cores that there are.
    own: f64,
    /// Thousandths of cores that the requests would keep busy.
    busy: u64,
    /// Nanoseconds of work that a request has had if it was here from the start.
    clock: f64,
    since: Time,
    jobs: BinaryHeap<Reverse<Job<T>>>,
    entered: u64,
    /// Tells events that were foreseen before the number changed from those after.
    version: u32,
}

#[derive(Clone, Copy, Debug)]
struct Job<T> {
    /// What the clock shows when it is done.
    done: f64,
    order: u64,
    /// Thousandths of cores that it would keep busy.
    busy: u32,
    tag: T,
}

/// Thousandths of a core that a request keeps busy unless its model says otherwise.
pub(crate) const ONE_CORE: u32 = 1_000;

impl<T> PartialEq for Job<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Job<T> {}

impl<T> PartialOrd for Job<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Job<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.done.total_cmp(&other.done).then(self.order.cmp(&other.order))
    }
}

impl<T: Copy> Shared<T> {
    /// On so many cores.
    pub(crate) const fn new(now: Time, own: f64) -> Self {
        let jobs = BinaryHeap::new();
        Self { own, busy: 0, clock: 0.0, since: now, jobs, entered: 0, version: 0 }
    }

    /// A request with `work` nanoseconds of work comes that would keep so many thousandths of cores busy. Returns when the next one will be done, and the version that
    /// this holds for.
    pub(crate) fn enter(
        &mut self,
        now: Time,
        work: u64,
        busy: u32,
        tag: T,
        contention: &Contention,
    ) -> (Time, u32) {
        self.advance(now, contention);
        self.entered += 1;
        self.busy += u64::from(busy);
        let (done, order) = (self.clock + work as f64, self.entered);
        self.jobs.push(Reverse(Job { done, order, busy, tag }));
        self.foresee(now, contention).expect("one has just come")
    }

    /// The request that was foreseen to be done now, and the next moment; `None` if the number has changed since.
    pub(crate) fn leave(
        &mut self,
        now: Time,
        version: u32,
        contention: &Contention,
    ) -> Option<(T, Option<(Time, u32)>)> {
        if version != self.version {
            return None;
        }
        self.advance(now, contention);
        let Reverse(job) = self.jobs.pop()?;
        // Rounding may have left the clock a hair before or behind.
        self.clock = job.done;
        self.busy -= u64::from(job.busy);
        Some((job.tag, self.foresee(now, contention)))
    }

    /// Requests that are not among those to `keep` are gone, done or not. Returns the next moment, if the number has
    /// changed and any are left.
    pub(crate) fn keep_only(
        &mut self,
        now: Time,
        contention: &Contention,
        keep: impl Fn(&T) -> bool,
    ) -> Option<(Time, u32)> {
        self.advance(now, contention);
        let before = self.jobs.len();
        self.jobs.retain(|Reverse(job)| keep(&job.tag));
        if self.jobs.len() == before {
            return None;
        }
        self.busy = self.jobs.iter().map(|Reverse(job)| u64::from(job.busy)).sum();
        self.foresee(now, contention)
    }

    fn slow_down(&self, contention: &Contention) -> f64 {
        contention.slow_down(self.busy as f64 / f64::from(ONE_CORE), self.own)
    }

    fn advance(&mut self, now: Time, contention: &Contention) {
        let span = now.nanos_since(self.since) as f64;
        self.clock += span / self.slow_down(contention);
        self.since = now;
        if self.jobs.is_empty() {
            // Numbers that only grow would lose their last digits in the end.
            self.clock = 0.0;
        }
    }

    fn foresee(&mut self, now: Time, contention: &Contention) -> Option<(Time, u32)> {
        self.version = self.version.wrapping_add(1);
        let Reverse(next) = self.jobs.peek()?;
        let left = (next.done - self.clock).max(0.0) * self.slow_down(contention);
        Some((now.plus_nanos(left.round() as u64), self.version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_downs_are_as_stated() {
        let of = |contention: &Contention| [1.0, 2.0, 4.0].map(|n| contention.slow_down(n, 1.0));
        let on = |cores| Contention::ProcessorSharing { cores };
        assert_eq!(of(&on(Some(2.0))), [1.0, 1.0, 2.0]);
        assert_eq!(of(&on(None)), [1.0, 2.0, 4.0]);
        assert_eq!(on(None).slow_down(3.0, 2.0), 1.5);
        assert_eq!([0.5, 1.5].map(|busy| on(None).slow_down(busy, 1.0)), [1.0, 1.5]);
        assert_eq!(of(&Contention::Linear { slope: 0.5 }), [1.0, 1.5, 2.5]);
        let usl = of(&Contention::Usl { sigma: 0.1, kappa: 0.01 });
        assert!((usl[1] - 1.12).abs() < 1e-12 && (usl[2] - 1.42).abs() < 1e-12, "{usl:?}");
        assert_eq!(of(&Contention::Table(vec![1.0, 3.0])), [1.0, 3.0, 6.0]);
    }

    /// Work of 10 and 20 on one core, the second 5 later: the first has 5 left, which take 10; then the second has 15
    /// left and is alone.
    #[test]
    fn shared_work_takes_longer() {
        let contention = Contention::ProcessorSharing { cores: None };
        let at = Time::from_nanos;
        let mut shared = Shared::new(Time::ZERO, 1.0);
        let (first, old) = shared.enter(at(0), 10, ONE_CORE, 'a', &contention);
        assert_eq!(first, at(10));
        let (next, version) = shared.enter(at(5), 20, ONE_CORE, 'b', &contention);
        assert_eq!(next, at(15));
        assert!(shared.leave(at(10), old, &contention).is_none(), "it was slowed down");
        let (tag, after) = shared.leave(at(15), version, &contention).unwrap();
        let (last, version) = after.unwrap();
        assert_eq!((tag, last), ('a', at(30)));
        assert_eq!(shared.leave(at(30), version, &contention), Some(('b', None)));
    }

    /// Two with 30 of work on one core from the start; at 20 each has had 10, and the other one goes: 20 are left.
    #[test]
    fn who_goes_before_it_is_done_leaves_its_share() {
        let contention = Contention::ProcessorSharing { cores: None };
        let at = Time::from_nanos;
        let mut shared = Shared::new(Time::ZERO, 1.0);
        shared.enter(at(0), 30, ONE_CORE, 'a', &contention);
        shared.enter(at(0), 30, ONE_CORE, 'b', &contention);
        assert_eq!(shared.keep_only(at(20), &contention, |_| true), None, "nobody has gone");
        let (next, version) = shared.keep_only(at(20), &contention, |tag| *tag == 'b').unwrap();
        assert_eq!(next, at(40));
        assert_eq!(shared.leave(at(40), version, &contention), Some(('b', None)));
    }
}
