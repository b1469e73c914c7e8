use gatewright_determinism::Stream;

use super::{Priority, Want};
use crate::cluster::{Cluster, NodeId};

/// skippy's `BalancedResourcePriority`: what is asked for as a share of what is free.
#[derive(Debug)]
pub(super) struct SkippyBalance;

impl Priority for SkippyBalance {
    fn score(
        &mut self,
        cluster: &Cluster,
        want: &Want<'_>,
        node: NodeId,
        max: i64,
        _: &mut Stream,
    ) -> i64 {
        let free = cluster.node(node).free();
        let cpu = want.requests.cpu as f64 / free.cpu.max(1) as f64;
        let memory = want.requests.memory as f64 / free.memory.max(1) as f64;
        if cpu >= 1.0 || memory >= 1.0 {
            0
        } else {
            ((1.0 - (cpu - memory).abs()) * max as f64) as i64
        }
    }
}
