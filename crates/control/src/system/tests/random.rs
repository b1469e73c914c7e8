//! Whatever happens, in whatever order.

use proptest::prelude::*;

use super::super::*;
use super::rig::{Rig, SECOND};
use crate::autoscale::{Autoscale, Hpa, Idler, Kpa, QueueLength, RayServe, RequestsPerSecond};
use crate::balance::Balance;
use crate::{Batch, Retries, Scale};

/// What a random driver does next; the numbers choose among what is there.
#[derive(Clone, Debug)]
enum Step {
    Invoke { function: usize, timeout_ms: Option<u16>, urgency: u8 },
    Cancel(usize),
    Finish(usize, Outcome),
    Ready(usize),
    Lose(usize, Loss),
    Stopped(usize),
    Pass(u16),
    ScaleTo(usize, u32),
    ScaleUp(usize, u32),
    ScaleDown(usize, u32),
    Suspend(usize),
    Reload(usize),
    Join(usize),
    Unfit(usize),
    Leave(usize),
    Remove(usize),
    Redeploy(usize),
    Update(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let number = 0usize..64;
    let which = 0usize..2;
    let outcome = prop_oneof![4 => Just(Outcome::Ok), 1 => Just(Outcome::Error), 1 => Just(Outcome::NotStarted),
        1 => Just(Outcome::Returned)];
    let loss = prop_oneof![Just(Loss::Died), Just(Loss::StartFailed)];
    prop_oneof![
        12 => (which.clone(), prop::option::of(any::<u16>()), 2u8..4)
            .prop_map(|(function, timeout_ms, urgency)| Step::Invoke { function, timeout_ms, urgency }),
        2 => number.clone().prop_map(Step::Cancel),
        10 => (number.clone(), outcome).prop_map(|(n, outcome)| Step::Finish(n, outcome)),
        8 => number.clone().prop_map(Step::Ready),
        2 => (number.clone(), loss).prop_map(|(n, loss)| Step::Lose(n, loss)),
        3 => number.clone().prop_map(Step::Stopped),
        4 => any::<u16>().prop_map(Step::Pass),
        1 => (which.clone(), 0u32..12).prop_map(|(f, n)| Step::ScaleTo(f, n)),
        1 => (which.clone(), 0u32..12).prop_map(|(f, n)| Step::ScaleUp(f, n)),
        1 => (which.clone(), 0u32..12).prop_map(|(f, n)| Step::ScaleDown(f, n)),
        1 => which.clone().prop_map(Step::Suspend),
        1 => which.clone().prop_map(Step::Reload),
        1 => which.clone().prop_map(Step::Join),
        1 => number.clone().prop_map(Step::Unfit),
        1 => number.prop_map(Step::Leave),
        1 => which.clone().prop_map(Step::Remove),
        1 => which.clone().prop_map(Step::Redeploy),
        1 => which.prop_map(Step::Update),
    ]
}

fn deployment() -> impl Strategy<Value = Deployment> {
    let balance = prop::sample::select(Balance::all());
    let autoscale = prop_oneof![
        Just(Autoscale::Fixed),
        Just(Autoscale::Kpa(Kpa { target: 1.0, ..Kpa::default() })),
        Just(Autoscale::Hpa(Hpa::default())),
        Just(Autoscale::Idler(Idler::default())),
        Just(Autoscale::QueueLength(QueueLength::default())),
        Just(Autoscale::RayServe(RayServe::default())),
        Just(Autoscale::RequestsPerSecond(RequestsPerSecond::default())),
    ];
    let span = || prop::option::of((1u64..40).prop_map(|s| Duration::from_millis(s * 500)));
    let batch = prop::option::weighted(0.3, (1u32..4, 0u64..2_000)).prop_map(|batch| {
        batch.map(|(max_size, ms)| Batch { max_size, max_wait: Duration::from_millis(ms) })
    });
    let limits = (span(), span(), batch);
    let sizes = (0u32..3, 0u32..5, prop::option::of(1u32..4), 0usize..6, 1u32..4);
    (sizes, balance, autoscale, limits).prop_map(
        |((min, more, concurrency, queue_capacity, attempts), balance, autoscale, limits)| {
            Deployment {
                max_execution: limits.0,
                cancel_grace: limits.1,
                batch: limits.2,
                scale: Scale { min, max: min + more },
                concurrency,
                queue_capacity,
                retries: Retries { attempts, budget: 0.5, backoff: SECOND / 20 },
                balance,
                autoscale,
                ..Deployment::default()
            }
        },
    )
}

const NAMES: [&str; 2] = ["a", "b"];

fn nth<T: Copy>(items: impl IntoIterator<Item = T>, n: usize) -> Option<T> {
    let items: Vec<T> = items.into_iter().collect();
    (!items.is_empty()).then(|| items[n % items.len()])
}

fn all_replicas(rig: &Rig) -> Vec<ReplicaKey> {
    let all = rig.system.function_index().flat_map(|(_, key)| rig.system.replicas(key, None));
    all.map(|view| view.key).collect()
}

fn play(rig: &mut Rig, deployments: &[Deployment; 2], step: Step) {
    match step {
        Step::Invoke { function, timeout_ms, urgency } => {
            if let Some(key) = rig.system.lookup(NAMES[function]) {
                let mut effects = Vec::new();
                let timeout = timeout_ms.map(|ms| Duration::from_millis(u64::from(ms)));
                let invoke = Invoke {
                    function: key,
                    id: rig.next_id,
                    timeout,
                    urgency,
                    key: rig.next_id,
                    tag: 0,
                };
                rig.next_id += 1;
                let request = rig.system.invoke(rig.now, invoke, &mut effects);
                assert!(rig.open.insert(request));
                rig.take(effects);
            }
        }
        Step::Cancel(n) => {
            if let Some(request) = nth(rig.open.iter().copied(), n) {
                rig.handle(Event::Cancel { request });
            }
        }
        Step::Finish(n, outcome) => {
            if let Some(request) = nth(rig.work.keys().copied(), n) {
                rig.finish(request, outcome);
            }
        }
        Step::Ready(n) => {
            if let Some(replica) = nth(rig.starting.iter().copied(), n) {
                rig.starting.retain(|&other| other != replica);
                rig.handle(Event::ReplicaReady { replica });
            }
        }
        Step::Lose(n, loss) => {
            if let Some(replica) = nth(all_replicas(rig), n) {
                rig.lose(replica, loss);
            }
        }
        Step::Stopped(n) => {
            if let Some(replica) = nth(rig.stopping.iter().copied(), n) {
                rig.stopping.retain(|&other| other != replica);
                rig.handle(Event::ReplicaStopped { replica });
            }
        }
        Step::Pass(ms) => rig.pass(Duration::from_millis(u64::from(ms))),
        Step::Join(f) => {
            if let Some(function) = rig.system.lookup(NAMES[f]) {
                rig.handle(Event::ReplicaJoined { function });
            }
        }
        Step::Unfit(n) => {
            if let Some(replica) = nth(all_replicas(rig), n) {
                rig.handle(Event::ReplicaUnfit { replica });
            }
        }
        Step::Leave(n) => {
            if let Some(replica) = nth(all_replicas(rig), n) {
                rig.handle(Event::ReplicaLeaving { replica });
            }
        }
        wish => {
            let mut effects = Vec::new();
            if let Some(operation) = operation(deployments, &wish) {
                // What is refused changes nothing.
                drop(rig.system.operate(rig.now, operation, &mut effects));
            }
            rig.take(effects);
        }
    }
}

/// The operation that a step stands for, if it is one.
fn operation(deployments: &[Deployment; 2], step: &Step) -> Option<Operation> {
    let name = |which: usize| NAMES[which].to_owned();
    Some(match *step {
        Step::ScaleTo(f, replicas) => Act::ScaleTo { function: name(f), replicas }.into(),
        Step::ScaleUp(f, by) => Act::ScaleUp { function: name(f), by }.into(),
        Step::ScaleDown(f, by) => Act::ScaleDown { function: name(f), by }.into(),
        Step::Reload(f) => Act::Reload { function: name(f) }.into(),
        Step::Suspend(f) => Act::Suspend { function: name(f) }.into(),
        Step::Remove(f) => Act::Remove { function: name(f) }.into(),
        Step::Redeploy(f) => Operation::Deploy(Box::new(named(&deployments[f], f))),
        // To the settings of the other one, as far as that may be.
        Step::Update(f) => {
            let batch = deployments[f].batch;
            Operation::Update(Box::new(Deployment { batch, ..named(&deployments[1 - f], f) }))
        }
        _ => return None,
    })
}

fn named(deployment: &Deployment, which: usize) -> Deployment {
    Deployment { name: NAMES[which].to_owned(), ..deployment.clone() }
}

fn start(deployments: &[Deployment; 2]) -> Rig {
    let mut rig = Rig::new();
    for (which, deployment) in deployments.iter().enumerate() {
        rig.deploy(named(deployment, which));
    }
    rig
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever happens, every invariant holds after every event (checked in `Rig::take`); and when everything is
    /// removed, each request has ended exactly once and nothing is left running.
    #[test]
    fn whatever_happens_each_request_ends_once_and_nothing_is_left(
        deployments in [deployment(), deployment()],
        steps in prop::collection::vec(step(), 0..250),
    ) {
        let mut rig = start(&deployments);
        for step in steps {
            play(&mut rig, &deployments, step);
        }
        for which in 0..NAMES.len() {
            play(&mut rig, &deployments, Step::Remove(which));
        }
        for request in rig.work.keys().copied().collect::<Vec<_>>() {
            rig.finish(request, Outcome::Ok);
        }
        rig.stop_all();
        prop_assert!(rig.open.is_empty(), "requests without an end: {:?}", rig.open);
        prop_assert_eq!(rig.ended.len() as u64, rig.next_id);
        prop_assert_eq!(rig.system.active_requests(), 0);
        prop_assert_eq!(rig.system.replicas.len(), 0);
        prop_assert_eq!(rig.system.functions.len(), 0);
        prop_assert_eq!(rig.system.next_wakeup(), None);
    }

    /// The same events give the same effects.
    #[test]
    fn same_events_same_effects(
        deployments in [deployment(), deployment()],
        steps in prop::collection::vec(step(), 0..150),
    ) {
        let run = |steps: Vec<Step>| {
            let mut rig = start(&deployments);
            for step in steps {
                play(&mut rig, &deployments, step);
            }
            rig.log
        };
        prop_assert_eq!(run(steps.clone()), run(steps));
    }
}
