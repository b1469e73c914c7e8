use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::topology::VertexId;
use super::{
    Bucket, Cluster, Device, Image, ImageId, Layer, Node, NodeId, Resources, Topology, arch_name,
};
use crate::config::{
    self, Bandwidth, Build, ConfigError, Cores, HumanDuration, HumanSize, NodeGroup, Scene, nearest,
};

/// The place that everything is joined to in the end.
pub(super) const INTERNET: &str = "internet";
/// Label of skippy that says whether a node is at the edge of the network or in the cloud.
pub(crate) const LOCALITY: &str = "locality.skippy.io/type";
const MAX_NODES: usize = 100_000;
/// So that no way through the network takes longer than can be counted.
const LONGEST_LATENCY: Duration = Duration::from_secs(3_600);
/// Bytes of an image at most: a petabyte.
const LARGEST_IMAGE: u64 = 1_000_000_000_000_000;

pub(super) struct Builder<'a> {
    config: &'a config::Cluster,
    pub(super) topology: Topology,
    nodes: Vec<Node>,
}

/// A machine of a device's kind.
pub(super) struct Host<'a> {
    pub(super) name: &'a str,
    pub(super) device: &'static str,
    pub(super) at: VertexId,
    /// Bytes per second.
    pub(super) bandwidth: u64,
    pub(super) latency: u64,
    pub(super) edge: bool,
}

impl Cluster {
    /// The cluster that a system file describes; `None` if it has no machines.
    ///
    /// # Errors
    /// The first thing wrong: two nodes of one name, an unknown device, a place that nothing leads to.
    pub fn new(
        config: &config::Cluster,
        images: &BTreeMap<String, config::Image>,
    ) -> Result<Option<Self>, ConfigError> {
        let mut builder = Builder { config, topology: Topology::default(), nodes: Vec::new() };
        builder.topology.switch(INTERNET);
        if let Some(scene) = &config.topology {
            check_scene(scene)?;
            builder.scene(scene);
        }
        builder.links()?;
        for group in &config.nodes {
            builder.group(group)?;
        }
        let buckets = builder.buckets()?;
        let registry =
            builder.place("cluster.registry", config.registry.as_deref().unwrap_or(INTERNET))?;
        let Builder { topology, nodes, .. } = builder;
        let mut names = BTreeSet::new();
        if let Some(twice) = nodes.iter().find(|node| !names.insert(node.name.as_str())) {
            let what = format!("two nodes are called `{}`", twice.name);
            return Err(ConfigError::new("cluster", &what, None));
        }
        if nodes.len() > MAX_NODES {
            let what = format!("there are {} nodes; give at most {MAX_NODES}", nodes.len());
            return Err(ConfigError::new("cluster", &what, None));
        }
        if nodes.is_empty() {
            return if *config == config::Cluster::default() { Ok(None) } else { Err(no_nodes()) };
        }
        let images: Result<Vec<Image>, _> =
            images.iter().map(|(name, image)| build_image(name, image)).collect();
        let images = images?;
        let image_ids =
            (0..).zip(&images).map(|(index, image)| (image.name.clone(), ImageId::new(index)));
        Ok(Some(Self {
            nodes,
            image_ids: image_ids.collect(),
            spread: vec![0; images.len()],
            images,
            buckets,
            topology,
            registry,
            gains: 0,
        }))
    }

    /// All nodes, in order.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.nodes.len()).map(NodeId::new)
    }
}

