use gatewright_determinism::Stream;

use super::{Priority, Want};
use crate::cluster::{Cluster, NodeId};

/// skippy's `CapabilityPriority`: how many of the capabilities that the function names the node has, scaled over the
/// nodes.
#[derive(Debug)]
pub(super) struct Capability;

impl Priority for Capability {
    fn score(
        &mut self,
        cluster: &Cluster,
        want: &Want<'_>,
        node: NodeId,
        _: i64,
        _: &mut Stream,
    ) -> i64 {
        let labels = &cluster.node(node).labels;
        let asked = want.deployment.capabilities.iter();
        asked.filter(|(key, value)| labels.get(*key) == Some(value)).count() as i64
    }

    fn normalise(&self, scores: &mut [i64], max: i64) {
        super::scheduler::scale(scores, max);
    }
}
