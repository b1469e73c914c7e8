//! Nodes, images, network, and what goes on inside replicas.

use std::sync::Arc;

use gatewright_record::{Invocation, Status, WriteError};
use gatewright_sim::{Model, Phase, RecordSink, ReplicaStep, Scenario, Simulation, Transfer};

use crate::rig::{assert_mean, of_texts, records, run, simulation};

/// Everything that a run leaves behind.
#[derive(Default)]
struct Log {
    steps: Vec<ReplicaStep>,
    transfers: Vec<Transfer>,
    records: Vec<Invocation>,
}

impl RecordSink for Log {
    fn invocation(&mut self, invocation: &Invocation) -> Result<(), WriteError> {
        self.records.push(invocation.clone());
        Ok(())
    }

    fn replica(&mut self, step: &ReplicaStep) -> Result<(), WriteError> {
        self.steps.push(step.clone());
        Ok(())
    }

    fn transfer(&mut self, transfer: &Transfer) -> Result<(), WriteError> {
        self.transfers.push(transfer.clone());
        Ok(())
    }
}

impl Log {
    fn of(simulation: &Simulation) -> Self {
        let mut log = Self::default();
        simulation.run(1, Some(&mut log), &mut |_| ()).unwrap();
        log
    }

    /// Seconds at which replicas came to a phase.
    fn at(&self, phase: Phase) -> Vec<f64> {
        let steps = self.steps.iter().filter(|step| step.phase == phase);
        steps.map(|step| step.at.as_secs_f64()).collect()
    }
}

const NODE: &str = r#"
[cluster]
placement = { policy = "first_fit" }
nodes = [{ name = "n", cpu = 4, memory = "4GiB", bandwidth = "80Mbit", latency = "100ms" }]
[cluster.storage.models]
at = ["internet"]
items = { big = "97MB", small = "9.7MB" }
[image.app]
amd64 = { base = "97MB", app = "9.7MB" }
[image.other]
amd64 = { base = "97MB" }
"#;

fn near(found: f64, expected: f64) -> bool {
    (found - expected).abs() < 1e-6
}

/// 80 Mbit/s carry 9.7 MB of payload a second. Both layers share them: the small one is there after 2 s, the large one
/// after 11; connections stand after 0.3 s. Then 1 s to start, 10.3 s to read the model, 0.5 s to set up.
#[test]
fn a_cold_start_is_pull_startup_and_setup() {
    let simulation = of_texts(
        &format!(
            "[function.f]\npython = \"m:C\"\nreplicas = {{ min = 0 }}\nimages = [\"app\"]\ndata = {{ setup = [\"models/big\"] }}\n{NODE}"
        ),
        "[function.f]\nservice = { fixed = 0.25 }\nstart = { fixed = 1 }\nsetup = { fixed = 0.5 }",
        "[[demand]]\nfunction = \"f\"\narrival = \"synchronous\"\nrequests = 2",
    );
    let log = Log::of(&simulation);
    assert!(near(log.at(Phase::Startup)[0], 11.3), "{:?}", log.steps);
    assert!(near(log.at(Phase::Setup)[0], 12.3));
    assert!(near(log.at(Phase::Ready)[0], 12.3 + 10.3 + 0.5));
    assert_eq!(log.steps[0].node.as_deref(), Some("n"));
    assert_eq!(log.steps[0].image.as_deref(), Some("app"));
    let ends: Vec<_> = log.transfers.iter().map(|t| t.end.as_secs_f64()).collect();
    assert!(near(ends[0], 2.3) && near(ends[1], 11.3), "{ends:?}");
    let [first, second] = &log.records[..] else { panic!("two records") };
    assert!(first.cold && !second.cold);
    assert!(near(first.response_nanos().unwrap() as f64 / 1e9, 23.1 + 0.25));
    assert_eq!(first.node.as_deref(), Some("n"));
}

