use gatewright_determinism::Stream;

use super::{Balancer, Pool, Position};

/// Each replica in turn. A replica without a free slot loses its turn.
#[derive(Debug, Default)]
pub(super) struct RoundRobin {
    /// Where the next search starts.
    next: usize,
}

impl Balancer for RoundRobin {
    fn pick(&mut self, pool: &Pool, _: &mut Stream) -> Option<Position> {
        let position = pool.next_available(self.next)?;
        self.next = position.index() + 1;
        Some(position)
    }
}
