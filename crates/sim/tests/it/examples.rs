//! The examples of `examples/edge-cluster/rust` do what they say.

#[path = "../../../../examples/edge-cluster/rust/analysis.rs"]
mod analysis;
#[path = "../../../../examples/edge-cluster/rust/arrivals.rs"]
mod arrivals;
#[path = "../../../../examples/edge-cluster/rust/basic.rs"]
mod basic;
#[path = "../../../../examples/edge-cluster/rust/city.rs"]
mod city;
#[path = "../../../../examples/edge-cluster/rust/function_model.rs"]
mod function_model;
#[path = "../../../../examples/edge-cluster/rust/scheduler.rs"]
mod scheduler;
#[path = "../../../../examples/edge-cluster/rust/watchdogs.rs"]
mod watchdogs;

/// The numbers in the line that begins with `head`.
fn numbers(text: &str, head: &str) -> Vec<f64> {
    let line = text.lines().find(|line| line.starts_with(head));
    let line = line.unwrap_or_else(|| panic!("no line {head} in:\n{text}"));
    let words = line[head.len()..].split(|c: char| !c.is_ascii_digit() && c != '.');
    words.filter_map(|word| word.parse().ok()).collect()
}

#[test]
fn a_city_is_simulated() {
    let text = basic::run().unwrap();
    let asked = numbers(&text, "")[0];
    let each: Vec<_> =
        text.lines().skip(1).map(|line| numbers(&line[line.find(':').unwrap()..], "")).collect();
    assert!(each.len() > 1, "replicas are on several nodes");
    assert_eq!(each.iter().map(|row| row[0]).sum::<f64>(), asked);
    assert!(each.iter().any(|row| row[2] > 0.0), "images are pulled");
    assert_eq!(analysis::run().unwrap().lines().count(), each.len() + 1);
}

#[test]
fn policies_of_ones_own_are_asked() {
    let text = scheduler::run().unwrap();
    assert_ne!(numbers(&text, "skippy:")[1], numbers(&text, "gpus first:")[1], "{text}");
    let text = function_model::run().unwrap();
    for line in text.lines() {
        let of = numbers(&line[line.find(':').unwrap()..], "");
        assert!(of[2] > 3.0, "the first in a replica takes longer: {line}");
    }
}

#[test]
fn requests_arrive_as_they_are_told_to() {
    let text = arrivals::run().unwrap();
    assert_eq!(numbers(&text, "constant"), [300.0; 4], "{text}");
    let ramp = numbers(&text, "ramp");
    assert!(ramp.is_sorted() && ramp[3] > 3.0 * ramp[0], "{text}");
    let sine = numbers(&text, "sine");
    assert!(sine[1] + sine[0] > 2.0 * (sine[2] + sine[3]), "{text}");
}

#[test]
fn a_forking_watchdog_pays_for_each_request() {
    let text = watchdogs::run().unwrap();
    let [four, two, fork] =
        ["http, 4 workers", "http, 2 workers", "forking"].map(|head| numbers(&text, head)[1]);
    assert!(four < fork && four < two, "{text}");
}
