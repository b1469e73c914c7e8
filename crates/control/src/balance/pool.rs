use std::cmp::Ordering;

use crate::ReplicaKey;

/// The running replicas of one function and how busy each is, kept so that every balancer finds what it needs
/// without looking at all of them: those with a free slot, those with the least load, the next one in turn.
#[derive(Debug)]
pub struct Pool {
    /// Requests at a time in one replica.
    limit: u32,
    members: Vec<Place>,
    vacant: Vec<Position>,
    /// Members with a free slot, in no order.
    available: Vec<Position>,
    /// One bit a member, set if it has a free slot.
    free: Vec<u64>,
    /// Members with a free slot by requests in flight. Unused where members take one request at a time: who has a free
    /// slot has no load then, and stands in `available`.
    levels: Vec<Vec<Position>>,
    /// The lowest level that is not empty; `levels.len()` if all are.
    lowest: usize,
    in_flight: u64,
    /// Members whose weight is not 1.
    weighted: u32,
    /// Sum of the weights of those with a free slot.
    available_weight: u64,
}

/// A replica that joins a [`Pool`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Member {
    /// The replica.
    pub replica: ReplicaKey,
    /// Its share of the requests, beside the others'; at least 1.
    pub weight: u32,
    /// What it is known by from run to run: where [`ConsistentHash`](super::ConsistentHash) puts it.
    pub identity: u64,
}

/// A member's place in its [`Pool`]; stable while it is a member, and lower for those that joined an empty
/// place earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u32);

#[derive(Clone, Debug)]
struct Place {
    member: Member,
    /// Requests at a time; 0 takes none.
    limit: u32,
    load: u32,
    /// Index in `available`.
    available: u32,
    /// Index in its level.
    level: u32,
}

impl Position {
    /// The place as an index from 0.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl Pool {
    /// An empty pool whose members work on at most `limit` requests at a time.
    #[must_use]
    pub fn new(limit: Option<u32>) -> Self {
        Self {
            limit: limit.unwrap_or(u32::MAX),
            members: Vec::new(),
            vacant: Vec::new(),
            available: Vec::new(),
            free: Vec::new(),
            levels: vec![Vec::new()],
            lowest: 1,
            in_flight: 0,
            weighted: 0,
            available_weight: 0,
        }
    }

    /// Lets members work on more requests at a time; fewer than before are not set.
    pub(crate) fn raise_limit(&mut self, limit: Option<u32>) {
        let old = self.limit;
        self.limit = limit.unwrap_or(u32::MAX).max(old);
        if self.limit == old {
            return;
        }
        if old == 1 {
            for index in 0..self.available.len() {
                self.enter_level(self.available[index]);
            }
        }
        for index in 0..self.members.len() {
            let position = Position(index as u32);
            // One that is held back for a reason of its own stays so.
            if self.members[index].limit == old && !self.vacant.contains(&position) {
                self.set_limit(position, self.limit);
            }
        }
    }

    /// Members with a free slot, in no particular but a reproducible order.
    #[must_use]
    pub fn available(&self) -> &[Position] {
        &self.available
    }

    /// Members that share the lowest load, if it leaves a slot free.
    #[must_use]
    pub fn least_loaded(&self) -> &[Position] {
        if self.is_single() {
            return &self.available;
        }
        self.levels.get(self.lowest).map_or(&[], Vec::as_slice)
    }

    /// The first member with a free slot at `from` or after it, else the first one from the start.
    #[must_use]
    pub fn next_available(&self, from: usize) -> Option<Position> {
        let word = from / 64;
        let masked = self.free.get(word).map_or(0, |bits| bits & (u64::MAX << (from % 64)));
        let found = if masked != 0 {
            word * 64 + masked.trailing_zeros() as usize
        } else {
            let ahead = self.free.iter().enumerate().skip(word + 1).find(|(_, bits)| **bits != 0);
            let (word, bits) =
                ahead.or_else(|| self.free.iter().enumerate().find(|(_, bits)| **bits != 0))?;
            word * 64 + bits.trailing_zeros() as usize
        };
        Some(Position(found as u32))
    }

    /// Requests in flight at a member.
    #[must_use]
    pub fn load(&self, position: Position) -> u32 {
        self.members[position.index()].load
    }

    /// The replica behind a position.
    #[must_use]
    pub fn replica(&self, position: Position) -> ReplicaKey {
        self.members[position.index()].member.replica
    }

