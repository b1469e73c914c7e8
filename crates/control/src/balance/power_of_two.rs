use gatewright_determinism::Stream;

use super::{Asks, Balancer, Pool, Position};

/// The power of two choices (Mitzenmacher, 2001): two different replicas with a free slot are drawn, the one with
/// the lower (requests in flight + 1) / weight wins, the first one on a tie.
#[derive(Debug)]
pub(super) struct PowerOfTwo;

impl Balancer for PowerOfTwo {
    fn pick(&mut self, pool: &Pool, _: Asks, stream: &mut Stream) -> Option<Position> {
        let (a, b) = two(pool, stream)?;
        Some(if pool.compare(b, a).is_lt() { b } else { a })
    }
}

/// Two different replicas with a free slot, or one twice if there is no other. The draw is Finagle's and tower's:
/// the second index is taken from one fewer and moved past the first.
pub(super) fn two(pool: &Pool, stream: &mut Stream) -> Option<(Position, Position)> {
    let available = pool.available();
    let count = available.len() as u64;
    if count < 2 {
        return available.first().map(|only| (*only, *only));
    }
    let a = stream.below(count);
    let b = stream.below(count - 1);
    let b = if b >= a { b + 1 } else { b };
    Some((available[a as usize], available[b as usize]))
}