/// The second function needs only a layer that is there; two replicas of one image pull it once.
#[test]
fn layers_are_pulled_once() {
    let simulation = of_texts(
        &format!(
            "[function.f]\npython = \"m:C\"\nreplicas = {{ min = 2 }}\nimages = [\"app\"]\n[function.g]\npython = \"m:C\"\nreplicas = {{ min = 0 }}\nimages = [\"other\"]\n{NODE}"
        ),
        "[function.f]\nservice = { fixed = 0.1 }\nstart = { fixed = 1 }\nthen = \"g\"\n[function.g]\nservice = { fixed = 0.1 }\nstart = { fixed = 2 }",
        "cold_start = true\n[[demand]]\nfunction = \"f\"\narrival = \"synchronous\"\nrequests = 1",
    );
    let log = Log::of(&simulation);
    assert_eq!(log.transfers.len(), 2, "{:?}", log.transfers);
    assert!(log.at(Phase::Ready).iter().zip([12.3, 12.3, 14.4]).all(|(at, due)| near(*at, due)));
    let (report, _) = run(&simulation, 1);
    assert_eq!(report.nodes[0].pulled, 106_700_000);
    assert_eq!(report.nodes[0].replicas_max, 3);
}

/// What was on its way to a node that is lost is not there when the node is back: it is pulled anew, as long as ever.
#[test]
fn a_pull_is_lost_with_its_node() {
    let simulation = of_texts(
        &format!("[function.f]\npython = \"m:C\"\nimages = [\"app\"]\n{NODE}"),
        "[function.f]\nservice = { fixed = 0.1 }\nstart = { fixed = 1 }",
        r#"
cold_start = true
[[operation]]
at = "8s"
do = { node_lost = { node = "n" } }
[[operation]]
at = "9s"
do = { node_back = { node = "n" } }
[[demand]]
function = "f"
arrival = "synchronous"
requests = 1
"#,
    );
    let log = Log::of(&simulation);
    let (pulls, starts) = (log.at(Phase::Deploy), log.at(Phase::Startup));
    assert_eq!((pulls.len(), starts.len()), (2, 1), "{pulls:?} {starts:?}");
    assert!(starts[0] - pulls[1] > 11.0, "{pulls:?} {starts:?}");
}

#[test]
fn a_chain_is_called_one_after_another() {
    let simulation = of_texts(
        "[function.a]\nhttp = \"http://h\"\n[function.b]\nhttp = \"http://h\"\n[function.c]\nhttp = \"http://h\"",
        "[function.a]\nservice = { fixed = 0.1 }\nthen = \"b\"\n[function.b]\nservice = { fixed = 0.2 }\nthen = \"c\"\n[function.c]\nservice = { fixed = 0.4 }\nerrors = 0.25",
        "[[demand]]\nfunction = \"a\"\narrival = { poisson = { rate = 5 } }\nrequests = 4000",
    );
    let records = records(&simulation, 1);
    assert_eq!(records.len(), 4_000);
    assert!(records.iter().all(|record| record.response_nanos() == Some(700_000_000)));
    let failed: Vec<_> =
        records.iter().map(|r| f64::from(u8::from(r.status == Status::Error))).collect();
    assert_mean("errors of the last", &failed, 0.25);
    let (report, _) = run(&simulation, 1);
    assert!(report.functions.iter().all(|function| function.totals.arrived == 4_000));
}

/// Each call reads 9.7 MB and writes as much: 1.3 s before its service and 1.3 s after it.
#[test]
fn calls_read_and_write_data() {
    let simulation = of_texts(
        &format!(
            "[function.f]\npython = \"m:C\"\ndata = {{ reads = [\"models/small\"], writes = [\"models/small\"] }}\n{NODE}"
        ),
        "[function.f]\nservice = { fixed = 0.5 }",
        "[[demand]]\nfunction = \"f\"\narrival = \"synchronous\"\nrequests = 3",
    );
    let log = Log::of(&simulation);
    let times: Vec<_> =
        log.records.iter().map(|record| record.response_nanos().unwrap() as f64 / 1e9).collect();
    assert!(times.iter().all(|time| near(*time, 3.1)), "{times:?}");
    assert_eq!(log.transfers.len(), 6);
    assert_eq!((&*log.transfers[0].source, &*log.transfers[0].sink), ("internet", "n"));
    assert_eq!((&*log.transfers[1].source, &*log.transfers[1].sink), ("n", "internet"));
}

