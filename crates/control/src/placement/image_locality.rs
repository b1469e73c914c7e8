use gatewright_determinism::Stream;

use super::{Priority, Want};
use crate::cluster::{Cluster, NodeId};

/// Kubernetes' `imagelocality/image_locality.go`: the size of the image if the node holds it, times the share of nodes
/// that do, from 23 MiB to 1000 MiB.
#[derive(Debug)]
pub(super) struct ImageLocality;

const MIB: i64 = 1024 * 1024;
const LEAST: i64 = 23 * MIB;
const MOST: i64 = 1_000 * MIB;

impl Priority for ImageLocality {
    fn score(
        &mut self,
        cluster: &Cluster,
        want: &Want<'_>,
        node: NodeId,
        max: i64,
        _: &mut Stream,
    ) -> i64 {
        let node = cluster.node(node);
        let held = want.image.filter(|&image| node.has_image(image)).map_or(0, |image| {
            let size = cluster.image(image).size(&node.arch).unwrap_or(0);
            let spread = f64::from(cluster.image_spread(image)) / cluster.nodes().len() as f64;
            (size as f64 * spread) as i64
        });
        max * (held.clamp(LEAST, MOST) - LEAST) / (MOST - LEAST)
    }
}
