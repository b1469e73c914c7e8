use gatewright_determinism::Time;
use slotmap::{Key, SecondaryMap};

/// One timer per key, the earliest first: a 4-ary heap that knows where each key stands, so that a timer can be
/// moved or dropped in O(log n) and a request that ends early leaves nothing behind.
///
/// Timers due at the same moment fire in the order in which they were set.
#[derive(Clone, Debug)]
pub(crate) struct Timers<K: Key> {
    heap: Vec<Entry<K>>,
    places: SecondaryMap<K, u32>,
    sequence: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry<K> {
    due: Time,
    sequence: u64,
    key: K,
}

const ARITY: usize = 4;

impl<K: Key> Timers<K> {
    pub(crate) fn new() -> Self {
        Self { heap: Vec::new(), places: SecondaryMap::new(), sequence: 0 }
    }

    /// When the earliest timer is due; [`Time::MAX`] if there is none.
    pub(crate) fn next(&self) -> Time {
        self.heap.first().map_or(Time::MAX, |entry| entry.due)
    }

    /// Sets the timer of `key`, in place of the one it had.
    pub(crate) fn set(&mut self, key: K, due: Time) {
        self.clear(key);
        if due == Time::MAX {
            return;
        }
        self.sequence += 1;
        let place = self.heap.len();
        self.places.insert(key, place as u32);
        self.heap.push(Entry { due, sequence: self.sequence, key });
        self.rise(place);
    }

    /// Drops the timer of `key`, if it has one.
    pub(crate) fn clear(&mut self, key: K) {
        if let Some(place) = self.places.remove(key) {
            let place = place as usize;
            self.heap.swap_remove(place);
            if place < self.heap.len() && self.rise(place) == place {
                self.sink(place);
            }
        }
    }

    /// Takes the earliest timer that is due at `now`.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<K> {
        let first = self.heap.first()?;
        if first.due > now {
            return None;
        }
        let key = first.key;
        self.clear(key);
        Some(key)
    }

    /// Moves an entry up to where it belongs, and returns the place.
    fn rise(&mut self, mut place: usize) -> usize {
        let entry = self.heap[place];
        while place > 0 {
            let parent = (place - 1) / ARITY;
            if !before(&entry, &self.heap[parent]) {
                break;
            }
            self.put(place, self.heap[parent]);
            place = parent;
        }
        self.put(place, entry);
        place
    }

    fn sink(&mut self, mut place: usize) {
        let entry = self.heap[place];
        loop {
            let first = place * ARITY + 1;
            let last = (first + ARITY).min(self.heap.len());
            let Some(least) = (first..last)
                .reduce(|a, b| if before(&self.heap[b], &self.heap[a]) { b } else { a })
            else {
                break;
            };
            if !before(&self.heap[least], &entry) {
                break;
            }
            self.put(place, self.heap[least]);
            place = least;
        }
        self.put(place, entry);
    }

    fn put(&mut self, place: usize, entry: Entry<K>) {
        self.heap[place] = entry;
        if let Some(known) = self.places.get_mut(entry.key) {
            *known = place as u32;
        }
    }
}

fn before<K>(a: &Entry<K>, b: &Entry<K>) -> bool {
    (a.due, a.sequence) < (b.due, b.sequence)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use slotmap::{DefaultKey, SlotMap};

    use super::*;

    proptest! {
        /// Against a sorted map: set, move, clear and pop in any order.
        #[test]
        fn agrees_with_a_sorted_map(steps in prop::collection::vec((0u8..3, 0usize..12, 0u64..40), 0..300)) {
            let mut slots = SlotMap::<DefaultKey, ()>::new();
            let keys: Vec<_> = (0..12).map(|_| slots.insert(())).collect();
            let mut timers = Timers::new();
            let mut model = BTreeMap::new();
            for (sequence, (what, which, due)) in steps.into_iter().enumerate() {
                let key = keys[which];
                match what {
                    0 => {
                        model.retain(|_, k| *k != key);
                        model.insert((due, sequence), key);
                        timers.set(key, Time::from_nanos(due));
                    }
                    1 => {
                        model.retain(|_, k| *k != key);
                        timers.clear(key);
                    }
                    _ => {
                        let expected = model.first_key_value().filter(|((d, _), _)| *d <= due).map(|(k, v)| (*k, *v));
                        if let Some((at, _)) = expected {
                            model.remove(&at);
                        }
                        prop_assert_eq!(timers.pop_due(Time::from_nanos(due)), expected.map(|(_, k)| k));
                    }
                }
                let next = model.first_key_value().map_or(u64::MAX, |((due, _), _)| *due);
                prop_assert_eq!(timers.next().as_nanos(), next);
            }
        }
    }

    #[test]
    fn never_is_no_timer() {
        let mut slots = SlotMap::<DefaultKey, ()>::new();
        let key = slots.insert(());
        let mut timers = Timers::new();
        timers.set(key, Time::MAX);
        assert_eq!(timers.next(), Time::MAX);
    }
}