/// Of the places that have an item, the one behind the widest links is read.
#[test]
fn data_come_from_where_it_is_quickest() {
    let cluster = NODE.replace("[\"internet\"]", "[\"thin\", \"internet\"]").replace(
        "[cluster.storage",
        "links = [{ from = \"thin\", to = \"internet\", bandwidth = \"8Mbit\" }]\n[cluster.storage",
    );
    let simulation = of_texts(
        &format!(
            "[function.f]\npython = \"m:C\"\ndata = {{ reads = [\"models/small\"] }}\n{cluster}"
        ),
        "[function.f]\nservice = { fixed = 0.5 }",
        "[[demand]]\nfunction = \"f\"\narrival = \"synchronous\"\nrequests = 3",
    );
    let log = Log::of(&simulation);
    assert!(log.transfers.iter().all(|transfer| &*transfer.source == "internet"));
    assert_eq!(log.transfers.len(), 3);
}

/// M/G/1 processor sharing: mean response E[S] / (1 - rho), whatever the law of service.
#[test]
fn processor_sharing_does_not_mind_the_law() {
    for law in [
        "{ fixed = 1.0 }",
        "{ exponential = { mean = 1.0 } }",
        "{ hyperexponential = { mean = 1.0, cv = 2.0 } }",
    ] {
        let simulation = simulation(
            "timeout = \"1day\"",
            &format!("service = {law}\ncontention = {{ processor_sharing = {{ cores = 1 }} }}"),
            "arrival = { poisson = { rate = 0.7 } }\nrequests = 1000000",
        );
        let (report, times) = run(&simulation, 1);
        assert_mean(law, &times.responses, 1.0 / 0.3);
        assert!((report.functions[0].in_service_mean - 0.7 / 0.3).abs() < 0.1);
    }
}

/// Two functions on one node that share its cores: each one's mean response is E[S] over what is left of a core at one
/// core, and with two cores the number there is that of M/M/2, whatever the laws (a symmetric queue).
#[test]
fn functions_share_the_cores_of_their_node() {
    let requests = 1_000_000;
    let simulation = |cpu: u32, rates: [f64; 2]| {
        let [f, g] = ["f", "g"].map(|name| {
            format!(
                "[function.{name}]\nprocess = [\"./{name}\"]\nmode = \"http\"\nconcurrency = 100000\ntimeout = \"1day\"\nrequests = {{ cpu = \"10m\" }}\n"
            )
        });
        let system = format!(
            "{f}{g}[cluster]\nnodes = [{{ name = \"n\", cpu = {cpu}, memory = \"4GiB\" }}]"
        );
        let model = "node_contention = { processor_sharing = {} }\n[function.f]\nservice = { fixed = 1.0 }\n[function.g]\nservice = { hyperexponential = { mean = 0.5, cv = 2.0 } }";
        let demand = |name: &str, rate: f64| {
            format!(
                "[[demand]]\nfunction = \"{name}\"\narrival = {{ poisson = {{ rate = {rate} }} }}\nrequests = {}\n",
                (f64::from(requests) * rate) as u64
            )
        };
        let scenario = demand("f", rates[0]) + &demand("g", rates[1]);
        of_texts(&system, model, &scenario)
    };
    let responses = |simulation: &Simulation, name: &str| -> Vec<f64> {
        let records = records(simulation, 1);
        let own = records.iter().filter(|record| &*record.function == name);
        own.map(|record| record.response_nanos().unwrap() as f64 / 1e9).collect()
    };
    // Load 0.3 + 0.4 on one core.
    let one = simulation(1, [0.3, 0.8]);
    assert_mean("f on one core", &responses(&one, "f"), 1.0 / 0.3);
    assert_mean("g on one core", &responses(&one, "g"), 0.5 / 0.3);
    // Load 1.4 on two: M/M/2 with a = 1.4, W / E[S] = 1 / (1 - 0.49).
    let two = simulation(2, [0.6, 1.6]);
    assert_mean("f on two cores", &responses(&two, "f"), 1.0 / 0.51);
    assert_mean("g on two cores", &responses(&two, "g"), 0.5 / 0.51);
}

