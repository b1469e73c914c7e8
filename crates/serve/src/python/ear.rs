use std::io;
use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::BytesMut;

use super::socket::Reader;
use super::wakeful::{Wakeful, Watch};

/// How long a worker is listened for without sleeping.
const AWAKE: Duration = Duration::from_micros(100);
/// Processors from which on there is one to spare for that, beside workers of the same machine.
const PLENTY: usize = 4;

/// Listens to a worker, awake while it answers quickly.
#[derive(Debug)]
pub(crate) struct Ear {
    /// Unless it always sleeps.
    wakeful: Option<Wakeful>,
}

impl Ear {
    /// An ear for the worker behind `reader`.
    pub(crate) fn new(reader: &Reader) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let awake = !reader.is_local() || processors >= PLENTY;
        Self { wakeful: awake.then(Wakeful::new) }
    }

    /// Appends what comes next; 0 at the end of the connection.
    pub(crate) async fn read(
        &mut self,
        reader: &mut Reader,
        buffer: &mut BytesMut,
    ) -> io::Result<usize> {
        if let Some(wakeful) = &mut self.wakeful
            && let Some(watch) = wakeful.watch(AWAKE)
        {
            let read = look(&watch, reader, buffer).await;
            let nothing = matches!(&read, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
            wakeful.learn(nothing);
            if !nothing {
                return read;
            }
        }
        reader.read(buffer).await
    }
}

/// Appends what comes soon; an error of kind `WouldBlock` if nothing does.
async fn look(watch: &Watch, reader: &Reader, buffer: &mut BytesMut) -> io::Result<usize> {
    loop {
        match reader.try_read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !watch.goes_on() {
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
        let (mut reader, _writer) = split_tcp(listener.accept().await.unwrap().0).unwrap();
        let mut ear = Ear::new(&reader);
        let mut heard = BytesMut::new();
        for _ in 0..3 {
            // Nothing comes while it is awake: it sleeps, and then sleeps at once for longer each time.
            let speaking = async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                worker.write_all(b"late").await.unwrap();
            };
            let (read, ()) = tokio::join!(ear.read(&mut reader, &mut heard), speaking);
            assert_eq!(read.unwrap(), 4);
            assert!(ear.wakeful.as_ref().unwrap().is_asleep());
            while ear.wakeful.as_ref().unwrap().is_asleep() {
                worker.write_all(b"asleep").await.unwrap();
                assert_eq!(ear.read(&mut reader, &mut heard).await.unwrap(), 6);
            }
        }
        worker.write_all(b"soon").await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(ear.read(&mut reader, &mut heard).await.unwrap(), 4);
        assert!(!ear.wakeful.as_ref().unwrap().is_asleep(), "that was worth it");
        drop(worker);
        assert_eq!(ear.read(&mut reader, &mut heard).await.unwrap(), 0);
    }
}
