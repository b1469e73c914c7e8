//! Runs of simulations on all cores, their results in order.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use gatewright_sim::{Progress, RecordSink, Simulation, SimulationReport};

use crate::failure::{Failure, Outcome, reason};
use crate::progress::{Meter, left};
use crate::render::count;

/// What is heard of work that several threads do.
#[derive(Debug)]
pub(crate) enum News<T> {
    /// What the next piece gave: the first piece is heard of first, whichever ends first.
    Next(T),
    /// How much of the whole is done, 0 to 1; now and then.
    Done(f64),
}

/// How far the pieces are.
struct Board {
    next: AtomicUsize,
    ended: AtomicUsize,
    /// How far each thread is with its piece, 0 to 1, as bits.
    under_way: Vec<AtomicU64>,
    /// Nobody waits for further pieces.
    left: AtomicBool,
}

const TICK: Duration = Duration::from_millis(200);

/// One run of `simulation`, its records to `sink`.
pub(crate) fn once<'a>(
    simulation: &'a Simulation,
    seed: u64,
    sink: Option<&'a mut dyn RecordSink>,
    quiet: bool,
) -> Outcome<SimulationReport> {
    let mut meter = Meter::new("simulate", quiet);
    let start = Instant::now();
    let mut progress = |at: Progress| {
        let text = format!("{} requests, {} events", count(at.ended), count(at.events));
        meter.update(at.fraction, left(start.elapsed(), at.fraction), &text);
    };
    simulation.run(seed, sink, &mut progress).map_err(Failure::failed)
}

/// One run for each of the seeds `seed`, `seed + 1`, ...; their reports in that order.
pub(crate) fn all(
    simulation: Simulation,
    seed: u64,
    replications: u32,
    quiet: bool,
) -> Outcome<Vec<SimulationReport>> {
    let run = move |number: usize, progress: &mut dyn FnMut(f64)| {
        let own_seed = seed.wrapping_add(number as u64);
        simulation.run(own_seed, None, &mut |at| progress(at.fraction))
    };
    let mut meter = Meter::new("simulate", quiet);
    let start = Instant::now();
    let mut reports = Vec::new();
    in_order(replications as usize, cores(), run, &mut |news| {
        match news {
            News::Next(report) => reports.push(report.map_err(Failure::failed)?),
            News::Done(fraction) => {
                let text = format!("{} of {replications} replications", reports.len());
                meter.update(fraction, left(start.elapsed(), fraction), &text);
            }
        }
        Ok(())
    })?;
    Ok(reports)
}

/// How many threads this process may keep busy.
pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Does `pieces` pieces of work on so many threads; `piece` is given its number, and tells how far it is.
///
/// # Errors
/// That of `hear`. The work is then left where it is: pieces under way end unheard, or with the process.
pub(crate) fn in_order<T: Send + 'static>(
    pieces: usize,
    threads: usize,
    piece: impl Fn(usize, &mut dyn FnMut(f64)) -> T + Send + Sync + 'static,
    hear: &mut dyn FnMut(News<T>) -> Outcome<()>,
) -> Outcome<()> {
    let threads = threads.min(pieces);
    let board = Arc::new(Board::new(threads));
    let piece = Arc::new(piece);
    let (sender, ended) = channel();
    for thread in 0..threads {
        let (board, piece, sender) = (Arc::clone(&board), Arc::clone(&piece), sender.clone());
        let work = move || {
            while let Some(number) = board.take(pieces) {
                let result = piece(number, &mut |fraction| board.at(thread, fraction));
                board.end(thread);
                if sender.send((number, result)).is_err() {
                    break;
                }
            }
        };
        let started = thread::Builder::new().name(format!("run {thread}")).spawn(work);
        started.map_err(|fault| {
            Failure::failed(format!("cannot start a thread: {}", reason(&fault)))
        })?;
    }
    drop(sender);
    let mut early = BTreeMap::new();
    let mut heard = 0;
    let mut listen = || {
        while heard < pieces {
            match ended.recv_timeout(TICK) {
                Ok((number, result)) => drop(early.insert(number, result)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::failed("a run broke off; please report this"));
                }
            }
            while let Some(result) = early.remove(&heard) {
                heard += 1;
                hear(News::Next(result))?;
            }
            if heard < pieces {
                hear(News::Done(board.done(pieces)))?;
            }
        }
        Ok(())
    };
    let outcome = listen();
    board.left.store(true, Ordering::Relaxed);
    outcome
}

