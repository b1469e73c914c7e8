use std::time::Duration;

use gatewright_determinism::Purpose;
use proptest::prelude::*;

use super::*;
use crate::ReplicaKey;

const NOW: Asks = Asks { now: Time::ZERO, key: 0 };

fn stream(id: u64) -> Stream {
    Stream::new(1, Purpose::Balance, id)
}

/// A pool with a balancer that knows of its members.
struct Rig {
    pool: Pool,
    balancer: Box<dyn Balancer>,
    places: Vec<Position>,
}

impl Rig {
    fn new(balance: &Balance, weights: &[u32], limit: Option<u32>) -> Self {
        let balancer = balance.build();
        let mut rig = Self { pool: Pool::new(limit), balancer, places: Vec::new() };
        weights.iter().for_each(|&weight| rig.join(weight));
        rig
    }

    fn loaded(balance: &Balance, loads: &[u32], limit: Option<u32>) -> Self {
        let mut rig = Self::new(balance, &vec![1; loads.len()], limit);
        for (place, &load) in loads.iter().enumerate() {
            (0..load).for_each(|_| rig.begin(place));
        }
        rig
    }

    fn join(&mut self, weight: u32) {
        let identity = hash(format!("http://upstream-{}", self.places.len()).as_bytes());
        let position = self.pool.join(Member { replica: ReplicaKey::default(), weight, identity });
        self.balancer.joined(&self.pool, position, Time::ZERO);
        self.places.push(position);
    }

    fn begin(&mut self, place: usize) {
        let _load = self.pool.begin(self.places[place]);
    }

    fn pick(&mut self, asks: Asks, id: u64) -> Option<usize> {
        let position = self.balancer.pick(&self.pool, asks, &mut stream(id))?;
        self.places.iter().position(|&place| place == position)
    }

    /// How often each is taken by `count` requests that end at once.
    fn shares(&mut self, count: u64) -> Vec<u64> {
        let mut seen = vec![0; self.places.len()];
        for id in 0..count {
            let key = hash(&id.to_le_bytes());
            seen[self.pick(Asks { key, ..NOW }, id).unwrap()] += 1;
        }
        seen
    }
}

fn consistent_hash(load: f64) -> Balance {
    Balance::ConsistentHash(ConsistentHash { load, ..ConsistentHash::default() })
}

#[test]
fn each_takes_the_only_free_slot_and_none_when_full() {
    for balance in Balance::all() {
        let mut rig = Rig::loaded(&balance, &[2, 2, 1, 2], Some(2));
        assert_eq!(rig.pick(NOW, 0), Some(2), "{balance:?}");
        rig.begin(2);
        assert_eq!(rig.pick(NOW, 0), None, "{balance:?}");
    }
}

#[test]
fn round_robin_goes_round() {
    let mut rig = Rig::new(&Balance::RoundRobin, &[1, 1, 1], Some(5));
    let order: Vec<_> = (0..6).map(|id| rig.pick(NOW, id).unwrap()).collect();
    assert_eq!(order, [0, 1, 2, 0, 1, 2]);
}

/// The example of nginx' commit that brought it.
#[test]
fn weighted_round_robin_is_smooth() {
    let mut rig = Rig::new(&Balance::RoundRobin, &[5, 1, 1], None);
    let order: Vec<_> = (0..14).map(|id| rig.pick(NOW, id).unwrap()).collect();
    assert_eq!(order, [0, 0, 1, 0, 2, 0, 0, 0, 0, 1, 0, 2, 0, 0]);
}

#[test]
fn least_outstanding_takes_the_least() {
    let mut rig = Rig::loaded(&Balance::LeastOutstanding, &[3, 1, 2, 1], None);
    let seen = rig.shares(1_000);
    assert_eq!((seen[0], seen[2]), (0, 0));
    assert!(seen[1] > 400 && seen[3] > 400, "ties are drawn: {seen:?}");
}

/// With weights 4 and 1, the loads that stay are 4 : 1.
#[test]
fn least_outstanding_fills_by_weight() {
    for balance in [Balance::LeastOutstanding, Balance::PowerOfTwo] {
        let mut rig = Rig::new(&balance, &[4, 1], None);
        for id in 0..100 {
            let place = rig.pick(NOW, id).unwrap();
            rig.begin(place);
        }
        let loads = [0, 1].map(|place| rig.pool.load(rig.places[place]));
        assert_eq!(loads, [80, 20], "{balance:?}");
    }
}

/// With loads 0, 1, 2 the least loaded wins unless it is not among the two drawn (1/3), and the most
/// loaded never wins.
#[test]
fn power_of_two_takes_the_better_of_two() {
    let seen = Rig::loaded(&Balance::PowerOfTwo, &[0, 1, 2], None).shares(3_000);
    assert!((1_850..2_150).contains(&seen[0]), "{seen:?}");
    assert_eq!(seen[2], 0);
}

