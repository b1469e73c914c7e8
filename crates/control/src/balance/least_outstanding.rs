use gatewright_determinism::Stream;

use super::{Balancer, Pool, Position};

/// Join the shortest queue: a replica with the fewest requests in flight, drawn among equals so that a tie does
/// not always burden the same one. O(1): the pool keeps its replicas by load.
#[derive(Debug)]
pub(super) struct LeastOutstanding;

impl Balancer for LeastOutstanding {
    fn pick(&mut self, pool: &Pool, stream: &mut Stream) -> Option<Position> {
        match pool.least_loaded() {
            [] => None,
            [only] => Some(*only),
            equals => Some(equals[stream.below(equals.len() as u64) as usize]),
        }
    }
}
