use std::collections::BTreeMap;

use gatewright_determinism::Stream;

use super::latency_aware_image_locality::seconds;
use super::{Priority, Want, scheduler};
use crate::cluster::{Cluster, NodeId, Routes, VertexId};

/// skippy's `DataLocalityPriority`: whole seconds that a call's data take to and from where they are kept, over the
/// narrowest links, nothing if they are kept on the node; scaled over the nodes, the quickest best. Of several places
/// that keep an item it takes the one behind the least bandwidth, as skippy does.
#[derive(Debug, Default)]
pub(super) struct DataLocality {
    reads: BTreeMap<VertexId, Routes>,
    writes: BTreeMap<VertexId, Routes>,
}

impl Priority for DataLocality {
    fn score(
        &mut self,
        cluster: &Cluster,
        want: &Want<'_>,
        node: NodeId,
        _: i64,
        _: &mut Stream,
    ) -> i64 {
        let data = &want.deployment.data;
        let topology = cluster.topology();
        let at = cluster.node(node).vertex;
        let mut time = |item: &str, reads: bool| {
            let Some((size, places)) = cluster.item(item) else { return 0 };
            if places.contains(&at) {
                return 0;
            }
            let known = if reads { &mut self.reads } else { &mut self.writes };
            let width = |place: &VertexId| {
                let routes = known.entry(*place).or_insert_with(|| {
                    if reads { topology.routes_from(*place) } else { topology.routes_to(*place) }
                });
                topology.narrowest(routes, at)
            };
            seconds(size, places.iter().map(width).min().flatten())
        };
        let reads: i64 = data.reads.iter().map(|item| time(item, true)).sum();
        reads + data.writes.iter().map(|item| time(item, false)).sum::<i64>()
    }

    fn normalise(&self, scores: &mut [i64], max: i64) {
        scheduler::scale_inverse(scores, max);
    }
}
