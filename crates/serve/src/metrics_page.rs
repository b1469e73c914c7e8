use std::collections::BTreeMap;
use std::fmt::Write as _;

use gatewright_control::{Deployment, Endpoint, System};
use gatewright_determinism::Time;

use crate::metrics::Metrics;

/// Everything that `/metrics` tells, as a page of the reference: made of what the gateway itself says of a function.
///
/// # Panics
/// Never: the function that it deploys is one that can be deployed.
#[must_use]
pub fn metrics_page() -> String {
    let metrics = Metrics::new();
    let _function = metrics.function("f");
    let _key = metrics.key("k");
    let mut system = System::new(1);
    let endpoints = vec![Endpoint { url: "http://upstream".to_owned(), weight: 1 }];
    let deployment = Deployment { name: "f".to_owned(), endpoints, ..Deployment::default() };
    let key = system.deploy(Time::ZERO, deployment, &mut Vec::new());
    let key = key.expect("the first function fits");
    let _replica = system.join(Time::ZERO, key, &mut Vec::new());
    metrics.tier("disk", true, &[("hit", 0)]);
    let text = metrics.encoded(&system);
    let mut page = "# Metrics\n\n`GET /metrics` on the admin address, in the OpenMetrics format that Prometheus reads.\n\n\
                    | metric | type | labels | what it tells |\n|---|---|---|---|\n"
        .to_owned();
    let labels = labels(&text);
    let mut help = "";
    for line in text.lines() {
        let word = |prefix| line.strip_prefix(prefix).and_then(|rest: &str| rest.split_once(' '));
        if let Some((_, words)) = word("# HELP ") {
            help = words.trim_end_matches('.');
        }
        let Some((name, kind)) = word("# TYPE ") else { continue };
        let suffix = if kind == "counter" { "_total" } else { "" };
        let sample = if kind == "histogram" { "_count" } else { suffix };
        let of = labels.get(&*format!("{name}{sample}")).map_or("", String::as_str);
        writeln!(page, "| `{name}{suffix}` | {kind} | {of} | {help} |")
            .expect("a string takes every write");
    }
    page
}

/// The names of labels by the name of the sample.
fn labels(text: &str) -> BTreeMap<&str, String> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let label = |pair: &str| format!("`{}`", pair.split('=').next().unwrap_or_default());
    let named = samples.filter_map(|line| line.split_once('{'));
    let listed = named.map(|(name, rest)| {
        let pairs = rest.split('}').next().unwrap_or_default();
        let names: Vec<_> = pairs.split(',').map(label).collect();
        (name, names.join(", "))
    });
    listed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_a_line() {
        let page = metrics_page();
        for line in [
            "| `gatewright_requests_total` | counter | `function`, `status` |",
            "| `gatewright_queue_wait_seconds` | histogram | `function` |",
            "| `gatewright_replicas` | gauge | `function`, `state` |",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
    }
}
