//! The flags that say how requests are offered, for `bench` and `predict` alike.

use clap::{Args, ValueEnum};
use gatewright_workload::Strategy;

use crate::failure::{Failure, Outcome};

/// How requests are offered.
#[derive(Debug, Args)]
#[command(next_help_heading = "Load")]
pub(crate) struct Offer {
    /// How requests are offered; concurrent with 8 streams unless one of the flags below says otherwise.
    #[arg(long, value_enum)]
    strategy: Option<Kind>,

    /// Requests per second; alone, it means --strategy constant.
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<f64>,

    /// Streams that each ask again when they were answered; alone, it means --strategy concurrent.
    #[arg(long, value_name = "N")]
    streams: Option<u32>,

    /// Requests in flight at most; alone, it means --strategy throughput.
    #[arg(long, value_name = "N")]
    max_concurrency: Option<u32>,
}

/// The strategies by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// One request after the other
    Synchronous,
    /// A fixed number of streams, each with one request at a time
    Concurrent,
    /// As much as the server can do, up to a number in flight
    Throughput,
    /// At a fixed rate, evenly spaced
    Constant,
    /// At a mean rate, at random moments, as independent users ask
    Poisson,
}

const DEFAULT_STREAMS: u32 = 8;
const DEFAULT_MAX_CONCURRENCY: u32 = 64;

impl Offer {
    /// What the flags come to.
    pub(crate) fn strategy(&self) -> Outcome<Strategy> {
        let kind = self.kind()?;
        let given = [
            ("--rate", self.rate.is_some(), [Kind::Constant, Kind::Poisson].contains(&kind)),
            ("--streams", self.streams.is_some(), kind == Kind::Concurrent),
            ("--max-concurrency", self.max_concurrency.is_some(), kind == Kind::Throughput),
        ];
        if let Some((flag, ..)) = given.iter().find(|(_, given, fits)| *given && !fits) {
            let what = format!("{flag} does not go with --strategy {}", name(kind));
            return Err(Failure::usage(what).hint(format!("leave {flag} out, or the strategy")));
        }
        let strategy = match kind {
            Kind::Synchronous => Strategy::Synchronous,
            Kind::Concurrent => {
                Strategy::Concurrent { streams: self.streams.unwrap_or(DEFAULT_STREAMS) }
            }
            Kind::Throughput => Strategy::Throughput {
                max_concurrency: self.max_concurrency.unwrap_or(DEFAULT_MAX_CONCURRENCY),
            },
            Kind::Constant => Strategy::Constant { rate: self.needed_rate(kind)? },
            Kind::Poisson => Strategy::Poisson { rate: self.needed_rate(kind)? },
        };
        strategy.check().map_err(Failure::usage)?;
        Ok(strategy)
    }

    fn kind(&self) -> Outcome<Kind> {
        if let Some(kind) = self.strategy {
            return Ok(kind);
        }
        let implied = [
            self.rate.map(|_| Kind::Constant),
            self.streams.map(|_| Kind::Concurrent),
            self.max_concurrency.map(|_| Kind::Throughput),
        ];
        let mut implied = implied.into_iter().flatten();
        match (implied.next(), implied.next()) {
            (kind, None) => Ok(kind.unwrap_or(Kind::Concurrent)),
            (_, Some(_)) => Err(Failure::usage(
                "--rate, --streams and --max-concurrency ask for different strategies",
            )
            .hint("give one of them")),
        }
    }

    fn needed_rate(&self, kind: Kind) -> Outcome<f64> {
        self.rate.ok_or_else(|| {
            Failure::usage(format!("--strategy {} needs a rate", name(kind)))
                .hint("add --rate and the requests per second, such as --rate 100")
        })
    }
}

fn name(kind: Kind) -> String {
    kind.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer() -> Offer {
        Offer { strategy: None, rate: None, streams: None, max_concurrency: None }
    }

    #[test]
    fn one_flag_is_enough() {
        let is = |offer: Offer, strategy| assert_eq!(offer.strategy().unwrap(), strategy);
        is(offer(), Strategy::Concurrent { streams: 8 });
        is(Offer { rate: Some(5.0), ..offer() }, Strategy::Constant { rate: 5.0 });
        is(Offer { streams: Some(3), ..offer() }, Strategy::Concurrent { streams: 3 });
        is(
            Offer { max_concurrency: Some(9), ..offer() },
            Strategy::Throughput { max_concurrency: 9 },
        );
        let poisson = Offer { strategy: Some(Kind::Poisson), rate: Some(5.0), ..offer() };
        is(poisson, Strategy::Poisson { rate: 5.0 });
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let refused = |offer: Offer, start: &str| {
            let what = offer.strategy().unwrap_err().what;
            assert!(what.starts_with(start), "{what}");
        };
        refused(Offer { rate: Some(5.0), streams: Some(3), ..offer() }, "--rate, --streams");
        refused(Offer { strategy: Some(Kind::Poisson), ..offer() }, "--strategy poisson needs");
        let both = Offer { strategy: Some(Kind::Synchronous), streams: Some(3), ..offer() };
        refused(both, "--streams does not go with --strategy synchronous");
        refused(Offer { rate: Some(0.0), ..offer() }, "constant: rate 0 is not usable");
    }
}
