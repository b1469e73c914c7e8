//! Replicas with nothing to do.

use std::time::Duration;

use gatewright_determinism::Time;

use super::*;
use crate::cluster::Cluster;
use crate::config::SystemFile;

/// Replicas start in ten seconds, and requests take one.
struct Rig {
    system: System,
    now: Time,
    effects: Vec<Effect>,
    due: Vec<(Time, Event)>,
    cold: Vec<bool>,
    id: u64,
}

impl Rig {
    fn new(text: &str) -> Self {
        let file = SystemFile::parse(text, &[]).unwrap();
        let mut system = match Cluster::new(&file.cluster, &file.image).unwrap() {
            Some(cluster) => System::with_cluster(1, cluster, &file.cluster.placement),
            None => System::new(1),
        };
        let mut effects = Vec::new();
        for (name, function) in &file.function {
            system.deploy(Time::ZERO, function.deployment(name), &mut effects).unwrap();
        }
        Self { system, now: Time::ZERO, effects, due: Vec::new(), cold: Vec::new(), id: 0 }
    }

    fn carry_out(&mut self) {
        for effect in std::mem::take(&mut self.effects) {
            let after = |seconds, event| (self.now + Duration::from_secs(seconds), event);
            match effect {
                Effect::StartReplica { replica, .. } => {
                    self.due.push(after(10, Event::ReplicaReady { replica }));
                }
                Effect::StopReplica { replica } => {
                    self.due.push(after(0, Event::ReplicaStopped { replica }));
                }
                Effect::Dispatch { request, cold, .. } => {
                    self.cold.push(cold);
                    self.due.push(after(1, Event::Finished { request, outcome: Outcome::Ok }));
                }
                _ => {}
            }
        }
        self.system.check_invariants().unwrap();
    }

    /// Everything that happens until so many seconds from the start.
    fn until(&mut self, seconds: u64) {
        let end = Time::ZERO + Duration::from_secs(seconds);
        loop {
            self.carry_out();
            let next = self.due.iter().map(|(at, _)| *at).min().unwrap_or(Time::MAX);
            let wakeup = self.system.next_wakeup().unwrap_or(Time::MAX);
            if next.min(wakeup) > end {
                break;
            }
            self.now = next.min(wakeup);
            let event = if next <= wakeup {
                let place = self.due.iter().position(|(at, _)| *at == next).unwrap();
                self.due.remove(place).1
            } else {
                Event::Wakeup
            };
            self.system.handle(self.now, event, &mut self.effects);
        }
        self.now = end;
    }

    fn ask(&mut self, seconds: u64, name: &str) {
        self.until(seconds);
        let function = self.system.lookup(name).unwrap();
        self.id += 1;
        let invoke = Invoke {
            function,
            id: self.id,
            timeout: None,
            urgency: URGENCY_DEFAULT,
            key: 0,
            tag: 0,
        };
        self.system.handle(self.now, Event::Invoke(invoke), &mut self.effects);
        self.carry_out();
    }

    fn running(&self, name: &str) -> u32 {
        self.system.function(self.system.lookup(name).unwrap()).unwrap().running
    }
}

fn function(name: &str, rest: &str) -> String {
    format!(
        "[function.{name}]\npython = \"m:C\"\ntimeout = \"1h\"\nreplicas = {{ min = 0, max = 10 }}\n{rest}\n"
    )
}

#[test]
fn replicas_go_when_they_were_idle_long_enough() {
    let mut rig = Rig::new(&function(
        "f",
        "keep_alive = { policy = \"fixed\", idle = \"60s\" }\nautoscale = { policy = \"per_request\" }",
    ));
    // Three at once are three replicas; they are ready at 10 s and done at 11 s.
    for _ in 0..3 {
        rig.ask(0, "f");
    }
    rig.until(20);
    assert_eq!(rig.running("f"), 3);
    rig.ask(50, "f");
    rig.until(70);
    assert_eq!(rig.running("f"), 3, "60 s are not over");
    rig.until(72);
    assert_eq!(rig.running("f"), 1, "the one that was asked again stays until 51 + 60");
    rig.until(112);
    assert_eq!(rig.running("f"), 0);
    rig.ask(200, "f");
    rig.until(220);
    assert_eq!(rig.cold, [true, true, true, false, true]);
}

