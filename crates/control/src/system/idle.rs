//! Replicas with nothing to do: how long they stay, and starting one before it is asked for.

use std::time::Duration;

use gatewright_determinism::Time;

use super::{Effect, Function, FunctionKey, Phase, ReplicaKey, ReplicaState, System};
use crate::autoscale::Sample;
use crate::keep_alive::{KeepAliveRule, Worth};

/// A function's keep-alive.
#[derive(Debug)]
pub(super) struct Rest {
    rule: Box<dyn KeepAliveRule>,
    /// Since when it has had nothing to do.
    since: Option<Time>,
    requests: u64,
    /// Seconds that its replicas took to start, in all, and how many did.
    starts: (f64, u64),
    /// How long a replica stays that was started before it was asked for.
    stay: Option<Duration>,
}

/// How a replica has been used.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Use {
    /// When it was told to start.
    told: Time,
    /// How much it would be missed since it has had nothing to do.
    worth: f64,
}

impl Rest {
    pub(super) const fn new(rule: Box<dyn KeepAliveRule>) -> Self {
        Self { rule, since: None, requests: 0, starts: (0.0, 0), stay: None }
    }

    pub(super) fn arrived(&mut self, now: Time) {
        self.requests += 1;
        self.stay = None;
        self.rule.arrived(self.since.take().map(|since| now - since));
    }
}

impl Function {
    /// Replicas that stay, though they have nothing to do: the minimum, and one for what waits, such as a batch that is not
    /// full yet.
    fn fewest(&self) -> u32 {
        self.deployment.scale.min.max(u32::from(self.queue.len() > 0))
    }
}

impl System {
    /// A replica may have nothing to do: it goes when its function's keep-alive says so.
    pub(super) fn rest(&mut self, now: Time, key: ReplicaKey) {
        let pressure = self.pressure();
        let Some(replica) = self.replicas.get_mut(key) else { return };
        let owner = replica.function;
        let function = &mut self.functions[owner];
        let Some(rest) = &mut function.rest else { return };
        if replica.work.len() > 0 || replica.state != ReplicaState::Running || replica.joined {
            return;
        }
        let memory = replica
            .seat
            .as_ref()
            .map_or(function.deployment.requests.memory, |seat| seat.requests.memory);
        let about = Worth {
            requests: rest.requests,
            start_seconds: rest.starts.0 / rest.starts.1.max(1) as f64,
            memory,
        };
        replica.usage.worth = rest.rule.worth(now, &about, pressure);
        let idle = function.in_service == 0 && function.queue.len() == 0;
        if idle && rest.since.is_none() {
            rest.since = Some(now);
        }
        if let Some(stay) = rest.stay.take() {
            self.idles.set(key, now + stay);
            return;
        }
        let plan = rest.rule.idle();
        if let Some(keep) = plan.keep {
            self.idles.set(key, now + keep);
        }
        if let (true, Some((away, stay))) = (idle, plan.prewarm) {
            rest.stay = Some(stay);
            self.prewarms.set(owner, now + away);
        }
    }

    /// A replica has had nothing to do for too long, or has to make room: it goes, if there are more than the fewest.
    pub(super) fn expire(&mut self, now: Time, key: ReplicaKey, effects: &mut Vec<Effect>) {
        let Some(replica) = self.replicas.get(key) else { return };
        if replica.state != ReplicaState::Running || replica.work.len() > 0 {
            return;
        }
        let owner = replica.function;
        let function = &mut self.functions[owner];
        let least = function.fewest();
        if function.phase != Phase::Serving || function.outdated > 0 || function.desired <= least {
            return;
        }
        let from = function.desired;
        function.desired -= 1;
        effects.push(Effect::Scaled { function: owner, from, to: from - 1 });
        self.idles.clear(key);
        self.retire(now, key, effects);
    }

    /// A function without replicas will be asked for soon.
    pub(super) fn prewarm(&mut self, now: Time, key: FunctionKey, effects: &mut Vec<Effect>) {
        let Some(function) = self.functions.get(key) else { return };
        if function.phase == Phase::Serving && function.desired == 0 {
            self.scale(now, key, 1, effects);
        }
    }

    /// Idle replicas that may go, with what they are worth, the least first.
    pub(super) fn expendable(&self) -> Vec<(f64, ReplicaKey)> {
        let mut found = Vec::new();
        for function in self.functions.values() {
            let spare = function.desired.saturating_sub(function.fewest()) as usize;
            if function.rest.is_none() || function.phase != Phase::Serving || spare == 0 {
                continue;
            }
            let idle = function.replicas.iter().map(|&key| (key, &self.replicas[key]));
            let idle = idle.filter(|(_, replica)| {
                replica.state == ReplicaState::Running && replica.work.len() == 0 && !replica.joined
            });
            let mut own: Vec<_> = idle.map(|(key, r)| (r.usage.worth, r.number, key)).collect();
            own.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            own.truncate(spare);
            found.extend(own);
        }
        found.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        found.into_iter().map(|(worth, _, key)| (worth, key)).collect()
    }

    /// A request may have to wait: policies that scale for each one are asked.
    pub(super) fn scale_for_waiting(
        &mut self,
        now: Time,
        key: FunctionKey,
        effects: &mut Vec<Effect>,
    ) {
        let Some(function) = self.functions.get_mut(key) else { return };
        if function.queue.len() == 0 || function.phase != Phase::Serving {
            return;
        }
        let Some(autoscaler) = &mut function.autoscaler else { return };
        let sample = Sample {
            concurrency: 0.0,
            arrivals: 0,
            queued: function.queue.len() as u32,
            ready: function.running - function.joined,
            starting: function.starting,
            replica_concurrency: function.deployment.concurrency,
            scale: function.deployment.scale,
        };
        if let Some(wanted) = autoscaler.waiting(now, &sample) {
            self.scale(now, key, wanted, effects);
        }
    }

    /// Notes that a replica has started; what that takes is part of its worth.
    pub(super) fn note_ready(&mut self, now: Time, key: ReplicaKey) {
        let Some(replica) = self.replicas.get(key) else { return };
        if let Some(rest) = &mut self.functions[replica.function].rest {
            rest.starts.0 += (now - replica.usage.told).as_secs_f64();
            rest.starts.1 += 1;
        }
    }

    /// Notes when a replica was told to start.
    pub(super) fn note_start(&mut self, now: Time, key: ReplicaKey) {
        if let Some(replica) = self.replicas.get_mut(key) {
            replica.usage.told = now;
        }
    }
}
