use crate::ReplicaKey;

/// The running replicas of one function and how busy each is, kept so that every balancer finds what it needs
/// without looking at all of them: those with a free slot, those with the least load, the next one in turn.
#[derive(Debug)]
pub struct Pool {
    /// Requests at a time in one replica.
    limit: u32,
    members: Vec<Member>,
    vacant: Vec<Position>,
    /// Members with a free slot, in no order.
    available: Vec<Position>,
    /// One bit a member, set if it has a free slot.
    free: Vec<u64>,
    /// Members with a free slot by requests in flight.
    levels: Vec<Vec<Position>>,
    /// The lowest level that is not empty; `levels.len()` if all are.
    lowest: usize,
    in_flight: u64,
}

/// A member's place in its [`Pool`]; stable while it is a member, and lower for those that joined an empty
/// place earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u32);

#[derive(Clone, Debug)]
struct Member {
    replica: ReplicaKey,
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
        }
    }

    /// Lets members work on more requests at a time; fewer than before are not set.
    pub(crate) fn raise_limit(&mut self, limit: Option<u32>) {
        let old = self.limit;
        self.limit = limit.unwrap_or(u32::MAX).max(old);
        if self.limit == old {
            return;
        }
        let members = (0..self.members.len()).map(|index| Position(index as u32));
        let full: Vec<_> = members
            .filter(|position| self.load(*position) == old && !self.vacant.contains(position))
            .collect();
        for position in full {
            self.offer(position);
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
        self.members[position.index()].replica
    }

    /// Requests in flight at all members.
    #[must_use]
    pub const fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// A replica that is running joins, idle.
    pub(crate) fn join(&mut self, replica: ReplicaKey) -> Position {
        let member = Member { replica, load: 0, available: 0, level: 0 };
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
        let load = self.load(position);
        if load < self.limit {
            self.withdraw(position);
        }
        self.in_flight -= u64::from(load);
        self.vacant.push(position);
    }

    /// A request starts at a member with a free slot; returns its load, this request included.
    pub(crate) fn begin(&mut self, position: Position) -> u32 {
        debug_assert!(
            self.load(position) < self.limit,
            "no replica holds more than its concurrency"
        );
        self.leave_level(position);
        let member = &mut self.members[position.index()];
        member.load += 1;
        let load = member.load;
        self.in_flight += 1;
        if load < self.limit {
            self.enter_level(position);
        } else {
            self.leave_available(position);
        }
        load
    }

    /// A request of a member has ended.
    pub(crate) fn finish(&mut self, position: Position) {
        let load = self.load(position);
        if load < self.limit {
            self.leave_level(position);
        }
        self.members[position.index()].load = load - 1;
        self.in_flight -= 1;
        if load < self.limit {
            self.enter_level(position);
        } else {
            self.offer(position);
        }
    }

    fn offer(&mut self, position: Position) {
        let index = position.index();
        self.members[index].available = self.available.len() as u32;
        self.available.push(position);
        self.free[index / 64] |= 1 << (index % 64);
        self.enter_level(position);
    }

    fn withdraw(&mut self, position: Position) {
        self.leave_level(position);
        self.leave_available(position);
    }

    fn leave_available(&mut self, position: Position) {
        let index = position.index();
        let place = self.members[index].available as usize;
        self.available.swap_remove(place);
        if let Some(moved) = self.available.get(place) {
            self.members[moved.index()].available = place as u32;
        }
        self.free[index / 64] &= !(1 << (index % 64));
    }

    fn enter_level(&mut self, position: Position) {
        let member = &mut self.members[position.index()];
        let level = member.load as usize;
        if level >= self.levels.len() {
            self.levels.resize_with(level + 1, Vec::new);
        }
        member.level = self.levels[level].len() as u32;
        self.levels[level].push(position);
        self.lowest = self.lowest.min(level);
    }

    fn leave_level(&mut self, position: Position) {
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
            steps in prop::collection::vec((0u8..4, 0usize..70), 0..400),
        ) {
            let mut pool = Pool::new(limit);
            let mut loads: Vec<(Position, u32)> = Vec::new();
            for (what, which) in steps {
                let chosen = loads.get(which).copied();
                match (what, chosen) {
                    (0, _) => loads.push((pool.join(ReplicaKey::default()), 0)),
                    (1, Some((position, load))) if load < limit.unwrap_or(u32::MAX) => {
                        loads[which].1 += 1;
                        prop_assert_eq!(pool.begin(position), load + 1);
                    }
                    (2, Some((position, load))) if load > 0 => {
                        loads[which].1 -= 1;
                        pool.finish(position);
                    }
                    (3, Some((position, _))) => {
                        loads.swap_remove(which);
                        pool.leave(position);
                    }
                    _ => {}
                }
                let free: Vec<_> = loads.iter().filter(|(_, l)| *l < limit.unwrap_or(u32::MAX)).collect();
                let least = free.iter().map(|(_, l)| *l).min();
                let mut expected: Vec<_> =
                    free.iter().filter(|(_, l)| Some(*l) == least).map(|(p, _)| *p).collect();
                let mut found = pool.least_loaded().to_vec();
                expected.sort();
                found.sort();
                prop_assert_eq!(found, expected);
                prop_assert_eq!(pool.available().len(), free.len());
                prop_assert_eq!(pool.in_flight(), loads.iter().map(|(_, l)| u64::from(*l)).sum::<u64>());
                let next = free.iter().map(|(p, _)| *p).filter(|p| p.index() >= which).min();
                let next = next.or_else(|| free.iter().map(|(p, _)| *p).min());
                prop_assert_eq!(pool.next_available(which), next);
            }
        }
    }
}
