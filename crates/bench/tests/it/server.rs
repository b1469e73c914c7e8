//! A small HTTP server whose every answer is up to the test: a thread a connection, no more HTTP than needed.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

pub(crate) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stopped: AtomicBool,
    requests: AtomicU64,
    connections: Mutex<Vec<TcpStream>>,
    listener: Mutex<Option<JoinHandle<()>>>,
}

pub(crate) struct Request {
    /// How many requests the server has had before this one.
    pub(crate) number: u64,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

pub(crate) enum Answer {
    /// Send this and go on.
    Bytes(Vec<u8>),
    /// Send this and close.
    Last(Vec<u8>),
    /// Send these, each after its pause, and go on.
    Slow(Vec<(Duration, Vec<u8>)>),
}

pub(crate) const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

impl Answer {
    pub(crate) fn ok() -> Self {
        Self::Bytes(OK.into())
    }
}

impl Server {
    pub(crate) fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_on("127.0.0.1:0", answer).unwrap()
    }

    pub(crate) fn start_on(
        address: &str,
        answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let (for_listener, answer) = (Arc::clone(&shared), Arc::new(answer));
        let listener = thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                if for_listener.stopped.load(Ordering::SeqCst) {
                    break;
                }
                for_listener.connections.lock().unwrap().push(stream.try_clone().unwrap());
                let (shared, answer) = (Arc::clone(&for_listener), Arc::clone(&answer));
                // An engine that goes away in the middle is no matter of the server.
                thread::spawn(move || drop(converse(stream, &shared, &*answer)));
            }
        });
        *shared.listener.lock().unwrap() = Some(listener);
        Ok(Self { address, shared })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Requests that came so far.
    pub(crate) fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Connections that came so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.lock().unwrap().len()
    }

    /// What dies takes its listener and its connections with it.
    pub(crate) fn die(&self) -> impl Fn() + Send + Sync + 'static {
        let (shared, address) = (Arc::clone(&self.shared), self.address);
        move || shared.stop(address)
    }
}

impl Shared {
    fn stop(&self, address: SocketAddr) {
        if !self.stopped.swap(true, Ordering::SeqCst) {
            // Wakes the listener, which then is gone for good.
            drop(TcpStream::connect(address));
            if let Some(listener) = self.listener.lock().unwrap().take() {
                listener.join().unwrap();
            }
            for connection in self.connections.lock().unwrap().iter() {
                drop(connection.shutdown(Shutdown::Both));
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop(self.address);
    }
}

fn converse(
    stream: TcpStream,
    shared: &Shared,
    answer: &dyn Fn(&Request) -> Answer,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        reader.read_exact(&mut body)?;
        let number = shared.requests.fetch_add(1, Ordering::SeqCst);
        match answer(&Request { number, head, body }) {
            Answer::Bytes(bytes) => writer.write_all(&bytes)?,
            Answer::Slow(pieces) => {
                for (pause, bytes) in pieces {
                    thread::sleep(pause);
                    writer.write_all(&bytes)?;
                }
            }
            Answer::Last(bytes) => {
                writer.write_all(&bytes)?;
                return writer.shutdown(Shutdown::Both);
            }
        }
    }
}
