use std::collections::BTreeMap;
use std::fmt;

use super::Want;
use crate::cluster::{Cluster, Lack, Node};

/// Why a node cannot hold a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// It is not there.
    Down,
    /// It has a label that keeps replicas off.
    Avoided,
    /// It lacks a label that the function asks for.
    Label,
    /// There is no build of the image for its architecture.
    Architecture,
    /// It has too little of something left.
    Lack(Lack),
}

/// No node can hold a replica now: how many have which obstacle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unschedulable {
    obstacles: BTreeMap<Obstacle, u32>,
}

impl Unschedulable {
    pub(crate) fn count(&mut self, obstacle: Obstacle) {
        *self.obstacles.entry(obstacle).or_insert(0) += 1;
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Down => "down",
            Self::Avoided => "set apart by a label",
            Self::Label => "without a label it asks for",
            Self::Architecture => "no image for its architecture",
            Self::Lack(lack) => return lack.fmt(f),
        })
    }
}

impl fmt::Display for Unschedulable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: u32 = self.obstacles.values().sum();
        write!(f, "none of {nodes} nodes")?;
        for (number, (obstacle, count)) in self.obstacles.iter().enumerate() {
            write!(f, "{} {count} {obstacle}", if number == 0 { ":" } else { "," })?;
        }
        Ok(())
    }
}

/// What does not change while a node is there, its architecture and labels: Kubernetes' `NodeAffinity` with equal labels
/// only, and skippy's `CheckNodeLabelPresencePred` with labels that must not be present.
pub(super) fn fixed(
    cluster: &Cluster,
    want: &Want<'_>,
    node: &Node,
    avoid: &[String],
) -> Result<(), Obstacle> {
    if avoid.iter().any(|label| node.labels.contains_key(label)) {
        return Err(Obstacle::Avoided);
    }
    let asked = &want.deployment.node_labels;
    if asked.iter().any(|(key, value)| node.labels.get(key) != Some(value)) {
        return Err(Obstacle::Label);
    }
    let runs = want.image.is_none_or(|image| cluster.image(image).layers(&node.arch).is_some());
    if runs { Ok(()) } else { Err(Obstacle::Architecture) }
}

/// Everything: what does not change, and Kubernetes' `NodeUnschedulable` and `NodeResourcesFit`.
pub(super) fn passes(
    cluster: &Cluster,
    want: &Want<'_>,
    node: &Node,
    avoid: &[String],
) -> Result<(), Obstacle> {
    if !node.is_up() {
        return Err(Obstacle::Down);
    }
    want.requests.fit(node.free()).map_err(Obstacle::Lack)?;
    fixed(cluster, want, node, avoid)
}
