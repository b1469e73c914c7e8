//! The part of `gatewright.toml` about machines, images, and the network between them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::{Bandwidth, Cores, Function, HumanDuration, HumanSize, SystemFile};
use crate::cluster::Resources;
use crate::placement::Placement;
use crate::{Data, ImageChoice};

/// The machines that replicas run on, for `simulate`; replicas run nowhere in particular unless there are nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// The machines.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "some_nodes")]
    pub nodes: Vec<NodeGroup>,
    /// A made-up place with machines and a network, besides `nodes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topology: Option<Scene>,
    /// Links of the network beyond those that `nodes` and `topology` have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<NetworkLink>,
    /// Where in the network images are pulled from. "internet" unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry: Option<String>,
    /// Buckets of data by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub storage: BTreeMap<String, Bucket>,
    /// Which node a replica goes to.
    pub placement: Placement,
}

/// A list of machines that somebody wrote has some.
fn some_nodes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<NodeGroup>, D::Error> {
    let nodes = Vec::<NodeGroup>::deserialize(deserializer)?;
    if nodes.is_empty() {
        let what = "there are no nodes in the list: give some, or leave out all of [cluster]";
        return Err(de::Error::custom(what));
    }
    Ok(nodes)
}

/// Machines of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeGroup {
    /// Name; of several, "name-0", "name-1" and so on.
    pub name: String,
    /// How many.
    #[serde(default = "one")]
    pub count: u32,
    /// Kind of machine: gives what is not set here (rpi3, rpi4, rockpi, coral, nano, tx2, nx, nuc, xeoncpu, xeongpu,
    /// server, vm), and names the laws that models have for it. Another name needs `cpu`, `memory` and `arch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Cores of each. 1 unless the device says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cores>,
    /// Memory of each. 1GiB unless the device says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<HumanSize>,
    /// Architecture of their processors. "amd64" unless the device says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// Accelerators of each by kind. What the device has unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accelerators: Option<BTreeMap<String, u32>>,
    /// Labels, for functions that ask for them and for placement.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Switch or shared link that each is joined to by a link of its own.
    #[serde(default = "internet")]
    pub at: String,
    /// Bandwidth of that link, for both directions together.
    #[serde(default = "host_bandwidth")]
    pub bandwidth: Bandwidth,
    /// Time over that link, one way.
    #[serde(default)]
    pub latency: HumanDuration,
}

/// A link between two places of the network, which are switches if nothing else has their names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkLink {
    /// One end.
    pub from: String,
    /// The other end.
    pub to: String,
    /// Bandwidth from `from` to `to`.
    pub bandwidth: Bandwidth,
    /// Bandwidth from `to` to `from`. The same unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back: Option<Bandwidth>,
    /// Whether the two directions share the bandwidth.
    #[serde(default)]
    pub shared: bool,
    /// Time over it, one way.
    #[serde(default)]
    pub latency: HumanDuration,
}

/// Data in the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bucket {
    /// Nodes or other places of the network that each hold all of it.
    pub at: Vec<String>,
    /// Size of each item.
    pub items: BTreeMap<String, HumanSize>,
}

/// Places as ether makes them: machines, and the network that joins them to "internet".
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Scene {
    /// A city: in each neighbourhood boxes with two Raspberry Pi 3, and one with a NUC and TX2s, on one radio link of
    /// 500 Mbit/s with a mobile uplink (125 down, 25 up); and a cloudlet of servers on fibre.
    UrbanSensing {
        /// Neighbourhoods.
        #[serde(default = "three")]
        cells: u32,
        /// Sensing boxes in each; there are twice as many TX2s.
        #[serde(default = "three")]
        density: u32,
        /// Servers in a rack, and racks, of the cloudlet.
        #[serde(default = "city_cloudlet")]
        cloudlet: [u32; 2],
    },
    /// Factories: a NUC and a TX2 on the floor, three Raspberry Pi 3 on a radio link, a cloudlet of three racks of five
    /// servers behind 10 Gbit/s, and an uplink of 500 down and 50 up.
    IndustrialIot {
        /// Factories.
        #[serde(default = "one")]
        premises: u32,
    },
    /// Data centres far from one another, each with racks of servers.
    CloudRegions {
        /// Their names.
        regions: Vec<String>,
        /// Servers in a rack, and racks, of each.
        #[serde(default = "region_racks")]
        racks: [u32; 2],
        /// Time between any two of them, one way.
        latency: HumanDuration,
    },
    /// Cloudlets of servers, each on fibre.
    EdgeCloudlets {
        /// How many.
        #[serde(default = "three")]
        cloudlets: u32,
        /// Servers in a rack, and racks, of each.
        #[serde(default = "city_cloudlet")]
        racks: [u32; 2],
    },
}

