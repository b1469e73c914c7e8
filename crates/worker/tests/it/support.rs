use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use gatewright_protocol::Arguments;
use gatewright_serve::{EmbeddedHub, HubError, HubOptions};
use gatewright_worker::{Service, Worker, WorkerError};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) fn options() -> HubOptions {
    HubOptions { listen: "127.0.0.1:0".to_owned(), ..HubOptions::default() }
}

pub(crate) async fn hub(options: HubOptions) -> EmbeddedHub {
    EmbeddedHub::start(options).await.unwrap()
}

/// A worker that runs until it is told to stop.
pub(crate) struct Running {
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), WorkerError>>,
}

pub(crate) fn run(worker: Worker, service: impl Service) -> Running {
    let (stop, told) = oneshot::channel();
    let task = tokio::spawn(worker.run_until(service, async {
        // A dropped sender says it too.
        drop(told.await);
    }));
    Running { stop: Some(stop), task }
}

pub(crate) fn worker(address: SocketAddr) -> Worker {
    Worker::new(address.to_string()).token("").name("rust")
}

impl Running {
    pub(crate) async fn stop(mut self) -> Result<(), WorkerError> {
        drop(self.stop.take());
        self.task.await.unwrap()
    }

    /// Its end, by itself.
    pub(crate) async fn ended(self) -> Result<(), WorkerError> {
        let Self { stop: _stop, task } = self;
        task.await.unwrap()
    }

    /// Ends it as SIGKILL would: in the middle of whatever it does.
    pub(crate) async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

/// Asks the hub what this JSON says; the answer as JSON.
pub(crate) async fn ask(hub: &EmbeddedHub, json: &str) -> Result<String, HubError> {
    let Arguments { args, kwargs } = Arguments::json(json.as_bytes()).unwrap();
    let answer = hub.request(args, kwargs, Some(Duration::from_secs(20)), Some(0)).await?;
    Ok(text(&answer))
}

pub(crate) fn text(answer: &Bytes) -> String {
    let reply = gatewright_protocol::Reply::from_value(answer).unwrap();
    String::from_utf8(reply.body.to_vec()).unwrap()
}

/// Waits until the hub is as `holds` wants it.
pub(crate) async fn until(hub: &EmbeddedHub, holds: impl Fn(gatewright_serve::HubStatus) -> bool) {
    for _ in 0..2000 {
        if holds(hub.status()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came: {:?}", hub.status());
}
