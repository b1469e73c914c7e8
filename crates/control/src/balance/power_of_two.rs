use gatewright_determinism::Stream;

use super::{Balancer, Pool, Position};

/// The power of two choices (Mitzenmacher, 2001): two different replicas with a free slot are drawn, the less
/// loaded one wins, the first one on a tie. The draw is Finagle's and tower's: the second index is taken from one
/// fewer and moved past the first.
#[derive(Debug)]
pub(super) struct PowerOfTwo;

impl Balancer for PowerOfTwo {
    fn pick(&mut self, pool: &Pool, stream: &mut Stream) -> Option<Position> {
        let available = pool.available();
        let count = available.len() as u64;
        if count < 2 {
            return available.first().copied();
        }
        let a = stream.below(count);
        let b = stream.below(count - 1);
        let b = if b >= a { b + 1 } else { b };
        let (a, b) = (available[a as usize], available[b as usize]);
        Some(if pool.load(b) < pool.load(a) { b } else { a })
    }
}
