use gatewright_determinism::Stream;

use super::{Priority, Want, scheduler};
use crate::cluster::{Cluster, NodeId, Routes};

/// skippy's `LatencyAwareImageLocalityPriority`: whole seconds that the image takes from the registry over the
/// narrowest link, nothing if the node holds it, in proportion to the longest.
#[derive(Debug, Default)]
pub(super) struct LatencyAwareImageLocality {
    routes: Option<Routes>,
}

impl Priority for LatencyAwareImageLocality {
    fn score(
        &mut self,
        cluster: &Cluster,
        want: &Want<'_>,
        node: NodeId,
        _: i64,
        _: &mut Stream,
    ) -> i64 {
        let node = cluster.node(node);
        let Some(image) = want.image.filter(|&image| !node.has_image(image)) else { return 0 };
        let size = cluster.image(image).size(&node.arch).unwrap_or(0);
        let topology = cluster.topology();
        let routes = self.routes.get_or_insert_with(|| topology.routes_from(cluster.registry()));
        seconds(size, topology.narrowest(routes, node.vertex))
    }

    fn normalise(&self, scores: &mut [i64], max: i64) {
        scheduler::scale_times(scores, max);
    }
}

/// Whole seconds for `size` bytes over a bandwidth; none if there is no link, for ever if there is no way.
pub(super) fn seconds(size: u64, bandwidth: Option<u64>) -> i64 {
    match bandwidth {
        _ if size == 0 => 0,
        None => i64::from(u32::MAX),
        Some(bandwidth) => (size / bandwidth.max(1)) as i64,
    }
}
