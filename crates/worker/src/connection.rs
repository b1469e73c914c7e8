use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gatewright_protocol::{Arguments, Frame, FrameDecoder, Hello, Request as Call};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::link::Link;
use crate::{Answer, Failure, Init, Request, Service};

/// A frame that is longer is taken for garbage.
const MAX_FRAME: usize = 1 << 30;
/// Bytes of a response beside its value.
const HEAD: usize = 16;
/// How long a hub may take to answer the hello.
const INIT_TIMEOUT: Duration = Duration::from_secs(20);

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The hub is gone, refused this worker or let go of it.
    Over {
        /// Why, for the log.
        reason: String,
        /// Whether it was taken before.
        served: bool,
    },
    /// This worker is stopping, and all that it had is answered.
    Stopped,
    /// The service did not start.
    NotStarted(Failure),
}

/// One connection to a hub, from hello to bye.
pub(crate) struct Connection<S> {
    service: Arc<S>,
    link: Arc<Link>,
    open: Arc<Mutex<HashMap<u64, CancellationToken>>>,
    /// Longest frame that the hub takes, in bytes.
    limit: usize,
    calls: TaskTracker,
    /// Set off at the end: what still runs is given up.
    over: CancellationToken,
    /// The beginning of a batch, and how many requests it will have.
    gathered: Vec<Request>,
    due: usize,
}

/// Speaks with a hub over this socket until the connection is over, or until everything is answered after `stop`.
pub(crate) async fn converse<S: Service>(
    service: &Arc<S>,
    hello: Hello,
    socket: impl AsyncRead + AsyncWrite + Send,
    stop: &CancellationToken,
    grace: Duration,
) -> End {
    let (mut reader, writer) = tokio::io::split(socket);
    let link = Arc::new(Link::default());
    link.send(&Frame::Hello(hello));
    let mut connection = Connection {
        service: Arc::clone(service),
        link: Arc::clone(&link),
        open: Arc::default(),
        limit: 0,
        calls: TaskTracker::new(),
        over: CancellationToken::new(),
        gathered: Vec::new(),
        due: 0,
    };
    let writing = link.write(writer);
    tokio::pin!(writing);
    let over = connection.over.clone().drop_guard();
    let end = tokio::select! {
        end = connection.run(&mut reader, stop, grace) => end,
        // The reader would see it too, but perhaps much later.
        Err(error) = &mut writing => Err(error.to_string()),
    };
    let end = end.unwrap_or_else(|reason| End::Over { reason, served: connection.limit > 0 });
    drop(over);
    link.close();
    // What is said last: the answers of a worker that is stopping, and bye.
    drop(tokio::time::timeout(Duration::from_secs(1), writing).await);
    end
}

impl<S: Service> Connection<S> {
    async fn run(
        &mut self,
        reader: &mut (impl AsyncRead + Unpin),
        stop: &CancellationToken,
        grace: Duration,
    ) -> Result<End, String> {
        let mut decoder = FrameDecoder::new(MAX_FRAME);
        let init = tokio::time::timeout(INIT_TIMEOUT, next(reader, &mut decoder));
        let init = tokio::select! {
            init = init => init,
            () = stop.cancelled() => return Ok(End::Stopped),
        };
        let (max_frame, arguments) = match init {
            Ok(Ok(Frame::Init { max_frame, args, kwargs })) => {
                (max_frame, Arguments { args, kwargs })
            }
            Ok(Ok(Frame::Bye { reason })) => return Err(format!("refused: {reason}")),
            Ok(Ok(frame)) => return Err(out_of_turn(&frame)),
            Ok(Err(reason)) => return Err(reason),
            Err(_) => return Err("the hub did not answer the hello in time".to_owned()),
        };
        self.limit = usize::try_from(max_frame).unwrap_or(usize::MAX);
        tokio::select! {
            started = self.service.start(Init { arguments }) => if let Err(failure) = started {
                self.link.send(&Frame::InitError(failure.clone().of_init()));
                return Ok(End::NotStarted(failure));
            },
            () = stop.cancelled() => return Ok(End::Stopped),
        }
        self.link.send(&Frame::Ready);
        self.serve(reader, &mut decoder, stop, grace).await
    }

    /// From ready to the end.
    async fn serve(
        &mut self,
        reader: &mut (impl AsyncRead + Unpin),
        decoder: &mut FrameDecoder,
        stop: &CancellationToken,
        grace: Duration,
    ) -> Result<End, String> {
        let calls = self.calls.clone();
        let done = calls.wait();
        let link = Arc::clone(&self.link);
        let stopping = async {
            stop.cancelled().await;
            // The hub answers with the same word, and sends no request after it.
            link.send(&Frame::Drain);
            tokio::time::sleep(grace).await;
        };
        tokio::pin!(done, stopping);
        loop {
            let frame = tokio::select! {
                biased;
                frame = next(reader, decoder) => frame,
                // Told to drain, and all is answered.
                () = &mut done => break,
                () = &mut stopping => break,
            };
            self.hear(frame?)?;
        }
        self.link.send(&Frame::Bye { reason: "done".to_owned() });
        if stop.is_cancelled() { Ok(End::Stopped) } else { Err("the hub let go of it".to_owned()) }
    }

