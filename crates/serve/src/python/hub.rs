use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gatewright_protocol::{FrameDecoder, Hello};
use parking_lot::Mutex;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, oneshot};

use super::greeting::{HELLO_TIMEOUT, hello, refuse};
use super::runtime_dir::RuntimeDir;
use super::socket::{Reader, Writer, split_unix};
use crate::token::Token;

/// Connections that have not said hello yet.
const STRANGERS: usize = 64;

/// The socket that workers connect to, in a directory that only this user may enter.
#[derive(Debug)]
pub(crate) struct Hub {
    directory: RuntimeDir,
    /// Secret of this run; a worker that was started by it knows it.
    token: String,
    expected: Arc<Mutex<HashMap<String, oneshot::Sender<Connection>>>>,
}

/// A worker that has said hello.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
    /// Bytes that may have come after the hello are in it.
    pub(crate) decoder: FrameDecoder,
    pub(crate) window: u32,
}

impl Hub {
    /// Makes the socket and accepts workers on it for as long as the runtime lives or the task is aborted.
    /// `max_frame` bounds what a worker may send.
    pub(crate) fn open(max_frame: u32) -> io::Result<(Self, impl Future<Output = ()> + use<>)> {
        let directory = RuntimeDir::create(&std::env::temp_dir())?;
        let listener = UnixListener::bind(directory.socket())?;
        let hub = Self { directory, token: secret()?, expected: Arc::default() };
        let greeter = Greeter {
            token: Arc::new(Token::new("workers of this machine", Some(hub.token.clone()), None)),
            expected: Arc::clone(&hub.expected),
            max_frame: usize::try_from(max_frame).unwrap_or(usize::MAX),
        };
        Ok((hub, greeter.accept(listener)))
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.socket()
    }

    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// The connection of the worker that will say hello by this name.
    pub(crate) fn expect(&self, name: String) -> oneshot::Receiver<Connection> {
        let (sender, receiver) = oneshot::channel();
        let mut expected = self.expected.lock();
        expected.retain(|_, sender| !sender.is_closed());
        expected.insert(name, sender);
        receiver
    }
}

/// 128 random bits from the operating system, in hexadecimal.
fn secret() -> io::Result<String> {
    use std::fmt::Write as _;
    use std::io::Read as _;
    let mut bytes = [0u8; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes every write");
        text
    }))
}

/// Receives workers at the door.
#[derive(Clone)]
struct Greeter {
    token: Arc<Token>,
    expected: Arc<Mutex<HashMap<String, oneshot::Sender<Connection>>>>,
    max_frame: usize,
}

impl Greeter {
    async fn accept(self, listener: UnixListener) {
        let strangers = Arc::new(Semaphore::new(STRANGERS));
        loop {
            let permit = Arc::clone(&strangers).acquire_owned().await;
            match listener.accept().await {
                Ok((stream, _)) => {
                    let greeter = self.clone();
                    tokio::spawn(async move {
                        let greeting = greeter.greet(stream);
                        if tokio::time::timeout(HELLO_TIMEOUT, greeting).await.is_err() {
                            tracing::warn!("a worker did not say hello in time");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a worker");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn greet(&self, stream: UnixStream) {
        let (mut reader, mut writer) = match split_unix(stream) {
            Ok(halves) => halves,
            Err(error) => return tracing::warn!(%error, "cannot hear a worker"),
        };
        match hello(&mut reader, &self.token).await {
            Ok(hello) => self.hand_over(hello, reader, writer).await,
            Err(refusal) => {
                tracing::warn!(reason = refusal.reason, "refused a worker");
                refuse(&mut writer, refusal.reason).await;
            }
        }
    }

    async fn hand_over(&self, hello: Hello, reader: Reader, mut writer: Writer) {
        let waiting = self.expected.lock().remove(&hello.name);
        let Some(waiting) = waiting else {
            return refuse(&mut writer, format!("no worker named {} is expected", hello.name))
                .await;
        };
        let decoder = FrameDecoder::new(self.max_frame);
        // A replica that no longer waits was told to stop; its worker sees the end of the connection.
        drop(waiting.send(Connection { reader, writer, decoder, window: hello.window }));
    }
}
