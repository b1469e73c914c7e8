//! What is wrong with files that are well each by itself, and would have no effect together.

use gatewright_control::cluster::{Cluster, DEVICES};
use gatewright_control::config::{ConfigError, Function, SystemFile, nearest};

use crate::{FunctionModel, Model, measured};

/// Whether what the model says of machines is about some that there are.
pub(super) fn check_machines(
    system: &SystemFile,
    model: &Model,
    cluster: Option<&Cluster>,
) -> Result<(), ConfigError> {
    if model.node_contention.is_some() && cluster.is_none() {
        return Err(no_nodes("`node_contention`"));
    }
    let devices = devices(cluster);
    if let Some(unknown) = model.device.keys().find(|name| !devices.contains(&name.as_str())) {
        let what = "there is no such device, nor a node with one";
        let hint = nearest(unknown, devices.iter().copied());
        return Err(ConfigError::new(format!("device `{unknown}`"), what, hint));
    }
    for (name, function) in &model.function {
        if system.function.contains_key(name) {
            check_variants(system, name, function, &devices)?;
        }
        if function.cores.is_some() && model.node_contention.is_none() {
            let hint = "add node_contention = { processor_sharing = {} } at the top of the model";
            let what = "it matters only where requests on one node slow one another down";
            let at = format!("function `{name}`, `cores`");
            return Err(ConfigError::new(at, what, Some(hint.to_owned())));
        }
    }
    Ok(())
}

/// Whether a function's variants are for devices and images that may be met.
fn check_variants(
    system: &SystemFile,
    name: &str,
    function: &FunctionModel,
    devices: &[&str],
) -> Result<(), ConfigError> {
    for on in function.on.keys() {
        let image = |image: &str| system.image.contains_key(image);
        let both = on.split_once('/');
        let known = devices.contains(&on.as_str())
            || image(on)
            || both.is_some_and(|(device, name)| devices.contains(&device) && image(name));
        if !known {
            let names = devices.iter().copied().chain(system.image.keys().map(String::as_str));
            let what = "it is neither a device, nor an image, nor \"device/image\"";
            let at = format!("function `{name}`, `on.{on}`");
            return Err(ConfigError::new(at, what, nearest(on, names)));
        }
    }
    let variants = function.on.values().map(|variant| &variant.measured);
    let mut workloads = variants.chain([&function.measured]).flatten();
    workloads.try_for_each(|workload| {
        measured::check(workload).map_err(|fault| {
            let at = format!("function `{name}`, {}", fault.at.unwrap_or_default());
            ConfigError::new(at, &fault.what, fault.hint)
        })
    })
}

/// Whether what a function that is simulated needs of nodes is there.
pub(super) fn check_needs(
    name: &str,
    function: &Function,
    model: &FunctionModel,
    cluster: Option<&Cluster>,
) -> Result<(), ConfigError> {
    let at = |key: &str| format!("function `{name}`, `{key}`");
    let Some(cluster) = cluster else {
        let data = &function.data;
        let has_data = !(data.setup.is_empty() && data.reads.is_empty() && data.writes.is_empty());
        let needs = [
            ("images", !function.images.is_empty()),
            ("node_labels", !function.node_labels.is_empty()),
            ("data", has_data),
            ("measured", model.measured.is_some()),
            ("on", !model.on.is_empty()),
        ];
        let needed = needs.into_iter().find(|(_, is_needed)| *is_needed);
        return needed.map_or(Ok(()), |(key, _)| Err(no_nodes(&at(key))));
    };
    check_data(name, function, cluster)
}

/// Whether every node can reach a function's data.
fn check_data(name: &str, function: &Function, cluster: &Cluster) -> Result<(), ConfigError> {
    let topology = cluster.topology();
    let data = &function.data;
    let items = [(&data.setup, true), (&data.reads, true), (&data.writes, false)];
    for (item, reads) in
        items.into_iter().flat_map(|(items, reads)| items.iter().map(move |item| (item, reads)))
    {
        let Some((_, places)) = cluster.item(item) else { continue };
        for &place in places {
            let routes =
                if reads { topology.routes_from(place) } else { topology.routes_to(place) };
            let mut nodes = cluster.nodes().iter();
            let cut = nodes.find(|node| topology.route(&routes, node.vertex).is_none());
            if let Some(node) = cut {
                let place = topology.name(place);
                let what = format!(
                    "no way leads from `{place}`, where `{item}` is, to node `{}`",
                    node.name
                );
                let hint = Some("join them by [[cluster.links]]".to_owned());
                return Err(ConfigError::new(format!("function `{name}`, `data`"), &what, hint));
            }
        }
    }
    Ok(())
}

/// The kinds of machines that are known, or that nodes are of.
fn devices(cluster: Option<&Cluster>) -> Vec<&str> {
    let known = DEVICES.iter().map(|device| device.name);
    let own = cluster.into_iter().flat_map(Cluster::nodes);
    let mut names: Vec<&str> = known.chain(own.filter_map(|node| node.device.as_deref())).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn no_nodes(at: &str) -> ConfigError {
    let hint = "add [cluster] with `nodes` or a `topology` to the system file";
    ConfigError::new(at, "it is about nodes, and the system has none", Some(hint.to_owned()))
}
