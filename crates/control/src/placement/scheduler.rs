use gatewright_determinism::Stream;

use super::{Placement, Priority, Unschedulable, Want, filters};
use crate::cluster::{Cluster, Node, NodeId, Resources};

/// Chooses nodes by filters and weighted priorities: Kubernetes' `schedulePod`, and skippy's `Scheduler.schedule`.
#[derive(Debug)]
pub struct Scheduler {
    priorities: Vec<(f64, Box<dyn Priority>)>,
    avoid: Vec<String>,
    percentage: u32,
    max_score: i64,
    ties_drawn: bool,
    /// Where the search for nodes begins next.
    start: usize,
    feasible: Vec<NodeId>,
    sums: Vec<f64>,
    scores: Vec<i64>,
}

/// `minFeasibleNodesToFind` of `schedule_one.go`.
const MIN_FEASIBLE: usize = 100;
/// `minFeasibleNodesPercentageToFind`.
const MIN_PERCENTAGE: u32 = 5;
/// `DefaultPercentageOfNodesToScore` when it adapts to the number of nodes.
const PERCENTAGE: usize = 50;

impl Scheduler {
    /// A scheduler with these settings, which must be right.
    #[must_use]
    pub fn new(placement: &Placement) -> Self {
        let recipe = placement.policy.recipe();
        let priorities = if placement.priorities.is_empty() {
            recipe.priorities.iter().map(|name| (1.0, name.build())).collect()
        } else {
            placement.priorities.iter().map(|(name, weight)| (*weight, name.build())).collect()
        };
        Self {
            priorities,
            avoid: placement.avoided(),
            percentage: placement.percentage_of_nodes_to_score.unwrap_or(recipe.percentage),
            max_score: recipe.max_score,
            ties_drawn: recipe.ties_drawn,
            start: 0,
            feasible: Vec::new(),
            sums: Vec::new(),
            scores: Vec::new(),
        }
    }

    /// Goes by one priority alone from now on, and by all nodes that can hold a replica; the first of the best.
    pub(crate) fn go_by(&mut self, priority: Box<dyn Priority>) {
        self.priorities = vec![(1.0, priority)];
        self.percentage = 100;
        self.ties_drawn = false;
    }

    /// The node for a replica. `stream` is the replica's own luck.
    ///
    /// # Errors
    /// No node can hold it now; how many have which obstacle.
    pub fn place(
        &mut self,
        cluster: &Cluster,
        want: &Want<'_>,
        stream: &mut Stream,
    ) -> Result<NodeId, Unschedulable> {
        self.find_feasible(cluster, want)?;
        if let [only] = self.feasible[..] {
            self.priorities.iter_mut().for_each(|(_, priority)| priority.placed(only));
            return Ok(only);
        }
        self.sums.clear();
        self.sums.resize(self.feasible.len(), 0.0);
        for (weight, priority) in &mut self.priorities {
            self.scores.clear();
            for &node in &self.feasible {
                self.scores.push(priority.score(cluster, want, node, self.max_score, stream));
            }
            priority.normalise(&mut self.scores, self.max_score);
            for (sum, score) in self.sums.iter_mut().zip(&self.scores) {
                *sum += *weight * *score as f64;
            }
        }
        let best = self.feasible[self.best(stream)];
        self.priorities.iter_mut().for_each(|(_, priority)| priority.placed(best));
        Ok(best)
    }

    /// Whether a node could hold a replica if it had so much left.
    pub(crate) fn could(
        &self,
        cluster: &Cluster,
        want: &Want<'_>,
        node: &Node,
        free: &Resources,
    ) -> bool {
        let fits = node.is_up() && want.requests.fit(free).is_ok();
        fits && filters::fixed(cluster, want, node, &self.avoid).is_ok()
    }

    /// Nodes that can hold the replica, from where the last search ended, until there are enough.
    fn find_feasible(&mut self, cluster: &Cluster, want: &Want<'_>) -> Result<(), Unschedulable> {
        let all = cluster.nodes().len();
        let enough = self.enough(all);
        self.feasible.clear();
        let mut refused = Unschedulable::default();
        let mut looked_at = 0;
        while looked_at < all && self.feasible.len() < enough {
            let id = NodeId::new((self.start + looked_at) % all);
            match filters::passes(cluster, want, cluster.node(id), &self.avoid) {
                Ok(()) => self.feasible.push(id),
                Err(obstacle) => refused.count(obstacle),
            }
            looked_at += 1;
        }
        self.start = (self.start + looked_at) % all.max(1);
        if self.feasible.is_empty() { Err(refused) } else { Ok(()) }
    }

    /// `numFeasibleNodesToFind`.
    fn enough(&self, all: usize) -> usize {
        if self.priorities.is_empty() {
            return 1;
        }
        if all < MIN_FEASIBLE || self.percentage >= 100 {
            return all;
        }
        let percentage = match self.percentage {
            0 => (PERCENTAGE.saturating_sub(all / 125)).max(MIN_PERCENTAGE as usize),
            set => set as usize,
        };
        (all * percentage / 100).max(MIN_FEASIBLE)
    }

    /// The place of the highest sum: the first one, or one drawn from those that share it.
    fn best(&self, stream: &mut Stream) -> usize {
        let highest = self.sums.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut tied = (0..self.sums.len()).filter(|&place| self.sums[place] == highest);
        let first = tied.next().unwrap_or(0);
        let others = tied.clone().count() as u64;
        if !self.ties_drawn || others == 0 {
            return first;
        }
        match stream.below(others + 1) {
            0 => first,
            nth => tied.nth(nth as usize - 1).unwrap_or(first),
        }
    }
}

/// skippy's `_scale_scores_inverse`: the lowest is best.
pub(super) fn scale_inverse(scores: &mut [i64], max: i64) {
    let (least, most) = range(scores);
    for score in scores {
        *score = if most == least { 0 } else { (most - *score) * max / (most - least) };
    }
}

/// skippy's `_scale_scores`.
pub(super) fn scale(scores: &mut [i64], max: i64) {
    let (least, most) = range(scores);
    for score in scores {
        *score = if most == least { 0 } else { (*score - least) * max / (most - least) };
    }
}

/// skippy's `LocalityPriority.reduce_mapped_score`: in proportion to the time saved, not to the rank.
pub(super) fn scale_times(times: &mut [i64], max: i64) {
    let (least, most) = range(times);
    for time in times {
        *time = if most == 0 { 0 } else { max * (most - *time + least) / most };
    }
}

fn range(scores: &[i64]) -> (i64, i64) {
    let least = scores.iter().copied().min().unwrap_or(0);
    (least, scores.iter().copied().max().unwrap_or(0))
}