/// Two requests share a core; at 20 s the replica of one is lost with it. The other, of 30 s, has had 10 by then, and the
/// node to itself for the 20 that are left.
#[test]
fn who_is_lost_leaves_its_node_to_the_others() {
    let function = |name: &str| {
        format!(
            "[function.{name}]\nprocess = [\"./{name}\"]\nmode = \"http\"\ntimeout = \"1day\"\nretries = {{ attempts = 1 }}\nrequests = {{ cpu = \"10m\" }}\n"
        )
    };
    let system = function("f")
        + &function("g")
        + "[cluster]\nnodes = [{ name = \"n\", cpu = 1, memory = \"4GiB\" }]";
    let model = "node_contention = { processor_sharing = {} }\n[function.f]\nservice = { fixed = 100 }\nstart = { fixed = 1 }\nlifetime = { fixed = 20 }\n[function.g]\nservice = { fixed = 30 }";
    let demand = |name: &str| {
        format!(
            "[[demand]]\nfunction = \"{name}\"\narrival = {{ constant = {{ rate = 1 }} }}\nrequests = 1\n"
        )
    };
    let simulation = of_texts(&system, model, &(demand("f") + &demand("g")));
    let ends: Vec<_> = records(&simulation, 1)
        .iter()
        .map(|record| {
            (record.function.to_string(), record.status, record.finished.unwrap().as_secs_f64())
        })
        .collect();
    let expected = [("f".to_owned(), Status::Lost, 20.0), ("g".to_owned(), Status::Ok, 40.0)];
    assert_eq!(ends, expected);
}

/// Two requests at once on two cores: each as if alone if it keeps one core busy, half as fast if both.
#[test]
fn a_request_may_keep_several_cores_busy() {
    let ends = |cores: f64| {
        let system = "[function.f]\nprocess = [\"./f\"]\nmode = \"http\"\nconcurrency = 2\ntimeout = \"1day\"\nrequests = { cpu = \"10m\" }\n[cluster]\nnodes = [{ name = \"n\", cpu = 2, memory = \"4GiB\" }]";
        let model = format!(
            "node_contention = {{ processor_sharing = {{}} }}\n[function.f]\nservice = {{ fixed = 10 }}\ncores = {cores}"
        );
        let demand = "[[demand]]\nfunction = \"f\"\narrival = { concurrent = { streams = 2 } }\nrequests = 2";
        let records = records(&of_texts(system, &model, demand), 1);
        records.iter().map(|record| record.finished.unwrap().as_secs_f64()).collect::<Vec<_>>()
    };
    assert_eq!(ends(1.0), [10.0, 10.0]);
    assert_eq!(ends(2.0), [20.0, 20.0]);
    assert_eq!(ends(1.5), [15.0, 15.0]);
}

/// An HTTP watchdog with three workers behind a replica that takes everything is M/M/3; a forking one is M/G/infinity.
#[test]
fn watchdogs() {
    let model = |more: &str| format!("service = {{ exponential = {{ mean = 1.0 }} }}\n{more}");
    let demand = "arrival = { poisson = { rate = 2.4 } }\nrequests = 1000000";
    let http = simulation("timeout = \"1day\"", &model("workers = 3"), demand);
    let (_, times) = run(&http, 1);
    // Erlang C at 3 servers and load 0.8: P(wait) = 0.647191, W = 1 + 0.647191 / (3 - 2.4).
    assert_mean("http", &times.responses, 1.0 + 0.647_191 / 0.6);
    let forking = simulation("timeout = \"1day\"", &model("fork = { fixed = 0.1 }"), demand);
    let (_, times) = run(&forking, 1);
    assert_mean("forking", &times.responses, 1.1);
}