#[test]
fn peak_ewma_leaves_a_slow_one_alone_until_it_is_forgotten() {
    let balance = Balance::PeakEwma(PeakEwma::default());
    let mut rig = Rig::new(&balance, &[1, 1], None);
    let after = |seconds| Time::ZERO + Duration::from_secs(seconds);
    let (slow, fast) = (rig.places[0], rig.places[1]);
    rig.balancer.ended(slow, after(0), after(1));
    rig.balancer.ended(fast, after(1), after(1) + Duration::from_millis(10));
    let at = |rig: &mut Rig, now| {
        (0..100).filter(|&id| rig.pick(Asks { now, key: 0 }, id) == Some(0)).count()
    };
    assert_eq!(at(&mut rig, after(2)), 0);
    // The fast one is heard of again and again; the slow one's second has decayed below its 10 ms after
    // 10 s * ln(1 s / 10 ms) = 46 s.
    for second in 2..60 {
        rig.balancer.ended(fast, after(second), after(second) + Duration::from_millis(10));
        let chosen = at(&mut rig, after(second));
        assert!(second >= 44 || chosen == 0, "after {second} s");
        assert!(second <= 48 || chosen == 100, "after {second} s");
    }
}

#[test]
fn a_key_stays_with_its_replica_when_others_come_and_go() {
    let mut rig = Rig::new(&consistent_hash(1_000.0), &[1; 10], None);
    let keys: Vec<_> = (0..10_000u64).map(|key| hash(&key.to_be_bytes())).collect();
    let places = |rig: &mut Rig| -> Vec<_> {
        keys.iter().map(|&key| rig.pick(Asks { key, ..NOW }, 0).unwrap()).collect()
    };
    let before = places(&mut rig);
    let share = |place| before.iter().filter(|&&p| p == place).count();
    assert!((0..10).all(|place| (700..1_300).contains(&share(place))), "about a tenth each");

    rig.join(1);
    let with_one_more = places(&mut rig);
    let moved = before.iter().zip(&with_one_more).filter(|(a, b)| a != b).count();
    assert!(before.iter().zip(&with_one_more).all(|(a, b)| a == b || *b == 10), "only to the new");
    assert!((600..1_250).contains(&moved), "about an eleventh: {moved}");

    rig.pool.set_limit(rig.places[3], 0);
    let without_one = places(&mut rig);
    assert!(with_one_more.iter().zip(&without_one).all(|(a, b)| (a == b) != (*a == 3)));
}

#[test]
fn one_hot_key_does_not_exceed_its_bound() {
    let mut rig = Rig::new(&consistent_hash(1.25), &[1; 8], None);
    for id in 0..1_000 {
        let place = rig.pick(Asks { key: 42, ..NOW }, id).unwrap();
        rig.begin(place);
        let most = rig.places.iter().map(|&p| rig.pool.load(p)).max().unwrap();
        let bound = (1.25 * (id + 1) as f64 / 8.0).ceil();
        assert!(f64::from(most) <= bound, "{most} above {bound}");
    }
}

proptest! {
    /// Whatever the loads, weights and limits, each algorithm finds a free slot if there is one.
    #[test]
    fn each_finds_a_free_slot(
        members in prop::collection::vec((1u32..5, 0u32..4, 0u32..4), 1..12),
        id in any::<u64>(),
    ) {
        for balance in Balance::all() {
            let mut rig = Rig::new(&balance, &[], None);
            for (place, &(weight, load, limit)) in members.iter().enumerate() {
                rig.join(weight);
                (0..load).for_each(|_| rig.begin(place));
                rig.pool.set_limit(rig.places[place], limit);
            }
            let free = members.iter().any(|(_, load, limit)| load < limit);
            let picked = rig.pick(Asks { key: id, ..NOW }, id);
            prop_assert_eq!(picked.is_some(), free);
            prop_assert!(picked.is_none_or(|p| members[p].1 < members[p].2), "{:?}", balance);
        }
    }

    /// In the long run, each is taken as often as its weight says.
    #[test]
    fn round_robin_shares_by_weight(weights in prop::collection::vec(1u32..9, 1..6)) {
        let total: u32 = weights.iter().sum();
        let seen = Rig::new(&Balance::RoundRobin, &weights, None).shares(u64::from(total) * 3);
        let expected: Vec<_> = weights.iter().map(|&weight| u64::from(weight) * 3).collect();
        prop_assert_eq!(seen, expected);
    }
}

#[test]
fn a_balancer_is_a_name_or_a_table() {
    let read = |text: &str| toml::from_str::<std::collections::BTreeMap<String, Balance>>(text);
    let one = |text: &str| read(text).unwrap().remove("balance").unwrap();
    assert_eq!(one("balance = \"round_robin\""), Balance::RoundRobin);
    assert_eq!(one("balance = \"peak_ewma\""), Balance::PeakEwma(PeakEwma::default()));
    let header = HashKey::Header("x-user".to_owned());
    let table =
        "balance = { policy = \"consistent_hash\", key = { header = \"x-user\" }, load = 2.0 }";
    let settings = ConsistentHash { key: header, load: 2.0 };
    assert_eq!(one(table), Balance::ConsistentHash(settings));
    let fault = read("balance = \"round_robbin\"").unwrap_err().to_string();
    assert!(fault.contains("unknown variant `round_robbin`"), "{fault}");
    for balance in Balance::all() {
        let written = serde_json::to_string(&balance).unwrap();
        assert_eq!(serde_json::from_str::<Balance>(&written).unwrap(), balance, "{written}");
    }
}
