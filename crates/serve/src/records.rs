use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;

use gatewright_control::End;
use gatewright_determinism::Time;
use gatewright_record::{CacheResult, Format, Invocation, RecordWriter, Status, World};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::ServeError;
use crate::answer::{BrokenOff, Refusal};
use crate::bodies::Held;
use crate::call::Call;
use crate::clock::Clock;
use crate::function::Function;
use crate::metrics::Metrics;

/// Records that wait for the disk.
const WAITING: usize = 65_536;
/// Written together at most.
const BATCH: usize = 256;

/// Where records and metrics of requests go. Nothing here makes a request wait.
#[derive(Debug)]
pub(crate) struct Book {
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    node: Arc<str>,
    records: Option<RecordSender>,
}

/// One request's record in the making. It is written when it is closed, or dropped: then its client went away.
#[derive(Debug)]
pub(crate) struct Trail {
    pub(crate) invocation: Invocation,
    pub(crate) function: Option<Arc<Function>>,
    /// Its life in the system, if it has one.
    pub(crate) call: Option<Arc<Call>>,
    /// Memory of its body, where that is held whole.
    pub(crate) body: Option<Held>,
    book: Arc<Book>,
    closed: bool,
}

/// The task that writes records.
#[derive(Debug)]
pub(crate) struct Writer {
    sender: RecordSender,
    task: JoinHandle<()>,
}

/// Where records are sent; `None` is the last word.
pub(crate) type RecordSender = mpsc::Sender<Option<Invocation>>;

impl Writer {
    /// Opens the file, and starts to write what comes over the channel until its end.
    pub(crate) fn open(path: &Path) -> Result<(RecordSender, Self), ServeError> {
        let failed = |source| ServeError::Records { path: path.to_owned(), source };
        let file = File::create(path).map_err(failed)?;
        let name = path.to_string_lossy();
        let format = Format::of_name(&name).unwrap_or(Format::JsonLines);
        let writer = RecordWriter::new(BufWriter::new(file), format)
            .map_err(|error| failed(std::io::Error::other(error)))?;
        let (sender, records) = mpsc::channel(WAITING);
        let path = path.display().to_string();
        let task = tokio::task::spawn_blocking(move || write(writer, records, &path));
        Ok((sender.clone(), Self { sender, task }))
    }

    /// Waits until everything that was sent is on disk.
    pub(crate) async fn finish(self) {
        // Fails if the writer has ended, after an error that it has logged.
        drop(self.sender.send(None).await);
        if self.task.await.is_err() {
            tracing::error!("the writer of records panicked");
        }
    }
}

fn write(
    mut writer: RecordWriter<BufWriter<File>>,
    mut records: mpsc::Receiver<Option<Invocation>>,
    path: &str,
) {
    let mut batch = Vec::with_capacity(BATCH);
    'all: while records.blocking_recv_many(&mut batch, BATCH) > 0 {
        for invocation in batch.drain(..) {
            let Some(invocation) = invocation else { break 'all };
            if let Err(error) = writer.write(&invocation) {
                tracing::error!(%error, path, "records are written no longer");
                return;
            }
        }
    }
    if let Err(error) = writer.finish() {
        tracing::error!(%error, path, "the last records were not written");
    }
}

impl Book {
    pub(crate) fn new(
        clock: Clock,
        metrics: Arc<Metrics>,
        records: Option<RecordSender>,
    ) -> Arc<Self> {
        Arc::new(Self { clock, metrics, node: "local".into(), records })
    }

    fn write(&self, invocation: Invocation) {
        if let Some(records) = &self.records
            && records.try_send(Some(invocation)).is_err()
        {
            let before = self.metrics.records_dropped.inc();
            // Said at the first one and then ever more rarely.
            if (before + 1).is_power_of_two() {
                tracing::warn!(dropped = before + 1, "records come faster than they are written");
            }
        }
    }
}

impl Trail {
    pub(crate) fn begin(book: &Arc<Book>, id: u64, received: Time) -> Self {
        let invocation = Invocation {
            world: World::Serve,
            id,
            received: Some(received),
            ..Invocation::default()
        };
        Self {
            invocation,
            function: None,
            call: None,
            body: None,
            book: Arc::clone(book),
            closed: false,
        }
    }

    pub(crate) fn asks(&mut self, function: &Arc<Function>) {
        self.invocation.function = Arc::clone(&function.name);
        self.function = Some(Arc::clone(function));
    }

    pub(crate) fn cache(&mut self, result: CacheResult) {
        self.invocation.cache = Some(result);
    }

    /// It ended in another way than well.
    pub(crate) fn failed(&mut self, status: Status, reason: &str) {
        self.invocation.status = status;
        self.invocation.reason = Some(reason.into());
    }