#[test]
fn laws_differ_by_device_and_image() {
    let system = r#"
[function.f]
python = "m:C"
replicas = { min = 3 }
balance = "round_robin"
requests = { cpu = 3, memory = "500MB" }
images = ["app"]
[image.app]
any = "10MB"
[cluster]
placement = { policy = "round_robin" }
nodes = [{ name = "a", device = "nuc" }, { name = "b", device = "nano" }, { name = "c", cpu = 4 }]
"#;
    let model = "[function.f]\nservice = { fixed = 0.1 }\n[function.f.on.nuc]\nservice = { fixed = 0.2 }\n[function.f.on.app]\nservice = { fixed = 0.3 }\n[function.f.on.\"nano/app\"]\nservice = { fixed = 0.4 }";
    let scenario = "[[demand]]\nfunction = \"f\"\narrival = \"synchronous\"\nrequests = 6";
    let found = records(&of_texts(system, model, scenario), 1);
    let on = |node: &str| {
        let mut own = found.iter().filter(|record| record.node.as_deref() == Some(node));
        own.next().unwrap().service_nanos().unwrap()
    };
    // A device before an image, and both before either.
    assert_eq!(["a", "b", "c"].map(on), [200_000_000, 400_000_000, 300_000_000]);
    let measured = "[function.f]\nservice = { fixed = 9 }\nmeasured = \"resnet-inference-cpu\"";
    let found = records(&of_texts(system, measured, scenario), 1);
    let slow = found.iter().filter(|record| record.service_nanos() == Some(9_000_000_000)).count();
    assert_eq!(slow, 2, "the node without a device has the law of the model");
    let fault = fault(system, &measured.replace("cpu", "gpu"), scenario);
    assert!(
        fault.starts_with(
            "function `f`, measured = \"resnet-inference-gpu\": it was not measured on device `nuc`"
        ),
        "{fault}"
    );
}

fn fault(system: &str, model: &str, scenario: &str) -> String {
    let scenario = Scenario::parse(scenario).unwrap();
    let system = gatewright_control::config::SystemFile::parse(system, &[]).unwrap();
    let fault = Simulation::new(&system, &Model::parse(model).unwrap(), &scenario).unwrap_err();
    fault.to_string()
}

#[test]
fn faults_are_named_before_a_run() {
    let system = "[function.a]\nhttp = \"http://h\"\n[function.b]\nhttp = \"http://h\"";
    let model = "[function.a]\nservice = { fixed = 1 }\nthen = \"b\"\n[function.b]\nservice = { fixed = 1 }\n";
    let scenario = "[[demand]]\nfunction = \"a\"\narrival = \"synchronous\"\nrequests = 1\n";
    let cycle = fault(system, &format!("{model}then = \"a\""), scenario);
    assert_eq!(cycle, "function `b`, `then`: a -> b -> a never ends");
    let nowhere = fault(system, &model.replace("\"b\"", "\"c\""), scenario);
    assert_eq!(nowhere, "function `a`, `then`: the system file has no function `c`");
    let act = "[[operation]]\nat = \"1s\"\ndo = { suspend = { function = \"x\" } }";
    let unknown = fault(system, model, &format!("{scenario}{act}"));
    assert_eq!(unknown, "operation 1: no demand leads to a function `x`");
    let act = "[[operation]]\nat = \"1s\"\ndo = { node_lost = { node = \"n\" } }";
    let unknown = fault(
        system,
        &model.replace("{ fixed = 1 }\n", "{ fixed = 1 }\nstart = { fixed = 1 }\n"),
        &format!("{scenario}{act}"),
    );
    assert_eq!(unknown, "operation 1: the cluster has no node `n`");
    let parse = |model: &str| Model::parse(model).unwrap_err().to_string();
    let contention =
        "[function.a]\nservice = { fixed = 1 }\ncontention = { linear = { slope = -1 } }";
    assert_eq!(parse(contention), "function `a`: contention: slope is -1; give 0 to 100");
}

