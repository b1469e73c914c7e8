//! A function is served in another way while requests come.

use std::time::Duration;

use super::super::*;
use super::rig::{Rig, function};
use crate::{Batch, Scale};

#[test]
fn an_update_replaces_every_replica_and_loses_nothing() {
    let (mut rig, f) = Rig::with(2, function("f"));
    let requests: Vec<_> = (0..6).map(|_| rig.invoke(f)).collect();
    let before: Vec<_> = rig.system.replicas(f, None).map(|replica| replica.key).collect();
    let scale = Scale { min: 2, max: 4 };
    let next = Deployment { scale, timeout: Duration::from_secs(9), ..function("f") };
    assert_eq!(rig.operate(Operation::Update(Box::new(next))), 2);
    let timeout = rig.system.function(f).unwrap().deployment.timeout;
    assert_eq!(timeout, Duration::from_secs(9));
    for _ in 0..20 {
        rig.ready_all();
        rig.stop_all();
        if let Some(&request) = rig.work.keys().next() {
            rig.finish(request, Outcome::Ok);
        }
    }
    assert!(requests.iter().all(|request| rig.ended[request] == End::Ok));
    let after: Vec<_> = rig.system.replicas(f, None).map(|replica| replica.key).collect();
    assert_eq!(after.len(), 2);
    assert!(before.iter().all(|old| !after.contains(old)), "an old replica is still there");
}

#[test]
fn an_update_gives_more_slots_at_once_and_takes_none_away() {
    let (mut rig, f) = Rig::with(1, function("f"));
    for _ in 0..3 {
        rig.invoke(f);
    }
    assert_eq!(rig.work.len(), 1);
    let wider = Deployment { concurrency: Some(3), ..function("f") };
    rig.operate(Operation::Update(Box::new(wider)));
    assert_eq!(rig.work.len(), 3, "who waited is given the new slots");
    let mut refused = |deployment: Deployment| {
        let mut effects = Vec::new();
        let error = rig.system.update(rig.now, deployment, &mut effects).unwrap_err();
        assert!(effects.is_empty());
        error.to_string()
    };
    let narrow = refused(Deployment { concurrency: Some(2), ..function("f") });
    assert!(narrow.contains("`concurrency` cannot shrink"), "{narrow}");
    let batch = Some(Batch { max_size: 2, max_wait: Duration::ZERO });
    let batched = refused(Deployment { batch, concurrency: Some(3), ..function("f") });
    assert!(batched.contains("`batch` cannot change"), "{batched}");
    assert_eq!(refused(function("g")), "there is no function `g`");
}

#[test]
fn an_update_that_does_not_start_leaves_the_old_one_at_work() {
    let (mut rig, f) = Rig::with(1, function("f"));
    rig.operate(Operation::Update(Box::new(function("f"))));
    for _ in 0..5 {
        for replica in std::mem::take(&mut rig.starting) {
            rig.lose(replica, Loss::StartFailed);
        }
        rig.pass(Duration::from_secs(60));
    }
    let request = rig.invoke(f);
    assert!(rig.work.contains_key(&request), "the old replica takes requests");
}
