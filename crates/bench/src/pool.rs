use crate::connection::{Connection, Phase};

/// A thread's connections, by number; freed numbers are used again.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// Connections that may have room for a request, last used first: what was closed meanwhile is passed over.
    idle: Vec<(usize, u32)>,
    /// Connections that are being made.
    pub(crate) connecting: usize,
    /// Requests in flight.
    pub(crate) busy: usize,
    /// All connections, those being made included.
    pub(crate) open: usize,
    pub(crate) counts: PoolCounts,
}

#[derive(Debug, Default)]
struct Slot {
    /// How many connections this number has had: tells a late event of an earlier one.
    generation: u32,
    /// Whether it stands among those that may have room.
    listed: bool,
    connection: Option<Connection>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PoolCounts {
    pub(crate) opened: u64,
    pub(crate) failed: u64,
    /// Most open at once; of several threads, the sum of theirs.
    pub(crate) peak: usize,
}

impl PoolCounts {
    pub(crate) const fn merge(&mut self, other: Self) {
        self.opened += other.opened;
        self.failed += other.failed;
        self.peak += other.peak;
    }
}

impl Pool {
    /// Numbers of all connections, and of some that are closed.
    pub(crate) const fn numbers(&self) -> std::ops::Range<usize> {
        0..self.slots.len()
    }

    pub(crate) fn get(&mut self, index: usize) -> Option<&mut Connection> {
        self.slots.get_mut(index)?.connection.as_mut()
    }

    /// What events of a connection carry.
    pub(crate) fn token(&self, index: usize) -> u64 {
        index as u64 | u64::from(self.slots[index].generation) << 32
    }

    /// The connection whose events carry `token`, unless it was closed meanwhile.
    pub(crate) fn find(&self, token: u64) -> Option<usize> {
        let index = (token & u64::from(u32::MAX)) as usize;
        (self.token(index) == token).then_some(index)
    }

    pub(crate) fn insert(&mut self, connection: Connection) -> usize {
        self.open += 1;
        self.counts.opened += 1;
        self.counts.peak = self.counts.peak.max(self.open);
        self.connecting += usize::from(matches!(connection.phase, Phase::Connecting { .. }));
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        let slot = &mut self.slots[index];
        (slot.connection, slot.listed) = (Some(connection), false);
        index
    }

    /// Closes a connection that is not busy.
    pub(crate) fn remove(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let Some(connection) = slot.connection.take() else { return };
        debug_assert!(!connection.has_requests(), "a request would be lost");
        self.connecting -= usize::from(matches!(connection.phase, Phase::Connecting { .. }));
        slot.generation = slot.generation.wrapping_add(1);
        self.open -= 1;
        self.free.push(index);
    }

    /// Keeps a connection for a later request.
    pub(crate) fn keep_idle(&mut self, index: usize) {
        if std::mem::replace(&mut self.slots[index].listed, true) {
            return;
        }
        if self.idle.len() > 2 * self.slots.len() {
            let slots = &self.slots;
            self.idle.retain(|&(index, generation)| slots[index].generation == generation);
        }
        self.idle.push((index, self.slots[index].generation));
    }

    /// The connection that was used last and has room for a request. It stays listed if it has room for another.
    pub(crate) fn take_idle(&mut self) -> Option<usize> {
        loop {
            let &(index, generation) = self.idle.last()?;
            let slot = &mut self.slots[index];
            let is_open = slot.generation == generation;
            let room = slot.connection.as_ref().filter(|_| is_open).map_or(0, Connection::room);
            if room < 2 {
                self.idle.pop();
                slot.listed &= !is_open;
            }
            if room > 0 {
                return Some(index);
            }
        }
    }
}
