use std::sync::Arc;
use std::sync::atomic::Ordering;

use gatewright_determinism::{Purpose, Stream, Time};
use gatewright_sim::Sampler;
use parking_lot::Mutex;

use crate::clock::Clock;
use crate::config::OpenAiConfig;
use crate::fate::{Fate, Fates};
use crate::prompt::{Prefixes, Prompt};
use crate::slots::{Entry, Slot, Slots};
use crate::stats::Counters;
use crate::timer::Timer;

/// The model of a language model's server: when each token of each answer is due.
///
/// A request waits for a place in the batch, then for its prefill; the first token is due when that ends, and
/// each further one a gap later. Every moment is reckoned from the moment before it that was due, never from the
/// one at which something happened, so that being late does not add up.
#[derive(Debug)]
pub(crate) struct Engine {
    batch: Slots,
    prefill: Option<Slots>,
    prefixes: Option<Mutex<Prefixes>>,
    ttft: Sampler,
    itl: Sampler,
    /// Nanoseconds for each token of a prompt.
    per_token: f64,
    /// Nanoseconds that each further request in the batch adds to a gap.
    per_request: f64,
    seed: u64,
    fates: Arc<Fates>,
    counters: Arc<Counters>,
}

/// What is asked of the engine.
#[derive(Debug)]
pub(crate) struct Job {
    /// Number of the request.
    pub(crate) number: u64,
    pub(crate) prompt: Prompt,
    /// Tokens of the answer; none for an embedding.
    pub(crate) tokens: u64,
    pub(crate) fate: Fate,
}

/// A job whose first token is due.
#[derive(Debug)]
pub(crate) struct Running {
    engine: Arc<Engine>,
    slot: Slot,
    luck: Stream,
    /// Tokens that came before the next.
    given: u64,
    tokens: u64,
    /// When the next token is due.
    due: Time,
    /// Tokens of the prompt that were known.
    cached: u64,
    /// Before which token the answer stalls, and for how long.
    stall: Option<(u64, u64)>,
    /// At which token the connection is reset.
    reset: Option<u64>,
}

impl Engine {
    pub(crate) fn new(
        config: &OpenAiConfig,
        seed: u64,
        clock: Clock,
        fates: Arc<Fates>,
        counters: Arc<Counters>,
    ) -> Self {
        // Who waits for the prefill has a place in the batch, so this line is bounded already.
        let prefill = |limit| Slots::new(clock, Some(limit), u32::MAX);
        Self {
            batch: Slots::new(clock, config.slots, config.queue),
            prefill: config.prefill_parallel.map(prefill),
            prefixes: config.prefix_cache.map(|cache| Mutex::new(Prefixes::new(cache))),
            ttft: config.ttft.sampler(),
            itl: config.itl.sampler(),
            per_token: config.prefill_per_token * 1e9,
            per_request: config.itl_per_request * 1e9,
            seed,
            fates,
            counters,
        }
    }

    /// A place in the batch, or in the line for one.
    pub(crate) fn enter(&self) -> Entry {
        let entry = self.batch.enter();
        if matches!(entry, Entry::Full) {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
        }
        entry
    }

    /// Whether gaps change while an answer runs, so that each must be reckoned when it begins.
    pub(crate) fn depends_on_load(&self) -> bool {
        self.per_request > 0.0
    }

    /// Waits until the first token of `job` is due, which came at `arrival`. None if the line was full.
    pub(crate) async fn start(
        self: Arc<Self>,
        entry: Entry,
        job: Job,
        arrival: Time,
        timer: Timer,
    ) -> Option<Running> {
        let (slot, mut begin) = entry.wait(arrival).await?;
        let mut prefilling = None;
        if let Some(prefill) = &self.prefill {
            let (place, at) = prefill.enter().wait(begin).await?;
            prefilling = Some(place);
            begin = at;
        }
        let known = self.prefixes.as_ref().map(|prefixes| prefixes.lock().known(&job.prompt));
        let cached = known.unwrap_or(0);
        let mut luck = Stream::new(self.seed, Purpose::Service, job.number);
        let work = self.per_token * job.prompt.tokens.saturating_sub(cached) as f64;
        let span = (self.ttft.draw(&mut luck) as f64 + work) * self.fates.slowness(begin);
        let prefilled = begin.plus_nanos(span as u64);
        let (stall, reset) = misfortune(job.fate, job.tokens);
        let due = match stall {
            Some((0, nanos)) => prefilled.plus_nanos(nanos),
            _ => prefilled,
        };
        if due > arrival {
            timer.sleep_until(due).await;
        }
        if let Some(prefixes) = &self.prefixes {
            prefixes.lock().learn(&job.prompt);
        }
        if let Some(place) = prefilling {
            place.leave_at(prefilled);
        }
        let Job { tokens, .. } = job;
        Some(Running { engine: self, slot, luck, given: 0, tokens, due, cached, stall, reset })
    }
}

