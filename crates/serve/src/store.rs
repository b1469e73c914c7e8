//! Responses kept in memory, and the fetches under way.
//!
//! Which entry goes when memory is short is `quick_cache`'s decision, which looks at no clock; whether an entry may
//! be served is [`gatewright_control::cache`]'s.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use gatewright_control::cache::Stored;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use quick_cache::{Equivalent, Weighter};
use tokio::sync::watch;

use crate::plane::Failure;

/// Bytes that an entry is taken to need besides its body and its header fields.
const OVERHEAD: u64 = 256;
/// What an entry is guessed to weigh, for the size of the table.
const GUESS: u64 = 8 * 1024;

/// What a response is stored under: its route, and path and query of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    route: u32,
    path: Box<str>,
}

/// A key that is not owned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyRef<'a> {
    pub(crate) route: u32,
    pub(crate) path: &'a str,
}

/// A stored response.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// When it was received and how long it is fresh; it is not stored without.
    pub(crate) stored: Option<Stored>,
    /// Whether it may answer requests that carry credentials.
    pub(crate) public: bool,
}

/// How a fetch ended, for those who waited for it.
#[derive(Clone, Debug)]
pub(crate) enum Fetched {
    /// With a response for all.
    Shared(Arc<Entry>),
    /// With a response that is the first client's alone: the others fetch for themselves.
    Own,
    /// With an error for all.
    Failed(Arc<Failure>),
}

/// The responses in memory, and the fetches under way.
#[derive(Debug)]
pub(crate) struct Store {
    entries: Cache<Key, Arc<Entry>, Weight>,
    fetches: Mutex<HashMap<Key, watch::Receiver<Option<Fetched>>>>,
    /// Largest body that is stored, in bytes.
    pub(crate) max_body: usize,
}

/// A fetch that others may wait for. Dropped unfinished, it lets the next one try.
#[derive(Debug)]
pub(crate) struct Fetch {
    store: Arc<Store>,
    key: Key,
    done: watch::Sender<Option<Fetched>>,
}

/// What someone who found nothing fresh does.
pub(crate) enum Turn {
    /// There is something fresh after all.
    Found(Arc<Entry>),
    /// Fetch, for all.
    Fetch(Fetch),
    /// Wait for the fetch under way.
    Wait(watch::Receiver<Option<Fetched>>),
}

#[derive(Clone, Debug)]
struct Weight;

impl Weighter<Key, Arc<Entry>> for Weight {
    fn weight(&self, key: &Key, entry: &Arc<Entry>) -> u64 {
        let fields: usize =
            entry.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        OVERHEAD + (key.path.len() + fields + entry.body.len()) as u64
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        KeyRef { route: self.route, path: &self.path }.hash(state);
    }
}

impl Hash for KeyRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u32(self.route);
        state.write(self.path.as_bytes());
    }
}

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.route == key.route && *self.path == *key.path
    }
}

impl KeyRef<'_> {
    fn to_key(self) -> Key {
        Key { route: self.route, path: self.path.into() }
    }

    /// The key as a number, the same in every run: FNV-1a of its bytes.
    pub(crate) fn number(self) -> u64 {
        let bytes = self.route.to_le_bytes().into_iter().chain(self.path.bytes());
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }
}

impl Store {
    /// A store for so many bytes.
    pub(crate) fn new(memory: u64, max_body: u64) -> Arc<Self> {
        let guess = usize::try_from(memory / GUESS).unwrap_or(usize::MAX).clamp(16, 1 << 20);
        Arc::new(Self {
            entries: Cache::with_weighter(guess, memory, Weight),
            fetches: Mutex::default(),
            max_body: usize::try_from(max_body).unwrap_or(usize::MAX),
        })
    }

    pub(crate) fn get(&self, key: KeyRef<'_>) -> Option<Arc<Entry>> {
        self.entries.get(&key)
    }

    /// Weight of what is stored, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.entries.weight()
    }

    /// Decides who fetches. `fresh` says whether an entry is good enough; it is asked again under the lock,
    /// because a fetch may have ended since the first look.
    pub(crate) fn turn(
        self: &Arc<Self>,
        key: KeyRef<'_>,
        fresh: impl FnOnce(Option<&Entry>, bool) -> gatewright_control::cache::Decision,
    ) -> Turn {
        use gatewright_control::cache::Decision;
        let mut fetches = self.fetches.lock();
        let key = key.to_key();
        let under_way = fetches.get(&key);
        let entry = self.entries.get(&key);
        match (fresh(entry.as_deref(), under_way.is_some()), entry, under_way) {
            (Decision::Hit { .. }, Some(entry), _) => Turn::Found(entry),
            (Decision::Collapse, _, Some(under_way)) => Turn::Wait(under_way.clone()),
            _ => {
                let (done, waiting) = watch::channel(None);
                fetches.insert(key.clone(), waiting);
                Turn::Fetch(Fetch { store: Arc::clone(self), key, done })
            }
        }
    }

    /// Stores what came of a request that fetched for itself.
    pub(crate) fn keep(&self, key: KeyRef<'_>, entry: &Arc<Entry>) {
        if entry.stored.is_some() {
            self.entries.insert(key.to_key(), Arc::clone(entry));
        }
    }
}

impl Fetch {
    /// Tells all who wait how it ended; stores the response if it may be.
    pub(crate) fn finish(self, fetched: Fetched) {
        if let Fetched::Shared(entry) = &fetched
            && entry.stored.is_some()
        {
            self.store.entries.insert(self.key.clone(), Arc::clone(entry));
        }
        self.done.send_replace(Some(fetched));
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        // After the response is stored: whoever comes now finds it there or fetches anew.
        self.store.fetches.lock().remove(&self.key);
    }
}
