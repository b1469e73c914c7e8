//! Responses kept in memory, and the fetches under way.
//!
//! Which key goes when memory is short is `quick_cache`'s decision, which looks at no clock; whether a response may
//! be served is [`gatewright_control::cache`]'s.

mod flight;
mod growing;
mod purge;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use gatewright_control::cache::{Forward, Moment, Plan, StoredResponse, WallAnchor};
use gatewright_determinism::Time;
use http::HeaderMap;
use parking_lot::Mutex;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use serde::Serialize;
use tokio::sync::watch;

pub(crate) use self::flight::{Fill, Flight, Passing, Stage};
pub(crate) use self::growing::{Growing, Reader};
pub(crate) use self::purge::Matcher;
use self::purge::Purges;
use crate::clock::Clock;

/// Bytes that a key and each of its responses are taken to need besides bodies and header fields.
const OVERHEAD: usize = 384;
/// What a key is guessed to weigh, for the size of the table.
const GUESS: u64 = 8 * 1024;
/// Responses of one key; beyond, the oldest goes.
const MAX_VARIANTS: usize = 32;
/// How long an upstream that failed is left alone by background fetches and by requests that have a stale answer:
/// doubled with each failure, up to the second.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(30)];

/// A stored response, or one on its way to be.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) meta: StoredResponse,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Content,
}

/// A body.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Whole(Bytes),
    /// It is still coming in. None such is in the store.
    Growing(Arc<Growing>),
}

/// A stored response of a key.
#[derive(Clone, Debug)]
pub(crate) struct Variant(pub(crate) Arc<Entry>);

/// What is known of a key.
#[derive(Debug, Default)]
pub(crate) struct Line {
    pub(crate) variants: Vec<Variant>,
    /// Until when its responses are taken not to be storable.
    uncacheable: Time,
    /// Until when its upstream is left alone, and failures in a row.
    paused: Time,
    failures: u32,
}

/// The responses in memory, and the fetches under way.
#[derive(Debug)]
pub(crate) struct Store {
    lines: Cache<Arc<str>, Arc<Line>, Weight>,
    /// Held while a line is changed.
    purges: Mutex<Purges>,
    flights: Mutex<HashMap<Arc<str>, Flight>>,
    /// Largest body that is stored, in bytes.
    pub(crate) max_body: usize,
    memory: u64,
    anchor: WallAnchor,
    clock: Clock,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    stored: AtomicU64,
    purged: AtomicU64,
    revalidations: AtomicU64,
}

/// The store in numbers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stats {
    keys: usize,
    bytes: u64,
    memory: u64,
    stored: u64,
    purged: u64,
    revalidations: u64,
    fetching: usize,
}

/// What a request does that the store alone could not answer.
pub(crate) enum Turn {
    /// What the plan says, with what it was made of.
    Do(Plan, Arc<Line>),
    /// Ask the upstream, for all who ask meanwhile.
    Lead(Forward, Arc<Line>, Fill),
    /// Wait for the fetch under way.
    Wait(Flight),
}

#[derive(Clone, Debug)]
struct Weight;

impl Weighter<Arc<str>, Arc<Line>> for Weight {
    fn weight(&self, key: &Arc<str>, line: &Arc<Line>) -> u64 {
        let variants: usize = line.variants.iter().map(|variant| variant.0.weight()).sum();
        (OVERHEAD + key.len() + variants) as u64
    }
}

impl AsRef<StoredResponse> for Variant {
    fn as_ref(&self) -> &StoredResponse {
        &self.0.meta
    }
}

impl Entry {
    fn weight(&self) -> usize {
        let fields: usize =
            self.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 64).sum();
        let body = match &self.body {
            Content::Whole(bytes) => bytes.len(),
            Content::Growing(_) => 0,
        };
        OVERHEAD + fields + body
    }
}

impl Line {
    pub(crate) fn is_uncacheable(&self, now: Time) -> bool {
        now < self.uncacheable
    }

    /// Whether its upstream has failed just now.
    pub(crate) fn is_paused(&self, now: Time) -> bool {
        now < self.paused
    }

