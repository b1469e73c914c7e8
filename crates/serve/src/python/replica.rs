use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gatewright_control::{Event, Loss, Outcome, ReplicaKey, RequestKey};
use gatewright_determinism::Time;
use gatewright_protocol::{Frame, Request};
use parking_lot::Mutex;
use rustix::process::Pid;
use serde::Serialize;
use slotmap::Key;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::greeting::until_ready;
use super::hub::Connection;
use super::link::Link;
use super::memory;
use super::process::{Process, is_stopped};
use super::talk::Line;
use crate::call::{Call, Dispatch};
use crate::driver::Driver;
use crate::error::StartFailure;
use crate::function::{Function, Runtime};

/// How often, a millisecond apart, it is looked whether all that was given to a worker was sent to it.
const SENDING_TRIES: u32 = 50;
/// How long what a process that has ended said last is read.
const LAST_WORDS: Duration = Duration::from_millis(20);
/// Pings in the time that a worker may be silent.
const PINGS: u32 = 5;

/// One worker of a function, from its start or its coming to its end.
#[derive(Debug)]
pub(crate) struct PythonReplica {
    pub(super) key: ReplicaKey,
    pub(crate) number: u64,
    function: Arc<Function>,
    /// Where it came from, if it came by itself.
    pub(crate) origin: Option<Arc<Origin>>,
    /// Set when it is ready.
    pub(super) link: OnceLock<Link>,
    /// Set off when it is to stop.
    stop: CancellationToken,
    /// Set off when it is to end at once.
    kill: CancellationToken,
    /// What it works on.
    pub(super) flights: Mutex<Vec<Flight>>,
    /// The beginning of a batch whose end is not there yet.
    gathered: Mutex<Vec<Frame>>,
    /// Set when anything has come from it.
    pub(super) heard: AtomicBool,
    /// Set while a client that reads slowly keeps this worker from being heard.
    pub(super) held_up: AtomicBool,
    /// Set when its connection turned out to be closed with bytes unread.
    pub(super) reset: AtomicBool,
}

/// What a worker that came by itself says of its machine.
#[derive(Debug, Serialize)]
pub(crate) struct Origin {
    /// The machine's name.
    pub(crate) node: Arc<str>,
    pub(crate) labels: BTreeMap<String, String>,
    /// Processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpus: Option<u32>,
    /// Memory in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<u64>,
}

/// A request at a worker.
#[derive(Debug)]
pub(super) struct Flight {
    /// Its number on the wire.
    pub(super) id: u64,
    pub(super) key: RequestKey,
    pub(super) call: Arc<Call>,
    /// Where the pieces of its answer go, once there is one.
    pub(super) pieces: Option<mpsc::Sender<bytes::Bytes>>,
}

/// The process of a worker, if it is one of this machine that the gateway started.
struct Body(Option<Process>);

impl Body {
    fn pid(&self) -> Option<Pid> {
        self.0.as_ref().and_then(Process::pid)
    }

    /// Returns when the process has ended; never if there is none.
    async fn ended(&mut self) {
        match &mut self.0 {
            Some(process) => drop(process.ended().await),
            None => std::future::pending().await,
        }
    }

    fn terminate(&self) {
        if let Some(process) = &self.0 {
            process.terminate();
        }
    }

    fn kill_group(&self) {
        if let Some(process) = &self.0 {
            process.kill_group();
        }
    }

    /// Kills the process; of a worker elsewhere the end of its connection is all that can be done.
    async fn kill(&mut self) {
        if let Some(process) = &mut self.0 {
            process.kill().await;
        }
    }
}

/// How a worker's life ended.
enum Fate {
    /// It never was ready.
    NotStarted(StartFailure),
    /// It ended without being told to.
    Lost,
    /// It was told to stop, and did.
    Stopped,
}

