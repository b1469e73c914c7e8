//! Responses kept in memory, the tiers behind it, and the fetches under way.
//!
//! Which key goes when memory is short is `quick_cache`'s decision, which looks at no clock; whether a response may
//! be served is [`gatewright_control::cache`]'s.

mod disk;
mod flight;
mod forms;
mod growing;
mod index;
mod lines;
mod purge;
mod rendered;
mod saved;
mod shared;
mod stats;
mod tiers;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use gatewright_control::cache::{Forward, Moment, Plan, StoredResponse, WallAnchor};
use gatewright_control::compress::Coding;
use gatewright_control::config;
use gatewright_determinism::Time;
use http::HeaderMap;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub(crate) use self::flight::{Fill, Flight, Passing, Stage};
use self::forms::{Forms, Making};
pub(crate) use self::growing::{Growing, Reader};
use self::lines::Lines;
use self::purge::{Fate, Purges};
pub(crate) use self::purge::{Matcher, Purge};
pub(crate) use self::rendered::Rendered;
pub(crate) use self::shared::{Lease, Leased, Waited};
pub(crate) use self::stats::Stats;
pub(crate) use self::tiers::{Recall, Tier, Tiers};
use crate::ServeError;
use crate::clock::Clock;

/// Bytes that a key and each of its responses are taken to need besides bodies and header fields.
const OVERHEAD: usize = 512;
/// Bytes that a tag is taken to need in the index.
const TAG_OVERHEAD: usize = 96;
/// Bytes that a header field is taken to need in a map, besides its name and value.
const FIELD_OVERHEAD: usize = 128;
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
    /// Which purges it was asked for after.
    pub(crate) marks: Marks,
    pub(crate) rendered: Rendered,
    /// Its body in content codings.
    pub(crate) forms: Forms,
    /// Those that are being made: for the response while it comes in, and when it is stored.
    pub(crate) making: Arc<Making>,
}

/// The last purges that were known when a request was sent: here, and among those who share a tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marks {
    pub(crate) local: u64,
    pub(crate) shared: (u64, u64),
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
    lines: Lines,
    /// Held while a line is changed.
    purges: Mutex<Noted>,
    flights: Mutex<HashMap<Arc<str>, Flight>>,
    tiers: Tiers,
    /// Largest body that is stored, in bytes.
    pub(crate) max_body: usize,
    anchor: WallAnchor,
    clock: Clock,
    counts: Counts,
}

/// The purges of late.
#[derive(Debug, Default)]
struct Noted {
    local: Purges<u64>,
    shared: Purges<(u64, u64)>,
}

#[derive(Debug, Default)]
struct Counts {
    stored: AtomicU64,
    purged: AtomicU64,
    revalidations: AtomicU64,
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

impl AsRef<StoredResponse> for Variant {
    fn as_ref(&self) -> &StoredResponse {
        &self.0.meta
    }
}

impl Entry {
    pub(crate) fn new(
        meta: StoredResponse,
        headers: HeaderMap,
        body: Content,
        marks: Marks,
    ) -> Self {
        let (rendered, forms, making) = Default::default();
        Self { meta, headers, body, marks, rendered, forms, making }
    }

    /// The same body as part of a newer response.
    pub(crate) fn renewed(&self, meta: StoredResponse, headers: HeaderMap, marks: Marks) -> Self {
        let (forms, making) = (self.forms.again(), Arc::clone(&self.making));
        Self { forms, making, ..Self::new(meta, headers, self.body.clone(), marks) }
    }

    fn weight(&self) -> usize {
        let fields: usize = self.headers.iter().map(field_weight).sum();
        let body = match &self.body {
            Content::Whole(bytes) => bytes.len(),
            Content::Growing(_) => 0,
        };
        let tags: usize = self.meta.tags.iter().map(|tag| tag.len() + TAG_OVERHEAD).sum();
        OVERHEAD + fields + tags + body + self.forms.bytes()
    }
}

impl Noted {
    /// What the purges since it was asked for make of a response.
    fn fate(&self, key: &str, entry: &Entry) -> Fate {
        let (tags, marks) = (&entry.meta.tags, entry.marks);
        match self.local.fate(key, tags, marks.local) {
            Fate::Purged => Fate::Purged,
            Fate::Expired => match self.shared.fate(key, tags, marks.shared) {
                Fate::Kept => Fate::Expired,
                worse => worse,
            },
            Fate::Kept => self.shared.fate(key, tags, marks.shared),
        }
    }
}

impl Line {
    fn copy(&self) -> Self {
        Self {
            variants: self.variants.clone(),
            uncacheable: self.uncacheable,
            paused: self.paused,
            failures: self.failures,
        }
    }

    pub(crate) fn is_uncacheable(&self, now: Time) -> bool {
        now < self.uncacheable
    }

    /// Whether its upstream has failed just now.
    pub(crate) fn is_paused(&self, now: Time) -> bool {
        now < self.paused
    }