    fn is_empty(&self, now: Time) -> bool {
        self.variants.is_empty() && !self.is_uncacheable(now) && self.failures == 0
    }
}

/// A key as a number, the same in every run: FNV-1a of its bytes.
pub(crate) fn number(key: &str) -> u64 {
    key.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl Store {
    /// A store for so many bytes.
    pub(crate) fn new(memory: u64, max_body: u64, clock: Clock) -> Arc<Self> {
        let guess = usize::try_from(memory / GUESS).unwrap_or(usize::MAX).clamp(16, 1 << 20);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let nanos = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        let anchor =
            WallAnchor { unix_nanos_at_start: nanos.saturating_sub(clock.now().as_nanos()) };
        Arc::new(Self {
            lines: Cache::with_weighter(guess, memory, Weight),
            purges: Mutex::default(),
            flights: Mutex::default(),
            max_body: usize::try_from(max_body.min(memory)).unwrap_or(usize::MAX),
            memory,
            anchor,
            clock,
            counts: Counts::default(),
        })
    }

    /// Now, in the run and on the calendar.
    pub(crate) fn moment(&self) -> Moment {
        Moment { now: self.clock.now(), anchor: self.anchor }
    }

    pub(crate) fn get(&self, key: &str) -> Option<Arc<Line>> {
        self.lines.get(key)
    }

    /// Weight of what is stored, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.lines.weight()
    }

    /// Decides what a request does, under the lock of the fetches under way, because one may have ended since the
    /// first look. A fetch that `passed` names is one that did not help this request; it may be replaced.
    pub(crate) fn turn(
        self: &Arc<Self>,
        key: &str,
        passed: Option<&Flight>,
        decide: impl FnOnce(&Line, bool) -> Plan,
    ) -> Turn {
        let mut flights = self.flights.lock();
        let line = self.get(key).unwrap_or_default();
        let under_way =
            flights.get(key).filter(|flight| passed.is_none_or(|seen| !seen.is(flight)));
        match (decide(&line, under_way.is_some()), under_way) {
            (Plan::Collapse, Some(flight)) => Turn::Wait(flight.clone()),
            (Plan::Forward(forward), None) if forward.lead => {
                let fill = self.fill(&mut flights, key);
                Turn::Lead(forward, line, fill)
            }
            (plan, _) => Turn::Do(plan, line),
        }
    }

    /// Begins a fetch in the background, unless one is under way or the upstream has failed just now.
    pub(crate) fn refresh(self: &Arc<Self>, key: &str) -> Option<Fill> {
        let mut flights = self.flights.lock();
        let line = self.get(key)?;
        if flights.contains_key(key) || line.is_paused(self.clock.now()) {
            return None;
        }
        self.counts.revalidations.fetch_add(1, Ordering::Relaxed);
        Some(self.fill(&mut flights, key))
    }

    fn fill(self: &Arc<Self>, flights: &mut HashMap<Arc<str>, Flight>, key: &str) -> Fill {
        let (stage, waiting) = watch::channel(Stage::Asking);
        let key: Arc<str> = key.into();
        flights.insert(Arc::clone(&key), Flight { stage: waiting });
        Fill { store: Arc::clone(self), key, stage }
    }

    /// Stores a whole response to a request that was sent at `sent`, in place of the one for the same requests.
    /// `false` if it was purged meanwhile.
    pub(crate) fn put(&self, key: &str, entry: Arc<Entry>, sent: Time) -> bool {
        let now = self.clock.now();
        let purges = self.purges.lock();
        if purges.hit(key, &entry.meta.tags, sent) {
            return false;
        }
        let old = self.get(key).unwrap_or_default();
        let keeps = |variant: &&Variant| {
            !variant.0.meta.selecting.same_as(&entry.meta.selecting)
                && !variant.0.meta.useful_for(now).is_zero()
        };
        let mut variants: Vec<Variant> = old.variants.iter().filter(keeps).cloned().collect();
        if variants.len() >= MAX_VARIANTS {
            variants.remove(0);
        }
        variants.push(Variant(entry));
        self.lines.insert(key.into(), Arc::new(Line { variants, ..Line::default() }));
        drop(purges);
        self.counts.stored.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Takes a stored response out.
    pub(crate) fn remove(&self, key: &str, entry: &Arc<Entry>) {
        self.change(key, |line| line.variants.retain(|variant| !Arc::ptr_eq(&variant.0, entry)));
    }

    /// Makes a stored response stale.
    pub(crate) fn expire(&self, key: &str, entry: &Arc<Entry>) {
        let now = self.clock.now();
        self.change(key, |line| {
            let found = line.variants.iter_mut().find(|variant| Arc::ptr_eq(&variant.0, entry));
            if let Some(variant) = found {
                variant.expire(now);
            }
        });
    }

    /// Remembers that responses of this key cannot be stored, so that its requests do not wait for one another.
    pub(crate) fn note_uncacheable(&self, key: &str, span: Duration) {
        let until = self.clock.now() + span;
        self.change(key, |line| line.uncacheable = until);
    }

    /// Notes whether the upstream answered for this key, so that one that fails is left alone for a while.
    pub(crate) fn note_upstream(&self, key: &str, failed: bool) {
        let now = self.clock.now();
        match self.get(key) {
            Some(line) if failed && !line.variants.is_empty() => self.change(key, |line| {
                let pause = PAUSES[0].saturating_mul(1 << line.failures.min(16)).min(PAUSES[1]);
                line.failures += 1;
                line.paused = now + pause;
            }),
            Some(line) if !failed && line.failures > 0 => self.change(key, |line| {
                line.failures = 0;
                line.paused = Time::ZERO;
            }),
            _ => {}
        }
    }

    fn change(&self, key: &str, change: impl FnOnce(&mut Line)) {
        let _writing = self.purges.lock();
        let old = self.get(key).unwrap_or_default();
        let mut line = Line {
            variants: old.variants.clone(),
            uncacheable: old.uncacheable,
            paused: old.paused,
            failures: old.failures,
        };
        change(&mut line);
        if line.is_empty(self.clock.now()) {
            self.lines.remove(key);
        } else {
            self.lines.insert(key.into(), Arc::new(line));
        }
    }

    /// Purges what fits: takes it out, or (`soft`) makes it stale, so that it is validated before it is next
    /// served. Responses under way to requests sent before are not stored either. How many responses it were.
    pub(crate) fn purge(&self, matcher: Matcher, soft: bool) -> usize {
        let now = self.clock.now();
        let fits = |key: &str, variant: &Variant| matcher.fits(key, &variant.0.meta.tags);
        // One URL without selecting headers in its key is found at once.
        let keys: Vec<Arc<str>> = self
            .lines
            .iter()
            .filter(|(key, line)| {
                line.variants.iter().any(|variant| fits(key, variant))
                    || (!matcher.is_tag() && matcher.fits(key, &[]))
            })
            .map(|(key, _)| key)
            .collect();
        self.purges.lock().note(now, matcher.clone());
        let mut purged = 0;
        for key in keys {
            self.change(&key, |line| {
                if soft {
                    let chosen = line.variants.iter_mut().filter(|variant| fits(&key, variant));
                    purged += chosen.map(|variant| variant.expire(now)).count();
                } else {
                    let before = line.variants.len();
                    line.variants.retain(|variant| !fits(&key, variant));
                    purged += before - line.variants.len();
                    line.uncacheable = Time::ZERO;
                    line.failures = 0;
                }
            });
        }
        self.counts.purged.fetch_add(purged as u64, Ordering::Relaxed);
        purged
    }

    /// The store in numbers.
    pub(crate) fn stats(&self) -> Stats {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Stats {
            keys: self.lines.len(),
            bytes: self.bytes(),
            memory: self.memory,
            stored: count(&self.counts.stored),
            purged: count(&self.counts.purged),
            revalidations: count(&self.counts.revalidations),
            fetching: self.flights.lock().len(),
        }
    }
}

impl Variant {
    fn expire(&mut self, now: Time) {
        let old = &self.0;
        let mut meta = old.meta.clone();
        meta.expire(now);
        let (headers, body) = (old.headers.clone(), old.body.clone());
        self.0 = Arc::new(Entry { meta, headers, body });
    }
}