/// Bad scenarios, each with what is said of it: lines for the system, the model, and the scenario.
const BAD: [(&str, &str, &str, &str); 29] = [
    ("[cluster]\nnodes = []", "", "", "there are no nodes in the list"),
    ("[cluster]\nregistry = \"internet\"", "", "", "cluster: it has no nodes"),
    ("[cluster]\nnodes = [{ name = \"\" }]", "", "", "a node has an empty name"),
    ("[cluster]\nnodes = [{ name = \"n\", latency = \"500years\" }]", "", "", "its latency is"),
    (
        "[cluster]\nnodes = [{ name = \"n\" }]\nlinks = [{ from = \"x\", to = \"x\", bandwidth = \"1Mbit\" }]",
        "",
        "",
        "cluster.links 1: it leads from `x` to itself",
    ),
    (
        "[cluster]\nnodes = [{ name = \"n\" }]\nlinks = [{ from = \"x\", to = \"y\", bandwidth = \"1Mbit\" }, { from = \"y\", to = \"x\", bandwidth = \"1Mbit\" }]",
        "",
        "",
        "cluster.links 2: another link joins `y` and `x`",
    ),
    ("[cluster]\ntopology = { urban_sensing = { cells = 0 } }", "", "", "it has no cells"),
    ("[cluster]\ntopology = { urban_sensing = { density = 0 } }", "", "", "it has no density"),
    ("[cluster]\ntopology = { urban_sensing = { cells = 4000000000 } }", "", "", "at most 100000"),
    (
        "[cluster]\ntopology = { edge_cloudlets = { cloudlets = 100000, racks = [100000, 100000] } }",
        "",
        "",
        "at most 100000",
    ),
    (
        "[cluster]\ntopology = { edge_cloudlets = { racks = [0, 1] } }",
        "",
        "",
        "its racks have no servers",
    ),
    (
        "[cluster]\ntopology = { cloud_regions = { regions = [], latency = \"1ms\" } }",
        "",
        "",
        "it has no regions",
    ),
    ("batch = { max_size = 0 }", "", "", "batch.max_size must be at least 1"),
    ("start_timeout = \"0s\"", "", "", "start_timeout must be above 0"),
    (
        "images = [\"i\"]\n[image.i]\nany = { a = \"900TB\", b = \"900TB\" }\nNODE",
        "",
        "",
        "image `i`: a build of it has more than a petabyte",
    ),
    (
        "images = [{ image = \"i\", share = 0.01 }]\n[image.i]\nany = \"1MB\"\nNODE",
        "",
        "",
        "the shares of its images leave room for 0 of its replicas",
    ),
    (
        "images = [\"i\"]\n[image.i]\nany = \"1MB\"",
        "",
        "",
        "function `f`, `images`: it is about nodes",
    ),
    ("data = { reads = [\"b/x\"] }", "", "", "function `f`, `data`: it is about nodes"),
    ("node_labels = { zone = \"a\" }", "", "", "function `f`, `node_labels`: it is about nodes"),
    (
        "data = { reads = [\"b/x\"] }\nNODE\nlinks = [{ from = \"far\", to = \"away\", bandwidth = \"1Mbit\" }]\n[cluster.storage.b]\nat = [\"far\"]\nitems = { x = \"1MB\" }",
        "",
        "",
        "no way leads from `far`, where `b/x` is, to node `n`",
    ),
    ("", "measured = \"fio\"", "", "function `f`, `measured`: it is about nodes"),
    (
        "NODE",
        "[function.f.on.rpi9]\nservice = { fixed = 1 }",
        "",
        "`on.rpi9`: it is neither a device",
    ),
    (
        "NODE",
        "[function.f.on.rpi4]\nmeasured = \"fo\"",
        "",
        "no workload of this name was measured",
    ),
    ("NODE", "[device.rpi9]\nbusy_watts = 1", "", "device `rpi9`: there is no such device"),
    ("NODE", "[device.rpi4]\nidle_watts = 1", "", "`idle_watts` is above `busy_watts`"),
    ("NODE", "cores = 2", "", "function `f`, `cores`: it matters only"),
    (
        "",
        "[[function.f.outage]]\nat = \"1s\"\nfor = \"0s\"\nfault = \"busy\"",
        "",
        "outage 1: `for` must be above 0",
    ),
    (
        "",
        "[[function.f.outage]]\nat = \"1s\"\nfor = \"1s\"\nreplicas = 0\nfault = \"busy\"",
        "",
        "outage 1: `replicas` must be at least 1",
    ),
    ("", "", "keys = { uniform = { count = 3 } }", "demand 1, `keys`: they are for a `route`"),
];

