//! The machines that replicas run on: what they have, what is taken of it, which images they hold, and the network
//! between them.
//!
//! A [`Cluster`] is made once from the system file and then only counts: [`placement`](crate::placement) chooses a
//! node, the [`System`](crate::System) takes and gives back its resources.

mod build;
mod devices;
mod images;
mod scenes;
mod topology;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

pub use devices::{DEVICES, Device};
pub use images::{Image, ImageId, Layer, arch_name};
pub use topology::{Link, LinkId, Route, Routes, Topology, VertexId};

pub(crate) use build::LOCALITY;

use crate::placement::Placement;
use crate::{Deployment, ReplicaKey};

/// A node of a [`Cluster`], by its place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(u32);

/// What a replica asks of a node, or a node has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu: u64,
    /// Bytes.
    pub memory: u64,
    /// Accelerators by kind, whole ones.
    pub accelerators: BTreeMap<String, u32>,
}

/// A machine.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name, unique in the cluster.
    pub name: String,
    /// What it has.
    pub capacity: Resources,
    /// Architecture of its processor, as [`arch_name`] spells it.
    pub arch: String,
    /// Kind of machine, for the models of a simulation.
    pub device: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Where it is in the network.
    pub vertex: VertexId,
    free: Resources,
    up: bool,
    replicas: Vec<ReplicaKey>,
    images: BTreeSet<ImageId>,
}

/// Things stored in the cluster that functions read and write.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// Where it is kept; each place has all of it.
    pub at: Vec<VertexId>,
    /// Bytes of each item.
    pub items: BTreeMap<String, u64>,
}

/// The machines, and what they have left.
#[derive(Clone, Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    images: Vec<Image>,
    image_ids: BTreeMap<String, ImageId>,
    /// How many nodes hold an image.
    spread: Vec<u32>,
    buckets: BTreeMap<String, Bucket>,
    topology: Topology,
    registry: VertexId,
    /// Counts every gain of capacity, so that nothing is tried again before there is more than there was.
    gains: u64,
}

/// What a node has too little of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lack {
    /// Cores.
    Cpu,
    /// Memory.
    Memory,
    /// An accelerator.
    Accelerator,
}

/// Resources of a replica that asks for none: Kubernetes' defaults for scoring (`DefaultMilliCPURequest`,
/// `DefaultMemoryRequest`).
pub const DEFAULT_CPU: u64 = 100;
/// See [`DEFAULT_CPU`].
pub const DEFAULT_MEMORY: u64 = 200 * 1024 * 1024;

impl NodeId {
    /// The place as an index from 0.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    pub(crate) const fn new(index: usize) -> Self {
        Self(index as u32)
    }
}

impl Default for Resources {
    fn default() -> Self {
        Self { cpu: DEFAULT_CPU, memory: DEFAULT_MEMORY, accelerators: BTreeMap::new() }
    }
}

impl Resources {
    /// Nothing at all.
    #[must_use]
    pub const fn none() -> Self {
        Self { cpu: 0, memory: 0, accelerators: BTreeMap::new() }
    }

    /// Whether `free` has room for it.
    ///
    /// # Errors
    /// The first thing there is too little of.
    pub fn fit(&self, free: &Self) -> Result<(), Lack> {
        let kinds = self.accelerators.iter().filter(|(_, count)| **count > 0);
        if self.cpu > free.cpu {
            Err(Lack::Cpu)
        } else if self.memory > free.memory {
            Err(Lack::Memory)
        } else if kinds
            .into_iter()
            .any(|(kind, count)| free.accelerators.get(kind).is_none_or(|has| has < count))
        {
            Err(Lack::Accelerator)
        } else {
            Ok(())
        }
    }

    fn take(&mut self, want: &Self) {
        self.cpu -= want.cpu;
        self.memory -= want.memory;
        for (kind, count) in &want.accelerators {
            if let Some(has) = self.accelerators.get_mut(kind) {
                *has -= count;
            }
        }
    }

