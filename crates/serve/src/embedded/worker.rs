use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use gatewright_protocol::{Arguments, Frame, FrameDecoder, Hello, VERSION, encode};
use subtle::ConstantTimeEq;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::HubOptions;
use super::core::Core;
use super::link::Link;

/// How long a connection may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that have not said hello yet.
const STRANGERS: usize = 64;
/// Longest hello in bytes.
const HELLO_BYTES: usize = 4096;
/// Pings that a worker may leave unanswered.
const PINGS: u64 = 5;

/// Where workers come in.
#[derive(Clone, Debug)]
pub(super) struct Door {
    core: Arc<Core>,
    options: Arc<HubOptions>,
}

impl Door {
    pub(super) fn new(core: Arc<Core>, options: HubOptions) -> Self {
        Self { core, options: Arc::new(options) }
    }

    /// Takes workers for as long as it is polled.
    pub(super) async fn accept(&self, listener: TcpListener) {
        let strangers = Arc::new(Semaphore::new(STRANGERS));
        loop {
            let permit = Arc::clone(&strangers).acquire_owned().await;
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let door = self.clone();
                    self.core.tasks.spawn(async move {
                        let closed = door.core.closed.clone();
                        let visit = async {
                            let greeted = door.greet(stream);
                            let greeted = tokio::time::timeout(HELLO_TIMEOUT, greeted).await;
                            drop(permit);
                            match greeted {
                                Ok(Some((hello, stream))) => door.serve(hello, stream).await,
                                Ok(None) => {}
                                Err(_) => tracing::warn!(%peer, "did not say hello in time"),
                            }
                        };
                        tokio::select! {
                            () = visit => {}
                            () = closed.cancelled() => {}
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a worker");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn greet(&self, mut stream: TcpStream) -> Option<(Hello, TcpStream)> {
        match self.hello(&mut stream).await {
            Ok(hello) => Some((hello, stream)),
            Err(reason) => {
                tracing::warn!(reason, "refused a worker");
                let mut bytes = BytesMut::new();
                if encode(&Frame::Bye { reason }, &mut bytes).is_ok()
                    && let Err(error) = stream.write_all(&bytes).await
                {
                    tracing::debug!(%error, "a refused worker was gone already");
                }
                None
            }
        }
    }

    async fn hello(&self, stream: &mut TcpStream) -> Result<Hello, String> {
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        // Nothing may follow the hello before the init: what is read here is the hello alone.
        let mut decoder = FrameDecoder::new(HELLO_BYTES);
        let frame = loop {
            if let Some(frame) = decoder.next_frame().map_err(|error| error.to_string())? {
                break frame;
            }
            let read = stream.read_buf(decoder.buffer()).await;
            if read.map_err(|error| error.to_string())? == 0 {
                return Err("the connection ended before the hello".to_owned());
            }
        };
        let Frame::Hello(hello) = frame else {
            return Err("the first frame is not a hello".to_owned());
        };
        if hello.version != VERSION {
            let theirs = hello.version;
            return Err(format!("it speaks version {theirs} of the protocol, this is {VERSION}"));
        }
        if let Some(token) = &self.options.token
            && !bool::from(hello.token.as_bytes().ct_eq(token.as_bytes()))
        {
            return Err("its token is not the hub's".to_owned());
        }
        if hello.window < self.options.window {
            let (theirs, ours) = (hello.window, self.options.window);
            return Err(format!("it takes {theirs} requests at a time, this hub sends {ours}"));
        }
        Ok(hello)
    }

    /// A worker's life, from its hello to its end.
    async fn serve(&self, hello: Hello, stream: TcpStream) {
        let (mut reader, writer) = stream.into_split();
        let link = Arc::new(Link::new(writer));
        let mut decoder =
            FrameDecoder::new(usize::try_from(self.options.max_frame).unwrap_or(usize::MAX));
        let Arguments { args, kwargs } = Arguments::none();
        link.send(&Frame::Init { max_frame: self.options.max_frame, args, kwargs });
        let ready = tokio::select! {
            ready = ready(&mut reader, &mut decoder) => ready,
            () = link.flush() => Err("its connection broke".to_owned()),
        };
        if let Err(problem) = ready {
            tracing::error!(worker = hello.name, pid = hello.pid, problem, "did not start");
            return;
        }
        let Some((replica, kill)) = self.core.join(Arc::clone(&link)) else { return };
        tracing::info!(worker = hello.name, pid = hello.pid, "joined");
        // However this ends, also when the task is dropped, the worker leaves.
        let _leaving = Leaving(|| self.core.leave(replica));
        let heartbeat = Heartbeat::default();
        let talk = async {
            loop {
                loop {
                    match decoder.next_frame() {
                        Ok(None) => break,
                        Ok(Some(Frame::Bye { reason })) => return format!("it said bye: {reason}"),
                        Ok(Some(Frame::Ping { nonce })) => link.send(&Frame::Pong { nonce }),
                        Ok(Some(Frame::Pong { nonce })) => heartbeat.hear(nonce),
                        Ok(Some(frame)) => {
                            if let Err(problem) = self.core.heard(replica, frame) {
                                return problem.to_owned();
                            }
                        }
                        Err(error) => return error.to_string(),
                    }
                }
                match reader.read_buf(decoder.buffer()).await {
                    Ok(1..) => {}
                    Ok(0) => return "its connection ended".to_owned(),
                    Err(error) => return error.to_string(),
                }
            }
        };
        let why = tokio::select! {
            why = talk => why,
            () = link.flush() => "its connection broke".to_owned(),
            () = heartbeat.miss(&link, self.options.heartbeat) => "it answers no pings".to_owned(),
            () = kill.cancelled() => "the hub let go of it".to_owned(),
        };
        tracing::info!(worker = hello.name, pid = hello.pid, why, "left");
    }
}

/// Waits for a worker's word that it is ready.
async fn ready(reader: &mut OwnedReadHalf, decoder: &mut FrameDecoder) -> Result<(), String> {
    loop {
        match decoder.next_frame().map_err(|error| error.to_string())? {
            Some(Frame::Ready) => return Ok(()),
            Some(Frame::InitError(error)) => {
                return Err(format!("{}: {}", error.kind, error.message));
            }
            Some(frame) => {
                let name = Frame::name(frame.number()).unwrap_or_default();
                return Err(format!("a `{name}` frame came before it was ready"));
            }
            None => {}
        }
        match reader.read_buf(decoder.buffer()).await {
            Ok(1..) => {}
            Ok(0) => return Err("its connection ended".to_owned()),
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Does something when it is dropped.
struct Leaving<F: FnMut()>(F);

impl<F: FnMut()> Drop for Leaving<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// What a worker has answered to pings, which are numbered from 1.
#[derive(Debug, Default)]
struct Heartbeat {
    heard: AtomicU64,
}

impl Heartbeat {
    fn hear(&self, nonce: u64) {
        self.heard.store(nonce, Ordering::Relaxed);
    }

    /// Pings a worker until it has left too many pings unanswered.
    async fn miss(&self, link: &Link, every: Duration) {
        let mut tick = tokio::time::interval(every.max(Duration::from_millis(1)));
        // After a pause of the hub itself, the worker gets its time again.
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut nonce: u64 = 0;
        while nonce.saturating_sub(self.heard.load(Ordering::Relaxed)) <= PINGS {
            tick.tick().await;
            nonce += 1;
            link.send(&Frame::Ping { nonce });
        }
    }
}
