use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::autoscale::Autoscale;
use crate::balance::Balance;

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
    /// Requests that one replica works on at a time; `None` for no limit.
    pub concurrency: Option<u32>,
    /// Requests that may wait for a replica; one more is shed.
    pub queue_capacity: usize,
    /// How long a request may take in all, waiting and retries included.
    pub timeout: Duration,
    /// How requests that lost their replica are tried again.
    pub retries: Retries,
    /// Which replica a request goes to.
    pub balance: Balance,
    /// How many replicas there should be.
    pub autoscale: Autoscale,
}

/// Bounds of the number of replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scale {
    /// Never fewer, except after `suspend`.
    pub min: u32,
    /// Never more, replicas that are still starting included.
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
}

impl Default for Deployment {
    fn default() -> Self {
        Self {
            name: String::new(),
            scale: Scale { min: 1, max: 1 },
            concurrency: Some(1),
            queue_capacity: 1_000,
            timeout: Duration::from_secs(30),
            retries: Retries { attempts: 2, budget: 0.2 },
            balance: Balance::LeastOutstanding,
            autoscale: Autoscale::Fixed,
        }
    }
}
