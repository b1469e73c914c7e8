//! Odd but legal scenarios: whatever is combined, a run ends, adds up, and comes out the same again. A run checks its own
//! rules, after each event where the program is built with assertions.

use gatewright_control::config::SystemFile;
use gatewright_record::{Invocation, Status};
use gatewright_sim::{Model, Scenario, Simulation, SimulationReport};
use proptest::prelude::*;

/// Choices, one after another: small numbers are the plain ones, so that a failing case shrinks to a plain scenario.
struct Choices {
    tape: Vec<u8>,
    at: usize,
}

impl Choices {
    fn pick<'a>(&mut self, options: &[&'a str]) -> &'a str {
        let choice = self.tape.get(self.at).map_or(0, |&byte| usize::from(byte));
        self.at += 1;
        options[choice % options.len()]
    }
}

/// Texts of a system, its model and a scenario.
fn texts(choices: &mut Choices) -> [String; 3] {
    let nodes = choices.pick(&["", "few", "many"]);
    let chain = choices.pick(&["", "a", "ab"]);
    let shares_node = !nodes.is_empty() && choices.pick(&["", "yes"]) == "yes";
    let (mut system, mut model, mut scenario) = (String::new(), String::new(), String::new());
    if shares_node {
        model.push_str("node_contention = { processor_sharing = {} }\n");
    }
    scenario.push_str(choices.pick(&["", "cold_start = true\n"]));
    scenario.push_str(choices.pick(&["", "warm_up = \"3s\"\n"]));
    for name in ["a", "b", "c"] {
        system.push_str(&function(name, choices, !nodes.is_empty()));
        model.push_str(&behaviour(name, choices, shares_node));
        if chain.contains(name) {
            let next = if name == "a" { "b" } else { "c" };
            model.push_str(&format!("then = \"{next}\"\n"));
        }
        model.push_str(&tables(name, choices));
        scenario.push_str(&demand(name, choices));
    }
    system.push_str("[[route]]\npath = \"/c\"\nto = \"c:/c\"\n");
    system.push_str(choices.pick(&[
        "cache = { ttl = \"1s\" }\n",
        "cache = { ttl = \"1s\", stale_while_revalidate = \"2s\", stale_if_error = \"1m\" }\n",
        "cache = {}\n",
    ]));
    system.push_str(&cluster(nodes, choices));
    for _ in 0..3 {
        scenario.push_str(&operation(choices, nodes));
    }
    [system, model, scenario]
}

fn function(name: &str, choices: &mut Choices, on_nodes: bool) -> String {
    let several = name == "c" && choices.pick(&["one", "several"]) == "several";
    let runtime = match name {
        "c" if several => "http = [\"http://127.0.0.1:1\", \"http://127.0.0.1:2\"]",
        "c" => "http = \"http://127.0.0.1:1\"",
        _ => "python = \"m:C\"",
    };
    let mut text = format!("[function.{name}]\n{runtime}\n");
    let mut add = |options: &[&str]| {
        text.push_str(choices.pick(options));
        text.push('\n');
    };
    if !several {
        add(&[
            "replicas = { min = 1, max = 1 }",
            "replicas = { min = 0, max = 3 }",
            "replicas = { min = 2, max = 5 }",
        ]);
    }
    if name == "c" {
        add(&["", "concurrency = 1", "concurrency = 3"]);
        add(&["", "breaker = { failures = 3, open = \"500ms\" }"]);
        add(&["", "eject = {}"]);
        add(&["", "adapt = { policy = \"aimd\" }", "adapt = { policy = \"gradient2\" }"]);
        add(&["", "health = { path = \"/\", interval = \"1s\" }"]);
    } else {
        add(&[
            "",
            "concurrency = 3",
            "batch = { max_size = 4, max_wait = \"20ms\" }",
            "batch = { max_size = 3, max_wait = \"0s\" }",
        ]);
    }
    add(&["", "queue = { capacity = 0 }", "queue = { capacity = 5 }"]);
    add(&["timeout = \"20s\"", "timeout = \"300ms\"", "timeout = \"2s\""]);
    add(&["", "start_timeout = \"900ms\""]);
    add(&["", "max_execution = \"400ms\""]);
    add(&["", "cancel_grace = \"50ms\""]);
    add(&[
        "",
        "retries = { attempts = 3, budget = 10.0, backoff = \"10ms\" }",
        "retries = { attempts = 1 }",
    ]);
    text.push_str(&policies(choices, on_nodes));
    text
}

