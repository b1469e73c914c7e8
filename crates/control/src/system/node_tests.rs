//! Replicas on nodes: capacity, waiting, images, nodes that go and come back.

use std::time::Duration;

use gatewright_determinism::Time;

use super::*;
use crate::cluster::{Cluster, NodeId};
use crate::config::SystemFile;

struct Rig {
    system: System,
    effects: Vec<Effect>,
}

impl Rig {
    fn new(text: &str) -> Self {
        let file = SystemFile::parse(text, &[]).unwrap();
        let cluster = Cluster::new(&file.cluster, &file.image).unwrap().unwrap();
        let mut system = System::with_cluster(1, cluster, &file.cluster.placement);
        let mut effects = Vec::new();
        for (name, function) in &file.function {
            system.deploy(Time::ZERO, function.deployment(name), &mut effects).unwrap();
        }
        Self { system, effects }
    }

    /// Where replicas were told to start since the last time, and every one of them is ready.
    fn started(&mut self) -> Vec<Option<usize>> {
        let effects = std::mem::take(&mut self.effects);
        let started = effects.iter().filter_map(|effect| match effect {
            Effect::StartReplica { replica, node, .. } => Some((*replica, *node)),
            _ => None,
        });
        let started: Vec<_> = started.collect();
        for (replica, node) in &started {
            assert_eq!(self.system.replica(*replica).unwrap().node, *node);
            self.handle(Event::ReplicaReady { replica: *replica });
        }
        started.iter().map(|(_, node)| node.map(NodeId::index)).collect()
    }

    fn handle(&mut self, event: Event) {
        self.system.handle(Time::ZERO, event, &mut self.effects);
        self.system.check_invariants().unwrap();
    }

    fn operate(&mut self, act: Act) {
        self.handle(Event::Operate(act.into()));
    }

    fn function(&self, name: &str) -> FunctionView<'_> {
        self.system.function(self.system.lookup(name).unwrap()).unwrap()
    }

    /// The replicas that were told to stop have stopped.
    fn stop(&mut self) {
        for effect in std::mem::take(&mut self.effects) {
            if let Effect::StopReplica { replica } = effect {
                self.handle(Event::ReplicaStopped { replica });
            }
        }
    }
}

const TWO_NODES: &str = r#"
[function.f]
http = "http://127.0.0.1:1"
replicas = { min = 1, max = 10 }
requests = { cpu = "400m", memory = "100MiB" }
[cluster]
placement = { policy = "first_fit" }
nodes = [{ name = "n", count = 2, cpu = 1, memory = "1GiB" }]
"#;

#[test]
fn replicas_wait_for_room_and_get_it_when_others_go() {
    let mut rig = Rig::new(TWO_NODES);
    assert_eq!(rig.started(), [Some(0)]);
    rig.system.scale_to(Time::ZERO, "f", 6, &mut rig.effects).unwrap();
    assert_eq!(rig.started(), [Some(1), Some(0), Some(1)]);
    let view = rig.function("f");
    assert_eq!((view.running, view.starting, view.unplaced), (4, 2, 2));
    assert_eq!(view.unplaced_because, Some("none of 2 nodes: 2 too little cpu"));
    // Two of those that wait are no longer wanted; then two that run go.
    rig.system.scale_to(Time::ZERO, "f", 5, &mut rig.effects).unwrap();
    assert_eq!(rig.function("f").unplaced, 1);
    rig.system.deploy(Time::ZERO, other(), &mut rig.effects).unwrap();
    assert_eq!(rig.function("g").unplaced, 1);
    rig.system.scale_to(Time::ZERO, "f", 2, &mut rig.effects).unwrap();
    assert_eq!(rig.function("f").unplaced, 0);
    rig.stop();
    assert_eq!(rig.started().len(), 1, "the other function has room now");
    assert_eq!(rig.function("g").unplaced_because, None);
}

fn other() -> Deployment {
    let requests = crate::cluster::Resources { cpu: 400, ..Default::default() };
    Deployment { name: "g".to_owned(), requests, ..Deployment::default() }
}

#[test]
fn replicas_that_wait_count_against_the_maximum() {
    let mut rig = Rig::new(TWO_NODES);
    for _ in 0..5 {
        rig.system.scale_up(Time::ZERO, "f", 4, &mut rig.effects).unwrap();
    }
    let view = rig.function("f");
    assert_eq!((view.desired, view.starting + view.running), (10, 10));
}