    /// The system ended it so.
    fn ended(&mut self, end: End) {
        self.invocation.status = status_of(end);
        self.invocation.reason = end.reason().map(Into::into);
    }

    /// It is answered by a refusal; what that means was said before, or is an error.
    pub(crate) fn refused(&mut self, refusal: &Refusal) {
        if self.invocation.status == Status::Ok {
            self.invocation.status = Status::Error;
        }
        self.invocation.reason.get_or_insert_with(|| refusal.error.as_str().into());
    }

    /// The answer is whole and has so many bytes.
    pub(crate) fn close(mut self, code: u16, bytes: u64) {
        self.invocation.code = Some(code);
        self.write(bytes);
    }

    /// The answer was sent piece by piece and has come to its end.
    pub(crate) fn streamed(mut self, broken: Option<&BrokenOff>, bytes: u64) {
        if let Some(broken) = broken {
            match broken {
                BrokenOff::TimedOut => self.ended(End::TimedOut),
                BrokenOff::Worker => self.ended(End::Lost),
                BrokenOff::Silent => self.failed(Status::Timeout, &broken.to_string()),
                BrokenOff::Upstream | BrokenOff::Unfit => {
                    self.failed(Status::Error, &broken.to_string());
                }
            }
        }
        self.write(bytes);
    }

    /// The client went away after so many bytes of the answer.
    pub(crate) fn abandoned(mut self, bytes: u64) {
        self.ended(End::Cancelled);
        self.write(bytes);
    }

    fn write(&mut self, bytes: u64) {
        self.closed = true;
        let now = self.book.clock.now();
        let mut invocation = std::mem::take(&mut self.invocation);
        invocation.bytes_out = bytes;
        invocation.finished = Some(now);
        if let Some(call) = &self.call
            && let Some(dispatch) = call.last_dispatch()
        {
            invocation.queued_out = Some(dispatch.at);
            invocation.started = Some(dispatch.at);
            invocation.replica = Some(dispatch.replica);
            invocation.node = Some(dispatch.node.unwrap_or_else(|| Arc::clone(&self.book.node)));
            invocation.attempts = dispatch.attempt;
            invocation.in_flight = Some(dispatch.in_flight);
            invocation.cold = dispatch.cold;
            if let (Some(function), Some(received)) = (&self.function, invocation.received) {
                let wait = dispatch.at.nanos_since(received) as f64 / 1e9;
                let service = now.nanos_since(dispatch.at) as f64 / 1e9;
                function.metrics.attempted(wait, service, dispatch.cold);
            }
        }
        if let Some(result) = invocation.cache {
            self.book.metrics.cache(result);
        }
        match (&self.function, invocation.received) {
            (Some(function), Some(received)) => {
                let seconds = now.nanos_since(received) as f64 / 1e9;
                function.metrics.ended(invocation.status, seconds);
            }
            _ => drop(self.book.metrics.unrouted.inc()),
        }
        self.book.write(invocation);
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        if !self.closed {
            self.ended(End::Cancelled);
            self.write(0);
        }
    }
}

/// What an end means in a record.
pub(crate) fn status_of(end: End) -> Status {
    match end {
        End::Ok => Status::Ok,
        End::Error => Status::Error,
        End::TimedOut => Status::Timeout,
        End::Cancelled => Status::Cancelled,
        End::Shed(_) => Status::Shed,
        End::Lost => Status::Lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_that_cannot_be_taken_are_counted_and_wait_for_nobody() {
        let metrics = Metrics::new();
        let (sender, mut receiver) = mpsc::channel(2);
        let book = Book::new(Clock::start(), Arc::clone(&metrics), Some(sender));
        for id in 0..5 {
            Trail::begin(&book, id, Time::ZERO).close(200, 0);
        }
        assert_eq!(metrics.records_dropped.get(), 3);
        let ids: Vec<_> = std::iter::from_fn(|| receiver.try_recv().ok().flatten())
            .map(|invocation| (invocation.id, invocation.code))
            .collect();
        assert_eq!(ids, [(0, Some(200)), (1, Some(200))]);
    }

    #[test]
    fn a_trail_that_is_dropped_says_that_the_client_left() {
        let (sender, mut receiver) = mpsc::channel(2);
        let book = Book::new(Clock::start(), Metrics::new(), Some(sender));
        drop(Trail::begin(&book, 7, Time::ZERO));
        let invocation = receiver.try_recv().unwrap().unwrap();
        assert_eq!((invocation.id, invocation.status), (7, Status::Cancelled));
        assert!(receiver.try_recv().is_err(), "once");
    }
}
