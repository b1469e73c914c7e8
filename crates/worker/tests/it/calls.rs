//! What a service is asked, and what becomes of its answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use gatewright_serve::{HubError, HubOptions};
use gatewright_worker::{
    Answer, Failure, Init, Request, Service, WorkerError, batch_fn, blocking_fn, service_fn,
};
use serde::{Deserialize, Serialize};

use crate::support::{ask, hub, options, run, until, worker};

#[derive(Deserialize, Serialize)]
struct Point {
    x: i64,
    y: i64,
}

async fn mirror(request: Request) -> Result<Point, Failure> {
    let Point { x, y } = request.input()?;
    if x == 0 {
        return Err(Failure::new("ValueError", "x is 0").retryable());
    }
    assert!(y != 0, "a bug");
    Ok(Point { x: y, y: x })
}

fn failure(error: HubError) -> (String, String) {
    let HubError::Call(error) = error else { panic!("{error}") };
    (error.kind, error.message)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_async_function_is_asked_and_its_failures_are_told() {
    let hub = hub(options()).await;
    let worker = run(worker(hub.address()), service_fn(mirror));
    assert_eq!(ask(&hub, "{\"x\": 1, \"y\": 2}").await.unwrap(), "{\"x\":2,\"y\":1}");
    let (kind, message) = failure(ask(&hub, "[1, 2]").await.unwrap_err());
    assert_eq!(kind, "ArgumentError");
    assert!(message.starts_with("one positional argument is due"), "{message}");
    let (kind, _) = failure(ask(&hub, "{\"x\": 1, \"y\": 0}").await.unwrap_err());
    assert_eq!(kind, "Panic");
    assert_eq!(failure(ask(&hub, "{\"x\": 0, \"y\": 0}").await.unwrap_err()).1, "x is 0");
    assert_eq!(hub.status().retries, 1, "it said that it may be tried again");
    assert_eq!(hub.status().workers_lost, 0);
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_may_come_in_pieces() {
    let hub = hub(options()).await;
    let count = service_fn(async |request: Request| {
        for number in 0..request.input::<u32>()? {
            request.send(format!("{number} ")).await?;
        }
        Ok(Answer::nothing())
    });
    let worker = run(worker(hub.address()), count);
    assert_eq!(ask(&hub, "5").await.unwrap(), "0 1 2 3 4 ");
    let long = ask(&hub, "300000").await.unwrap();
    assert!(long.ends_with(" 299999 "), "more than the link holds at a time");
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_blocks_does_not_keep_pings_from_their_answers() {
    let hub = hub(HubOptions { silence: Duration::from_millis(500), ..options() }).await;
    let slow = blocking_fn(|request: Request| {
        std::thread::sleep(Duration::from_secs(2));
        Ok(request.attempt())
    });
    let worker = run(worker(hub.address()), slow);
    assert_eq!(ask(&hub, "[]").await.unwrap(), "1");
    assert_eq!(hub.status().workers_lost, 0);
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_calls_run_at_a_time_as_it_says() {
    let hub = hub(HubOptions { concurrency: 3, ..options() }).await;
    let (running, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let barrier = Arc::new(tokio::sync::Barrier::new(3));
    let most_seen = Arc::clone(&most);
    let meet = service_fn(move |_request: Request| {
        let (running, most, barrier) =
            (Arc::clone(&running), Arc::clone(&most_seen), Arc::clone(&barrier));
        async move {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            barrier.wait().await;
            running.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        }
    });
    let worker = run(worker(hub.address()).concurrency(3), meet);
    let asked = futures_of_six(&hub);
    for answer in asked.await {
        assert_eq!(answer.unwrap(), "null");
    }
    assert_eq!(most.load(Ordering::SeqCst), 3);
    worker.stop().await.unwrap();
}

async fn futures_of_six(hub: &gatewright_serve::EmbeddedHub) -> Vec<Result<String, HubError>> {
    let (a, b, c, d, e, f) = tokio::join!(
        ask(hub, "[]"),
        ask(hub, "[]"),
        ask(hub, "[]"),
        ask(hub, "[]"),
        ask(hub, "[]"),
        ask(hub, "[]")
    );
    vec![a, b, c, d, e, f]
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gives_up_ends_the_call() {
    let hub = hub(options()).await;
    let (ended, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let sleeper = service_fn(move |request: Request| {
        let ended = ended.clone();
        async move {
            struct Ended(tokio::sync::mpsc::UnboundedSender<()>);
            impl Drop for Ended {
                fn drop(&mut self) {
                    self.0.send(()).unwrap();
                }
            }
            let _ended = Ended(ended);
            assert!(request.remaining().unwrap() <= Duration::from_millis(300));
            tokio::time::sleep(Duration::from_secs(1000)).await;
            Ok(())
        }
    });
    let worker = run(worker(hub.address()), sleeper);
    until(&hub, |status| status.workers == 1).await;
    let nothing = gatewright_worker::Arguments::none();
    let patience = Some(Duration::from_millis(300));
    let late = hub.request(nothing.args, nothing.kwargs, patience, Some(0)).await;
    assert!(matches!(late, Err(HubError::TimedOut(_))));
    seen.recv().await.unwrap();
    until(&hub, |status| status.in_flight == 0).await;
    worker.stop().await.unwrap();
}

/// Counts up from the number that its function is made with.
struct Counter(AtomicU32);

impl Service for Counter {
    async fn start(&self, init: Init) -> Result<(), Failure> {
        if init.args::<Vec<u32>>()?.is_empty() && self.0.load(Ordering::Relaxed) == 0 {
            return Err(Failure::new("NoModel", "nothing to count from"));
        }
        Ok(())
    }

    async fn call(&self, _request: Request) -> Result<Answer, Failure> {
        Answer::new(&self.0.fetch_add(1, Ordering::Relaxed))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_does_not_start_ends_its_worker() {
    let hub = hub(options()).await;
    let failed = run(worker(hub.address()), Counter(AtomicU32::new(0))).ended().await;
    let Err(WorkerError::NotStarted(failure)) = failed else { panic!("{failed:?}") };
    assert_eq!(failure.to_string(), "NoModel: nothing to count from");
    let worker = run(worker(hub.address()), Counter(AtomicU32::new(7)));
    assert_eq!(ask(&hub, "[]").await.unwrap(), "7");
    assert_eq!(ask(&hub, "[]").await.unwrap(), "8");
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_batch_function_has_a_result_for_each_or_none() {
    let sums = batch_fn(4, async |requests: Vec<Request>| {
        let numbers: Result<Vec<i64>, _> = requests.iter().map(Request::input).collect();
        let mut sum = 0;
        let sums = numbers?.into_iter().map(|number| {
            sum += number;
            sum
        });
        Ok(sums.filter(|sum| *sum < 100).collect::<Vec<_>>())
    });
    assert_eq!(sums.batch_size(), 4);
    let results = sums.call_batch(Vec::new()).await;
    assert!(results.is_empty());
}

/// On one thread, where nothing runs beside the calls but what they leave to others.
#[tokio::test]
async fn short_answers_do_not_wait_for_a_long_call() {
    let hub = hub(HubOptions { concurrency: 16, ..options() }).await;
    let go = Arc::new((std::sync::Mutex::new(false), std::sync::Condvar::new()));
    let gate = Arc::clone(&go);
    let service = blocking_fn(move |request: Request| {
        let number: u32 = request.input()?;
        if number == 0 {
            let (open, opened) = &*gate;
            let open = open.lock().unwrap();
            drop(opened.wait_while(open, |open| !*open).unwrap());
        }
        Ok(number)
    });
    let worker = run(worker(hub.address()).concurrency(16), service);
    let hub = Arc::new(hub);
    let asking = |number: u32| {
        let hub = Arc::clone(&hub);
        tokio::spawn(async move { ask(&hub, &number.to_string()).await })
    };
    for _ in 0..20 {
        let short: Vec<_> = (1..16).map(asking).collect();
        for (number, answer) in (1..16).zip(short) {
            assert_eq!(answer.await.unwrap().unwrap(), number.to_string());
        }
    }
    let long = asking(0);
    let short: Vec<_> = (1..100).map(asking).collect();
    for (number, answer) in (1..100).zip(short) {
        assert_eq!(answer.await.unwrap().unwrap(), number.to_string(), "the long one still runs");
    }
    assert!(!long.is_finished());
    *go.0.lock().unwrap() = true;
    go.1.notify_all();
    assert_eq!(long.await.unwrap().unwrap(), "0");
    worker.stop().await.unwrap();
}
