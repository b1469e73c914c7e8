use gatewright_determinism::Stream;

use super::{Priority, Want};
use crate::cluster::{Cluster, NodeId};

/// The fewer replicas a node has, the better.
#[derive(Debug)]
pub(super) struct LeastLoaded;

impl Priority for LeastLoaded {
    fn score(
        &mut self,
        cluster: &Cluster,
        _: &Want<'_>,
        node: NodeId,
        _: i64,
        _: &mut Stream,
    ) -> i64 {
        -(cluster.node(node).replicas().len() as i64)
    }

    fn normalise(&self, scores: &mut [i64], max: i64) {
        // Ranks that differ stay different: with a whole-number scale of 100, 101 replicas and 102 would be one.
        let most = scores.iter().copied().max().unwrap_or(0);
        for score in scores {
            *score = max + (*score - most);
        }
    }
}
