use std::sync::Arc;

use gatewright_determinism::Stream;

/// A rate that changes in time, as a sequence of pieces one after the other.
#[derive(Clone, Debug)]
pub(crate) enum Intensity {
    /// Pieces, once or again and again.
    Listed { pieces: Arc<[Piece]>, next: usize, repeat: bool },
    /// A rate that takes a random step every so often.
    Walk(Walk),
}

/// A part of an [`Intensity`] with a formula for its integral.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Piece {
    /// How long it is, in nanoseconds; [`FOREVER`] for the last one.
    pub(crate) nanos: u64,
    pub(crate) shape: Shape,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Shape {
    /// From one rate to another in a straight line, in requests per second.
    Line { from: f64, to: f64 },
    /// One period of mean + amplitude sin(2 pi t / period).
    Wave { mean: f64, amplitude: f64 },
}

pub(crate) const FOREVER: u64 = u64::MAX;

/// A random walk between two reflecting barriers; its rates are then uniformly distributed in the long run.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    pub(crate) rate: f64,
    pub(crate) deviation: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) nanos: u64,
    pub(crate) steps: Stream,
}

impl Piece {
    pub(crate) const fn flat(nanos: u64, rate: f64) -> Self {
        Self { nanos, shape: Shape::Line { from: rate, to: rate } }
    }

    pub(crate) const fn line(nanos: u64, from: f64, to: f64) -> Self {
        Self { nanos, shape: Shape::Line { from, to } }
    }

    fn seconds(&self) -> f64 {
        self.nanos as f64 / 1e9
    }

    /// Mean number of requests in it; infinite if it goes on for ever.
    pub(crate) fn requests(&self) -> f64 {
        let mean = match self.shape {
            Shape::Line { from, to } => 0.5 * (from + to),
            Shape::Wave { mean, .. } => mean,
        };
        match self.nanos {
            FOREVER if mean > 0.0 => f64::INFINITY,
            FOREVER => 0.0,
            _ => mean * self.seconds(),
        }
    }

    /// Nanoseconds from its start to the moment by which `requests` (in 0..=[`Piece::requests`]) have come: the
    /// inverse of the integrated rate.
    pub(crate) fn nanos_until(&self, requests: f64) -> u64 {
        let seconds = match self.shape {
            Shape::Line { from, to } if from == to || self.nanos == FOREVER => requests / from,
            Shape::Line { from, to } => {
                // The root of from t + slope t^2 / 2 = requests, without cancellation.
                let slope = (to - from) / self.seconds();
                let root = (from * from + 2.0 * slope * requests).max(0.0).sqrt();
                if requests <= 0.0 { 0.0 } else { 2.0 * requests / (from + root) }
            }
            Shape::Wave { mean, amplitude } => self.until_in_wave(mean, amplitude, requests),
        };
        // `as` saturates; rounding half up is enough for a number that is never negative.
        ((seconds * 1e9 + 0.5) as u64).min(self.nanos)
    }

    /// By Newton's method, kept inside a bracket that shrinks: where the rate is near zero, by bisection.
    fn until_in_wave(&self, mean: f64, amplitude: f64, requests: f64) -> f64 {
        let period = self.seconds();
        let omega = std::f64::consts::TAU / period;
        let (mut low, mut high) = (0.0, period);
        let mut t = requests / mean;
        for _ in 0..100 {
            let integral = mean * t + amplitude / omega * (1.0 - libm::cos(omega * t));
            let excess = integral - requests;
            if excess > 0.0 {
                high = t
            } else {
                low = t
            }
            let rate = mean + amplitude * libm::sin(omega * t);
            let newton = t - excess / rate;
            let next = if newton > low && newton < high { newton } else { 0.5 * (low + high) };
            if (next - t).abs() < 1e-10 {
                return next;
            }
            t = next;
        }
        t
    }
}

impl Intensity {
    pub(crate) fn once(pieces: Vec<Piece>) -> Self {
        Self::Listed { pieces: pieces.into(), next: 0, repeat: false }
    }

    pub(crate) fn repeated(pieces: Vec<Piece>) -> Self {
        // Nothing would ever come of nothing.
        let repeat = pieces.iter().any(|piece| piece.requests() > 0.0);
        Self::Listed { pieces: pieces.into(), next: 0, repeat }
    }

    pub(crate) fn next_piece(&mut self) -> Option<Piece> {
        match self {
            Self::Listed { pieces, next, repeat } => {
                if *repeat && *next == pieces.len() {
                    *next = 0;
                }
                let piece = pieces.get(*next).copied();
                *next += usize::from(piece.is_some());
                piece
            }
            Self::Walk(walk) => {
                let piece = Piece::flat(walk.nanos, walk.rate);
                walk.step();
                Some(piece)
            }
        }
    }

    /// Of pieces that repeat, when the next one is the first: requests and nanoseconds of all together.
    pub(crate) fn cycle(&self) -> Option<(f64, u64)> {
        let Self::Listed { pieces, next, repeat: true } = self else { return None };
        (*next == pieces.len()).then(|| {
            let requests = pieces.iter().map(Piece::requests).sum();
            let nanos = pieces.iter().fold(0u64, |sum, piece| sum.saturating_add(piece.nanos));
            (requests, nanos)
        })
    }
}

impl Walk {
    fn step(&mut self) {
        let mut rate = self.rate + self.deviation * self.steps.normal();
        let width = self.max - self.min;
        if width <= 0.0 {
            return;
        }
        // Reflected at both ends: a triangle wave of the unbounded walk.
        rate = libm::fmod(rate - self.min, 2.0 * width).abs();
        self.rate = self.min + if rate > width { 2.0 * width - rate } else { rate };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn integral(piece: &Piece, nanos: u64) -> f64 {
        let t = nanos as f64 / 1e9;
        match piece.shape {
            Shape::Line { from, to } => from * t + 0.5 * (to - from) / piece.seconds() * t * t,
            Shape::Wave { mean, amplitude } => {
                let omega = std::f64::consts::TAU / piece.seconds();
                mean * t + amplitude / omega * (1.0 - (omega * t).cos())
            }
        }
    }

    proptest! {
        #[test]
        fn the_inverse_is_the_inverse(
            seconds in 1..1_000u64, a in 0.0..1_000.0f64, b in 0.0..1_000.0f64, part in 0.0..1.0f64, wave: bool,
        ) {
            let shape = if wave {
                Shape::Wave { mean: a.max(b) + 1e-3, amplitude: a.min(b) }
            } else {
                Shape::Line { from: a, to: b }
            };
            let piece = Piece { nanos: seconds * SECOND, shape };
            let requests = part * piece.requests();
            let nanos = piece.nanos_until(requests);
            prop_assert!(nanos <= piece.nanos);
            // Half a nanosecond of rounding at 1000/s, and the root's own error.
            let error = (integral(&piece, nanos) - requests).abs();
            prop_assert!(error < 1e-5 * (1.0 + requests / 1e4), "{error} at {requests} of {piece:?}");
        }
    }
}