/// Which policies a function has, and what it needs of nodes.
fn policies(choices: &mut Choices, on_nodes: bool) -> String {
    let mut text = String::new();
    let mut add = |options: &[&str]| {
        text.push_str(choices.pick(options));
        text.push('\n');
    };
    add(&[
        "",
        "balance = \"round_robin\"",
        "balance = \"power_of_two\"",
        "balance = \"peak_ewma\"",
        "balance = \"consistent_hash\"",
    ]);
    add(&[
        "",
        "autoscale = { policy = \"per_request\" }",
        "autoscale = { policy = \"kpa\", stable_window = \"6s\", scale_to_zero_grace = \"1s\" }",
        "autoscale = { policy = \"hpa\", period = \"1s\", scale_down_stabilization = \"2s\" }",
        "autoscale = { policy = \"queue_length\", polling_interval = \"1s\", cooldown = \"2s\" }",
        "autoscale = { policy = \"ray_serve\", upscale_delay = \"1s\", downscale_delay = \"1s\", look_back_period = \"1s\" }",
        "autoscale = { policy = \"requests_per_second\", target = 2, window = \"1s\", zero_duration = \"2s\" }",
        "autoscale = { policy = \"average_requests\", target = 2, window = \"1s\" }",
    ]);
    add(&[
        "",
        "keep_alive = { policy = \"none\" }",
        "keep_alive = { policy = \"fixed\", idle = \"500ms\" }",
        "keep_alive = { policy = \"lru\" }",
        "keep_alive = { policy = \"greedy_dual\" }",
        "keep_alive = { policy = \"hybrid_histogram\", bin = \"100ms\", range = \"2s\" }",
    ]);
    if on_nodes {
        add(&["", "requests = { cpu = 1, memory = \"400MiB\" }"]);
        add(&["", "images = [\"app\"]", "images = [{ image = \"app\", share = 0.5 }, \"other\"]"]);
        add(&["", "data = { setup = [\"disk/x\"], reads = [\"disk/y\"], writes = [\"disk/x\"] }"]);
    }
    text
}

/// What the model says of a function before any table of its own.
fn behaviour(name: &str, choices: &mut Choices, shares_node: bool) -> String {
    let mut text = format!("[function.{name}]\n");
    let mut add = |options: &[&str]| {
        text.push_str(choices.pick(options));
        text.push('\n');
    };
    add(&[
        "service = { fixed = 0.2 }",
        "service = { fixed = 0 }",
        "service = { exponential = { mean = 0.3 } }",
        "service = { hyperexponential = { mean = 0.2, cv = 3 } }",
    ]);
    add(&[
        "start = { fixed = 0.5 }",
        "start = { fixed = 0 }",
        "start = { exponential = { mean = 0.5 } }",
    ]);
    add(&["", "stop = { fixed = 0.3 }"]);
    add(&["", "setup = { fixed = 0.2 }"]);
    add(&["", "overhead = { exponential = { mean = 0.01 } }"]);
    add(&["", "gateway = { fixed = 0.001 }"]);
    add(&["", "lifetime = { exponential = { mean = 2 } }", "lifetime = { fixed = 0 }"]);
    add(&["", "errors = 0.2"]);
    add(&["", "fork = { fixed = 0.05 }"]);
    add(&[
        "",
        "faults = { refused = 0.1, unavailable = 0.1, busy = 0.1, hangs = 0.1 }",
        "faults = { unavailable = 0.3, hangs = 0.2, repeatable = false }",
    ]);
    let workers = choices.pick(&["", "workers = 1\n"]);
    let contention = choices.pick(&[
        "",
        "contention = { processor_sharing = {} }\n",
        "contention = { linear = { slope = 0.5 } }\n",
    ]);
    let llm = choices.pick(&["", "llm"]) == "llm";
    if !llm {
        text.push_str(workers);
    }
    if !llm && !shares_node {
        text.push_str(contention);
    }
    if llm {
        text.push_str(
            "llm = { prompt = { uniform = { min = 1, max = 90 } }, output = { fixed = 5 }, kv_blocks = 6, token_budget = 40, prefix = { count = 2, tokens = 20 }, step = { base = 0.01 } }\n",
        );
    }
    text
}

fn tables(name: &str, choices: &mut Choices) -> String {
    let mut text = choices
        .pick(&[
            "",
            "[[function.NAME.outage]]\nat = \"2s\"\nfor = \"1s\"\nfault = \"unavailable\"\n",
            "[[function.NAME.outage]]\nat = \"1s\"\nfor = \"5s\"\nreplicas = 1\nfault = \"hangs\"\n",
        ])
        .replace("NAME", name);
    if name == "c" {
        text.push_str("[function.c.cache]\nhit = { fixed = 0.001 }\nkeys = { zipf = { count = 5, exponent = 1 } }\n");
        text.push_str(choices.pick(&["", "lifetime = \"2s\"\n"]));
    }
    text
}

fn demand(name: &str, choices: &mut Choices) -> String {
    let target = match name {
        "c" => choices.pick(&["function = \"c\"", "route = \"/c\""]).to_owned(),
        name => format!("function = \"{name}\""),
    };
    let arrival = choices.pick(&[
        "{ constant = { rate = 4 } }",
        "{ poisson = { rate = 20 } }",
        "{ concurrent = { streams = 4 } }",
        "{ gamma = { rate = 5, cv = 4 } }",
        "{ users = { users = 3, think = { mean = \"200ms\" } } }",
        "{ sessions = { rate = 2, turns = { fixed = 3 }, think = { mean = \"100ms\", cv = 1 } } }",
    ]);
    let errors = choices.pick(&["", "errors = 3\n"]);
    format!(
        "[[demand]]\n{target}\narrival = {arrival}\nrequests = 80\nduration = \"15s\"\n{errors}"
    )
}

