use gatewright_determinism::Stream;

use super::{Priority, Want};
use crate::cluster::{Cluster, NodeId};

/// The first node after the one that was taken last.
#[derive(Debug, Default)]
pub(super) struct RoundRobin {
    next: usize,
}

impl Priority for RoundRobin {
    fn score(
        &mut self,
        cluster: &Cluster,
        _: &Want<'_>,
        node: NodeId,
        _: i64,
        _: &mut Stream,
    ) -> i64 {
        let nodes = cluster.nodes().len();
        -(((node.index() + nodes - self.next % nodes) % nodes) as i64)
    }

    fn placed(&mut self, node: NodeId) {
        self.next = node.index() + 1;
    }
}
