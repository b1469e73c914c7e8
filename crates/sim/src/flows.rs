//! Transfers over a network whose links are shared fairly.

use std::collections::BTreeSet;

use gatewright_control::cluster::{LinkId, Topology};
use gatewright_determinism::Time;

/// Transfers under way. The bandwidth of every link is shared by max-min fairness: no flow can have more without
/// taking from one that has less (Bertsekas and Gallager, "Data Networks", section 6.5.2, progressive filling). A
/// flow's coming and going changes only the flows that share links with it, directly or through others.
#[derive(Clone, Debug)]
pub struct Flows<T> {
    /// Bytes per nanosecond.
    capacity: Vec<f64>,
    flows: Vec<Option<Flow<T>>>,
    free: Vec<u32>,
    /// Flows over each link, in the order of their coming.
    over: Vec<Vec<u32>>,
    versions: u32,
}

#[derive(Clone, Debug)]
struct Flow<T> {
    tag: T,
    links: Vec<u32>,
    /// Bytes that were left at `since`.
    left: f64,
    since: Time,
    /// Bytes per nanosecond from then on.
    rate: f64,
    /// Tells events about an earlier rate from those about this one.
    version: u32,
}

/// A flow, and the rate that was its own when its end was foreseen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowEnd {
    flow: u32,
    version: u32,
}

/// Share of a link's bandwidth that is payload: ether's estimate of TCP's overhead.
pub const GOODPUT: f64 = 0.97;