#[test]
fn the_best_image_that_has_a_node_is_taken() {
    let mut rig = Rig::new(
        r#"
[function.f]
http = "http://127.0.0.1:1"
replicas = { min = 6, max = 10 }
images = [
    { image = "gpu", requests = { accelerators = { gpu = 1 } } },
    { image = "cpu", share = 0.4 },
]
[image.gpu]
arm64 = "1GB"
[image.cpu]
any = "1GB"
[cluster]
nodes = [{ name = "nano", count = 2, device = "nano" }, { name = "nuc", device = "nuc" }]
"#,
    );
    assert_eq!(rig.started().len(), 6);
    let key = rig.system.lookup("f").unwrap();
    assert_eq!(rig.system.replicas_by_image(key), [2, 4]);
    rig.system.scale_to(Time::ZERO, "f", 8, &mut rig.effects).unwrap();
    assert_eq!(rig.function("f").unplaced, 2, "the second image has its share");
    let images: Vec<_> = rig.system.discover(key).map(|view| view.image.unwrap().index()).collect();
    assert_eq!(images.iter().filter(|image| **image == 1).count(), 2, "gpu is the second by name");
}

#[test]
fn replicas_of_a_lost_node_go_elsewhere() {
    let mut rig = Rig::new(TWO_NODES);
    rig.system.scale_to(Time::ZERO, "f", 4, &mut rig.effects).unwrap();
    assert_eq!(rig.started().len(), 4);
    rig.operate(Act::NodeLost { node: "n-1".to_owned() });
    rig.operate(Act::NodeLost { node: "n-1".to_owned() });
    let view = rig.function("f");
    assert_eq!((view.running, view.totals.replicas_lost), (2, 2));
    assert_eq!(rig.started(), [], "there is no room, and a pause after a failure");
    rig.operate(Act::NodeBack { node: "n-1".to_owned() });
    let due = rig.system.next_wakeup().unwrap();
    rig.system.handle(due + Duration::from_secs(60), Event::Wakeup, &mut rig.effects);
    assert_eq!(rig.started(), [Some(1), Some(1)]);
    assert_eq!(rig.function("f").running, 4);
    let unknown = Act::NodeBack { node: "n-7".to_owned() };
    let refused = rig.system.operate(Time::ZERO, unknown.into(), &mut rig.effects).unwrap_err();
    assert_eq!(refused, OperationError::UnknownNode("n-7".to_owned()));
}

#[test]
fn removed_functions_leave_room() {
    let mut rig = Rig::new(TWO_NODES);
    rig.system.scale_to(Time::ZERO, "f", 10, &mut rig.effects).unwrap();
    rig.started();
    rig.system.remove(Time::ZERO, "f", &mut rig.effects).unwrap();
    rig.stop();
    let cluster = rig.system.cluster().unwrap();
    assert!(cluster.nodes().iter().all(|node| *node.free() == node.capacity));
}

/// What a lost node worked on is not handed to another replica on it, which is lost as well.
#[test]
fn work_of_a_lost_node_goes_to_another_node() {
    let retries = "replicas = { min = 4, max = 4 }\nconcurrency = 2\nretries = { attempts = 9, budget = 9.0 }";
    let mut rig = Rig::new(&TWO_NODES.replace("replicas = { min = 1, max = 10 }", retries));
    assert_eq!(rig.started().len(), 4);
    let function = rig.system.lookup("f").unwrap();
    for id in 0..4 {
        let invoke =
            Invoke { function, id, timeout: None, urgency: URGENCY_DEFAULT, key: 0, tag: 0 };
        rig.handle(Event::Invoke(invoke));
    }
    rig.effects.clear();
    rig.operate(Act::NodeLost { node: "n-0".to_owned() });
    let mut handed = 0;
    for effect in std::mem::take(&mut rig.effects) {
        if let Effect::Dispatch { replica, attempt, .. } = effect {
            let view = rig.system.replica(replica).expect("it is not lost");
            assert_eq!((view.node.map(NodeId::index), attempt), (Some(1), 2));
            handed += 1;
        }
    }
    assert_eq!(handed, 2);
}