impl Builder<'_> {
    fn links(&mut self) -> Result<(), ConfigError> {
        let mut joined = BTreeSet::new();
        for (number, link) in (1..).zip(&self.config.links) {
            let at = || format!("cluster.links {number}");
            if link.from == link.to {
                let what = format!("it leads from `{}` to itself", link.from);
                return Err(ConfigError::new(at(), &what, None));
            }
            if !joined.insert((&link.from, &link.to)) || joined.contains(&(&link.to, &link.from)) {
                let what = format!("another link joins `{}` and `{}`", link.from, link.to);
                let hint = "a link goes both ways; `back` is its bandwidth in the other direction";
                return Err(ConfigError::new(at(), &what, Some(hint.to_owned())));
            }
            if link.shared && link.back.is_some() {
                let what = "it has both `shared` and `back`: its directions share one bandwidth, or have one each";
                return Err(ConfigError::new(at(), what, None));
            }
            let (from, to) = (self.topology.switch(&link.from), self.topology.switch(&link.to));
            let latency = nanos(&at(), link.latency)?;
            let name = format!("{}-{}", link.from, link.to);
            let there = self.topology.link(&name, link.bandwidth.bytes_per_second());
            self.topology.connect(from, there, latency);
            self.topology.connect(there, to, 0);
            let back = if link.shared {
                there
            } else {
                let width = link.back.unwrap_or(link.bandwidth);
                self.topology.link(&format!("{}-{}", link.to, link.from), width.bytes_per_second())
            };
            self.topology.connect(to, back, latency);
            self.topology.connect(back, from, 0);
        }
        Ok(())
    }

    fn group(&mut self, group: &NodeGroup) -> Result<(), ConfigError> {
        let at = format!("node `{}`", group.name);
        let known = group.device.as_deref().map(Device::named);
        let own = group.cpu.is_some() && group.memory.is_some() && group.arch.is_some();
        if let (Some(None), false) = (known, own) {
            let device = group.device.as_deref().unwrap_or_default();
            let names = super::DEVICES.iter().map(|device| device.name);
            let what = format!(
                "there is no device `{device}`; a new one needs `cpu`, `memory` and `arch`"
            );
            return Err(ConfigError::new(at, &what, nearest(device, names)));
        }
        if group.name.is_empty() {
            return Err(ConfigError::new("cluster.nodes", "a node has an empty name", None));
        }
        if group.count == 0 || group.count as usize > MAX_NODES {
            let what = format!("its count is {}; give 1 to {MAX_NODES}", group.count);
            return Err(ConfigError::new(at, &what, None));
        }
        let device = known.flatten();
        let basis = device.map_or_else(
            || Resources { cpu: 1_000, memory: 1 << 30, accelerators: BTreeMap::new() },
            Device::resources,
        );
        let capacity = Resources {
            cpu: group.cpu.map_or(basis.cpu, Cores::millis),
            memory: group.memory.map_or(basis.memory, HumanSize::bytes),
            accelerators: group.accelerators.clone().unwrap_or(basis.accelerators),
        };
        let arch =
            group.arch.as_deref().or_else(|| device.map(|device| device.arch)).unwrap_or("amd64");
        let place = self.topology.switch(&group.at);
        let mut labels = group.labels.clone();
        if let Some(device) = device {
            labels.entry(LOCALITY.to_owned()).or_insert_with(|| locality(device.edge).to_owned());
        }
        let latency = nanos(&at, group.latency)?;
        for number in 0..group.count {
            let name = if group.count == 1 {
                group.name.clone()
            } else {
                format!("{}-{number}", group.name)
            };
            let vertex = self.attach(&name, place, group.bandwidth, latency)?;
            self.nodes.push(Node {
                name,
                free: capacity.clone(),
                capacity: capacity.clone(),
                arch: arch_name(arch).to_owned(),
                device: group.device.clone(),
                labels: labels.clone(),
                vertex,
                up: true,
                replicas: Vec::new(),
                images: BTreeSet::new(),
            });
        }
        Ok(())
    }

    fn attach(
        &mut self,
        name: &str,
        to: VertexId,
        bandwidth: Bandwidth,
        latency: u64,
    ) -> Result<VertexId, ConfigError> {
        if self.topology.named(name).is_some() {
            let what = "another node or place of the network has this name";
            return Err(ConfigError::new(format!("node `{name}`"), what, None));
        }
        Ok(self.join_host(name, to, bandwidth.bytes_per_second(), latency))
    }

    /// A host with a link of its own, as ether's `Host`.
    fn join_host(&mut self, name: &str, to: VertexId, bandwidth: u64, latency: u64) -> VertexId {
        let vertex = self.topology.switch(name);
        let link = self.topology.link(&format!("{name}-link"), bandwidth);
        self.topology.join(vertex, link, latency);
        self.topology.join(link, to, 0);
        vertex
    }

    pub(super) fn add_host(&mut self, host: Host<'_>) {
        let device = Device::named(host.device).expect("a scene uses devices of the table");
        let vertex = self.join_host(host.name, host.at, host.bandwidth, host.latency);
        let labels = [(LOCALITY.to_owned(), locality(host.edge).to_owned())];
        self.nodes.push(Node {
            name: host.name.to_owned(),
            free: device.resources(),
            capacity: device.resources(),
            arch: device.arch.to_owned(),
            device: Some(host.device.to_owned()),
            labels: labels.into(),
            vertex,
            up: true,
            replicas: Vec::new(),
            images: BTreeSet::new(),
        });
    }

    fn buckets(&self) -> Result<BTreeMap<String, Bucket>, ConfigError> {
        let mut buckets = BTreeMap::new();
        for (name, bucket) in &self.config.storage {
            let at = format!("cluster.storage.{name}");
            if bucket.at.is_empty() {
                return Err(ConfigError::new(at, "it is kept nowhere: give it `at`", None));
            }
            let places: Result<_, _> =
                bucket.at.iter().map(|place| self.place(&at, place)).collect();
            let items = bucket.items.iter().map(|(item, size)| (item.clone(), size.bytes()));
            buckets.insert(name.clone(), Bucket { at: places?, items: items.collect() });
        }
        Ok(buckets)
    }

    fn place(&self, at: &str, name: &str) -> Result<VertexId, ConfigError> {
        self.topology.named(name).ok_or_else(|| {
            let what = format!("the network has no place `{name}`");
            ConfigError::new(at, &what, nearest(name, self.topology.names()))
        })
    }
}