impl<T: Copy> Flows<T> {
    /// No flows over the links of a network.
    #[must_use]
    pub fn new(topology: &Topology) -> Self {
        let links = topology.links();
        Self {
            capacity: links.iter().map(|link| link.bandwidth as f64 * GOODPUT / 1e9).collect(),
            flows: Vec::new(),
            free: Vec::new(),
            over: vec![Vec::new(); links.len()],
            versions: 0,
        }
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.flows.len() - self.free.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Begins a transfer over at least one link. `foresee` is told when each flow will end whose rate has changed:
    /// what it was told of that flow before no longer holds.
    pub fn start(
        &mut self,
        now: Time,
        bytes: u64,
        links: &[LinkId],
        tag: T,
        foresee: impl FnMut(Time, FlowEnd),
    ) {
        let mut links: Vec<u32> = links.iter().map(|link| link.index() as u32).collect();
        links.sort_unstable();
        links.dedup();
        let flow = Flow { tag, links, left: bytes as f64, since: now, rate: 0.0, version: 0 };
        let id = match self.free.pop() {
            Some(id) => {
                self.flows[id as usize] = Some(flow);
                id
            }
            None => {
                self.flows.push(Some(flow));
                self.flows.len() as u32 - 1
            }
        };
        let links = self.get(id).links.clone();
        for &link in &links {
            self.over[link as usize].push(id);
        }
        self.share(now, &links, foresee);
    }

    /// What a foreseen end is the end of; `None` if that flow's rate has changed since.
    pub fn end(
        &mut self,
        now: Time,
        end: FlowEnd,
        foresee: impl FnMut(Time, FlowEnd),
    ) -> Option<T> {
        let place = self.flows.get_mut(end.flow as usize)?;
        if place.as_ref()?.version != end.version {
            return None;
        }
        let flow = place.take()?;
        self.free.push(end.flow);
        for &link in &flow.links {
            self.over[link as usize].retain(|&other| other != end.flow);
        }
        self.share(now, &flow.links, foresee);
        Some(flow.tag)
    }

    /// Bytes per second that each flow has now, with its tag.
    pub fn rates(&self) -> impl Iterator<Item = (T, f64)> {
        self.flows.iter().flatten().map(|flow| (flow.tag, flow.rate * 1e9))
    }

    fn get(&self, id: u32) -> &Flow<T> {
        self.flows[id as usize].as_ref().expect("a flow over a link is under way")
    }

    /// Shares out the links that `seeds` are connected with.
    fn share(&mut self, now: Time, seeds: &[u32], mut foresee: impl FnMut(Time, FlowEnd)) {
        let (links, flows) = self.connected(seeds);
        let rates = self.fill(&links, &flows);
        for (&id, rate) in flows.iter().zip(rates) {
            let Some(flow) = &mut self.flows[id as usize] else { continue };
            if flow.version != 0 && flow.rate == rate {
                continue;
            }
            flow.left = (flow.left - flow.rate * now.nanos_since(flow.since) as f64).max(0.0);
            flow.since = now;
            flow.rate = rate;
            self.versions = self.versions.wrapping_add(1).max(1);
            flow.version = self.versions;
            // Rounded up: when the event comes, everything has been sent.
            let span = (flow.left / flow.rate).ceil() as u64;
            foresee(now.plus_nanos(span), FlowEnd { flow: id, version: flow.version });
        }
    }

    /// The links and flows that can be reached from some links, both in ascending order.
    fn connected(&self, seeds: &[u32]) -> (Vec<u32>, Vec<u32>) {
        let mut links: BTreeSet<u32> = seeds.iter().copied().collect();
        let mut flows = BTreeSet::new();
        let mut open: Vec<u32> = seeds.to_vec();
        while let Some(link) = open.pop() {
            for &flow in &self.over[link as usize] {
                if flows.insert(flow) {
                    let others = self.get(flow).links.iter();
                    open.extend(others.filter(|&&other| links.insert(other)));
                }
            }
        }
        (links.into_iter().collect(), flows.into_iter().collect())
    }

    /// Progressive filling: the link that leaves each of its flows the least decides for them; the rest is shared by
    /// the others in the same way.
    fn fill(&self, links: &[u32], flows: &[u32]) -> Vec<f64> {
        let place =
            |link: u32| links.binary_search(&link).expect("links of connected flows are connected");
        let mut left: Vec<f64> = links.iter().map(|&link| self.capacity[link as usize]).collect();
        let mut open: Vec<usize> =
            links.iter().map(|&link| self.over[link as usize].len()).collect();
        let mut rates: Vec<Option<f64>> = vec![None; flows.len()];
        loop {
            let shares = (0..links.len()).filter(|&at| open[at] > 0);
            let shares = shares.map(|at| (left[at].max(0.0) / open[at] as f64, at));
            let Some((share, narrowest)) = shares.min_by(|one, other| one.0.total_cmp(&other.0))
            else {
                break;
            };
            for &id in &self.over[links[narrowest] as usize] {
                let index =
                    flows.binary_search(&id).expect("flows over connected links are connected");
                if rates[index].is_some() {
                    continue;
                }
                rates[index] = Some(share);
                for &link in &self.get(id).links {
                    left[place(link)] -= share;
                    open[place(link)] -= 1;
                }
            }
        }
        // A bandwidth of nothing would never end.
        rates.into_iter().map(|rate| rate.unwrap_or(0.0).max(1e-9)).collect()
    }
}

#[cfg(test)]
mod tests {
    use gatewright_control::cluster::Cluster;
    use gatewright_control::config::SystemFile;
    use proptest::prelude::*;

    use super::*;

    /// Links of so many bits per second one after another, 8 being one byte per second of payload and overhead.
    fn network(mbits: &[u64]) -> (Flows<u32>, Vec<LinkId>) {
        let links: Vec<_> = (0..)
            .zip(mbits)
            .map(|(n, mbit)| {
                format!(
                    "{{ from = \"{n}\", to = \"{}\", bandwidth = \"{mbit}Mbit\", shared = true }}",
                    n + 1
                )
            })
            .collect();
        let text =
            format!("[cluster]\nnodes = [{{ name = \"n\" }}]\nlinks = [{}]", links.join(", "));
        let file = SystemFile::parse(&text, &[]).unwrap();
        let cluster = Cluster::new(&file.cluster, &file.image).unwrap().unwrap();
        let topology = cluster.topology();
        let [first, last] = [0, mbits.len()].map(|n| topology.named(&n.to_string()).unwrap());
        let way = topology.route(&topology.routes_from(first), last).unwrap();
        (Flows::new(topology), way.links)
    }