#[test]
fn bad_scenarios_say_what_is_wrong_before_a_run() {
    let with = |system: &str, model: &str, scenario: &str| {
        let node = "[cluster]\nnodes = [{ name = \"n\", device = \"rpi4\" }]";
        let system = format!("[function.f]\npython = \"m:C\"\n{}", system.replace("NODE", node));
        let model =
            format!("[function.f]\nservice = {{ fixed = 1 }}\nstart = {{ fixed = 1 }}\n{}", model);
        let scenario =
            format!("[[demand]]\nfunction = \"f\"\narrival = \"synchronous\"\n{scenario}");
        let parsed = || -> Result<_, gatewright_control::config::ConfigError> {
            let scenario = Scenario::parse(&scenario)?;
            let system = gatewright_control::config::SystemFile::parse(&system, &[])?;
            Simulation::new(&system, &Model::parse(&model)?, &scenario)
        };
        parsed().map(|_| ()).map_err(|fault| fault.to_string())
    };
    let plain = "requests = 1\n";
    assert_eq!(with("", "", plain), Ok(()));
    assert_eq!(with("NODE", "", plain), Ok(()));
    for (system, model, scenario, expected) in BAD {
        let fault = with(system, model, &format!("{plain}{scenario}"));
        let fault = fault.expect_err(&format!("{system} {model} {scenario}"));
        assert!(fault.contains(expected), "{fault} is not: {expected}");
    }
    let step = |act: &str| format!("{plain}[[operation]]\nat = \"1s\"\ndo = {{ {act} }}");
    let of = |act: &str| with("replicas = { max = 4 }", "", &step(act)).unwrap_err();
    let none = of("scale_up = { function = \"f\", by = 0 }");
    assert_eq!(none, "operation 1: `by` is 0; give at least 1");
    let beyond = of("scale_to = { function = \"f\", replicas = 5 }");
    assert_eq!(beyond, "operation 1: `replicas` is 5, and replicas.max of `f` is 4");
    let long = with("", "", "duration = \"500years\"").unwrap_err();
    assert_eq!(long, "demand 1: its `duration` is more than a century");
    let model = "service = { fixed = 1 }\n";
    let top = format!("node_contention = {{ processor_sharing = {{}} }}\n[function.f]\n{model}");
    let at = "[[demand]]\nfunction = \"f\"\narrival = \"synchronous\"\nrequests = 1";
    let shared = fault("[function.f]\nhttp = \"http://h\"", &top, at);
    assert_eq!(shared, "`node_contention`: it is about nodes, and the system has none");
}

/// What faas-sim gets wrong: scale_down(4) of 8 leaves 4, remove leaves none, suspend reaches zero, the maximum holds
/// while replicas are pending, and who asks at zero waits and is served.
#[test]
fn operations_do_what_they_say() {
    let simulation = of_texts(
        "[function.f]\npython = \"m:C\"\nreplicas = { min = 1, max = 10 }",
        "[function.f]\nservice = { fixed = 0.1 }\nstart = { fixed = 5 }",
        r#"
[[operation]]
at = "10s"
do = { scale_to = { function = "f", replicas = 8 } }
[[operation]]
at = "20s"
do = { scale_down = { function = "f", by = 4 } }
[[operation]]
at = "30s"
do = { scale_up = { function = "f", by = 5 } }
[[operation]]
at = "31s"
do = { scale_up = { function = "f", by = 5 } }
[[operation]]
at = "40.5s"
do = { suspend = { function = "f" } }
[[operation]]
at = "70.5s"
do = { remove = { function = "f" } }
[[demand]]
function = "f"
arrival = { constant = { rate = 0.05 } }
duration = "100s"
"#,
    );
    let log = Log::of(&simulation);
    let alive = |at: f64| {
        let count = |phase| log.at(phase).iter().filter(|moment| **moment <= at).count();
        count(Phase::Ready) - count(Phase::Teardown)
    };
    let alive: Vec<_> = [5.0, 19.0, 21.0, 39.0, 41.0, 66.0, 71.0].map(alive).to_vec();
    assert_eq!(alive, [1, 8, 4, 10, 0, 1, 0]);
    let answers: Vec<_> =
        log.records.iter().map(|r| (r.status, r.cold, r.response_nanos().unwrap())).collect();
    assert_eq!(answers[3], (Status::Ok, true, 5_100_000_000), "woken at 60 s");
    assert_eq!(answers[4].0, Status::Shed, "removed at 70 s");
    assert_eq!(answers.len(), 5);
}

