use gatewright_determinism::Time;
use slotmap::{Key, SecondaryMap};

/// One timer per key, the earliest first, each of which can be moved or dropped: a request that ends early leaves
/// nothing behind. Timers due at the same moment fire in the order in which they were set.
///
/// Most are set later than all before them, as the deadlines of a function are that has one time limit: they stand in
/// a row through the keys, where setting and dropping takes constant time however many there are. The others are in a
/// 4-ary heap that knows where each key stands, in O(log n).
#[derive(Clone, Debug)]
pub(crate) struct Timers<K: Key> {
    places: SecondaryMap<K, Place<K>>,
    row: Row<K>,
    heap: Vec<Entry<K>>,
    sequence: u64,
    /// When the earliest is due: asked for after every event, and changed by few.
    next: Time,
}

/// Where a timer stands.
#[derive(Clone, Copy, Debug)]
enum Place<K> {
    Row { before: K, after: K, entry: Entry<K> },
    Heap(u32),
}

/// Timers in the order in which they were set, which is that in which they are due.
#[derive(Clone, Copy, Debug)]
struct Row<K> {
    first: Option<Entry<K>>,
    last: K,
    /// When the last one is due.
    until: Time,
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
        let row = Row { first: None, last: K::null(), until: Time::ZERO };
        let (places, heap) = (SecondaryMap::new(), Vec::new());
        Self { places, row, heap, sequence: 0, next: Time::MAX }
    }

    /// When the earliest timer is due; [`Time::MAX`] if there is none.
    pub(crate) const fn next(&self) -> Time {
        self.next
    }

    fn look_ahead(&mut self) {
        let due = |first: Option<&Entry<K>>| first.map_or(Time::MAX, |entry| entry.due);
        self.next = due(self.row.first.as_ref()).min(due(self.heap.first()));
    }

    /// Sets the timer of `key`, in place of the one it had.
    pub(crate) fn set(&mut self, key: K, due: Time) {
        self.clear(key);
        if due == Time::MAX {
            return;
        }
        self.sequence += 1;
        self.next = self.next.min(due);
        let entry = Entry { due, sequence: self.sequence, key };
        if self.row.first.is_none() || due >= self.row.until {
            return self.append(entry);
        }
        let place = self.heap.len();
        self.places.insert(key, Place::Heap(place as u32));
        self.heap.push(entry);
        self.rise(place);
    }

    /// Drops the timer of `key`, if it has one.
    pub(crate) fn clear(&mut self, key: K) {
        match self.places.remove(key) {
            None => {}
            Some(Place::Row { before, after, .. }) => {
                self.unlink(before, after);
                if before.is_null() {
                    self.look_ahead();
                }
            }
            Some(Place::Heap(place)) => {
                let place = place as usize;
                self.heap.swap_remove(place);
                if place < self.heap.len() && self.rise(place) == place {
                    self.sink(place);
                }
                if place == 0 {
                    self.look_ahead();
                }
            }
        }
    }

    /// Takes the earliest timer that is due at `now`.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<K> {
        let first = match (&self.row.first, self.heap.first()) {
            (Some(row), Some(heap)) => *if before(row, heap) { row } else { heap },
            (one, other) => *one.as_ref().or(other)?,
        };
        if first.due > now {
            return None;
        }
        self.clear(first.key);
        Some(first.key)
    }

    /// Puts an entry at the end of the row.
    fn append(&mut self, entry: Entry<K>) {
        let before = if self.row.first.is_some() { self.row.last } else { K::null() };
        match self.places.get_mut(before) {
            Some(Place::Row { after, .. }) => *after = entry.key,
            _ => self.row.first = Some(entry),
        }
        self.row.last = entry.key;
        self.row.until = entry.due;
        self.places.insert(entry.key, Place::Row { before, after: K::null(), entry });
    }

    /// Joins the neighbours of an entry that has left the row.
    fn unlink(&mut self, before: K, after: K) {
        let next = match self.places.get_mut(after) {
            Some(Place::Row { before: own, entry, .. }) => {
                *own = before;
                Some(*entry)
            }
            _ => None,
        };
        let previous = match self.places.get_mut(before) {
            Some(Place::Row { after: own, entry, .. }) => {
                *own = after;
                Some(*entry)
            }
            _ => None,
        };
        if previous.is_none() {
            self.row.first = next;
        }
        if next.is_none() {
            self.row.last = before;
            self.row.until = previous.map_or(Time::ZERO, |entry| entry.due);
        }
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
            *known = Place::Heap(place as u32);
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
