use std::collections::VecDeque;

use gatewright_determinism::Time;
use slotmap::{Key, SecondaryMap};

/// One timer per key, the earliest first, each of which can be moved or dropped: a request that ends early leaves
/// nothing behind for long. Timers due at the same moment fire in the order in which they were set.
///
/// Most are set later than all before them, as the deadlines of a function are that has one time limit: they stand in
/// a row, where setting takes constant time. One that is dropped there stays as a dead entry until it is the first, or
/// until more than half of the row is dead. The others are in a 4-ary heap that knows where each key stands, in
/// O(log n).
#[derive(Clone, Debug)]
pub(crate) struct Timers<K: Key> {
    places: SecondaryMap<K, Place>,
    queue: TimerQueue<K>,
}

/// [`Timers`] of keys that know their own [`Place`]: whoever keeps those is asked for them.
#[derive(Clone, Debug)]
pub(crate) struct TimerQueue<K: Key> {
    /// Timers in the order in which they were set, which is that in which they are due. The first is not dead.
    row: VecDeque<Entry<K>>,
    /// How many of the row are not dead.
    living: usize,
    heap: Vec<Entry<K>>,
    sequence: u64,
    /// When the last of the row is due, or was, if it is empty.
    last: Time,
    /// When the earliest is due: asked for after every event, and changed by few.
    next: Time,
}

/// Keeps the places of timers.
pub(crate) trait Places<K> {
    /// The place of a key's timer; [`Place::NONE`] for a key that is gone.
    fn place(&self, key: K) -> Place;

    /// Notes the place of a key's timer, and returns the one before.
    fn put(&mut self, key: K, place: Place) -> Place;
}

/// Where a timer stands: the sequence number of its entry in the row, or, with every bit turned over, its place in the
/// heap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place(u64);

impl Place {
    /// There is no timer.
    pub(crate) const NONE: Self = Self(0);

    const fn in_row(sequence: u64) -> Self {
        Self(sequence)
    }

    const fn in_heap(place: usize) -> Self {
        Self(!(place as u64))
    }

    /// The place in the heap, if it is there.
    const fn heap(self) -> Option<usize> {
        if self.0 >> 63 == 1 { Some(!self.0 as usize) } else { None }
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry<K> {
    due: Time,
    /// From 1.
    sequence: u64,
    key: K,
}

const ARITY: usize = 4;
/// Dead entries beyond as many as there are living ones, before the row is cleared of them.
const DEAD: usize = 32;

impl<K: Key> Places<K> for SecondaryMap<K, Place> {
    fn place(&self, key: K) -> Place {
        self.get(key).copied().unwrap_or(Place::NONE)
    }

    fn put(&mut self, key: K, place: Place) -> Place {
        let before = if place == Place::NONE { self.remove(key) } else { self.insert(key, place) };
        before.unwrap_or(Place::NONE)
    }
}

impl<K: Key> Timers<K> {
    pub(crate) fn new() -> Self {
        Self { places: SecondaryMap::new(), queue: TimerQueue::new() }
    }

    /// When the earliest timer is due; [`Time::MAX`] if there is none.
    pub(crate) const fn next(&self) -> Time {
        self.queue.next
    }

    /// Sets the timer of `key`, in place of the one it had.
    pub(crate) fn set(&mut self, key: K, due: Time) {
        self.queue.set(&mut self.places, key, due);
    }

    /// Whether `key` has a timer.
    pub(crate) fn is_set(&self, key: K) -> bool {
        self.places.contains_key(key)
    }

    /// Drops the timer of `key`, if it has one.
    pub(crate) fn clear(&mut self, key: K) {
        self.queue.clear(&mut self.places, key);
    }

    /// Takes the earliest timer that is due at `now`.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<K> {
        self.queue.pop_due(&mut self.places, now)
    }
}

impl<K: Key> TimerQueue<K> {
    pub(crate) const fn new() -> Self {
        Self {
            row: VecDeque::new(),
            living: 0,
            heap: Vec::new(),
            sequence: 0,
            last: Time::ZERO,
            next: Time::MAX,
        }
    }

    /// When the earliest timer is due; [`Time::MAX`] if there is none.
    pub(crate) const fn next(&self) -> Time {
        self.next
    }

    fn look_ahead(&mut self) {
        let due = |first: Option<&Entry<K>>| first.map_or(Time::MAX, |entry| entry.due);
        self.next = due(self.row.front()).min(due(self.heap.first()));
    }

    /// Sets the timer of `key`, in place of the one it had.
    #[inline]
    pub(crate) fn set(&mut self, places: &mut impl Places<K>, key: K, due: Time) {
        if due == Time::MAX {
            return self.clear(places, key);
        }
        if !self.is_last(due) {
            return self.enter_heap(places, key, due);
        }
        let place = self.enter_last(key, due);
        let before = places.put(key, place);
        self.drop_at(places, before);
        self.tidy(places);
    }

    /// Whether a timer that is due then would stand last in the row.
    #[inline]
    pub(crate) fn is_last(&self, due: Time) -> bool {
        due < Time::MAX && (due >= self.last || self.row.is_empty())
    }

