use std::sync::Arc;

use gatewright_determinism::Time;
use serde::{Deserialize, Serialize};

/// A replica has come to another state: a line of the stream beside the records of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaEvent {
    /// When, in nanoseconds since the start of the run.
    #[serde(rename = "time_ns")]
    pub time: Time,
    /// Name of the function.
    pub function: Arc<str>,
    /// Number of the replica in the run.
    pub replica: u64,
    /// Where it is in its life now.
    pub state: LifeState,
}

/// States of a replica, as streams of records tell them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LifeState {
    /// Decided on, and waiting for its turn to start.
    Conceived,
    /// Told to start.
    Starting,
    /// Taking requests.
    Running,
    /// Finishing its requests, taking no more.
    Draining,
    /// Told to stop.
    Suspended,
    /// Not there any more.
    Gone,
}

/// The number of replicas wanted has changed: a line of the stream beside the records of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScalingEvent {
    /// When, in nanoseconds since the start of the run.
    #[serde(rename = "time_ns")]
    pub time: Time,
    /// Name of the function.
    pub function: Arc<str>,
    /// Replicas wanted before.
    pub from: u32,
    /// Replicas wanted now.
    pub to: u32,
}

/// How long replicas took from the word to start until they took requests, in nanoseconds, by function and in the order
/// in which they were ready. Those that never were ready are left out.
#[must_use]
pub fn start_up_times(events: &[ReplicaEvent]) -> Vec<(Arc<str>, u64)> {
    let mut starting: std::collections::BTreeMap<(&str, u64), Time> = Default::default();
    let mut times = Vec::new();
    for event in events {
        let key = (&*event.function, event.replica);
        match event.state {
            LifeState::Starting => drop(starting.insert(key, event.time)),
            LifeState::Running => {
                if let Some(began) = starting.remove(&key) {
                    times.push((Arc::clone(&event.function), event.time.nanos_since(began)));
                }
            }
            _ => {}
        }
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_lasts_until_the_replica_runs() {
        let event = |time, replica, state| ReplicaEvent {
            time: Time::from_nanos(time),
            function: "f".into(),
            replica,
            state,
        };
        let events = [
            event(5, 0, LifeState::Starting),
            event(6, 1, LifeState::Starting),
            event(9, 1, LifeState::Running),
            event(11, 0, LifeState::Gone),
            event(12, 2, LifeState::Running),
        ];
        let times: Vec<_> = start_up_times(&events).into_iter().map(|(_, nanos)| nanos).collect();
        assert_eq!(times, [3], "one was never ready, one joined by itself");
        let line = serde_json::to_string(&events[0]).unwrap();
        assert_eq!(line, r#"{"time_ns":5,"function":"f","replica":0,"state":"starting"}"#);
    }
}