fn cluster(nodes: &str, choices: &mut Choices) -> String {
    let nodes = match nodes {
        "" => return String::new(),
        "few" => {
            "nodes = [{ name = \"n\", cpu = 2, memory = \"1GiB\", device = \"rpi4\" }, { name = \"m\", cpu = 1, memory = \"2GiB\" }]"
        }
        _ => {
            "nodes = [{ name = \"n\", cpu = 8, memory = \"16GiB\", bandwidth = \"10Mbit\" }, { name = \"m\", count = 3, device = \"nuc\", at = \"lan\" }]\nlinks = [{ from = \"internet\", to = \"lan\", bandwidth = \"100Mbit\", latency = \"10ms\" }]"
        }
    };
    let placement = choices.pick(&["kubernetes", "skippy", "random", "round_robin", "bin_packing"]);
    format!(
        "[image.app]\nany = {{ base = \"20MB\", app = \"1MB\" }}\n[image.other]\nany = {{ base = \"20MB\" }}\n\
         [cluster]\n{nodes}\nplacement = {{ policy = \"{placement}\" }}\n\
         [cluster.storage.disk]\nat = [\"n\"]\nitems = {{ x = \"2MB\", y = \"100KB\" }}\n"
    )
}

fn operation(choices: &mut Choices, nodes: &str) -> String {
    let at = choices.pick(&["1s", "2500ms", "7s"]);
    let of_functions = [
        "",
        "scale_up = { function = \"a\", by = 2 }",
        "scale_down = { function = \"b\", by = 1 }",
        "scale_to = { function = \"c\", replicas = 1 }",
        "suspend = { function = \"a\" }",
        "reload = { function = \"a\" }",
        "reload = { function = \"c\" }",
        "remove = { function = \"b\" }",
    ];
    let act = match (nodes, choices.pick(&["function", "lost", "back"])) {
        ("", _) | (_, "function") => choices.pick(&of_functions),
        (_, "lost") => "node_lost = { node = \"n\" }",
        _ => "node_back = { node = \"n\" }",
    };
    if act.is_empty() {
        return String::new();
    }
    format!("[[operation]]\nat = \"{at}\"\ndo = {{ {act} }}\n")
}

/// The records of a run, in the order in which the requests ended.
fn played(simulation: &Simulation, seed: u64) -> Vec<Invocation> {
    let mut records = Vec::new();
    let report = simulation.run(seed, Some(&mut records), &mut |_| ()).unwrap();
    // Most requests are dealt with in a shorter way where no records are written.
    let without = simulation.run(seed, None, &mut |_| ()).unwrap();
    let told = |report: &SimulationReport| {
        let demands = report.demands.iter().map(|demand| demand.summary.report());
        let demands: Vec<_> = demands.collect();
        (report.events, report.end, demands, format!("{:?}", report.functions))
    };
    assert_eq!(told(&report), told(&without));
    let summed: u64 = report.demands.iter().map(|demand| demand.summary.requests()).sum();
    assert!(summed <= records.len() as u64);
    assert!(report.functions.iter().all(|function| function.replicas_max <= 5));
    assert!(report.nodes.iter().all(|node| (0.0..=1.0).contains(&node.busy_mean)));
    records
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 500,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn odd_combinations_end_and_add_up(
        tape in prop::collection::vec(any::<u8>(), 0..140),
        seed in 0_u64..4,
    ) {
        let [system, model, scenario] = texts(&mut Choices { tape, at: 0 });
        let told = format!("{system}\n--- model\n{model}\n--- scenario\n{scenario}");
        let files = || -> Result<Simulation, gatewright_control::config::ConfigError> {
            let system = SystemFile::parse(&system, &[])?;
            Simulation::new(&system, &Model::parse(&model)?, &Scenario::parse(&scenario)?)
        };
        let simulation = files().unwrap_or_else(|fault| panic!("{fault} in\n{told}"));
        let run = || played(&simulation, seed);
        let records = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        let records = records.unwrap_or_else(|_| panic!("it panicked:\n{told}"));
        prop_assert_eq!(&records, &run(), "not the same again:\n{}", told);
        for record in &records {
            let moments = [record.sent, record.received, record.queued_out, record.started, record.first_byte, record.finished];
            let moments: Vec<_> = moments.into_iter().flatten().collect();
            prop_assert!(moments.is_sorted(), "{:?} in\n{}", record, told);
            let attempted = record.attempts > 0;
            prop_assert_eq!(attempted, record.started.is_some(), "{:?} in\n{}", record, told);
            prop_assert!(record.status != Status::Ok || attempted || record.cache.is_some(), "{:?} in\n{}", record, told);
        }
        prop_assert!(records.is_sorted_by_key(|record| record.finished), "{}", told);
    }
}
