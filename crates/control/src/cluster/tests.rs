//! What a cluster is made of, and the ways through its network.

use super::*;
use crate::config::SystemFile;

fn cluster(text: &str) -> Cluster {
    let file = SystemFile::parse(text, &[]).unwrap();
    Cluster::new(&file.cluster, &file.image).unwrap().unwrap()
}

fn fault(text: &str) -> (String, String) {
    let fault = SystemFile::parse(text, &[]).unwrap_err();
    (fault.to_string(), fault.hint.unwrap_or_default())
}

fn way(cluster: &Cluster, from: &str, to: &str) -> (Vec<String>, u64) {
    let topology = cluster.topology();
    let (from, to) = (topology.named(from).unwrap(), topology.named(to).unwrap());
    let names = |route: Route| {
        let names = route.links.iter().map(|link| topology.links()[link.index()].name.clone());
        (names.collect(), route.latency)
    };
    let there = topology.route(&topology.routes_from(from), to).unwrap();
    let back = topology.route(&topology.routes_to(to), from).unwrap();
    assert_eq!(there, back, "both searches find one way");
    names(there)
}

#[test]
fn nodes_are_what_their_device_is_and_the_file_says() {
    let cluster = cluster(
        r#"
[cluster]
nodes = [
    { name = "pi", count = 2, device = "rpi4" },
    { name = "jetson", device = "nano", memory = "2GiB", labels = { zone = "a" } },
    { name = "plain", cpu = "500m", arch = "x86_64" },
]
"#,
    );
    let names: Vec<_> = cluster.nodes().iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["pi-0", "pi-1", "jetson", "plain"]);
    let pi = cluster.node(cluster.node_named("pi-1").unwrap());
    assert_eq!((pi.capacity.cpu, pi.capacity.memory, &*pi.arch), (4_000, 1_000_000_000, "arm"));
    let jetson = cluster.node(cluster.node_named("jetson").unwrap());
    assert_eq!(jetson.capacity.memory, 2 << 30);
    assert_eq!(jetson.capacity.accelerators["gpu"], 1);
    assert_eq!((&*jetson.labels["zone"], &*jetson.labels[LOCALITY]), ("a", "edge"));
    let plain = cluster.node(cluster.node_named("plain").unwrap());
    assert_eq!((plain.capacity.cpu, plain.capacity.memory, &*plain.arch), (500, 1 << 30, "amd64"));
}

#[test]
fn ways_lead_over_links_in_their_direction() {
    let cluster = cluster(
        r#"
[cluster]
nodes = [
    { name = "a", at = "lan", bandwidth = "100Mbit", latency = "1ms" },
    { name = "b", at = "lan" },
    { name = "c", at = "wan" },
]
links = [
    { from = "wan", to = "lan", bandwidth = "50Mbit", back = "10Mbit", latency = "20ms" },
    { from = "wan", to = "slow", bandwidth = "1Gbit", latency = "10ms" },
    { from = "slow", to = "lan", bandwidth = "1Gbit", latency = "11ms" },
]
"#,
    );
    assert_eq!(way(&cluster, "a", "b").0, ["a-link", "b-link"]);
    assert_eq!(
        way(&cluster, "c", "a"),
        (vec!["c-link".to_owned(), "wan-lan".to_owned(), "a-link".to_owned()], 21_000_000)
    );
    assert_eq!(way(&cluster, "a", "c").0, ["a-link", "lan-wan", "c-link"]);
    assert_eq!(way(&cluster, "a", "a"), (vec![], 0));
    let topology = cluster.topology();
    let [a, c] = ["a", "c"].map(|name| topology.named(name).unwrap());
    assert_eq!(topology.narrowest(&topology.routes_from(c), a), Some(6_250_000));
    assert_eq!(topology.narrowest(&topology.routes_from(a), c), Some(1_250_000));
    assert_eq!(topology.narrowest(&topology.routes_from(a), a), Some(u64::MAX));
}

