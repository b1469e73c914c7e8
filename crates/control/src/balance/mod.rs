//! Dispatch: which replica a request goes to.
//!
//! One file per algorithm. To add one: write the file, implement [`Balancer`], and add its line to the table
//! below; configuration, command line and reports take the name from there.

mod least_outstanding;
mod pool;
mod power_of_two;
mod round_robin;

use std::fmt;

use gatewright_determinism::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use pool::{Pool, Position};

/// Chooses one of the replicas that have a free slot.
pub trait Balancer: fmt::Debug + Send {
    /// A replica of `pool` with a free slot, or `None` if there is none. `stream` is the request's own luck.
    fn pick(&mut self, pool: &Pool, stream: &mut Stream) -> Option<Position>;
}

/// Defines the table of algorithms: name in configuration, type.
macro_rules! balancers {
    ($($(#[doc = $doc:literal])+ $name:ident => $build:expr,)+) => {
        /// The balancing algorithms by name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum Balance {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Balance {
            /// Every algorithm.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// A fresh balancer of this kind.
            #[must_use]
            pub fn build(self) -> Box<dyn Balancer> {
                match self { $(Self::$name => Box::new($build),)+ }
            }
        }
    };
}

balancers! {
    /// The replica with the fewest requests in flight; ties are drawn.
    LeastOutstanding => least_outstanding::LeastOutstanding,
    /// Of two replicas drawn at random, the one with fewer requests in flight.
    PowerOfTwo => power_of_two::PowerOfTwo,
    /// Each replica in turn, skipping those without a free slot.
    RoundRobin => round_robin::RoundRobin::default(),
}

#[cfg(test)]
mod tests {
    use gatewright_determinism::Purpose;

    use super::*;
    use crate::ReplicaKey;

    fn stream(id: u64) -> Stream {
        Stream::new(1, Purpose::Balance, id)
    }

    fn pool(loads: &[u32], limit: Option<u32>) -> (Pool, Vec<Position>) {
        let mut pool = Pool::new(limit);
        let positions: Vec<_> = loads.iter().map(|_| pool.join(ReplicaKey::default())).collect();
        for (&position, &load) in positions.iter().zip(loads) {
            for _ in 0..load {
                pool.begin(position);
            }
        }
        (pool, positions)
    }

    #[test]
    fn each_takes_the_only_free_slot_and_none_when_full() {
        for balance in Balance::ALL {
            let mut balancer = balance.build();
            let (mut pool, positions) = pool(&[2, 2, 1, 2], Some(2));
            assert_eq!(balancer.pick(&pool, &mut stream(0)), Some(positions[2]), "{balance:?}");
            pool.begin(positions[2]);
            assert_eq!(balancer.pick(&pool, &mut stream(0)), None, "{balance:?}");
        }
    }

    #[test]
    fn round_robin_goes_round() {
        let (mut pool, positions) = pool(&[0, 0, 0], Some(5));
        let mut balancer = Balance::RoundRobin.build();
        let mut turn = || {
            let position = balancer.pick(&pool, &mut stream(0)).unwrap();
            pool.begin(position);
            position
        };
        let order: Vec<_> = (0..6).map(|_| turn()).collect();
        assert_eq!(order, [&positions[..], &positions[..]].concat());
    }

    #[test]
    fn least_outstanding_takes_the_least() {
        let (pool, positions) = pool(&[3, 1, 2, 1], None);
        let mut balancer = Balance::LeastOutstanding.build();
        let mut seen = [0; 4];
        for id in 0..1_000 {
            let position = balancer.pick(&pool, &mut stream(id)).unwrap();
            seen[positions.iter().position(|&p| p == position).unwrap()] += 1;
        }
        assert_eq!((seen[0], seen[2]), (0, 0));
        assert!(seen[1] > 400 && seen[3] > 400, "ties are drawn: {seen:?}");
    }

    /// With loads 0, 1, 2 the least loaded wins unless it is not among the two drawn (1/3), and the most
    /// loaded never wins.
    #[test]
    fn power_of_two_takes_the_better_of_two() {
        let (pool, positions) = pool(&[0, 1, 2], None);
        let mut balancer = Balance::PowerOfTwo.build();
        let mut seen = [0; 3];
        for id in 0..3_000 {
            let position = balancer.pick(&pool, &mut stream(id)).unwrap();
            seen[positions.iter().position(|&p| p == position).unwrap()] += 1;
        }
        assert!((1_850..2_150).contains(&seen[0]), "{seen:?}");
        assert_eq!(seen[2], 0);
    }
}
