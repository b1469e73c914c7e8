use gatewright_determinism::Stream;

use super::{Priority, Want};
use crate::cluster::{Cluster, NodeId};

/// skippy's `LocalityTypePriority`: nodes labelled `locality.skippy.io/type` = `edge`, which devices of the table that
/// stand at the edge are.
#[derive(Debug)]
pub(super) struct LocalityType;

impl Priority for LocalityType {
    fn score(
        &mut self,
        cluster: &Cluster,
        _: &Want<'_>,
        node: NodeId,
        max: i64,
        _: &mut Stream,
    ) -> i64 {
        let locality = cluster.node(node).labels.get(crate::cluster::LOCALITY);
        if locality.is_some_and(|locality| locality == "edge") { max } else { 0 }
    }
}