#[test]
fn what_a_lost_node_worked_on_is_done_elsewhere() {
    let simulation = of_texts(
        r#"
[function.f]
python = "m:C"
replicas = { min = 2 }
requests = { cpu = 1, memory = "100MiB" }
images = ["app"]
[image.app]
amd64 = "10MB"
[cluster]
placement = { policy = "round_robin" }
nodes = [{ name = "n", count = 3, cpu = 1 }]
"#,
        "[function.f]\nservice = { fixed = 10 }\nstart = { fixed = 1 }",
        r#"
[[operation]]
at = "5s"
do = { node_lost = { node = "n-1" } }
[[operation]]
at = "50s"
do = { node_back = { node = "n-1" } }
[[demand]]
function = "f"
arrival = { concurrent = { streams = 2 } }
requests = 10
"#,
    );
    let log = Log::of(&simulation);
    assert_eq!(log.at(Phase::Lost), [5.0]);
    assert_eq!(log.records.len(), 10);
    assert!(log.records.iter().all(|record| record.status == Status::Ok));
    assert_eq!(log.records.iter().filter(|record| record.attempts == 2).count(), 1);
    let nodes: std::collections::BTreeSet<Arc<str>> =
        log.records.iter().filter_map(|record| record.node.clone()).collect();
    assert_eq!(nodes.len(), 2, "{nodes:?}");
    assert!(nodes.contains("n-2"), "{nodes:?}");
}

/// Replicas that live an exponential hour and take six minutes to come back are up 10 hours of 11.
#[test]
fn replicas_fail_and_come_back() {
    let system = "[function.f]\npython = \"m:C\"\nstart_timeout = \"10m\"\nreplicas = { min = 20 }\ntimeout = \"1day\"\nretries = { attempts = 10 }";
    let simulation = of_texts(
        system,
        "[function.f]\nservice = { fixed = 0.1 }\nstart = { fixed = 360 }\nlifetime = { exponential = { mean = 3600 } }",
        "[[demand]]\nfunction = \"f\"\narrival = { constant = { rate = 1 } }\nduration = \"20day\"",
    );
    let (report, _) = run(&simulation, 1);
    let function = &report.functions[0];
    assert!((function.replicas_mean / 20.0 - 10.0 / 11.0).abs() < 0.01, "{function:?}");
    assert!(function.totals.replicas_lost > 7_000, "{function:?}");
}

#[test]
fn energy_and_cost_follow_the_work() {
    let simulation = of_texts(
        "[function.f]\npython = \"m:C\"\nrequests = { cpu = 2, memory = \"100MiB\" }\n[cluster]\nnodes = [{ name = \"n\", device = \"nuc\" }]",
        "[function.f]\nservice = { fixed = 1 }\n[device.nuc]\nidle_watts = 10\nbusy_watts = 30\nprice_per_hour = 3.6",
        "[[demand]]\nfunction = \"f\"\narrival = { constant = { rate = 0.5 } }\nduration = \"1000s\"",
    );
    let (report, _) = run(&simulation, 1);
    let node = &report.nodes[0];
    let seconds = report.end.as_secs_f64();
    // Half of the time, half of the cores are at work.
    assert!((node.busy_mean - 0.25).abs() < 0.01 && node.requested_mean == 0.5, "{node:?}");
    assert!((node.joules.unwrap() / seconds - 15.0).abs() < 0.1, "{node:?}");
    assert!((node.cost.unwrap() - seconds / 1_000.0).abs() < 1e-9);
}
