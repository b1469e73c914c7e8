use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::adapt::Adapt;
use crate::autoscale::Autoscale;
use crate::balance::Balance;
use crate::cluster::Resources;
use crate::health::HealthRules;
use crate::keep_alive::KeepAlive;

/// What a function needs to be served: everything a decision about it depends on.
///
/// What the replicas run (a Python class, a program, an upstream) is no business of the decisions; the driver
/// keeps it beside the [`FunctionKey`](crate::FunctionKey).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    /// Name of the function, unique in the system.
    pub name: String,
    /// How many replicas there may be.
    pub scale: Scale,
    /// Where its replicas are, if they are upstreams: a new replica stands for the endpoint that has the fewest, the
    /// first one among equals. Empty for replicas that are started.
    pub endpoints: Vec<Endpoint>,
    /// Requests that one replica works on at a time; `None` for no limit.
    pub concurrency: Option<u32>,
    /// Requests that may wait for a replica; one more is shed.
    pub queue_capacity: usize,
    /// How long a request may take in all, waiting and retries included.
    pub timeout: Duration,
    /// How long one attempt may take. A replica that takes longer is taken to hang: it is killed, and the
    /// request ends as timed out.
    pub max_execution: Option<Duration>,
    /// How long a replica may go on with a request that nobody waits for before it is killed; `None` lets it
    /// finish.
    pub cancel_grace: Option<Duration>,
    /// How requests that lost their replica are tried again.
    pub retries: Retries,
    /// Whether replicas are given several requests at a time, and how many.
    pub batch: Option<Batch>,
    /// Which replica a request goes to.
    pub balance: Balance,
    /// When a replica gets no requests although it runs.
    pub health: HealthRules,
    /// How many requests a replica gets at a time, learned from how long they take; `concurrency` alone unless set.
    pub adapt: Option<Adapt>,
    /// How many replicas there should be.
    pub autoscale: Autoscale,
    /// How long a replica stays that has nothing to do.
    #[serde(default)]
    pub keep_alive: KeepAlive,
    /// What a replica takes of its node, where no image says otherwise.
    #[serde(default)]
    pub requests: Resources,
    /// What replicas may run, the best first; whatever there is if the list is empty. Where there are nodes, one goes
    /// by the first that has a node.
    #[serde(default)]
    pub images: Vec<ImageChoice>,
    /// Labels that a node must have.
    #[serde(default)]
    pub node_labels: BTreeMap<String, String>,
    /// Labels that a node had better have.
    #[serde(default)]
    pub capabilities: BTreeMap<String, String>,
    /// Data that it needs.
    #[serde(default)]
    pub data: Data,
}

/// An image that replicas may run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageChoice {
    /// Its name.
    pub image: String,
    /// At most this share of the largest number of replicas runs it, in (0, 1].
    pub share: f64,
    /// What a replica of it takes of its node.
    pub requests: Resources,
}

impl ImageChoice {
    /// How many of `max` replicas may run it: its share, rounded down.
    #[must_use]
    pub fn at_most(&self, max: u32) -> u32 {
        // 0.29 of 100 is 28.999999999999996 in binary, and yet 29.
        (self.share * f64::from(max) + 1e-6) as u32
    }
}

/// Data that a function needs, each as "bucket/item".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    /// Read once by each replica before it takes requests.
    pub setup: Vec<String>,
    /// Read by every request before its work.
    pub reads: Vec<String>,
    /// Written by every request after its work.
    pub writes: Vec<String>,
}

/// An upstream that a replica stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its URL: what it is known by from run to run.
    pub url: String,
    /// Its share of the requests, beside the others'; at least 1.
    pub weight: u32,
}

/// Bounds of the number of replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scale {
    /// Never fewer, except after `suspend`.
    pub min: u32,
    /// Never more, replicas that are still starting included. With 0, only replicas that join by themselves answer.
    pub max: u32,
}

/// How requests are tried again after a failure that is not their own: a replica that died, a connection that
/// was refused.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Retries {
    /// Attempts in all; 1 means that a request is never run twice.
    pub attempts: u32,
    /// Retries allowed as a share of the requests of the last ten seconds (0.2: one in five), so that a failing
    /// function is not buried under its own retries.
    pub budget: f64,
    /// Pause before the second retry of a request, doubled for each further one, and drawn between half and the
    /// whole of that so that those who failed together do not come back together. The first retry is at once.
    pub backoff: Duration,
}

/// Requests handed over together. A replica works on one batch at a time, and is free when every request of it has
/// ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Requests in a batch at most.
    pub max_size: u32,
    /// How long the first request of a batch waits for others while a replica is free.
    pub max_wait: Duration,
}

impl Default for Deployment {
    fn default() -> Self {
        Self {
            name: String::new(),
            scale: Scale { min: 1, max: 1 },
            endpoints: Vec::new(),
            concurrency: Some(1),
            queue_capacity: 1_000,
            timeout: Duration::from_secs(30),
            max_execution: None,
            cancel_grace: None,
            retries: Retries { attempts: 2, budget: 0.2, backoff: Duration::from_millis(50) },
            batch: None,
            balance: Balance::LeastOutstanding,
            health: HealthRules::default(),
            adapt: None,
            autoscale: Autoscale::Fixed,
            keep_alive: KeepAlive::Always,
            requests: Resources::default(),
            images: Vec::new(),
            node_labels: BTreeMap::new(),
            capabilities: BTreeMap::new(),
            data: Data::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_rounded_down_as_people_do() {
        let of = |share: f64, max| {
            let requests = Resources::default();
            ImageChoice { image: "i".to_owned(), share, requests }.at_most(max)
        };
        // In binary, 0.29 of 100 is 28.999999999999996.
        assert_eq!((of(0.29, 100), of(0.5, 5), of(0.01, 4), of(1.0, 7)), (29, 2, 0, 7));
    }
}
