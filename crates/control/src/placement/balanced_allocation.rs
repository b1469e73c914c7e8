use gatewright_determinism::Stream;

use super::{Priority, Want};
use crate::cluster::{Cluster, NodeId};

/// `balancedResourceScorer` of Kubernetes' `noderesources/balanced_allocation.go`: one less the standard deviation of
/// the shares of cores and memory that would be taken, which for two is half their difference.
#[derive(Debug)]
pub(super) struct BalancedAllocation;

impl Priority for BalancedAllocation {
    fn score(
        &mut self,
        cluster: &Cluster,
        want: &Want<'_>,
        node: NodeId,
        max: i64,
        _: &mut Stream,
    ) -> i64 {
        let node = cluster.node(node);
        let share = |capacity: u64, free: u64, asked: u64| match capacity {
            0 => None,
            _ => Some(((capacity - free + asked) as f64 / capacity as f64).min(1.0)),
        };
        let (capacity, free) = (&node.capacity, node.free());
        let cpu = share(capacity.cpu, free.cpu, want.requests.cpu);
        let memory = share(capacity.memory, free.memory, want.requests.memory);
        let deviation = match (cpu, memory) {
            (Some(cpu), Some(memory)) => ((cpu - memory) / 2.0).abs(),
            _ => 0.0,
        };
        ((1.0 - deviation) * max as f64) as i64
    }
}
