use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};

use super::Line;
use super::index::Index;
use super::purge::Matcher;

/// What a key is guessed to weigh, for the size of the table.
const GUESS: u64 = 8 * 1024;
/// Parts of the memory with a lock each, at most: more are no faster.
const SHARDS: u64 = 64;
/// The share of a part that responses asked for again may take, which is also the most that a line may.
const HOT: f64 = 0.97;

/// The lines in memory, bounded in bytes. Which one goes when memory is short is `quick_cache`'s decision, which
/// looks at no clock.
#[derive(Debug)]
pub(super) struct Lines {
    cache: Cache<Arc<str>, Arc<Line>, Weight, DefaultHashBuilder, Evictions>,
    index: Mutex<Index>,
    memory: u64,
    /// The heaviest line that is kept.
    most: usize,
    evicted: AtomicU64,
}

#[derive(Clone, Debug)]
struct Weight;

/// Collects what goes when something comes.
#[derive(Clone, Debug)]
struct Evictions;

impl Weighter<Arc<str>, Arc<Line>> for Weight {
    fn weight(&self, key: &Arc<str>, line: &Arc<Line>) -> u64 {
        line.weight(key) as u64
    }
}

impl Lifecycle<Arc<str>, Arc<Line>> for Evictions {
    type RequestState = Vec<(Arc<str>, Arc<Line>)>;

    fn on_evict(&self, gone: &mut Self::RequestState, key: Arc<str>, line: Arc<Line>) {
        gone.push((key, line));
    }
}

impl Lines {
    /// So many bytes, of which a body may have `max_body`. What is kept is the same on every machine: a line has to
    /// fit into one part of the memory, so that how many there are follows from what they are to hold.
    pub(super) fn new(memory: u64, max_body: u64) -> Self {
        let guess = usize::try_from(memory / GUESS).unwrap_or(usize::MAX).clamp(16, 1 << 20);
        let shards = (memory / max_body.saturating_mul(2).max(1)).clamp(1, SHARDS);
        let options = OptionsBuilder::new()
            .estimated_items_capacity(guess)
            .weight_capacity(memory)
            .shards(1 << shards.ilog2())
            .hot_allocation(HOT)
            .build()
            .expect("size and weight are given, and the share is one");
        let cache = Cache::with_options(options, Weight, DefaultHashBuilder::default(), Evictions);
        let most = (cache.shard_capacity() as f64 * HOT) as usize;
        Self { cache, index: Mutex::default(), memory, most, evicted: AtomicU64::new(0) }
    }

    /// A line that a request asks for.
    pub(super) fn get(&self, key: &str) -> Option<Arc<Line>> {
        self.cache.get(key)
    }

    /// A line, as if nobody had asked for it.
    pub(super) fn peek(&self, key: &str) -> Option<Arc<Line>> {
        self.cache.peek(key)
    }

    /// Puts a line in the place of the one before.
    pub(super) fn set(&self, key: &str, line: Line) -> Arc<Line> {
        let (key, line): (Arc<str>, _) = (key.into(), Arc::new(line));
        let mut index = self.index.lock();
        let old = self.cache.peek(&key);
        if let Some(old) = &old {
            index.remove(&key, old);
        }
        index.add(&key, &line);
        let mut gone = Vec::new();
        self.cache.insert_with_lifecycle(key, Arc::clone(&line), &mut gone);
        // What is replaced is told of as well, and is out of the index already.
        gone.retain(|(_, line)| old.as_ref().is_none_or(|old| !Arc::ptr_eq(old, line)));
        for (key, line) in &gone {
            index.remove(key, line);
        }
        drop(index);
        self.evicted.fetch_add(gone.len() as u64, Ordering::Relaxed);
        line
    }

    pub(super) fn remove(&self, key: &str) {
        let mut index = self.index.lock();
        if let Some((key, line)) = self.cache.remove(key) {
            index.remove(&key, &line);
        }
    }

    /// The keys that may have what fits, at most `most`.
    pub(super) fn find(&self, matcher: &Matcher, most: usize) -> Vec<Arc<str>> {
        self.index.lock().find(matcher, most)
    }

    pub(super) fn len(&self) -> usize {
        self.cache.len()
    }

    /// Weight of what is stored, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.cache.weight()
    }

    /// The heaviest line that is kept, in bytes.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// The bound of the weight, in bytes.
    pub(super) fn memory(&self) -> u64 {
        self.memory
    }

    /// Lines that went because memory was short.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_replaced_is_found_still() {
        let lines = Lines::new(64 * 1024, 32 * 1024);
        for _ in 0..3 {
            lines.set("http://h/x", Line::default());
            assert_eq!(lines.find(&Matcher::Path("/x".to_owned()), 9).len(), 1);
        }
        assert_eq!((lines.len(), lines.evicted()), (1, 0));
        lines.set(&format!("http://h/{}", "x".repeat(80 * 1024)), Line::default());
        assert_eq!(lines.len(), 1, "it is too large");
        assert_eq!(lines.find(&Matcher::Prefix("/".to_owned()), 9).len(), 1);
    }

    #[test]
    fn as_much_is_kept_of_few_large_ones_as_of_many_small_ones() {
        const MIB: u64 = 1024 * 1024;
        for (memory, max_body) in [(16, 8), (256, 8), (256, 128), (100, 9), (1, 1)] {
            let lines = Lines::new(memory * MIB, max_body * MIB);
            let key = "x".repeat(usize::try_from((max_body * MIB).min(memory * MIB / 2)).unwrap());
            assert!(Line::default().weight(&key) <= lines.most(), "{max_body} of {memory}");
            lines.set(&key, Line::default());
            assert!(lines.get(&key).is_some(), "{max_body} of {memory}");
        }
    }

    #[test]
    fn what_is_evicted_is_found_no_longer() {
        let lines = Lines::new(64 * 1024, 32 * 1024);
        for number in 0..10_000 {
            lines.set(&format!("http://h/{number}"), Line::default());
        }
        assert!(lines.bytes() <= 64 * 1024);
        let found = lines.find(&Matcher::Prefix("/".to_owned()), usize::MAX);
        assert_eq!(found.len(), lines.len());
        assert_eq!(lines.evicted(), 10_000 - lines.len() as u64);
        for key in found {
            lines.remove(&key);
        }
        assert!(lines.find(&Matcher::Prefix("/".to_owned()), 1).is_empty());
        assert_eq!(lines.len(), 0);
    }
}