    /// Bytes that it takes under this key.
    pub(crate) fn weight(&self, key: &str) -> usize {
        let variants: usize = self.variants.iter().map(|variant| variant.0.weight()).sum();
        OVERHEAD + key.len() + variants
    }

    fn is_empty(&self, now: Time) -> bool {
        self.variants.is_empty() && !self.is_uncacheable(now) && self.failures == 0
    }
}

/// Bytes that a header field takes: twice, where it is rendered.
fn field_weight((name, value): (&http::HeaderName, &http::HeaderValue)) -> usize {
    2 * FIELD_OVERHEAD + name.as_str().len() + value.len()
}

/// A key as a number, the same in every run: FNV-1a of its bytes.
pub(crate) fn number(key: &[u8]) -> u64 {
    key.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl Store {
    /// A store as it is described; `base_dir` is the folder of the system file. `name` tells this gateway from others
    /// that share a tier.
    pub(crate) fn open(
        described: &config::Cache,
        base_dir: &Path,
        clock: Clock,
        name: &str,
    ) -> Result<Arc<Self>, ServeError> {
        let tiers = Tiers::open(described, base_dir, name.to_owned(), clock)?;
        let memory = described.memory.bytes();
        let max_body = described.max_body_kept();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let nanos = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        let anchor =
            WallAnchor { unix_nanos_at_start: nanos.saturating_sub(clock.now().as_nanos()) };
        let noted = Noted { local: tiers.purges(), shared: Purges::default() };
        let store = Arc::new(Self {
            lines: Lines::new(memory, max_body),
            purges: Mutex::new(noted),
            flights: Mutex::default(),
            tiers,
            max_body: usize::try_from(max_body).unwrap_or(usize::MAX),
            anchor,
            clock,
            counts: Counts::default(),
        });
        store.tiers.begin(&store);
        Ok(store)
    }

    /// Now, in the run and on the calendar.
    pub(crate) fn moment(&self) -> Moment {
        self.moment_at(self.clock.now())
    }

    /// This moment of the run on the calendar.
    pub(crate) fn moment_at(&self, now: Time) -> Moment {
        Moment { now, anchor: self.anchor }
    }

    pub(crate) fn get(&self, key: &str) -> Option<Arc<Line>> {
        self.lines.get(key)
    }

    /// Which purges a request that is sent now comes after.
    pub(crate) fn marks(&self) -> Marks {
        let noted = self.purges.lock();
        Marks {
            local: noted.local.last().unwrap_or_default(),
            shared: noted.shared.last().unwrap_or_default(),
        }
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

    /// Stores a whole response, in place of the one for the same requests, here and in the tiers. `false` if it was
    /// purged meanwhile, or is too long. The lease, if there is one, ends with the writing.
    pub(crate) fn put(&self, key: &str, entry: Arc<Entry>, lease: Option<Lease>) -> bool {
        let noted = self.purges.lock();
        // A soft purge meanwhile counts as well: it is not known which of the two states it has.
        if noted.local.fate(key, &entry.meta.tags, entry.marks.local) != Fate::Kept {
            return false;
        }
        let old = self.lines.peek(key).unwrap_or_default();
        let variants = self.with(key, &old, Variant(Arc::clone(&entry)));
        let line = Line { variants, ..Line::default() };
        if line.weight(key) > self.lines.most() {
            self.lines.remove(key);
            return false;
        }
        let line = self.lines.set(key, line);
        drop(noted);
        self.counts.stored.fetch_add(1, Ordering::Relaxed);
        self.tiers.keep(key, &line, entry, lease, self.moment());
        true
    }

    /// Takes in what another tier had of a key; what is newer here stays.
    pub(super) fn restore(&self, key: &str, entries: Vec<Entry>) -> Arc<Line> {
        let now = self.clock.now();
        let noted = self.purges.lock();
        let old = self.lines.peek(key).unwrap_or_default();
        let mut line = old.copy();
        for mut entry in entries {
            match noted.fate(key, &entry) {
                Fate::Purged => continue,
                Fate::Expired => entry.meta.expire(now),
                Fate::Kept => {}
            }
            let newer = line.variants.iter().any(|variant| {
                let stored = &variant.0.meta;
                stored.selecting.same_as(&entry.meta.selecting)
                    && stored.stale_for(now) <= entry.meta.stale_for(now)
                    && stored.age(now) <= entry.meta.age(now)
            });
            if !newer && !entry.meta.useful_for(now).is_zero() {
                line.variants = self.with(key, &line, Variant(Arc::new(entry)));
            }
        }
        if line.variants.is_empty() { old } else { self.lines.set(key, line) }
    }

    /// The variants of a line with another one, as many as are kept: of all that do not fit, the oldest go.
    fn with(&self, key: &str, line: &Line, new: Variant) -> Vec<Variant> {
        let now = self.clock.now();
        let keeps = |variant: &&Variant| {
            !variant.0.meta.selecting.same_as(&new.0.meta.selecting)
                && !variant.0.meta.useful_for(now).is_zero()
        };
        let mut variants: Vec<Variant> = line.variants.iter().filter(keeps).cloned().collect();
        variants.push(new);
        let weight = |variants: &[Variant]| variants.iter().map(|it| it.0.weight()).sum::<usize>();
        let bare = Line::default().weight(key);
        while variants.len() > MAX_VARIANTS
            || (variants.len() > 1 && bare + weight(&variants) > self.lines.most())
        {
            variants.remove(0);
        }
        variants
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

    /// Keeps the body of a stored response in a coding that was made of it.
    pub(crate) fn keep_form(&self, key: &str, making: &Arc<Making>, coding: Coding, body: Bytes) {
        self.change(key, |line| {
            let mut variants = line.variants.iter_mut();
            if let Some(variant) = variants.find(|it| Arc::ptr_eq(&it.0.making, making)) {
                let old = &variant.0;
                let new = old.renewed(old.meta.clone(), old.headers.clone(), old.marks);
                variant.0 = Arc::new(Entry { forms: old.forms.with(coding, body), ..new });
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
        self.change_locked(key, change);
    }

    /// The same for who holds the lock of the purges.
    fn change_locked(&self, key: &str, change: impl FnOnce(&mut Line)) {
        let mut line = self.lines.peek(key).unwrap_or_default().copy();
        change(&mut line);
        if line.is_empty(self.clock.now()) {
            self.lines.remove(key);
        } else {
            self.lines.set(key, line);
        }
    }

    /// Purges what fits: takes it out, or (`soft`) makes it stale, so that it is validated before it is next
    /// served. Responses under way to requests sent before are not stored either. How many responses in memory it
    /// were; the tiers are told.
    pub(crate) fn purge(&self, purge: Purge) -> usize {
        let mut noted = self.purges.lock();
        let mark = noted.local.last().unwrap_or_default() + 1;
        self.tiers.purge(mark, &purge);
        noted.local.note(mark, purge.clone());
        self.purge_memory(&purge)
    }

    /// Does here what was purged by another who shares a tier.
    pub(super) fn purged_elsewhere(&self, mark: (u64, u64), purge: Purge, own: bool) {
        let mut noted = self.purges.lock();
        if noted.shared.last().is_some_and(|last| mark <= last) {
            return;
        }
        noted.shared.note(mark, purge.clone());
        if !own {
            self.note_and_purge(&mut noted, purge);
        }
    }

    fn note_and_purge(&self, noted: &mut Noted, purge: Purge) {
        let mark = noted.local.last().unwrap_or_default() + 1;
        self.tiers.log(mark, &purge);
        self.purge_memory(&purge);
        noted.local.note(mark, purge);
    }

    fn purge_memory(&self, purge: &Purge) -> usize {
        let now = self.clock.now();
        let mut purged = 0;
        for key in self.lines.find(&purge.matcher, usize::MAX) {
            let fits = |variant: &Variant| purge.matcher.fits(&key, &variant.0.meta.tags);
            self.change_locked(&key, |line| {
                if purge.soft {
                    let chosen = line.variants.iter_mut().filter(|variant| fits(variant));
                    purged += chosen.map(|variant| variant.expire(now)).count();
                } else {
                    let before = line.variants.len();
                    line.variants.retain(|variant| !fits(variant));
                    purged += before - line.variants.len();
                    line.uncacheable = Time::ZERO;
                    line.failures = 0;
                }
            });
        }
        self.counts.purged.fetch_add(purged as u64, Ordering::Relaxed);
        purged
    }

    /// Does in memory what was purged by another who shares a tier, and could not be put down there.
    pub(super) fn purge_untold(&self, purge: Purge) {
        let mut noted = self.purges.lock();
        self.note_and_purge(&mut noted, purge);
    }

    /// All that was asked for before this mark of the shared tier counts as purged.
    pub(super) fn forget_shared_until(&self, floor: (u64, u64)) {
        self.purges.lock().shared.forget_until(floor);
    }

    /// Keys in memory that fit, and what is stored of them, at most so many.
    pub(crate) fn find(&self, matcher: &Matcher, most: usize) -> Vec<(Arc<str>, Arc<Line>)> {
        let keys = self.lines.find(matcher, most);
        keys.into_iter().filter_map(|key| self.lines.peek(&key).map(|line| (key, line))).collect()
    }

    /// The tiers behind the memory.
    pub(crate) fn tiers(&self) -> &Tiers {
        &self.tiers
    }
}

impl Variant {
    fn expire(&mut self, now: Time) {
        let old = &self.0;
        let mut meta = old.meta.clone();
        meta.expire(now);
        self.0 = Arc::new(old.renewed(meta, old.headers.clone(), old.marks));
    }
}
