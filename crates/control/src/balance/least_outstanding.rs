use std::cmp::Ordering;

use gatewright_determinism::Stream;

use super::{Asks, Balancer, Pool, Position};

/// Join the shortest queue: a replica with the fewest requests in flight, drawn among equals so that a tie does
/// not always burden the same one. O(1): the pool keeps its replicas by load.
///
/// Where weights differ, the one with the least (requests in flight + 1) / weight, as HAProxy's `leastconn`; it
/// looks at all that have a free slot.
#[derive(Debug)]
pub(super) struct LeastOutstanding;

impl Balancer for LeastOutstanding {
    fn pick(&mut self, pool: &Pool, _: Asks, stream: &mut Stream) -> Option<Position> {
        if pool.is_weighted() {
            return least_by_weight(pool, stream);
        }
        match pool.least_loaded() {
            [] => None,
            [only] => Some(*only),
            equals => Some(equals[stream.below(equals.len() as u64) as usize]),
        }
    }
}

fn least_by_weight(pool: &Pool, stream: &mut Stream) -> Option<Position> {
    let mut best: Option<Position> = None;
    let mut equals = 0;
    for &position in pool.available() {
        match best.map(|best| pool.compare(position, best)) {
            Some(Ordering::Greater) => {}
            Some(Ordering::Equal) => {
                // Each of the equals is kept with the same chance.
                equals += 1;
                if stream.below(equals) == 0 {
                    best = Some(position);
                }
            }
            Some(Ordering::Less) | None => {
                (best, equals) = (Some(position), 1);
            }
        }
    }
    best
}