/// What replicas run: a build for each architecture, which is a size, or the sizes of its layers by their names. Images
/// share layers of one name and size. "any" is a build for every architecture that has none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Image(pub BTreeMap<String, Build>);

/// An image for one architecture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a size like \"700MB\", or a table of layers and their sizes")]
pub enum Build {
    /// Its size; nothing of it is shared.
    Size(HumanSize),
    /// Its layers.
    Layers(BTreeMap<String, HumanSize>),
}

/// What one replica takes of its node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Requests {
    /// Cores.
    pub cpu: Cores,
    /// Memory.
    pub memory: HumanSize,
    /// Accelerators by kind.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub accelerators: BTreeMap<String, u32>,
}

/// An image that a function may run, and what it takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "the name of an image, or a table with `image`")]
pub enum ImageRule {
    /// Its name.
    Name(String),
    /// More about it.
    Rule(ImageDetail),
}

/// An image that a function may run, and what it takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageDetail {
    /// Its name.
    pub image: String,
    /// At most this share of `replicas.max` runs it, above 0 and at most 1.
    #[serde(default = "whole")]
    pub share: f64,
    /// What a replica of it takes, in place of the function's `requests`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<Requests>,
}

/// Data that a function needs, each as "bucket/item".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DataRule {
    /// Read once by each replica before it takes requests, such as a model.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub setup: Vec<String>,
    /// Read by every request before its work.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reads: Vec<String>,
    /// Written by every request after its work.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub writes: Vec<String>,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            cpu: Cores::from_millis(crate::cluster::DEFAULT_CPU),
            memory: HumanSize::from_mib(crate::cluster::DEFAULT_MEMORY >> 20),
            accelerators: BTreeMap::new(),
        }
    }
}

impl ImageRule {
    /// The name of the image.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Name(name) => name,
            Self::Rule(rule) => &rule.image,
        }
    }
}

impl ImageRule {
    pub(super) fn choice(&self, plain: &Requests) -> ImageChoice {
        match self {
            Self::Name(name) => {
                ImageChoice { image: name.clone(), share: 1.0, requests: plain.resources() }
            }
            Self::Rule(rule) => ImageChoice {
                image: rule.image.clone(),
                share: rule.share,
                requests: rule.requests.as_ref().unwrap_or(plain).resources(),
            },
        }
    }
}

impl Requests {
    pub(super) fn resources(&self) -> Resources {
        Resources {
            cpu: self.cpu.millis(),
            memory: self.memory.bytes(),
            accelerators: self.accelerators.clone(),
        }
    }
}

impl From<DataRule> for Data {
    fn from(DataRule { setup, reads, writes }: DataRule) -> Self {
        Self { setup, reads, writes }
    }
}

const fn one() -> u32 {
    1
}

const fn three() -> u32 {
    3
}

const fn whole() -> f64 {
    1.0
}

const fn city_cloudlet() -> [u32; 2] {
    [5, 2]
}

const fn region_racks() -> [u32; 2] {
    [5, 1]
}

fn internet() -> String {
    "internet".to_owned()
}

const fn host_bandwidth() -> Bandwidth {
    Bandwidth::from_mbit(1_000)
}

impl SystemFile {
    /// Whether it says on which nodes replicas run, or what they find there: only simulations heed that.
    #[must_use]
    pub fn has_nodes(&self) -> bool {
        let of_nodes = |function: &Function| {
            let Function { requests, images, node_labels, capabilities, data, .. } = function;
            *requests != Requests::default()
                || !(images.is_empty() && node_labels.is_empty() && capabilities.is_empty())
                || *data != DataRule::default()
        };
        self.cluster != Cluster::default()
            || !self.image.is_empty()
            || self.function.values().any(of_nodes)
    }
}
