//! Hubs that come and go, workers that come and go.

use std::sync::Arc;
use std::time::Duration;

use gatewright_serve::{EmbeddedHub, HubError, HubOptions};
use gatewright_worker::{Failure, Request, service_fn};
use tokio::sync::Notify;

use crate::support::{Running, ask, hub, options, run, until, worker};

fn square(hub: &EmbeddedHub) -> Running {
    run(
        worker(hub.address()),
        service_fn(async |request: Request| {
            let x: i64 = request.input()?;
            Ok(x * x)
        }),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_joins_again_when_its_hub_comes_back() {
    let first = hub(options()).await;
    let worker = square(&first);
    assert_eq!(ask(&first, "3").await.unwrap(), "9");
    let listen = first.address().to_string();
    first.stop(Duration::from_secs(5)).await;
    let second = hub(HubOptions { listen, ..options() }).await;
    assert_eq!(ask(&second, "4").await.unwrap(), "16");
    worker.stop().await.unwrap();
    until(&second, |status| status.workers == 0).await;
    assert_eq!(second.status().workers_lost, 0, "it said goodbye");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_answers_what_it_has() {
    let hub = hub(HubOptions { concurrency: 2, attempts: 1, ..options() }).await;
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begins, goes) = (Arc::clone(&begun), Arc::clone(&go));
    let service = service_fn(move |request: Request| {
        let (begun, go) = (Arc::clone(&begins), Arc::clone(&goes));
        async move {
            begun.notify_one();
            go.notified().await;
            Ok::<_, Failure>(request.input::<u32>()?)
        }
    });
    let worker = run(worker(hub.address()).concurrency(2), service);
    let hub = Arc::new(hub);
    let asking = tokio::spawn({
        let hub = Arc::clone(&hub);
        async move { ask(&hub, "7").await }
    });
    begun.notified().await;
    let stopping = tokio::spawn(worker.stop());
    // The hub gives it nothing more, though it has room.
    until(&hub, |status| status.workers == 0).await;
    assert!(!stopping.is_finished());
    go.notify_one();
    assert_eq!(asking.await.unwrap().unwrap(), "7");
    stopping.await.unwrap().unwrap();
    assert_eq!(hub.status().workers_lost, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_costs_no_request_that_may_be_tried_again() {
    let again = hub(options()).await;
    let once = hub(HubOptions { attempts: 1, ..options() }).await;
    for (hub, kept) in [(again, true), (once, false)] {
        let begun = Arc::new(Notify::new());
        let begins = Arc::clone(&begun);
        let endless = service_fn(move |_request: Request| {
            begins.notify_one();
            std::future::pending::<Result<(), Failure>>()
        });
        let victim = run(worker(hub.address()), endless);
        let hub = Arc::new(hub);
        let asking = tokio::spawn({
            let hub = Arc::clone(&hub);
            async move { ask(&hub, "5").await }
        });
        begun.notified().await;
        victim.kill().await;
        let other = square(&hub);
        let answer = asking.await.unwrap();
        match kept {
            true => assert_eq!(answer.unwrap(), "25"),
            false => assert_eq!(answer, Err(HubError::Lost)),
        }
        assert_eq!(hub.status().workers_lost, 1);
        other.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_refused_goes_on_trying() {
    let token = Some("secret".to_owned());
    let hub = hub(HubOptions { token, ..options() }).await;
    let wrong = worker(hub.address()).token("guess");
    let service = || service_fn(async |_request: Request| Ok(1));
    let wrong = run(wrong, service());
    let right = run(worker(hub.address()).token("secret"), service());
    assert_eq!(ask(&hub, "[]").await.unwrap(), "1");
    assert_eq!(hub.status().workers, 1);
    right.stop().await.unwrap();
    wrong.stop().await.unwrap();
}