fn no_nodes() -> ConfigError {
    let hint = "give it `nodes` or a `topology`, or leave out all of [cluster]";
    ConfigError::new("cluster", "it has no nodes", Some(hint.to_owned()))
}

/// A latency in nanoseconds.
fn nanos(at: &str, latency: HumanDuration) -> Result<u64, ConfigError> {
    if latency.get() > LONGEST_LATENCY {
        let what = format!("its latency is {latency}; give at most 1h");
        return Err(ConfigError::new(at, &what, None));
    }
    Ok(latency.get().as_nanos() as u64)
}

/// Whether a place that is made up has machines, and not too many, before it is made.
fn check_scene(scene: &Scene) -> Result<(), ConfigError> {
    let racks = |[servers, racks]: [u32; 2]| u64::from(servers) * u64::from(racks);
    // Of each part: how many there are, and machines in each.
    let (part, count, machines) = match scene {
        Scene::UrbanSensing { cells, density: 0, .. } if *cells > 0 => ("density", 0, 0),
        Scene::UrbanSensing { cells, density, cloudlet } => {
            let cell = 4 * u64::from(*density) + 1;
            ("cells", u64::from(*cells), cell.saturating_add(racks(*cloudlet)))
        }
        Scene::IndustrialIot { premises } => ("premises", u64::from(*premises), 20),
        Scene::CloudRegions { regions, latency, racks: each } => {
            nanos("cluster.topology", *latency)?;
            ("regions", regions.len() as u64, racks(*each))
        }
        Scene::EdgeCloudlets { cloudlets, racks: each } => {
            ("cloudlets", u64::from(*cloudlets), racks(*each))
        }
    };
    let all = count.saturating_mul(machines);
    let wrong = |what: String| Err(ConfigError::new("cluster.topology", &what, None));
    match (count, all) {
        (0, _) => wrong(format!("it has no {part}; give at least 1")),
        (_, 0) => wrong("its racks have no servers; give at least [1, 1]".to_owned()),
        (_, all) if all > MAX_NODES as u64 => {
            wrong(format!("it would have about {all} nodes; give at most {MAX_NODES}"))
        }
        _ => Ok(()),
    }
}

const fn locality(edge: bool) -> &'static str {
    if edge { "edge" } else { "cloud" }
}

fn build_image(name: &str, image: &config::Image) -> Result<Image, ConfigError> {
    let layers = |arch: &str, build: &Build| match build {
        Build::Size(size) => {
            vec![Layer { name: format!("{name}:{arch}"), size: size.bytes() }]
        }
        Build::Layers(layers) => layers
            .iter()
            .map(|(layer, size)| Layer { name: layer.clone(), size: size.bytes() })
            .collect(),
    };
    let builds =
        image.0.iter().map(|(arch, build)| (arch_name(arch).to_owned(), layers(arch, build)));
    let builds: BTreeMap<String, Vec<Layer>> = builds.collect();
    let size = |layers: &Vec<Layer>| {
        layers.iter().fold(0_u64, |sum, layer| sum.saturating_add(layer.size))
    };
    if builds.values().any(|layers| size(layers) > LARGEST_IMAGE) {
        let what = "a build of it has more than a petabyte";
        return Err(ConfigError::new(format!("image `{name}`"), what, None));
    }
    Ok(Image { name: name.to_owned(), builds })
}