    /// Sets the timer of a key that has none where it [`TimerQueue::is_last`]; the key has to note the place.
    #[inline(always)]
    pub(crate) fn enter_last(&mut self, key: K, due: Time) -> Place {
        self.sequence += 1;
        self.last = due;
        self.row.push_back(Entry { due, sequence: self.sequence, key });
        self.living += 1;
        self.next = self.next.min(due);
        Place::in_row(self.sequence)
    }

    /// Rids the row of dead entries, if they are too many.
    #[inline(always)]
    pub(crate) fn tidy(&mut self, places: &impl Places<K>) {
        if self.row.len() > 2 * self.living + DEAD {
            self.row.retain(|entry| lives(places, entry));
        }
    }

    fn enter_heap(&mut self, places: &mut impl Places<K>, key: K, due: Time) {
        self.clear(places, key);
        self.sequence += 1;
        let entry = Entry { due, sequence: self.sequence, key };
        let place = self.heap.len();
        places.put(entry.key, Place::in_heap(place));
        self.heap.push(entry);
        self.rise(places, place);
        self.next = self.next.min(entry.due);
    }

    /// Drops the timer of `key`, if it has one.
    #[inline]
    pub(crate) fn clear(&mut self, places: &mut impl Places<K>, key: K) {
        let before = places.put(key, Place::NONE);
        self.drop_at(places, before);
    }

    /// Drops the timer that stood here; its key knows nothing of it any more.
    #[inline(always)]
    pub(crate) fn drop_at(&mut self, places: &mut impl Places<K>, place: Place) {
        if place == Place::NONE {
            return;
        }
        if let Some(place) = place.heap() {
            return self.leave_heap(places, place);
        }
        self.living -= 1;
        if self.row.front().is_some_and(|first| first.sequence == place.0) {
            self.pop_dead(places);
        }
    }

    /// The first of the row is dead.
    fn pop_dead(&mut self, places: &impl Places<K>) {
        self.row.pop_front();
        while self.row.front().is_some_and(|first| !lives(places, first)) {
            self.row.pop_front();
        }
        self.look_ahead();
    }

    fn leave_heap(&mut self, places: &mut impl Places<K>, place: usize) {
        self.heap.swap_remove(place);
        if place < self.heap.len() && self.rise(places, place) == place {
            self.sink(places, place);
        }
        if place == 0 {
            self.look_ahead();
        }
    }

    /// Takes the earliest timer that is due at `now`.
    pub(crate) fn pop_due(&mut self, places: &mut impl Places<K>, now: Time) -> Option<K> {
        if self.next > now {
            return None;
        }
        let first = match (self.row.front(), self.heap.first()) {
            (Some(row), Some(heap)) => *if before(row, heap) { row } else { heap },
            (one, other) => *one.or(other)?,
        };
        self.clear(places, first.key);
        Some(first.key)
    }

    /// Moves an entry up to where it belongs, and returns the place.
    fn rise(&mut self, places: &mut impl Places<K>, mut place: usize) -> usize {
        let entry = self.heap[place];
        while place > 0 {
            let parent = (place - 1) / ARITY;
            if !before(&entry, &self.heap[parent]) {
                break;
            }
            self.put(places, place, self.heap[parent]);
            place = parent;
        }
        self.put(places, place, entry);
        place
    }

    fn sink(&mut self, places: &mut impl Places<K>, mut place: usize) {
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
            self.put(places, place, self.heap[least]);
            place = least;
        }
        self.put(places, place, entry);
    }

    fn put(&mut self, places: &mut impl Places<K>, place: usize, entry: Entry<K>) {
        self.heap[place] = entry;
        places.put(entry.key, Place::in_heap(place));
    }
}

/// Whether an entry of the row is still its key's timer.
fn lives<K: Key>(places: &impl Places<K>, entry: &Entry<K>) -> bool {
    places.place(entry.key) == Place::in_row(entry.sequence)
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

    /// One timer stays the first while another is set again and again, each time later.
    #[test]
    fn what_was_dropped_does_not_pile_up() {
        let mut slots = SlotMap::<DefaultKey, ()>::new();
        let [first, second, third] = [(); 3].map(|()| slots.insert(()));
        let mut timers = Timers::new();
        timers.set(first, Time::from_nanos(1));
        for due in 2..10_000 {
            timers.set(second, Time::from_nanos(due));
            timers.set(third, Time::from_nanos(due));
            assert!(timers.queue.row.len() <= 3 * 2 + DEAD, "{} entries", timers.queue.row.len());
        }
        assert_eq!(timers.pop_due(Time::from_nanos(9_998)), Some(first));
        assert_eq!(timers.pop_due(Time::from_nanos(9_998)), None);
        assert_eq!(timers.pop_due(Time::from_nanos(9_999)), Some(second));
        assert_eq!(timers.pop_due(Time::from_nanos(9_999)), Some(third));
        assert_eq!(timers.next(), Time::MAX);
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