impl PythonReplica {
    pub(crate) fn new(key: ReplicaKey, number: u64, function: Arc<Function>) -> Arc<Self> {
        Arc::new(Self {
            key,
            number,
            function,
            origin: None,
            link: OnceLock::new(),
            stop: CancellationToken::new(),
            kill: CancellationToken::new(),
            flights: Mutex::default(),
            gathered: Mutex::default(),
            heard: AtomicBool::new(false),
            held_up: AtomicBool::new(false),
            reset: AtomicBool::new(false),
        })
    }

    /// A worker that came by itself and is ready.
    pub(crate) fn joined(
        key: ReplicaKey,
        number: u64,
        function: Arc<Function>,
        origin: Arc<Origin>,
        link: Link,
    ) -> Arc<Self> {
        let mut made = Self::new(key, number, function);
        if let Some(replica) = Arc::get_mut(&mut made) {
            replica.origin = Some(origin);
            replica.link = OnceLock::from(link);
        }
        made
    }

    /// Sends it a request; the requests of a batch when the last of them is there.
    pub(crate) fn begin(&self, key: RequestKey, call: Arc<Call>, dispatch: &Dispatch, now: Time) {
        let (Some(link), Some(arguments)) = (self.link.get(), &call.arguments) else { return };
        let frame = Frame::Request(Request {
            id: wire_id(key),
            deadline_ms: Some(u64::try_from((call.deadline - now).as_millis()).unwrap_or(u64::MAX)),
            attempt: dispatch.attempt,
            args: arguments.args.clone(),
            kwargs: arguments.kwargs.clone(),
        });
        // Before the frame is sent: its answer may be there at once.
        let flight = Flight { id: wire_id(key), key, call: Arc::clone(&call), pieces: None };
        self.flights.lock().push(flight);
        if !self.function.batches {
            return link.send(&frame);
        }
        let mut gathered = self.gathered.lock();
        if gathered.is_empty() {
            self.function.metrics.batch(dispatch.batch_left + 1);
            gathered.push(Frame::Batch { size: dispatch.batch_left + 1 });
        }
        gathered.push(frame);
        if dispatch.batch_left == 0 {
            link.send_all(&gathered);
            gathered.clear();
        }
    }

    /// Tells it that nobody waits for a request any more.
    pub(crate) fn abandon(&self, key: RequestKey) {
        if let Some(link) = self.link.get() {
            link.send(&Frame::Cancel { id: wire_id(key) });
        }
    }

    /// Tells it to finish what it has and end.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Ends it at once.
    pub(crate) fn kill(&self) {
        self.kill.cancel();
    }

    /// Its life, reported to the driver.
    pub(crate) async fn live(self: Arc<Self>, driver: Arc<Driver>) {
        let name = format!("{}/{}", self.function.name, self.number);
        let fate = self.run(&driver, &name).await;
        let replica = self.key;
        self.clear_up(&driver).await;
        match fate {
            Fate::Stopped => {
                tracing::info!(worker = name, "stopped");
                driver.handle(Event::ReplicaStopped { replica });
            }
            Fate::Lost => {
                driver.handle(Event::ReplicaLost { replica, loss: Loss::Died });
            }
            Fate::NotStarted(failure) => {
                self.function.metrics.death("start");
                driver.handle(Event::ReplicaLost { replica, loss: Loss::StartFailed });
                driver.start_failed(&self.function, &name, failure);
            }
        }
    }