    fn hear(&mut self, frame: Frame) -> Result<(), String> {
        match frame {
            Frame::Request(call) => self.take(call),
            Frame::Batch { size } => {
                self.due = if self.service.batch_size() == 0 { 0 } else { size as usize };
            }
            Frame::Cancel { id } => {
                if let Some(token) = self.open.lock().get(&id) {
                    token.cancel();
                }
            }
            Frame::Ping { nonce } => self.link.send(&Frame::Pong { nonce }),
            Frame::Pong { .. } => {}
            Frame::Drain => {
                self.calls.close();
            }
            Frame::Bye { reason } => return Err(format!("the hub said bye: {reason}")),
            frame => return Err(out_of_turn(&frame)),
        }
        Ok(())
    }

    fn take(&mut self, call: Call) {
        let cancelled = self.over.child_token();
        self.open.lock().insert(call.id, cancelled.clone());
        let request = Request {
            id: call.id,
            attempt: call.attempt,
            deadline: call
                .deadline_ms
                .and_then(|left| Instant::now().checked_add(Duration::from_millis(left))),
            arguments: Arguments { args: call.args, kwargs: call.kwargs },
            cancelled,
            link: Arc::clone(&self.link),
        };
        if self.due > 0 {
            self.gathered.push(request);
            if self.gathered.len() == self.due {
                self.due = 0;
                self.begin_batch();
            }
            return;
        }
        let (landing, service, over) =
            (self.landing(request.id), Arc::clone(&self.service), self.over.clone());
        self.calls.spawn(async move {
            tokio::select! {
                result = service.call(request) => landing.answer(result),
                () = over.cancelled() => {}
            }
        });
    }

    fn begin_batch(&mut self) {
        let requests = std::mem::take(&mut self.gathered);
        let landings: Vec<_> = requests.iter().map(|request| self.landing(request.id)).collect();
        let (service, over) = (Arc::clone(&self.service), self.over.clone());
        self.calls.spawn(async move {
            let results = tokio::select! {
                results = service.call_batch(requests) => results,
                () = over.cancelled() => return,
            };
            // One that has no result is answered as a call that never returned.
            for (landing, result) in landings.into_iter().zip(results) {
                landing.answer(result);
            }
        });
    }

    fn landing(&self, id: u64) -> Landing {
        let (link, open, limit) = (Arc::clone(&self.link), Arc::clone(&self.open), self.limit);
        Landing { id, link, open, limit, answer: None }
    }
}

fn out_of_turn(frame: &Frame) -> String {
    let name = Frame::name(frame.number()).unwrap_or_default();
    format!("the hub sent a `{name}` frame out of turn")
}

async fn next(
    reader: &mut (impl AsyncRead + Unpin),
    decoder: &mut FrameDecoder,
) -> Result<Frame, String> {
    loop {
        if let Some(frame) = decoder.next_frame().map_err(|error| error.to_string())? {
            return Ok(frame);
        }
        match reader.read_buf(decoder.buffer()).await {
            Ok(0) => return Err("the hub closed the connection".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// The place of a request, which is answered when this is dropped, whatever happened to its call.
struct Landing {
    id: u64,
    link: Arc<Link>,
    open: Arc<Mutex<HashMap<u64, CancellationToken>>>,
    limit: usize,
    answer: Option<Frame>,
}

impl Landing {
    fn answer(mut self, result: Result<Answer, Failure>) {
        let id = self.id;
        self.answer = Some(match result {
            Ok(Answer(value)) if value.len() + HEAD > self.limit => {
                Frame::Error(too_long(&value, self.limit).of_call(id))
            }
            Ok(Answer(value)) => Frame::Response { id, value },
            Err(failure) => Frame::Error(failure.of_call(id)),
        });
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.open.lock().remove(&self.id);
        let answer = self.answer.take().unwrap_or_else(|| {
            Frame::Error(
                Failure::new("Panic", "the call panicked; the worker's log says where")
                    .of_call(self.id),
            )
        });
        self.link.send(&answer);
    }
}

fn too_long(value: &Bytes, limit: usize) -> Failure {
    let message =
        format!("{} bytes are too long for one frame, the gateway takes {limit}", value.len());
    Failure::new("TooLong", message)
}
