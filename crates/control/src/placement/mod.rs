//! Placement: which node a replica goes to.
//!
//! As in Kubernetes, nodes that cannot hold the replica are filtered out, the others are given a score by each of
//! several weighted priorities, and the highest sum wins. One file per filter and per priority. To add a priority:
//! write the file, implement [`Priority`], and add its line to the table below; configuration, command line and
//! reports take the name from there.

mod balanced_allocation;
mod bin_packing;
mod capability;
mod data_locality;
mod filters;
mod image_locality;
mod latency_aware_image_locality;
mod least_allocated;
mod least_loaded;
mod locality_type;
mod random;
mod round_robin;
mod scheduler;
mod skippy_balance;

use std::collections::BTreeMap;
use std::fmt;

use gatewright_determinism::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use filters::{Obstacle, Unschedulable};
pub use scheduler::Scheduler;

use crate::Deployment;
use crate::cluster::{Cluster, ImageId, NodeId, Resources};

/// A replica that looks for a node.
#[derive(Clone, Copy, Debug)]
pub struct Want<'a> {
    /// Its function.
    pub deployment: &'a Deployment,
    /// What it takes.
    pub requests: &'a Resources,
    /// What it runs, if its function says.
    pub image: Option<ImageId>,
}

/// Says how good a node is for a replica.
pub trait Priority: fmt::Debug + Send {
    /// The score of a node that can hold the replica. `max` is the best score there is; one that is scaled by
    /// [`Priority::normalise`] may be any number. `stream` is the replica's own luck.
    fn score(
        &mut self,
        cluster: &Cluster,
        want: &Want<'_>,
        node: NodeId,
        max: i64,
        stream: &mut Stream,
    ) -> i64;

    /// Scales the scores of all nodes to 0..=`max`, where they are not so already.
    fn normalise(&self, _scores: &mut [i64], _max: i64) {}

    /// The replica went to `node`.
    fn placed(&mut self, _node: NodeId) {}
}

/// Defines the table of priorities: name in configuration, type.
macro_rules! priorities {
    ($($(#[doc = $doc:literal])+ $name:ident => $build:expr,)+) => {
        /// The priorities by name.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
        )]
        #[serde(rename_all = "snake_case")]
        pub enum PriorityName {
            $($(#[doc = $doc])+ $name,)+
        }

        impl PriorityName {
            /// Every priority.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// A fresh priority of this kind.
            #[must_use]
            pub fn build(self) -> Box<dyn Priority> {
                match self { $(Self::$name => Box::new($build),)+ }
            }
        }
    };
}

priorities! {
    /// Cores and memory taken to the same degree: Kubernetes' `NodeResourcesBalancedAllocation`.
    BalancedAllocation => balanced_allocation::BalancedAllocation,
    /// The fullest node that has room: Kubernetes' `MostAllocated`.
    BinPacking => bin_packing::BinPacking,
    /// Nodes with the capabilities of the function's labels: skippy's `CapabilityPriority`.
    Capability => capability::Capability,
    /// Nodes to which the function's data come quickly: skippy's `DataLocalityPriority`.
    DataLocality => data_locality::DataLocality::default(),
    /// Nodes that hold the image, if others do as well: Kubernetes' `ImageLocality`.
    ImageLocality => image_locality::ImageLocality,
    /// Nodes to which the image comes quickly, or that hold it: skippy's `LatencyAwareImageLocalityPriority`.
    LatencyAwareImageLocality => latency_aware_image_locality::LatencyAwareImageLocality::default(),
    /// The node with the most room left: Kubernetes' `LeastAllocated`.
    LeastAllocated => least_allocated::LeastAllocated,
    /// The node with the fewest replicas.
    LeastLoaded => least_loaded::LeastLoaded,
    /// Nodes at the edge of the network: skippy's `LocalityTypePriority`.
    LocalityType => locality_type::LocalityType,
    /// Any node, all equally likely.
    Random => random::Random,
    /// Each node in turn.
    RoundRobin => round_robin::RoundRobin::default(),
    /// Cores and memory asked for in the proportion of what is free: skippy's `BalancedResourcePriority`.
    SkippyBalance => skippy_balance::SkippyBalance,
}

/// Which node a replica goes to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Placement {
    /// Filters and priorities of this scheduler.
    pub policy: PlacementPolicy,
    /// Weights of priorities, in place of those of the policy.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub priorities: BTreeMap<PriorityName, f64>,
    /// Labels that keep replicas off a node, whatever their value, in place of those of the policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avoid_labels: Option<Vec<String>>,
    /// Share of the nodes that is looked for before the best of them is taken, 1 to 100; 0 for 50 less one for every
    /// 125 nodes, at least 5. At least 100 nodes always. That of the policy unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percentage_of_nodes_to_score: Option<u32>,
}

/// Schedulers by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlacementPolicy {
    /// Kubernetes' default scheduler: least and balanced allocation, image locality; scores to 100, ties drawn.
    #[default]
    Kubernetes,
    /// skippy's: its balance, image and data locality, edge before cloud, capabilities; scores to 10, and the first of
    /// the best. Keeps replicas off nodes labelled `data.skippy.io/storage`.
    Skippy,
    /// The first node with room.
    FirstFit,
    /// The fullest node with room.
    BinPacking,
    /// The node with the fewest replicas.
    LeastLoaded,
    /// Each node in turn.
    RoundRobin,
    /// Any node.
    Random,
}

