//! What others have published, in small: the comparisons of `examples/edge-cluster`.

use serde_json::Value;

use crate::command::workspace;
use crate::simulated::stdout;

/// The result of a scenario of the example with some keys of its system file set.
fn simulated(scenario: &str, settings: &str) -> Value {
    let folder = workspace().join("examples/edge-cluster");
    let line = format!("simulate {scenario} --format json {settings}");
    serde_json::from_str(&stdout(&folder, &line)).unwrap()
}

/// Shahrad and others, "Serverless in the Wild" (ATC 2020), figures 15 and 16: a histogram of idle times has as few cold
/// starts as a long keep-alive, for about the memory of a short one.
#[test]
fn a_histogram_of_idle_times_is_warm_for_little() {
    let names = ["timer", "report", "backup", "hook", "api"];
    // Cold starts of those that a timer asks, of all, and hours of replicas.
    let run = |rule: &str| {
        let set = names.map(|name| format!("--set function.{name}.keep_alive={rule}")).join(" ");
        let result = simulated("keep-alive-scenario.toml", &set);
        let cold = |demand: &Value| demand["report"]["cold"].as_u64().unwrap();
        let demands = result["demands"].as_array().unwrap();
        let hours = result["functions"].as_array().unwrap().iter();
        let hours = hours.map(|one| one["replica_seconds"].as_f64().unwrap() / 3_600.0).sum();
        (demands[..3].iter().map(cold).sum(), demands.iter().map(cold).sum(), hours)
    };
    let (timers_10, cold_10, hours_10): (u64, u64, f64) = run("{policy=\"fixed\",idle=\"10m\"}");
    let (timers_120, _, hours_120) = run("{policy=\"fixed\",idle=\"120m\"}");
    let (timers, cold, hours) = run("{policy=\"hybrid_histogram\"}");
    assert_eq!(timers_10, 144 + 72 + 24, "each of them comes too late for ten minutes");
    assert!(timers * 8 < timers_120, "{timers} of {timers_120}");
    assert!(cold * 2 < cold_10, "{cold} of {cold_10}");
    assert!(hours < 1.1 * hours_10 && hours < 0.5 * hours_120, "{hours_10} {hours} {hours_120}");
}

/// Rausch, Rashed and Dustdar (FGCS 2021): who knows where images and data are pulls less and is warm sooner than
/// Kubernetes' own priorities, in a city of ether's.
#[test]
fn who_knows_where_data_are_pulls_less() {
    let run = |policy: &str| {
        let result = simulated(
            "city-scenario.toml",
            &format!("--set cluster.placement.policy=\"{policy}\""),
        );
        let nodes = result["nodes"].as_array().unwrap().iter();
        let pulled: u64 = nodes.map(|node| node["pulled"].as_u64().unwrap()).sum();
        (pulled, result["report"]["response_time"]["p95_ns"].as_u64().unwrap())
    };
    let (skippy, kubernetes) = (run("skippy"), run("kubernetes"));
    assert!(skippy.0 * 2 < kubernetes.0, "pulled: {skippy:?}, {kubernetes:?}");
    assert!(skippy.1 * 5 < kubernetes.1, "95 %: {skippy:?}, {kubernetes:?}");
}
