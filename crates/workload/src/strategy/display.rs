use std::fmt;

use super::{RandomWalk, Spike, Strategy, shapes};

/// A rate to five digits, as a profile that computes rates has them to seventeen.
fn short(rate: f64) -> f64 {
    let text = format!("{rate:.4e}");
    text.parse().unwrap_or(rate)
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Synchronous => write!(f, "synchronous"),
            Self::Concurrent { streams } => write!(f, "concurrent, {streams} streams"),
            Self::Throughput { max_concurrency } => {
                write!(f, "throughput, at most {max_concurrency} in flight")
            }
            Self::Constant { rate } => write!(f, "constant, {}/s", short(*rate)),
            Self::Poisson { rate } => write!(f, "poisson, {}/s", short(*rate)),
            Self::Gamma { rate, cv } => write!(f, "gamma, {}/s, cv {cv}", short(*rate)),
            Self::Ramp { from, to, over, .. } => {
                write!(f, "ramp, {from}/s to {to}/s over {over:?}")
            }
            Self::Steps { steps, repeat, .. } => {
                let again = if *repeat { ", again and again" } else { "" };
                write!(
                    f,
                    "steps, {} rates, mean {:.6}/s{again}",
                    steps.len(),
                    shapes::mean_of_steps(steps)
                )
            }
            Self::Spike(Spike { rate, peak, at, lasting, .. }) => {
                write!(f, "spike, {rate}/s, from {at:?} for {lasting:?} {peak}/s")
            }
            Self::Sine { rate, amplitude, period, .. } => {
                write!(f, "sine, {rate}/s +- {amplitude}/s every {period:?}")
            }
            Self::RandomWalk(RandomWalk { min, max, every, .. }) => {
                write!(f, "random walk, {min}/s to {max}/s, a step every {every:?}")
            }
            Self::Users { users, think, .. } => {
                write!(f, "{users} users who think for {:?}", think.mean)
            }
            Self::Sessions { rate, turns, think, .. } => {
                write!(f, "sessions, {rate}/s of {} turns", turns.mean())?;
                if think.mean.is_zero() { Ok(()) } else { write!(f, ", {:?} apart", think.mean) }
            }
            Self::Replay(replay) => write!(f, "replay of {}", replay.trace),
        }
    }
}