    /// Gives back what it had not begun when it went; what it had begun ends with it.
    async fn clear_up(&self, driver: &Arc<Driver>) {
        driver.handle(Event::ReplicaLeaving { replica: self.key });
        // What was decided before that may not have been sent yet: a moment for whoever is about to.
        for _ in 0..SENDING_TRIES {
            let sent = self.flights.lock().len();
            let given = driver.look(|system| system.replica(self.key).map_or(0, |r| r.in_flight));
            if given <= sent {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if let Some(link) = self.link.get() {
            for request in link.unread(self.reset.load(Ordering::Relaxed)) {
                if let Ok(flight) = self.landed(request) {
                    driver.finished(flight.key, Outcome::Returned);
                }
            }
        }
        // Closes the pieces of answers that will have no end.
        self.flights.lock().clear();
    }

    async fn run(self: &Arc<Self>, driver: &Arc<Driver>, name: &str) -> Fate {
        let Runtime::Python(class) = &self.function.runtime else { return Fate::Stopped };
        let arrival = driver.hub.expect(name.to_owned());
        let mut process = match Process::start(driver, &self.function, class, name) {
            Ok(process) => process,
            Err(failure) => return Fate::NotStarted(failure),
        };
        let limit = self.function.start_timeout;
        let started = tokio::select! {
            started = tokio::time::timeout(limit, self.start(driver, arrival)) => started,
            status = process.ended() => {
                return Fate::NotStarted(process.failure(status).await);
            }
            () = self.stop.cancelled() => {
                process.kill().await;
                return Fate::Stopped;
            }
            () = driver.kill.cancelled() => {
                process.kill().await;
                return Fate::Stopped;
            }
        };
        let line = match started {
            Ok(Ok(parts)) => parts,
            Ok(Err(Some(failure))) => {
                process.kill().await;
                return Fate::NotStarted(failure);
            }
            // The connection ended: the process tells why.
            Ok(Err(None)) => {
                let ended = tokio::time::timeout(Duration::from_secs(1), process.ended()).await;
                process.kill().await;
                return Fate::NotStarted(process.failure(ended.ok().flatten()).await);
            }
            Err(_) => {
                process.kill().await;
                return Fate::NotStarted(StartFailure::TimedOut { seconds: limit.as_secs_f64() });
            }
        };
        tracing::info!(worker = name, "ready");
        driver.handle(Event::ReplicaReady { replica: self.key });
        self.serve(driver, Some(process), line, name).await
    }

    /// The life of one that came by itself, from ready to the end.
    pub(crate) async fn live_joined(self: &Arc<Self>, driver: Arc<Driver>, line: Line, name: &str) {
        let fate = self.serve(&driver, None, line, name).await;
        self.clear_up(&driver).await;
        let replica = self.key;
        driver.handle(match fate {
            Fate::Stopped => Event::ReplicaStopped { replica },
            Fate::Lost | Fate::NotStarted(_) => Event::ReplicaLost { replica, loss: Loss::Died },
        });
        // Nobody kills it: it learns from the end of its connection that it is not wanted any more.
        driver.forget_lost();
    }

    /// From the worker's hello to its ready. `Err(None)` if its connection ended.
    async fn start(
        &self,
        driver: &Driver,
        arrival: tokio::sync::oneshot::Receiver<Connection>,
    ) -> Result<Line, Option<StartFailure>> {
        let Connection { mut reader, writer, mut decoder, window } =
            arrival.await.map_err(|_| None)?;
        if window < self.function.window {
            let what =
                format!("it takes {window} requests at a time, not {}", self.function.window);
            return Err(Some(StartFailure::Protocol(what)));
        }
        let link = self.link.get_or_init(|| Link::new(writer));
        let limit = driver.workplace.max_frame;
        until_ready(link, &mut reader, &mut decoder, &self.function.init, limit).await?;
        Ok(Line::new(reader, decoder))
    }

    /// From ready to the end.
    async fn serve(
        self: &Arc<Self>,
        driver: &Arc<Driver>,
        process: Option<Process>,
        line: Line,
        name: &str,
    ) -> Fate {
        let Some(link) = self.link.get() else { return Fate::Lost };
        let mut process = Body(process);
        let pid = process.pid();
        let unfit = async {
            memory::outgrows(pid, self.function.memory_limit).await;
            tracing::warn!(worker = name, "has more memory than its limit and is replaced");
            driver.handle(Event::ReplicaUnfit { replica: self.key });
            std::future::pending::<()>().await;
        };
        let talk = self.talk(driver, link, line, name);
        let talked = async {
            tokio::select! {
                () = talk => {}
                () = link.flush() => {}
            }
        };
        tokio::pin!(talked);
        let place = &driver.workplace;
        let patience = if pid.is_some() { place.liveness } else { place.remote_liveness };
        let mut cause = "exit";
        tokio::select! {
            biased;
            () = &mut talked => {}
            () = process.ended() => {
                // A child that it forked may hold the connection open; what it said last is read all the same.
                process.kill_group();
                drop(tokio::time::timeout(LAST_WORDS, talked).await);
            }
            () = self.stop.cancelled() => {
                link.send(&Frame::Drain);
                self.see_off(driver, &mut process, talked).await;
                return Fate::Stopped;
            }
            () = unfit => {}
            () = self.fall_silent(driver, link, pid, patience) => {
                tracing::error!(worker = name, ?patience, "answers no pings and is let go");
                cause = "silent";
                process.kill().await;
                drop(tokio::time::timeout(LAST_WORDS, talked).await);
            }
            () = driver.kill.cancelled() => {
                process.kill().await;
                return Fate::Stopped;
            }
            () = self.kill.cancelled() => {
                // Its process, if it is elsewhere, ends itself at this word.
                link.send(&Frame::Bye { reason: "it did not let go of a request in time".to_owned() });
                process.kill().await;
                self.function.metrics.death("overdue");
                return Fate::Lost;
            }
        }
        // The end of the connection or of the process is the end of the worker, whichever is first.
        let fate = if self.stop.is_cancelled() { Fate::Stopped } else { Fate::Lost };
        if matches!(fate, Fate::Lost) {
            tracing::warn!(worker = name, in_flight = self.flights.lock().len(), "lost");
            self.function.metrics.death(cause);
        }
        let grace = driver.workplace.grace;
        if process.0.is_none() {
            return fate;
        }
        driver.tasks.spawn(async move {
            // Ended in time or not, what it has started goes with it.
            drop(tokio::time::timeout(grace, process.ended()).await);
            process.kill().await;
        });
        fate
    }

    /// Returns when nothing has come from the worker for as long as its patience goes, though it was pinged. A worker
    /// that is being sent a long request, or whose long answer is on its way, is not silent.
    async fn fall_silent(
        &self,
        driver: &Driver,
        link: &Link,
        pid: Option<Pid>,
        patience: Duration,
    ) {
        let every = (patience / PINGS).max(Duration::from_millis(1));
        let mut tick = tokio::time::interval(every);
        // After a pause of the gateway itself, the worker gets its time again.
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut nonce, mut unanswered, mut taken) = (0, 0, None);
        loop {
            tick.tick().await;
            let takes = link.taken_of_more();
            let moves = takes.is_some() && takes != taken;
            taken = takes;
            if let Some(attendance) = &driver.attendance {
                // Whoever should have heard it may be busy; that is not the worker's silence.
                attendance.attend();
            }
            let heard = self.heard.swap(false, Ordering::Relaxed);
            if heard || moves || self.held_up.load(Ordering::Relaxed) {
                unanswered = 0;
            }
            if unanswered == PINGS {
                return;
            }
            unanswered += 1;
            nonce += 1;
            // Nothing is sent after a request that a stopped process has not read: it can then be told that it has not.
            if !pid.is_some_and(is_stopped) {
                link.send(&Frame::Ping { nonce });
            }
        }
    }

    /// Waits for the end of a worker that was told to drain, less and less politely.
    async fn see_off(
        &self,
        driver: &Driver,
        process: &mut Body,
        talked: std::pin::Pin<&mut (impl Future<Output = ()> + Send)>,
    ) {
        let grace = driver.workplace.grace;
        let polite = async {
            drop(tokio::time::timeout(grace, talked).await);
            if process.0.is_none() {
                return;
            }
            if tokio::time::timeout(Duration::from_millis(500), process.ended()).await.is_err() {
                process.terminate();
                drop(tokio::time::timeout(grace, process.ended()).await);
            }
        };
        tokio::select! {
            () = polite => {}
            () = driver.kill.cancelled() => {}
        }
        process.kill().await;
    }
}

/// A request's number on the wire: its key, which is not used again.
fn wire_id(key: RequestKey) -> u64 {
    key.data().as_ffi()
}