/// At which of `tokens` a stall or a reset comes.
fn misfortune(fate: Fate, tokens: u64) -> (Option<(u64, u64)>, Option<u64>) {
    let token = |place: f64| (place * tokens as f64) as u64;
    match fate {
        Fate::Good | Fate::Error(_) => (None, None),
        Fate::Stall(place, nanos) => (Some((token(place), nanos)), None),
        Fate::Reset(place) => (None, Some(token(place))),
    }
}

impl Running {
    /// When the next token is due.
    pub(crate) const fn due(&self) -> Time {
        self.due
    }

    /// Tokens that came before the next.
    pub(crate) const fn given(&self) -> u64 {
        self.given
    }

    /// Tokens of the prompt that were known.
    pub(crate) const fn cached(&self) -> u64 {
        self.cached
    }

    /// Whether the connection is reset now.
    pub(crate) fn is_reset(&self) -> bool {
        self.reset == Some(self.given)
    }

    /// Takes the token that is due; false if it was the last.
    pub(crate) fn advance(&mut self) -> bool {
        self.given += 1;
        if self.given >= self.tokens {
            return false;
        }
        let engine = &self.engine;
        let others = engine.batch.taken().saturating_sub(1);
        let base = engine.itl.draw(&mut self.luck) as f64;
        let gap = (base + engine.per_request * f64::from(others)) * engine.fates.slowness(self.due);
        self.due = self.due.plus_nanos(gap as u64);
        if let Some((token, nanos)) = self.stall
            && token == self.given
        {
            self.due = self.due.plus_nanos(nanos);
        }
        true
    }

    /// Waits until the last token is due, as for an answer that is given in one piece; false if the connection
    /// is to be reset then.
    pub(crate) async fn finish(mut self, timer: &Timer) -> bool {
        while !self.is_reset() && self.advance() {
            if self.engine.depends_on_load() {
                timer.sleep_until(self.due).await;
            }
        }
        let good = !self.is_reset();
        if !self.engine.depends_on_load() && self.due > timer.now() {
            timer.sleep_until(self.due).await;
        }
        if good {
            self.engine.counters.tokens.fetch_add(self.given.min(self.tokens), Ordering::Relaxed);
        }
        self.leave();
        good
    }