    /// Shares of the nominal bandwidth in Mbit/s, by tag.
    fn shares(flows: &Flows<u32>) -> Vec<f64> {
        let mut rates: Vec<_> = flows.rates().collect();
        rates.sort_by_key(|(tag, _)| *tag);
        rates.iter().map(|(_, rate)| (rate / GOODPUT * 8.0 / 1e3).round() / 1e3).collect()
    }

    #[test]
    fn flows_share_what_others_leave() {
        // Bertsekas and Gallager, figure 6.18, in spirit: three links, one long flow and one short one on each.
        let (mut flows, links) = network(&[10, 4, 6]);
        let mut start = |tag, over: &[LinkId]| flows.start(Time::ZERO, 1, over, tag, |_, _| ());
        start(0, &links);
        start(1, &links[..1]);
        start(2, &links[1..2]);
        start(3, &links[2..]);
        assert_eq!(shares(&flows), [2.0, 8.0, 2.0, 4.0]);
        // Another on the second link: 4/3 each there, and the others gain.
        flows.start(Time::ZERO, 1, &links[1..2], 4, |_, _| ());
        assert_eq!(shares(&flows), [1.333, 8.667, 1.333, 4.667, 1.333]);
    }

    #[test]
    fn flows_that_share_nothing_are_left_alone() {
        let (mut flows, links) = network(&[10, 10]);
        flows.start(Time::ZERO, 1, &links[..1], 0, |_, _| ());
        let mut told = 0;
        flows.start(Time::ZERO, 1, &links[1..], 1, |_, _| told += 1);
        assert_eq!((told, shares(&flows)), (1, vec![10.0, 10.0]));
    }

    /// 100 bytes alone at 1 byte/us for 50 us; then 50 left share with another: 100 us more. The other has sent 50
    /// of its 80 by then and goes on alone: 30 us.
    #[test]
    fn what_was_sent_counts_when_the_rate_changes() {
        let (mut flows, links) = network(&[8]);
        flows.capacity[links[0].index()] = 1e-3;
        let mut ends = Vec::new();
        flows.start(Time::ZERO, 100, &links, 0, |at, end| ends.push((at, end)));
        flows.start(Time::from_nanos(50_000), 80, &links, 1, |at, end| ends.push((at, end)));
        let mut done = Vec::new();
        while let Some(next) = ends.iter().map(|(at, _)| *at).min() {
            let at = ends.iter().position(|(at, _)| *at == next).unwrap();
            let (now, end) = ends.remove(at);
            let mut foreseen = Vec::new();
            let ended = flows.end(now, end, |at, end| foreseen.push((at, end)));
            done.extend(ended.map(|tag| (tag, now.as_nanos())));
            ends.extend(foreseen);
        }
        assert_eq!(done, [(0, 150_000), (1, 180_000)]);
        assert!(flows.is_empty());
    }

    proptest! {
        /// No link carries more than it can, and every flow has a link that is full and on which none has more: the
        /// definition of max-min fairness.
        #[test]
        fn shares_are_fair(
            widths in prop::collection::vec(1u64..50, 1..6),
            steps in prop::collection::vec((0usize..6, 1usize..6), 1..20),
        ) {
            let (mut flows, links) = network(&widths);
            for (tag, (from, length)) in (0u32..).zip(steps) {
                let from = from.min(widths.len() - 1);
                let to = (from + length).min(widths.len());
                flows.start(Time::ZERO, 1_000_000, &links[from..to], tag, |_, _| ());
            }
            let over = |link: usize| flows.over[link].iter().map(|&id| flows.get(id).rate);
            let carries = |link: usize| over(link).sum::<f64>();
            for link in &links {
                prop_assert!(carries(link.index()) <= flows.capacity[link.index()] * (1.0 + 1e-9));
            }
            for flow in flows.flows.iter().flatten() {
                let bound = |&link: &u32| {
                    let link = link as usize;
                    let full = carries(link) >= flows.capacity[link] * (1.0 - 1e-9);
                    full && over(link).all(|rate| rate <= flow.rate * (1.0 + 1e-9))
                };
                prop_assert!(flow.links.iter().any(bound));
            }
        }
    }
}
