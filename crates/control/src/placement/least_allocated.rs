use gatewright_determinism::Stream;

use super::{Priority, Want};
use crate::cluster::{Cluster, NodeId};

/// `leastResourceScorer` of Kubernetes' `noderesources/least_allocated.go`: the mean share of cores and memory that
/// would be left, in whole numbers as there.
#[derive(Debug)]
pub(super) struct LeastAllocated;

impl Priority for LeastAllocated {
    fn score(
        &mut self,
        cluster: &Cluster,
        want: &Want<'_>,
        node: NodeId,
        max: i64,
        _: &mut Stream,
    ) -> i64 {
        let node = cluster.node(node);
        let (capacity, free) = (&node.capacity, node.free());
        let left = |capacity: u64, free: u64, asked: u64| match capacity {
            0 => 0,
            _ => (u128::from(free - asked) * max as u128 / u128::from(capacity)) as i64,
        };
        let cpu = left(capacity.cpu, free.cpu, want.requests.cpu);
        let memory = left(capacity.memory, free.memory, want.requests.memory);
        i64::midpoint(cpu, memory)
    }
}