    /// Gives the place in the batch back, at the moment the last token was due.
    pub(crate) fn leave(self) {
        self.slot.leave_at(self.due);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use gatewright_sim::Law;

    use super::*;
    use crate::config::{Faults, PrefixCache};
    use crate::prompt::PromptBuilder;
    use crate::stats::Lateness;

    const MS: u64 = 1_000_000;

    struct Bench {
        engine: Arc<Engine>,
        timer: Timer,
        runtime: tokio::runtime::LocalRuntime,
    }

    fn bench(config: &OpenAiConfig) -> Bench {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(tokio::runtime::LocalOptions::default())
            .unwrap();
        let clock = Clock::start();
        let inside = runtime.enter();
        let timer = Timer::new(clock, 0, Arc::new(Lateness::new())).unwrap();
        drop(inside);
        let fates = Arc::new(Fates::new(Faults::default()));
        let engine = Engine::new(config, 1, clock, fates, Arc::default());
        Bench { engine: Arc::new(engine), timer, runtime }
    }

    impl Bench {
        /// A job that came at `arrival` and runs: all its moments are planned, so the past will do.
        fn start(&self, words: usize, tokens: u64, fate: Fate, arrival: Time) -> Running {
            let mut prompt = PromptBuilder::new(16, 1_000_000);
            prompt.text(&"word ".repeat(words));
            let job = Job { number: 0, prompt: prompt.build(), tokens, fate };
            let timer = self.timer.clone();
            let entry = self.engine.enter();
            self.runtime.block_on(async {
                let alarm = tokio::task::spawn_local(timer.clone().run());
                let start = Arc::clone(&self.engine).start(entry, job, arrival, timer);
                let running = start.await.unwrap();
                alarm.abort();
                running
            })
        }
    }

    /// A model whose prefill takes 2 ms and 1 us a token, and whose gaps are 5 ms and 1 ms for each other request.
    fn config() -> OpenAiConfig {
        OpenAiConfig {
            ttft: Law::Fixed(0.002),
            prefill_per_token: 1e-6,
            itl: Law::Fixed(0.005),
            itl_per_request: 0.001,
            ..OpenAiConfig::default()
        }
    }

    /// Moments of all tokens, in nanoseconds.
    fn plan(mut running: Running) -> Vec<u64> {
        let mut plan = vec![running.due().as_nanos()];
        while running.advance() {
            plan.push(running.due().as_nanos());
        }
        running.leave();
        plan
    }

    #[test]
    fn a_lone_request_has_the_told_ttft_and_itl() {
        let bench = bench(&config());
        // "word " a hundred times is a hundred tokens and the space at the end.
        let running = bench.start(100, 4, Fate::Good, Time::ZERO);
        let first = 2 * MS + 101_000;
        assert_eq!(plan(running), [0, 5, 10, 15].map(|ms| first + ms * MS));
    }

    #[test]
    fn every_other_request_lengthens_every_gap() {
        let bench = bench(&config());
        let others: Vec<Running> =
            (0..3).map(|_| bench.start(0, 9, Fate::Good, Time::ZERO)).collect();
        let crowded = plan(bench.start(0, 3, Fate::Good, Time::ZERO));
        assert_eq!(crowded, [2 * MS, 10 * MS, 18 * MS]);
        drop(others);
        let lone = plan(bench.start(0, 3, Fate::Good, Time::ZERO));
        assert_eq!(lone, [2 * MS, 7 * MS, 12 * MS]);
    }

    #[test]
    fn who_waits_begins_when_the_one_before_was_due_to_end() {
        let slots = NonZeroU32::new(1);
        let bench = bench(&OpenAiConfig { slots, ..config() });
        let first = bench.start(0, 3, Fate::Good, Time::ZERO);
        let entry = bench.engine.enter();
        assert_eq!(plan(first), [2 * MS, 7 * MS, 12 * MS]);
        // However late that was noticed.
        let job = Job { number: 1, prompt: Prompt::default(), tokens: 1, fate: Fate::Good };
        let timer = bench.timer.clone();
        let second = bench.runtime.block_on(async {
            let alarm = tokio::task::spawn_local(timer.clone().run());
            let second = Arc::clone(&bench.engine).start(entry, job, Time::ZERO, timer).await;
            alarm.abort();
            second.unwrap()
        });
        assert_eq!(second.due().as_nanos(), 14 * MS);
    }

    #[test]
    fn a_known_prefix_is_not_prefilled_again() {
        let prefix_cache = Some(PrefixCache::default());
        let bench = bench(&OpenAiConfig { prefix_cache, ..config() });
        let first = bench.start(100, 1, Fate::Good, Time::ZERO);
        assert_eq!((first.due().as_nanos(), first.cached()), (2 * MS + 101_000, 0));
        let again = bench.start(100, 1, Fate::Good, Time::ZERO);
        assert_eq!((again.due().as_nanos(), again.cached()), (2 * MS + 5_000, 96));
    }

    #[test]
    fn a_stall_moves_what_comes_after_and_a_reset_has_its_place() {
        let bench = bench(&config());
        let stalled = bench.start(0, 4, Fate::Stall(0.5, 100 * MS), Time::ZERO);
        assert_eq!(plan(stalled), [2 * MS, 7 * MS, 112 * MS, 117 * MS]);
        let mut reset = bench.start(0, 4, Fate::Reset(0.5), Time::ZERO);
        let mut places = vec![reset.is_reset()];
        while reset.advance() {
            places.push(reset.is_reset());
        }
        assert_eq!(places, [false, false, true, false]);
    }
}
