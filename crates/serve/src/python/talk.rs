//! What a worker says, and what follows from it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use gatewright_control::{Event, Outcome};
use gatewright_protocol::{Frame, FrameDecoder};
use tokio::sync::mpsc;

use super::ear::Ear;
use super::link::Link;
use super::replica::{Flight, PythonReplica};
use super::socket::Reader;
use crate::call::Answer;
use crate::driver::Driver;

/// Pieces of an answer that wait for their client.
const PIECES: usize = 16;

/// The hearing end of a connection, and how far it was heard.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) reader: Reader,
    pub(crate) decoder: FrameDecoder,
    /// What has stopped whoever heard it last.
    pub(super) stopped: Option<Stop>,
}

/// What a worker cannot be heard over without more ado.
#[derive(Debug)]
pub(super) enum Stop {
    /// A piece of an answer, for which there may have to be room first.
    Piece { id: u64, text: bool, data: bytes::Bytes },
    /// Its connection has ended, in this way.
    Ended(io::Result<usize>),
    /// It said that it goes.
    Bye { reason: String },
    /// It broke the protocol.
    Broke(String),
}

impl Line {
    pub(crate) fn new(reader: Reader, decoder: FrameDecoder) -> Self {
        Self { reader, decoder, stopped: None }
    }
}

impl PythonReplica {
    /// Hears the worker until its connection ends.
    pub(super) async fn talk(
        self: &Arc<Self>,
        driver: &Arc<Driver>,
        link: &Link,
        mut line: Line,
        name: &str,
    ) {
        let mut ear = Ear::new(&line.reader);
        loop {
            let heard = line.stopped.take();
            let stop = heard.or_else(|| self.take_in(driver, link, &mut line.decoder));
            let over = match stop {
                Some(Stop::Piece { id, text, data }) => match self.pass_on(id, text, data).await {
                    Ok(()) => continue,
                    Err(broke) => Some(broke),
                },
                over => over,
            };
            if let Some(over) = over {
                return self.note_end(over, line.reader.is_local(), name);
            }
            if let Some(attendance) = driver.attendance.as_ref().filter(|one| one.is_wanted()) {
                line = attendance.lend(self, driver, line).await;
                continue;
            }
            match ear.read(&mut line.reader, line.decoder.buffer()).await {
                Ok(1..) => self.heard.store(true, Ordering::Relaxed),
                end => line.stopped = Some(Stop::Ended(end)),
            }
        }
    }

    fn note_end(&self, stop: Stop, local: bool, name: &str) {
        match stop {
            Stop::Broke(problem) => {
                tracing::error!(worker = name, problem, "a worker broke the protocol");
            }
            Stop::Bye { reason } => tracing::debug!(worker = name, reason, "bye"),
            Stop::Ended(Err(error)) => {
                // On a network, a reset may come from anybody on the way.
                let reset = error.kind() == io::ErrorKind::ConnectionReset && local;
                self.reset.store(reset, Ordering::Relaxed);
            }
            Stop::Ended(Ok(_)) | Stop::Piece { .. } => {}
        }
    }

    /// Hears what has come, as far as nobody has to be waited for. What follows from all of it goes out together.
    pub(super) fn take_in(
        &self,
        driver: &Arc<Driver>,
        link: &Link,
        decoder: &mut FrameDecoder,
    ) -> Option<Stop> {
        let _corked = link.cork();
        loop {
            let stop = match decoder.next_frame() {
                Ok(None) => return None,
                Ok(Some(frame)) => self.hear(driver, link, frame),
                Err(error) => Err(Stop::Broke(error.to_string())),
            };
            if let Err(stop) = stop {
                return Some(stop);
            }
        }
    }

    fn hear(&self, driver: &Arc<Driver>, link: &Link, frame: Frame) -> Result<(), Stop> {
        match frame {
            Frame::Response { id, value } => {
                let flight = self.landed(id)?;
                if flight.pieces.is_none() {
                    flight.call.answer(Answer::Value(value));
                }
                driver.finished(flight.key, Outcome::Ok);
            }
            Frame::Error(error) => {
                let flight = self.landed(error.id)?;
                // An answer that has begun cannot be tried again.
                let again = error.retryable && flight.pieces.is_none();
                flight.call.answer(Answer::Failed(error));
                let outcome = if again { Outcome::NotStarted } else { Outcome::Error };
                driver.finished(flight.key, outcome);
            }
            Frame::Chunk { id, text, data } => return Err(Stop::Piece { id, text, data }),
            Frame::Ping { nonce } => link.pong(nonce),
            // It is going, and is told to when it has answered everything.
            Frame::Drain => driver.handle(Event::ReplicaLeaving { replica: self.key }),
            // That it came is what counts.
            Frame::Pong { .. } => {}
            Frame::Bye { reason } => return Err(Stop::Bye { reason }),
            _ => return Err(Stop::Broke("it sent a frame that is not for a gateway".to_owned())),
        }
        Ok(())
    }

    /// The flight that has ended.
    pub(super) fn landed(&self, id: u64) -> Result<Flight, Stop> {
        let mut flights = self.flights.lock();
        let place = flights.iter().position(|flight| flight.id == id);
        place.map(|place| flights.swap_remove(place)).ok_or_else(Stop::unasked)
    }

    /// Gives a piece to who waits for the answer, when there is room.
    async fn pass_on(&self, id: u64, text: bool, data: bytes::Bytes) -> Result<(), Stop> {
        let sender = self.sender(id, text)?;
        // A client that reads slowly slows its worker down; one that is gone does not.
        self.held_up.store(true, Ordering::Relaxed);
        drop(sender.send(data).await);
        self.held_up.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Where the pieces of an answer go.
    fn sender(&self, id: u64, text: bool) -> Result<mpsc::Sender<bytes::Bytes>, Stop> {
        let mut flights = self.flights.lock();
        let flight = flights.iter_mut().find(|flight| flight.id == id);
        let flight = flight.ok_or_else(Stop::unasked)?;
        if let Some(sender) = &flight.pieces {
            return Ok(sender.clone());
        }
        let (sender, pieces) = mpsc::channel(PIECES);
        flight.pieces = Some(sender.clone());
        flight.call.answer(Answer::Pieces { text, pieces });
        Ok(sender)
    }
}

impl Stop {
    fn unasked() -> Self {
        Self::Broke("it answered what it was not asked".to_owned())
    }
}
