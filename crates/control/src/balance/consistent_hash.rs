use gatewright_determinism::{Stream, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::hash::mix;
use super::{Asks, Balancer, Pool, Position};

/// Settings of the balancer that keeps what belongs together at one replica.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ConsistentHash {
    /// What of a request decides. One that has no such header or cookie goes by its path.
    pub key: HashKey,
    /// A replica that has more than so many times its share of the requests in flight passes the next one on.
    pub load: f64,
}

/// What of a request is hashed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HashKey {
    /// Path and query.
    #[default]
    Path,
    /// The client's address.
    Address,
    /// The header field of this name.
    Header(String),
    /// The cookie of this name.
    Cookie(String),
}

impl Default for ConsistentHash {
    fn default() -> Self {
        Self { key: HashKey::Path, load: 1.25 }
    }
}

impl ConsistentHash {
    pub(super) fn check(&self) -> Result<(), &'static str> {
        match &self.key {
            _ if !(1.0..=1_000.0).contains(&self.load) => Err("load must be 1 to 1000"),
            HashKey::Header(name) | HashKey::Cookie(name) if name.is_empty() => {
                Err("key names no header or cookie")
            }
            _ => Ok(()),
        }
    }
}

/// Points on the ring for a weight of one. With 100, the shares of equal replicas differ by about a tenth.
const POINTS: u32 = 100;

/// Consistent hashing (Karger et al., 1997) with bounded loads (Mirrokni, Thorup, Zadimoghaddam: "Consistent
/// hashing with bounded loads", SODA 2018): every replica stands at many points of a ring, a request goes to the
/// first point after its own hash whose replica has, this request included, at most `load` times the average
/// number of requests in flight of those that have a free slot, by its weight.
#[derive(Debug)]
pub(super) struct Ring {
    load: f64,
    points: Vec<(u64, Position)>,
    /// Members have come since the ring was sorted.
    unsorted: bool,
}

impl Ring {
    pub(super) fn new(settings: &ConsistentHash) -> Self {
        Self { load: settings.load, points: Vec::new(), unsorted: false }
    }
}

impl Balancer for Ring {
    fn pick(&mut self, pool: &Pool, asks: Asks, _: &mut Stream) -> Option<Position> {
        if std::mem::take(&mut self.unsorted) {
            self.points.sort_unstable();
        }
        let available = pool.available();
        if available.len() < 2 {
            return available.first().copied();
        }
        let share = self.load * (pool.in_flight() + 1) as f64 / pool.available_weight() as f64;
        let start = self.points.partition_point(|(point, _)| *point < asks.key);
        let (before, after) = self.points.split_at(start);
        let mut free = None;
        for &(_, position) in after.iter().chain(before) {
            if !pool.is_available(position) {
                continue;
            }
            free.get_or_insert(position);
            let bound = (share * f64::from(pool.weight(position))).ceil();
            if f64::from(pool.load(position)) + 1.0 <= bound {
                return Some(position);
            }
        }
        // All that are free are above their share: those that are not hold the rest of it.
        free
    }

    fn joined(&mut self, pool: &Pool, position: Position, _: Time) {
        let weight = pool.weight(position);
        let identity = pool.identity(position);
        let point = |number: u32| mix(identity ^ mix(u64::from(number) + 1));
        self.points.extend((0..weight.saturating_mul(POINTS)).map(|n| (point(n), position)));
        self.unsorted = true;
    }

    fn left(&mut self, position: Position) {
        self.points.retain(|(_, other)| *other != position);
    }
}
