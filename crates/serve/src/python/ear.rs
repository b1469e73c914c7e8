use std::io;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::socket::Reader;

/// How long a worker is listened for without sleeping.
const AWAKE: Duration = Duration::from_micros(100);
/// Whoever gives way and gets its turn back only after this time is not alone on its processor.
const CROWDED: Duration = Duration::from_micros(20);
/// Each time that staying awake was in vain, twice as many waits follow that sleep at once, and at most so many.
const ASLEEP: u32 = 128;
/// Processors from which on there is one to spare for that, beside workers of the same machine.
const PLENTY: usize = 4;

/// Listens to a worker.
///
/// To be woken costs a thread on an idle processor tens of microseconds, which is many times what a short call takes.
/// So while a worker answers quickly, the runtime stays awake for a moment and looks again and again at what has come.
/// It gives way to whatever else can run, and if there is anything, it sleeps: then no processor is idle. Whether
/// staying awake is worth it is tried now and then.
#[derive(Debug)]
pub(crate) struct Ear {
    /// Whether it is ever awake.
    tries: bool,
    /// How many times to sleep at once.
    asleep: u32,
    /// How many times it will be after the next failure.
    rest: u32,
}

impl Ear {
    /// An ear for the worker behind `reader`.
    pub(crate) fn new(reader: &Reader) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self { tries: !reader.is_local() || processors >= PLENTY, asleep: 0, rest: 1 }
    }

    /// Appends what comes next; 0 at the end of the connection.
    pub(crate) async fn read(
        &mut self,
        reader: &mut Reader,
        buffer: &mut BytesMut,
    ) -> io::Result<usize> {
        if self.asleep > 0 {
            self.asleep -= 1;
        } else if self.tries {
            match look(reader, buffer).await {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.asleep = self.rest;
                    self.rest = (2 * self.rest).min(ASLEEP);
                }
                read => {
                    self.rest = 1;
                    return read;
                }
            }
        }
        reader.read(buffer).await
    }
}

/// Appends what comes soon; an error of kind `WouldBlock` if nothing does.
async fn look(reader: &Reader, buffer: &mut BytesMut) -> io::Result<usize> {
    let begun = Instant::now();
    loop {
        match reader.try_read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let gives = Instant::now();
                std::thread::yield_now();
                if gives - begun > AWAKE || gives.elapsed() > CROWDED {
                    return Err(error);
                }
                // What else there is to do here is done first.
                tokio::task::yield_now().await;
            }
            read => return read,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::python::socket::split_tcp;

    #[tokio::test]
    async fn what_comes_soon_what_comes_late_and_the_end_are_heard() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut worker = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut reader, _writer) = split_tcp(listener.accept().await.unwrap().0);
        let mut ear = Ear::new(&reader);
        let mut heard = BytesMut::new();
        for expected in [2, 4, 8] {
            // Nothing comes while it is awake: it sleeps, and then sleeps at once for longer each time.
            let speaking = async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                worker.write_all(b"late").await.unwrap();
            };
            let (read, ()) = tokio::join!(ear.read(&mut reader, &mut heard), speaking);
            assert_eq!((read.unwrap(), ear.rest), (4, expected));
            while ear.asleep > 0 {
                worker.write_all(b"asleep").await.unwrap();
                assert_eq!(ear.read(&mut reader, &mut heard).await.unwrap(), 6);
            }
        }
        worker.write_all(b"soon").await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(ear.read(&mut reader, &mut heard).await.unwrap(), 4);
        assert_eq!((ear.rest, ear.asleep), (1, 0), "that was worth it");
        drop(worker);
        assert_eq!(ear.read(&mut reader, &mut heard).await.unwrap(), 0);
    }
}