/// What a [`PlacementPolicy`] consists of.
pub(crate) struct Recipe {
    pub(crate) priorities: &'static [PriorityName],
    pub(crate) max_score: i64,
    pub(crate) avoid_labels: &'static [&'static str],
    pub(crate) percentage: u32,
    pub(crate) ties_drawn: bool,
}

impl PlacementPolicy {
    pub(crate) const fn recipe(self) -> Recipe {
        use PriorityName as P;
        match self {
            Self::Kubernetes => Recipe {
                priorities: &[P::BalancedAllocation, P::ImageLocality, P::LeastAllocated],
                max_score: 100,
                avoid_labels: &[],
                percentage: 0,
                ties_drawn: true,
            },
            Self::Skippy => Recipe {
                priorities: &[
                    P::Capability,
                    P::DataLocality,
                    P::LatencyAwareImageLocality,
                    P::LocalityType,
                    P::SkippyBalance,
                ],
                max_score: 10,
                avoid_labels: &["data.skippy.io/storage"],
                percentage: 100,
                ties_drawn: false,
            },
            Self::FirstFit => Recipe::of(&[]),
            Self::BinPacking => Recipe::of(&[P::BinPacking]),
            Self::LeastLoaded => Recipe::of(&[P::LeastLoaded]),
            Self::RoundRobin => Recipe::of(&[P::RoundRobin]),
            Self::Random => Recipe::of(&[P::Random]),
        }
    }
}

impl Recipe {
    const fn of(priorities: &'static [PriorityName]) -> Self {
        Self { priorities, max_score: 100, avoid_labels: &[], percentage: 100, ties_drawn: false }
    }
}

impl Placement {
    /// Labels that keep replicas off a node.
    pub(crate) fn avoided(&self) -> Vec<String> {
        let usual = || self.policy.recipe().avoid_labels.iter().map(|label| (*label).to_owned());
        self.avoid_labels.clone().unwrap_or_else(|| usual().collect())
    }

    /// What is wrong with the settings, if anything.
    ///
    /// # Errors
    /// The first setting out of range, as "key: explanation".
    pub fn check(&self) -> Result<(), String> {
        let wrong = |weight: &f64| !(0.0..=1e6).contains(weight);
        if let Some((name, weight)) = self.priorities.iter().find(|(_, weight)| wrong(weight)) {
            return Err(format!(
                "priorities: the weight of {name:?} is {weight}; give 0 to 1000000"
            ));
        }
        match self.percentage_of_nodes_to_score {
            Some(101..) => Err("percentage_of_nodes_to_score: must be 0 to 100".to_owned()),
            _ => Ok(()),
        }
    }
}

/// The choices of a deployment as the scheduler sees them: one without an image if it names none.
pub(crate) fn wants<'a>(
    cluster: &Cluster,
    deployment: &'a Deployment,
) -> impl Iterator<Item = Want<'a>> {
    let named: Vec<_> = deployment
        .images
        .iter()
        .map(|choice| Want {
            deployment,
            requests: &choice.requests,
            image: cluster.image_named(&choice.image),
        })
        .collect();
    let plain = named.is_empty().then_some(Want {
        deployment,
        requests: &deployment.requests,
        image: None,
    });
    named.into_iter().chain(plain)
}

/// Whether some node could hold a replica if it were empty; else why not.
pub(crate) fn could_hold(
    cluster: &Cluster,
    placement: &Placement,
    deployment: &Deployment,
) -> Result<(), String> {
    let avoid = placement.avoided();
    let mut reasons = Vec::new();
    for want in wants(cluster, deployment) {
        let mut counts = Unschedulable::default();
        for id in cluster.ids() {
            let node = cluster.node(id);
            let whole = filters::fixed(cluster, &want, node, &avoid)
                .and_then(|()| want.requests.fit(&node.capacity).map_err(Obstacle::Lack));
            match whole {
                Ok(()) => return Ok(()),
                Err(obstacle) => counts.count(obstacle),
            }
        }
        let image = want.image.map(|image| format!("image `{}`: ", cluster.image(image).name));
        reasons.push(format!("{}{counts}", image.unwrap_or_default()));
    }
    Err(reasons.join("; "))
}

#[cfg(test)]
mod tests;