#[test]
fn what_the_rate_holds_up_is_looked_after_only_while_it_waits() {
    let mut rig = Rig::new(&function(
        "f",
        "keep_alive = { policy = \"fixed\", idle = \"60s\" }\nautoscale = { policy = \"per_request\", burst = 1, rate = 0.5 }",
    ));
    assert_eq!(rig.system.next_wakeup(), None, "nobody waits");
    // The first request wakes the function, for the second a replica may be started at once, for the third in two seconds.
    for _ in 0..3 {
        rig.ask(0, "f");
    }
    rig.until(1);
    let second = Time::ZERO + Duration::from_secs(2);
    assert_eq!(rig.system.next_wakeup(), Some(second));
    rig.until(13);
    assert_eq!(rig.running("f"), 3);
    let idle = Time::ZERO + Duration::from_secs(11 + 60);
    assert_eq!(rig.system.next_wakeup(), Some(idle), "nobody waits any more");
}

#[test]
fn without_keep_alive_every_request_is_cold() {
    let mut rig = Rig::new(&function("f", "keep_alive = { policy = \"none\" }"));
    for second in [0, 20, 40] {
        rig.ask(second, "f");
    }
    rig.until(60);
    assert_eq!((rig.cold.clone(), rig.running("f")), (vec![true; 3], 0));
}

#[test]
fn the_fewest_replicas_stay() {
    let text = function("f", "keep_alive = { policy = \"none\" }").replace("min = 0", "min = 2");
    let mut rig = Rig::new(&text);
    rig.ask(20, "f");
    rig.until(40);
    assert_eq!(rig.running("f"), 2);
}

/// Asked for every 30 min: once that is known, a replica is started before the next request, and goes after it.
#[test]
fn a_pattern_is_pre_warmed() {
    let mut rig = Rig::new(&function("f", "keep_alive = { policy = \"hybrid_histogram\" }"));
    let half_an_hour = |n: u64| n * 1_800;
    for n in 0..20 {
        rig.ask(half_an_hour(n), "f");
    }
    rig.until(half_an_hour(19) + 60);
    assert_eq!(rig.running("f"), 0, "it goes at once");
    rig.until(half_an_hour(19) + 26 * 60);
    assert_eq!(rig.running("f"), 0);
    rig.until(half_an_hour(20) - 120);
    assert_eq!(rig.running("f"), 1, "there before it is asked for");
    rig.until(half_an_hour(20) + 60 * 6);
    assert_eq!(rig.running("f"), 0, "and gone when nobody asked");
    assert_eq!(rig.cold.iter().filter(|cold| **cold).count(), 1, "{:?}", rig.cold);
}

/// Room for two on one node. The third function takes the place of the one that is worth least.
#[test]
fn who_is_worth_least_makes_room() {
    let text = |policy: &str| {
        let each = |name: &str| {
            function(
                name,
                &format!(
                    "keep_alive = {{ policy = \"{policy}\" }}\nrequests = {{ cpu = 1, memory = \"100MiB\" }}"
                ),
            )
        };
        format!(
            "{}{}{}[cluster]\nnodes = [{{ name = \"n\", cpu = 2 }}]",
            each("a"),
            each("b"),
            each("c")
        )
    };
    let alive = |policy: &str| {
        let mut rig = Rig::new(&text(policy));
        // a often, then b once, then c.
        for second in [0, 20, 25, 30] {
            rig.ask(second, "a");
        }
        rig.ask(50, "b");
        rig.ask(80, "c");
        rig.until(120);
        (["a", "b", "c"].map(|name| rig.running(name)), rig.system.pressure())
    };
    assert_eq!(alive("lru").0, [0, 1, 1], "a was used longest ago");
    // The clock of greedy-dual is what the last one was worth: one request, and 10 s of a start, over 100 MiB.
    assert_eq!(alive("greedy_dual"), ([1, 0, 1], 0.1), "a is used more often");
}

/// A batch that is not full yet keeps the only replica, whoever else wants its room.
#[test]
fn what_waits_keeps_a_replica() {
    let batch = "batch = { max_size = 4, max_wait = \"5m\" }\nkeep_alive = { policy = \"fixed\", idle = \"60s\" }";
    let mut rig = Rig::new(&function("f", batch));
    for second in [0, 0, 0, 0, 30] {
        rig.ask(second, "f");
    }
    rig.until(200);
    assert_eq!(rig.running("f"), 1, "one still waits for others");
    rig.until(400);
    assert_eq!((rig.cold.len(), rig.running("f")), (5, 0));
}
