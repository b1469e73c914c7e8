use gatewright_determinism::Stream;

use super::{Priority, Want};
use crate::cluster::{Cluster, NodeId};

/// A number drawn for each node.
#[derive(Debug)]
pub(super) struct Random;

impl Priority for Random {
    fn score(&mut self, _: &Cluster, _: &Want<'_>, _: NodeId, _: i64, stream: &mut Stream) -> i64 {
        stream.below(1 << 52) as i64
    }
}
