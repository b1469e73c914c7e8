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