    pub(crate) fn give_back(&mut self, want: &Self) {
        self.cpu += want.cpu;
        self.memory += want.memory;
        for (kind, count) in &want.accelerators {
            if let Some(has) = self.accelerators.get_mut(kind) {
                *has += count;
            }
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "too little cpu",
            Self::Memory => "too little memory",
            Self::Accelerator => "no free accelerator",
        })
    }
}

impl Node {
    /// What is not taken.
    #[must_use]
    pub const fn free(&self) -> &Resources {
        &self.free
    }

    /// Whether it is there; one that is not takes no replicas.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.up
    }

    /// The replicas on it, in the order in which they came.
    #[must_use]
    pub fn replicas(&self) -> &[ReplicaKey] {
        &self.replicas
    }

    /// Whether it holds an image, or is about to.
    #[must_use]
    pub fn has_image(&self, image: ImageId) -> bool {
        self.images.contains(&image)
    }
}

impl Cluster {
    /// The nodes, in the order of the system file.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A node.
    #[must_use]
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// The node of this name.
    #[must_use]
    pub fn node_named(&self, name: &str) -> Option<NodeId> {
        self.nodes.iter().position(|node| node.name == name).map(NodeId::new)
    }

    /// The image of this name.
    #[must_use]
    pub fn image_named(&self, name: &str) -> Option<ImageId> {
        self.image_ids.get(name).copied()
    }

    /// An image.
    #[must_use]
    pub fn image(&self, id: ImageId) -> &Image {
        &self.images[id.index()]
    }

    /// How many nodes hold an image, or are about to.
    #[must_use]
    pub fn image_spread(&self, id: ImageId) -> u32 {
        self.spread[id.index()]
    }

    /// The network.
    #[must_use]
    pub const fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Where images come from.
    #[must_use]
    pub const fn registry(&self) -> VertexId {
        self.registry
    }

    /// Bytes of "bucket/item", and where it is kept.
    #[must_use]
    pub fn item(&self, path: &str) -> Option<(u64, &[VertexId])> {
        let (bucket, item) = path.split_once('/')?;
        let bucket = self.buckets.get(bucket)?;
        Some((*bucket.items.get(item)?, &bucket.at))
    }

    /// How often there has been more capacity than before.
    pub(crate) const fn gains(&self) -> u64 {
        self.gains
    }

    /// A replica goes to a node that has room for it; its image is there from now on.
    pub(crate) fn occupy(
        &mut self,
        node: NodeId,
        replica: ReplicaKey,
        resources: &Resources,
        image: Option<ImageId>,
    ) {
        let node = &mut self.nodes[node.index()];
        node.free.take(resources);
        node.replicas.push(replica);
        if let Some(image) = image
            && node.images.insert(image)
        {
            self.spread[image.index()] += 1;
        }
    }

    /// A replica has left its node.
    pub(crate) fn vacate(&mut self, node: NodeId, replica: ReplicaKey, resources: &Resources) {
        let node = &mut self.nodes[node.index()];
        node.free.give_back(resources);
        node.replicas.retain(|other| *other != replica);
        self.gains += 1;
    }

    /// A node is gone, with the images it held; its replicas are the caller's to see to.
    pub(crate) fn lose(&mut self, node: NodeId) {
        let node = &mut self.nodes[node.index()];
        node.up = false;
        for image in std::mem::take(&mut node.images) {
            self.spread[image.index()] -= 1;
        }
    }

    /// A node is there again, empty.
    pub(crate) fn regain(&mut self, node: NodeId) {
        self.nodes[node.index()].up = true;
        self.gains += 1;
    }

    /// Whether some node could hold a replica of this deployment if it held nothing else.
    ///
    /// # Errors
    /// Why none could, counted over the nodes.
    pub fn could_hold(&self, placement: &Placement, deployment: &Deployment) -> Result<(), String> {
        crate::placement::could_hold(self, placement, deployment)
    }
}

#[cfg(test)]
mod tests;