    /// The share of the requests that a member is to have, beside the others'.
    #[must_use]
    pub fn weight(&self, position: Position) -> u32 {
        self.members[position.index()].member.weight
    }

    /// What a member is known by from run to run.
    #[must_use]
    pub fn identity(&self, position: Position) -> u64 {
        self.members[position.index()].member.identity
    }

    /// Whether some member's weight is not 1.
    #[must_use]
    pub const fn is_weighted(&self) -> bool {
        self.weighted > 0
    }

    /// Sum of the weights of the members with a free slot.
    #[must_use]
    pub const fn available_weight(&self) -> u64 {
        self.available_weight
    }

    /// Whether a member has a free slot.
    #[must_use]
    pub fn is_available(&self, position: Position) -> bool {
        let place = &self.members[position.index()];
        place.load < place.limit
    }

    /// Which of two members would have the lower load for its weight if it had one request more.
    #[must_use]
    pub fn compare(&self, a: Position, b: Position) -> Ordering {
        let with_one = |position| u64::from(self.load(position)) + 1;
        let weight = |position| u64::from(self.weight(position));
        (with_one(a) * weight(b)).cmp(&(with_one(b) * weight(a)))
    }

    /// Requests in flight at all members.
    #[must_use]
    pub const fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Lets a member take at most `limit` requests at a time, and no more than the pool's. What it has beyond that
    /// it keeps.
    pub(crate) fn set_limit(&mut self, position: Position, limit: u32) {
        let before = self.is_available(position);
        let place = &mut self.members[position.index()];
        place.limit = limit.min(self.limit);
        match (before, self.is_available(position)) {
            (true, false) => self.withdraw(position),
            (false, true) => self.offer(position),
            _ => {}
        }
    }

    /// The limit of a member.
    pub(crate) fn limit_of(&self, position: Position) -> u32 {
        self.members[position.index()].limit
    }

    /// The index of the place that the next member gets.
    pub(crate) fn next_place(&self) -> u64 {
        self.vacant.last().map_or(self.members.len() as u64, |place| place.index() as u64)
    }

    /// A replica that is running joins, idle.
    pub(crate) fn join(&mut self, member: Member) -> Position {
        self.weighted += u32::from(member.weight != 1);
        let member = Place { member, limit: self.limit, load: 0, available: 0, level: 0 };
        let position = if let Some(position) = self.vacant.pop() {
            self.members[position.index()] = member;
            position
        } else {
            self.members.push(member);
            let position = Position(self.members.len() as u32 - 1);
            self.free.resize(self.members.len().div_ceil(64), 0);
            position
        };
        self.offer(position);
        position
    }

    /// A replica takes no more requests; what it still works on is no longer counted here.
    pub(crate) fn leave(&mut self, position: Position) {
        if self.is_available(position) {
            self.withdraw(position);
        }
        self.in_flight -= u64::from(self.load(position));
        self.weighted -= u32::from(self.weight(position) != 1);
        self.vacant.push(position);
    }

    // What follows is done for every request and takes less time than a call.

    /// A request starts at a member with a free slot; returns its load, this request included.
    #[inline(always)]
    pub(crate) fn begin(&mut self, position: Position) -> u32 {
        debug_assert!(self.is_available(position), "no replica holds more than its concurrency");
        self.leave_level(position);
        let member = &mut self.members[position.index()];
        member.load += 1;
        let load = member.load;
        self.in_flight += 1;
        if self.is_available(position) {
            self.enter_level(position);
        } else {
            self.leave_available(position);
        }
        load
    }

    /// A request of a member has ended.
    #[inline(always)]
    pub(crate) fn finish(&mut self, position: Position) {
        let before = self.is_available(position);
        if before {
            self.leave_level(position);
        }
        self.members[position.index()].load -= 1;
        self.in_flight -= 1;
        match (before, self.is_available(position)) {
            (true, _) => self.enter_level(position),
            (false, true) => self.offer(position),
            (false, false) => {}
        }
    }

    #[inline(always)]
    fn offer(&mut self, position: Position) {
        let index = position.index();
        self.members[index].available = self.available.len() as u32;
        self.available.push(position);
        self.available_weight += u64::from(self.weight(position));
        self.free[index / 64] |= 1 << (index % 64);
        self.enter_level(position);
    }

