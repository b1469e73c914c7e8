use std::io;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::socket::Reader;

/// A worker that was heard again within this time is listened for without sleeping the next time.
const SOON: Duration = Duration::from_micros(100);
/// For so long.
const AWAKE: Duration = Duration::from_micros(50);
/// Who gives way and gets its turn back only after this time is not alone on its processor.
const CROWDED: Duration = Duration::from_micros(8);
/// So many times it then goes to sleep at once.
const ASLEEP: u32 = 100;

/// Listens to a worker.
///
/// To be woken costs a thread on an idle processor tens of microseconds, which is many times what a short call takes.
/// So while a worker answers quickly, the runtime stays awake for a moment and looks again and again at what has come.
/// It gives way to whatever else can run, and if there is anything, it sleeps: then no processor is idle.
#[derive(Debug, Default)]
pub(crate) struct Ear {
    /// How long was waited the last time.
    waited: Option<Duration>,
    /// How many times to go to sleep at once.
    asleep: u32,
}

impl Ear {
    /// Appends what comes next; 0 at the end of the connection.
    pub(crate) async fn read(
        &mut self,
        reader: &mut Reader,
        buffer: &mut BytesMut,
    ) -> io::Result<usize> {
        let begun = Instant::now();
        if self.asleep > 0 {
            self.asleep -= 1;
        } else if self.waited.is_some_and(|last| last < SOON) {
            let read = self.look(reader, buffer, begun).await;
            if !read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                self.waited = Some(begun.elapsed());
                return read;
            }
        }
        let read = reader.read(buffer).await;
        self.waited = Some(begun.elapsed());
        read
    }

    /// Appends what comes soon; an error of kind `WouldBlock` if nothing does.
    async fn look(
        &mut self,
        reader: &Reader,
        buffer: &mut BytesMut,
        begun: Instant,
    ) -> io::Result<usize> {
        let mut looked = begun;
        loop {
            let read = reader.try_read(buffer);
            if !read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                return read;
            }
            std::thread::yield_now();
            tokio::task::yield_now().await;
            let now = Instant::now();
            if now - looked > CROWDED {
                self.asleep = ASLEEP;
            }
            if self.asleep > 0 || now - begun > AWAKE {
                return read;
            }
            looked = now;
        }
    }
}