impl Board {
    fn new(threads: usize) -> Self {
        let under_way = (0..threads).map(|_| AtomicU64::default()).collect();
        let (next, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { next, ended, under_way, left: AtomicBool::new(false) }
    }

    /// The number of a piece that nobody has begun.
    fn take(&self, pieces: usize) -> Option<usize> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number < pieces && !self.left.load(Ordering::Relaxed)).then_some(number)
    }

    fn at(&self, thread: usize, fraction: f64) {
        self.under_way[thread].store(fraction.clamp(0.0, 1.0).to_bits(), Ordering::Relaxed);
    }

    fn end(&self, thread: usize) {
        self.at(thread, 0.0);
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    fn done(&self, pieces: usize) -> f64 {
        let under_way = self.under_way.iter().map(|at| f64::from_bits(at.load(Ordering::Relaxed)));
        let ended = self.ended.load(Ordering::Relaxed) as f64;
        ((ended + under_way.sum::<f64>()) / pieces as f64).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::Sender;

    use super::*;

    fn heard(pieces: usize, threads: usize, piece: fn(usize) -> usize) -> Vec<usize> {
        let mut all = Vec::new();
        let work = move |number: usize, _: &mut dyn FnMut(f64)| piece(number);
        in_order(pieces, threads, work, &mut |news| {
            if let News::Next(result) = news {
                all.push(result);
            }
            Ok(())
        })
        .unwrap();
        all
    }

    #[test]
    fn results_come_in_order_however_many_threads_there_are() {
        let slow_first = |number: usize| {
            // The even ones are overtaken.
            number.is_multiple_of(2).then(|| thread::sleep(Duration::from_millis(3)));
            number * 10
        };
        let alone = heard(40, 1, slow_first);
        assert!(alone.iter().copied().eq((0..40).map(|number| number * 10)), "{alone:?}");
        assert_eq!(heard(40, 2, slow_first), alone);
        assert_eq!(heard(40, 7, slow_first), alone);
        assert!(heard(0, 4, slow_first).is_empty());
    }

    /// Each of two pieces ends only if the other is under way.
    #[test]
    fn pieces_are_done_side_by_side() {
        let (to_first, first) = channel();
        let (to_second, second) = channel();
        let ends: [Mutex<(Sender<()>, _)>; 2] =
            [Mutex::new((to_second, first)), Mutex::new((to_first, second))];
        let meet = move |number: usize, _: &mut dyn FnMut(f64)| {
            let end = ends[number].lock().unwrap();
            end.0.send(()).unwrap();
            end.1.recv_timeout(Duration::from_secs(20)).is_ok()
        };
        let mut met = Vec::new();
        in_order(2, 2, meet, &mut |news| {
            if let News::Next(other_was_there) = news {
                met.push(other_was_there);
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(met, [true, true]);
    }

    #[test]
    fn the_whole_is_as_far_as_its_pieces() {
        let board = Board::new(2);
        assert_eq!((board.take(4), board.take(4), board.done(4)), (Some(0), Some(1), 0.0));
        board.at(0, 0.5);
        board.at(1, 1.0);
        assert_eq!(board.done(4), 0.375);
        board.end(1);
        assert_eq!(board.done(4), 0.375);
        board.left.store(true, Ordering::Relaxed);
        assert_eq!(board.take(4), None, "nobody waits for it");
    }

    #[test]
    fn a_piece_that_breaks_off_is_no_endless_wait() {
        let work = |number: usize, _: &mut dyn FnMut(f64)| assert_ne!(number, 1, "on purpose");
        let fault = in_order(3, 2, work, &mut |_| Ok(())).unwrap_err();
        assert!(fault.what.contains("a run broke off"), "{}", fault.what);
    }
}