    fn withdraw(&mut self, position: Position) {
        self.leave_level(position);
        self.leave_available(position);
    }

    #[inline(always)]
    fn leave_available(&mut self, position: Position) {
        let index = position.index();
        let place = self.members[index].available as usize;
        self.available.swap_remove(place);
        self.available_weight -= u64::from(self.weight(position));
        if let Some(moved) = self.available.get(place) {
            self.members[moved.index()].available = place as u32;
        }
        self.free[index / 64] &= !(1 << (index % 64));
    }

    /// Whether members take one request at a time.
    const fn is_single(&self) -> bool {
        self.limit == 1
    }

    #[inline(always)]
    fn enter_level(&mut self, position: Position) {
        if self.is_single() {
            return;
        }
        let member = &mut self.members[position.index()];
        let level = member.load as usize;
        if level >= self.levels.len() {
            self.levels.resize_with(level + 1, Vec::new);
        }
        member.level = self.levels[level].len() as u32;
        self.levels[level].push(position);
        self.lowest = self.lowest.min(level);
    }

    #[inline(always)]
    fn leave_level(&mut self, position: Position) {
        if self.is_single() {
            return;
        }
        let member = &self.members[position.index()];
        let (load, place) = (member.load as usize, member.level as usize);
        let level = &mut self.levels[load];
        level.swap_remove(place);
        if let Some(moved) = level.get(place) {
            self.members[moved.index()].level = place as u32;
        }
        while self.levels.get(self.lowest).is_some_and(Vec::is_empty) {
            self.lowest += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against counting everything anew after every step.
        #[test]
        fn indexes_agree_with_a_full_count(
            limit in prop::option::of(1u32..4),
            steps in prop::collection::vec((0u8..100, 0usize..70, 0u32..5), 0..400),
        ) {
            let mut pool = Pool::new(limit);
            let mut most = limit.unwrap_or(u32::MAX);
            // Position, load, limit.
            let mut loads: Vec<(Position, u32, u32)> = Vec::new();
            for (what, which, new) in steps {
                let chosen = loads.get(which).copied();
                match (what % 5, chosen) {
                    _ if what == 99 => {
                        let old = most;
                        most = most.max(new);
                        let as_all = loads.iter_mut().filter(|(_, _, limit)| *limit == old);
                        as_all.for_each(|(_, _, limit)| *limit = most);
                        pool.raise_limit(Some(new));
                    }
                    (0, _) => {
                        let member = Member { weight: new.max(1), ..Member::default() };
                        loads.push((pool.join(member), 0, most));
                    }
                    (1, Some((position, load, limit))) if load < limit => {
                        loads[which].1 += 1;
                        prop_assert_eq!(pool.begin(position), load + 1);
                    }
                    (2, Some((position, load, _))) if load > 0 => {
                        loads[which].1 -= 1;
                        pool.finish(position);
                    }
                    (3, Some((position, ..))) => {
                        loads.swap_remove(which);
                        pool.leave(position);
                    }
                    (4, Some((position, ..))) => {
                        loads[which].2 = new.min(most);
                        pool.set_limit(position, new);
                    }
                    _ => {}
                }
                let free: Vec<_> = loads.iter().filter(|(_, load, limit)| load < limit).collect();
                let least = free.iter().map(|(_, l, _)| *l).min();
                let mut expected: Vec<_> =
                    free.iter().filter(|(_, l, _)| Some(*l) == least).map(|(p, ..)| *p).collect();
                let mut found = pool.least_loaded().to_vec();
                expected.sort();
                found.sort();
                prop_assert_eq!(found, expected);
                prop_assert_eq!(pool.available().len(), free.len());
                let weight: u64 = free.iter().map(|(p, ..)| u64::from(pool.weight(*p))).sum();
                prop_assert_eq!(pool.available_weight(), weight);
                prop_assert_eq!(pool.in_flight(), loads.iter().map(|(_, l, _)| u64::from(*l)).sum::<u64>());
                let weighted = loads.iter().any(|(p, ..)| pool.weight(*p) != 1);
                prop_assert_eq!(pool.is_weighted(), weighted);
                let next = free.iter().map(|(p, ..)| *p).filter(|p| p.index() >= which).min();
                let next = next.or_else(|| free.iter().map(|(p, ..)| *p).min());
                prop_assert_eq!(pool.next_available(which), next);
            }
        }
    }
}