/// Three neighbourhoods of three boxes: 3 x (6 Pi, 1 NUC, 6 TX2), and ten servers.
#[test]
fn the_city_of_ether() {
    let city = cluster("[cluster]\ntopology = { urban_sensing = {} }");
    let of = |device: &str| {
        city.nodes().iter().filter(|node| node.device.as_deref() == Some(device)).count()
    };
    assert_eq!([of("rpi3"), of("nuc"), of("tx2"), of("server")], [18, 3, 18, 10]);
    let (links, latency) = way(&city, "internet", "cell-1-nuc");
    assert_eq!(links, ["cell-1-down", "cell-1-air", "cell-1-nuc-link"]);
    // Mobile downlink, radio cell to box, host.
    assert_eq!(latency, 22_508_177 + 500_301 + 500_301);
    let (links, _) = way(&city, "cell-0-rpi3-0a", "cloudlet-server-1-4");
    assert_eq!(
        links,
        [
            "cell-0-rpi3-0a-link",
            "cell-0-air",
            "cell-0-up",
            "cloudlet-down",
            "cloudlet-server-1-4-link"
        ]
    );
}

#[test]
fn the_other_places_of_ether() {
    let count =
        |scene: &str| cluster(&format!("[cluster]\ntopology = {{ {scene} }}")).nodes().len();
    assert_eq!(count("industrial_iot = { premises = 2 }"), 2 * (1 + 1 + 3 + 15));
    assert_eq!(count("edge_cloudlets = { cloudlets = 4, racks = [3, 2] }"), 24);
    let regions = "cloud_regions = { regions = [\"eu\", \"us\"], latency = \"40ms\" }";
    assert_eq!(count(regions), 10);
    let regions = cluster(&format!("[cluster]\ntopology = {{ {regions} }}"));
    let (_, latency) = way(&regions, "eu", "us");
    assert_eq!(latency, 40_000_000);
}

#[test]
fn images_have_builds_and_share_layers() {
    let cluster = cluster(
        r#"
[image.app]
x86_64 = { base = "100MB", app = "20MB" }
any = "90MB"
[cluster]
nodes = [{ name = "n" }]
"#,
    );
    let app = cluster.image(cluster.image_named("app").unwrap());
    assert_eq!(app.size("amd64"), Some(120_000_000));
    assert_eq!(app.size("riscv64"), Some(90_000_000));
    assert_eq!(app.layers("amd64").unwrap().len(), 2);
    assert!(cluster.image_named("other").is_none());
}

#[test]
fn faults_are_named() {
    let (what, hint) = fault("[cluster]\nnodes = [{ name = \"n\", device = \"rp4\" }]");
    assert_eq!(
        what,
        "node `n`: there is no device `rp4`; a new one needs `cpu`, `memory` and `arch`"
    );
    assert_eq!(hint, "did you mean `rpi4`?");
    let own = "[cluster]\nnodes = [{ name = \"n\", device = \"own\", cpu = 1, memory = \"1GiB\", arch = \"amd64\" }]";
    assert_eq!(cluster(own).nodes()[0].device.as_deref(), Some("own"));
    let twice = "[cluster]\nnodes = [{ name = \"n\" }, { name = \"n\" }]";
    assert_eq!(fault(twice).0, "node `n`: another node or place of the network has this name");
    assert_eq!(
        fault("[cluster]\nnodes = [{ name = \"n\", count = 0 }]").0,
        "node `n`: its count is 0; give 1 to 100000"
    );
    assert_eq!(
        fault("[cluster]\nregistry = \"hub\"\nnodes = [{ name = \"n\" }]").0,
        "cluster.registry: the network has no place `hub`"
    );
    let storage =
        "[cluster]\nnodes = [{ name = \"n\" }]\n[cluster.storage.b]\nat = [\"m\"]\nitems = {}";
    assert_eq!(fault(storage).0, "cluster.storage.b: the network has no place `m`");
    let item = "[function.f]\nhttp = \"http://h\"\ndata = { reads = [\"b/x\"] }\n[cluster]\nnodes = [{ name = \"n\" }]";
    assert_eq!(fault(item).0, "function `f`: nothing in the cluster is called `b/x`");
    assert!(
        fault("[cluster]\nnodes = [{ name = \"n\", cpu = \"x\" }]")
            .0
            .contains("`x` is no number of cores")
    );
    assert!(
        fault("[cluster]\nnodes = [{ name = \"n\", bandwidth = \"x\" }]")
            .0
            .contains("`x` is no bandwidth")
    );
}
