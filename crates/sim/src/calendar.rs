use std::fmt;

use gatewright_determinism::Time;

/// What is to happen and when: the earliest event first, and of those at the same moment the one that was
/// entered first.
///
/// A 4-ary heap: half as deep as a binary one, and the four children of a node lie side by side in memory. It
/// holds as many entries as are pending and allocates nothing once it has held them. What is taken leaves its place
/// open until it is known what comes next: most events enter another one, which takes the place at once.
#[derive(Clone)]
pub struct Calendar<E> {
    heap: Vec<Entry<E>>,
    /// Whether the first entry has been taken.
    open: bool,
    entered: u64,
}

#[derive(Clone, Copy)]
struct Entry<E> {
    due: Time,
    sequence: u64,
    event: E,
}

const ARITY: usize = 4;

impl<E: Copy> Calendar<E> {
    /// An empty calendar.
    #[must_use]
    pub const fn new() -> Self {
        Self { heap: Vec::new(), open: false, entered: 0 }
    }

    /// Number of pending events.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.heap.len() - self.open as usize
    }

    /// Whether nothing is pending.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Enters an event.
    #[inline(always)]
    pub fn push(&mut self, due: Time, event: E) {
        self.entered += 1;
        self.push_numbered(due, self.entered, event);
    }

    /// Enters an event that comes, of those at the same moment, in the order of these numbers: several calendars may
    /// count together. Not to be used beside [`Calendar::push`].
    #[inline(always)]
    pub(crate) fn push_numbered(&mut self, due: Time, sequence: u64, event: E) {
        let entry = Entry { due, sequence, event };
        let place = if self.open {
            self.open = false;
            sink(&mut self.heap, entry.key())
        } else {
            self.heap.push(entry);
            self.rise(entry.key())
        };
        self.heap[place] = entry;
    }

    /// Takes the next event.
    pub fn pop(&mut self) -> Option<(Time, E)> {
        self.pop_until(Time::MAX)
    }

    /// When the next event is due, and its number.
    #[inline(always)]
    pub(crate) fn first(&mut self) -> Option<(Time, u64)> {
        self.close();
        self.heap.first().map(|entry| (entry.due, entry.sequence))
    }

    /// Takes the next event if it is due at `last` or before.
    #[inline(always)]
    pub fn pop_until(&mut self, last: Time) -> Option<(Time, E)> {
        self.close();
        let first = self.heap.first().filter(|entry| entry.due <= last)?;
        self.open = true;
        Some((first.due, first.event))
    }

    /// Fills the place of what was taken with the last entry.
    #[inline]
    fn close(&mut self) {
        if self.open {
            self.open = false;
            let last = self.heap.len() - 1;
            let key = self.heap[last].key();
            let place = sink(&mut self.heap[..last], key);
            self.heap.swap_remove(place);
        }
    }

    /// Moves down what comes after `key`, from the place of the last on; returns the place that is open then.
    fn rise(&mut self, key: u128) -> usize {
        let mut place = self.heap.len() - 1;
        while place > 0 {
            let parent = (place - 1) / ARITY;
            if self.heap[parent].key() <= key {
                break;
            }
            self.heap[place] = self.heap[parent];
            place = parent;
        }
        place
    }
}

/// Moves up what comes before `key`, from the open place of the first on; returns the place that is open then.
fn sink<E: Copy>(heap: &mut [Entry<E>], key: u128) -> usize {
    let mut place = 0;
    loop {
        let first = place * ARITY + 1;
        let least = if let Some([a, b, c, d]) = heap.get(first..first + ARITY) {
            let keys = [a.key(), b.key(), c.key(), d.key()];
            let left = usize::from(keys[1] < keys[0]);
            let right = 2 + usize::from(keys[3] < keys[2]);
            first + if keys[right] < keys[left] { right } else { left }
        } else {
            let rest = first..heap.len();
            let Some(least) = rest.min_by_key(|child| heap[*child].key()) else { break };
            least
        };
        if heap[least].key() >= key {
            break;
        }
        heap[place] = heap[least];
        place = least;
    }
    place
}

impl<E> Entry<E> {
    /// Moment and order of entry in one number.
    const fn key(&self) -> u128 {
        (self.due.as_nanos() as u128) << 64 | self.sequence as u128
    }
}

impl<E: Copy> Default for Calendar<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E> fmt::Debug for Calendar<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calendar")
            .field("pending", &(self.heap.len() - usize::from(self.open)))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a sorted map, with pushes and pops in any order.
        #[test]
        fn agrees_with_a_sorted_map(steps in prop::collection::vec((prop::option::weighted(0.6, 0u64..30), 0u64..40), 0..400)) {
            let mut calendar = Calendar::new();
            let mut sorted = BTreeMap::new();
            for (number, (step, last)) in steps.into_iter().enumerate() {
                match step {
                    Some(due) => {
                        calendar.push(Time::from_nanos(due), number);
                        sorted.insert((due, number), number);
                    }
                    None => {
                        let first = sorted.first_entry().filter(|first| first.key().0 <= last);
                        let expected = first.map(|first| (Time::from_nanos(first.key().0), first.remove()));
                        prop_assert_eq!(calendar.pop_until(Time::from_nanos(last)), expected);
                    }
                }
                prop_assert_eq!(calendar.len(), sorted.len());
                prop_assert_eq!(calendar.is_empty(), sorted.is_empty());
            }
        }
    }

    #[test]
    fn ties_come_in_the_order_of_entry() {
        let mut calendar = Calendar::new();
        for number in 0..100 {
            calendar.push(Time::from_nanos(7), number);
        }
        let order: Vec<i32> =
            std::iter::from_fn(|| calendar.pop()).map(|(_, number)| number).collect();
        assert!(order.iter().copied().eq(0..100));
    }
}
