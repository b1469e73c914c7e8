//! What the flags of the load come to: demands, or a profile that chooses them.

use std::time::Duration;

use clap::ValueEnum;
use gatewright_bench::Demand;
use gatewright_workload::profile::{Goodput, Knee, Profile, Search, Slo, Sweep};
use gatewright_workload::{Gaps, RandomWalk, Replay, Spike, Strategy, Think, Turns};

use super::{GapLaw, Kind, Load};
use crate::failure::{Failure, Outcome};

/// What the flags come to.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) enum Offered {
    Demands(Vec<Demand>),
    Profile(Profile),
}

const DEFAULT_STREAMS: u32 = 8;
const DEFAULT_MAX_CONCURRENCY: u32 = 64;

impl Load {
    /// What is offered where nobody says anything.
    pub(in super::super) const fn default_demand() -> Demand {
        Demand::new(Strategy::Concurrent { streams: DEFAULT_STREAMS })
    }

    /// What the flags come to; none if there are none of them.
    pub(in super::super) fn offered(&self, slo: Option<Slo>) -> Outcome<Option<Offered>> {
        let given = self.given();
        let Some(kind) = self.kind(&given)? else { return Ok(None) };
        if let Some((flag, _)) = given.iter().find(|(_, kinds)| !kinds.contains(&kind)) {
            let what = format!("{flag} does not go with --strategy {}", name(kind));
            return Err(Failure::usage(what).hint(format!("leave {flag} out, or the strategy")));
        }
        let offered = match kind {
            Kind::Sweep | Kind::Knee | Kind::Goodput | Kind::Search => {
                Offered::Profile(self.profile(kind, slo)?)
            }
            Kind::Concurrent => Offered::Demands(
                or(&self.streams, DEFAULT_STREAMS)
                    .map(|streams| Demand::new(Strategy::Concurrent { streams }))
                    .collect(),
            ),
            Kind::Constant | Kind::Poisson | Kind::Gamma => {
                self.rate(kind)?;
                let strategies = self.rate.iter().map(|&rate| self.steady(kind, rate));
                Offered::Demands(
                    strategies.map(|one| one.map(Demand::new)).collect::<Outcome<_>>()?,
                )
            }
            _ => Offered::Demands(vec![Demand::new(self.single(kind)?)]),
        };
        Ok(Some(offered))
    }

    /// The flags that are given, each with the strategies that it is for.
    fn given(&self) -> Vec<(&'static str, &'static [Kind])> {
        use Kind::*;
        const VARY: &[Kind] = &[Ramp, Steps, Spike, Sine, RandomWalk, Sessions, Sweep, Search];
        const VARY_OR_GAMMA: &[Kind] =
            &[Ramp, Steps, Spike, Sine, RandomWalk, Sessions, Sweep, Search, Gamma];
        const RATE: &[Kind] =
            &[Constant, Poisson, Gamma, Ramp, Spike, Sine, RandomWalk, Sessions, Search];
        let shape = &self.shape;
        let flags: [(&'static str, bool, &'static [Kind]); 30] = [
            ("--rate", !self.rate.is_empty(), RATE),
            ("--streams", !self.streams.is_empty(), &[Concurrent, Knee, Goodput]),
            ("--max-concurrency", self.max_concurrency.is_some(), &[Throughput, Sweep]),
            ("--users", self.users.is_some(), &[Users]),
            ("--trace", self.trace.is_some(), &[Replay]),
            ("--gaps", shape.gaps.is_some(), VARY),
            ("--cv", shape.cv.is_some(), VARY_OR_GAMMA),
            ("--to-rate", shape.to_rate.is_some(), &[Ramp]),
            ("--over", shape.over.is_some(), &[Ramp]),
            ("--steps", !shape.steps.is_empty(), &[Steps]),
            ("--repeat", shape.repeat, &[Steps]),
            ("--peak", shape.peak.is_some(), &[Spike]),
            ("--at", shape.at.is_some(), &[Spike]),
            ("--lasting", shape.lasting.is_some(), &[Spike]),
            ("--every", shape.every.is_some(), &[Spike, RandomWalk]),
            ("--amplitude", shape.amplitude.is_some(), &[Sine]),
            ("--period", shape.period.is_some(), &[Sine]),
            ("--deviation", shape.deviation.is_some(), &[RandomWalk]),
            ("--min-rate", shape.min_rate.is_some(), &[RandomWalk]),
            ("--max-rate", shape.max_rate.is_some(), &[RandomWalk, Search]),
            ("--think", shape.think.is_some(), &[Users, Sessions]),
            ("--think-cv", shape.think_cv.is_some(), &[Users, Sessions]),
            ("--ramp-up", shape.ramp_up.is_some(), &[Users]),
            ("--turns", shape.turns.is_some(), &[Sessions]),
            ("--mean-turns", shape.mean_turns.is_some(), &[Sessions]),
            ("--trace-format", shape.trace_format.is_some(), &[Replay]),
            ("--trace-function", shape.trace_function.is_some(), &[Replay]),
            ("--time-scale", shape.time_scale.is_some(), &[Replay]),
            ("--timing", shape.timing.is_some(), &[Replay]),
            ("--size", shape.size.is_some(), &[Sweep, Knee, Goodput, Search]),
        ];
        let more: [(&'static str, bool, &'static [Kind]); 2] = [
            ("--max-streams", shape.max_streams.is_some(), &[Knee, Goodput]),
            ("--resolution", shape.resolution.is_some(), &[Goodput, Search]),
        ];
        let all = flags.into_iter().chain(more);
        all.filter(|(_, given, _)| *given).map(|(flag, _, kinds)| (flag, kinds)).collect()
    }

    fn kind(&self, given: &[(&'static str, &'static [Kind])]) -> Outcome<Option<Kind>> {
        if let Some(kind) = self.strategy {
            return Ok(Some(kind));
        }
        let flags: Vec<_> = given.iter().map(|(flag, _)| *flag).collect();
        let implied: Vec<_> = IMPLIES.iter().filter(|(flag, _)| flags.contains(flag)).collect();
        match &implied[..] {
            [] if given.is_empty() => Ok(None),
            [] => Err(Failure::usage(format!("{} needs a strategy", flags[0]))
                .hint("add --strategy; `gatewright bench --help` says what each is for")),
            [(_, kind)] => Ok(Some(*kind)),
            [(one, _), (other, _), ..] => {
                Err(Failure::usage(format!("{one} and {other} ask for different strategies"))
                    .hint("give one of them, or --strategy"))
            }
        }
    }

    fn steady(&self, kind: Kind, rate: f64) -> Outcome<Strategy> {
        Ok(match kind {
            Kind::Constant => Strategy::Constant { rate },
            Kind::Gamma => Strategy::Gamma { rate, cv: need(self.shape.cv, kind, "--cv", "2")? },
            _ => Strategy::Poisson { rate },
        })
    }

    fn single(&self, kind: Kind) -> Outcome<Strategy> {
        let shape = &self.shape;
        let gaps = self.gaps()?;
        Ok(match kind {
            Kind::Throughput => Strategy::Throughput {
                max_concurrency: self.max_concurrency.unwrap_or(DEFAULT_MAX_CONCURRENCY),
            },
            Kind::Ramp => Strategy::Ramp {
                from: self.rate.first().copied().unwrap_or(0.0),
                to: need(shape.to_rate, kind, "--to-rate", "100")?,
                over: need(shape.over, kind, "--over", "1m")?,
                gaps,
            },
            Kind::Steps => {
                if shape.steps.is_empty() {
                    need(None, kind, "--steps", "10:30s,50:10s")?;
                }
                Strategy::Steps { steps: shape.steps.clone(), repeat: shape.repeat, gaps }
            }
            Kind::Spike => Strategy::Spike(Spike {
                rate: self.rate(kind)?,
                peak: need(shape.peak, kind, "--peak", "100")?,
                at: need(shape.at, kind, "--at", "10s")?,
                lasting: need(shape.lasting, kind, "--lasting", "5s")?,
                every: shape.every,
                gaps,
            }),
            Kind::Sine => Strategy::Sine {
                rate: self.rate(kind)?,
                amplitude: need(shape.amplitude, kind, "--amplitude", "50")?,
                period: need(shape.period, kind, "--period", "1m")?,
                gaps,
            },
            Kind::RandomWalk => {
                let rate = self.rate(kind)?;
                Strategy::RandomWalk(RandomWalk {
                    rate,
                    deviation: need(shape.deviation, kind, "--deviation", "5")?,
                    every: shape.every.unwrap_or(Duration::from_secs(1)),
                    min: shape.min_rate.unwrap_or(rate / 2.0),
                    max: shape.max_rate.unwrap_or(rate * 2.0),
                    gaps,
                })
            }
            Kind::Users => Strategy::Users {
                users: need(self.users, kind, "--users", "50")?,
                think: self.think(),
                ramp_up: shape.ramp_up.unwrap_or_default(),
            },
            Kind::Sessions => Strategy::Sessions {
                rate: self.rate(kind)?,
                turns: match (shape.turns, shape.mean_turns) {
                    (_, Some(mean)) => Turns::Mean(mean),
                    (turns, None) => Turns::Fixed(need(turns, kind, "--turns", "5")?),
                },
                think: self.think(),
                gaps,
            },
            Kind::Replay => self.replay(kind)?,
            _ => Strategy::Synchronous,
        })
    }

    fn replay(&self, kind: Kind) -> Outcome<Strategy> {
        let shape = &self.shape;
        let mut replay = Replay::new(need(self.trace.clone(), kind, "--trace", "trace.csv")?);
        replay.format = shape.trace_format;
        replay.function.clone_from(&shape.trace_function);
        replay.time_scale = shape.time_scale.unwrap_or(replay.time_scale);
        replay.timing = shape.timing.unwrap_or(replay.timing);
        Ok(Strategy::Replay(replay))
    }

    fn profile(&self, kind: Kind, slo: Option<Slo>) -> Outcome<Profile> {
        let shape = &self.shape;
        let slo = || {
            slo.ok_or_else(|| {
                Failure::usage(format!("--strategy {} needs an objective", name(kind)))
                    .hint("add --slo-response 200ms, --slo-ttft 500ms, --slo-itl or --slo-tpot")
            })
        };
        Ok(match kind {
            Kind::Sweep => {
                let mut sweep = Sweep { gaps: self.gaps()?, ..Sweep::default() };
                sweep.size = shape.size.unwrap_or(sweep.size);
                sweep.max_concurrency = self.max_concurrency.unwrap_or(sweep.max_concurrency);
                Profile::Sweep(sweep)
            }
            Kind::Knee => {
                let mut knee = Knee { streams: self.streams.clone(), ..Knee::default() };
                knee.count = shape.size.unwrap_or(knee.count);
                knee.max_streams = shape.max_streams.unwrap_or(knee.max_streams);
                Profile::Knee(knee)
            }
            Kind::Goodput => {
                let mut goodput = Goodput::new(slo()?);
                let first = self.streams.first().copied();
                goodput.initial_streams = first.unwrap_or(goodput.initial_streams);
                goodput.max_probes = shape.size.unwrap_or(goodput.max_probes);
                goodput.max_streams = shape.max_streams.unwrap_or(goodput.max_streams);
                goodput.tolerance = shape.resolution.unwrap_or(goodput.tolerance);
                Profile::Goodput(goodput)
            }
            _ => {
                let mut search = Search { gaps: self.gaps()?, ..Search::new(slo()?) };
                search.start_rate = self.rate.first().copied();
                search.max_rate = shape.max_rate.unwrap_or(search.max_rate);
                search.max_steps = shape.size.unwrap_or(search.max_steps);
                search.resolution = shape.resolution.unwrap_or(search.resolution);
                Profile::Search(search)
            }
        })
    }

    fn gaps(&self) -> Outcome<Gaps> {
        let gamma = |cv: Option<f64>| {
            cv.map(|cv| Gaps::Gamma { cv }).ok_or_else(|| {
                Failure::usage("--gaps gamma needs a variation").hint("add --cv, such as --cv 2")
            })
        };
        match (self.shape.gaps, self.shape.cv) {
            (Some(GapLaw::Gamma), cv) => gamma(cv),
            (None, Some(cv)) => gamma(Some(cv)),
            (Some(_), Some(_)) => {
                Err(Failure::usage("--cv is for gamma distributed gaps").hint("leave --gaps out"))
            }
            (Some(GapLaw::Constant), None) => Ok(Gaps::Constant),
            (Some(GapLaw::Poisson) | None, None) => Ok(Gaps::Poisson),
        }
    }

    fn think(&self) -> Think {
        Think {
            mean: self.shape.think.unwrap_or_default(),
            cv: self.shape.think_cv.unwrap_or_default(),
        }
    }

    /// The rate of a strategy that has one.
    fn rate(&self, kind: Kind) -> Outcome<f64> {
        if self.rate.len() > 1 && ![Kind::Constant, Kind::Poisson, Kind::Gamma].contains(&kind) {
            let what = format!("--strategy {} has one rate", name(kind));
            return Err(Failure::usage(what).hint("give --rate once"));
        }
        self.rate.first().copied().ok_or_else(|| {
            Failure::usage(format!("--strategy {} needs a rate", name(kind)))
                .hint("add --rate and the requests per second, such as --rate 100")
        })
    }
}

/// Flags that say the strategy by themselves.
const IMPLIES: [(&str, Kind); 6] = [
    ("--rate", Kind::Constant),
    ("--streams", Kind::Concurrent),
    ("--max-concurrency", Kind::Throughput),
    ("--users", Kind::Users),
    ("--trace", Kind::Replay),
    ("--steps", Kind::Steps),
];

fn or(given: &[u32], default: u32) -> impl Iterator<Item = u32> {
    let default = given.is_empty().then_some(default);
    given.iter().copied().chain(default)
}

fn need<T>(value: Option<T>, kind: Kind, flag: &str, example: &str) -> Outcome<T> {
    value.ok_or_else(|| {
        Failure::usage(format!("--strategy {} needs {flag}", name(kind)))
            .hint(format!("add it, such as {flag} {example}"))
    })
}

fn name(kind: Kind) -> String {
    kind.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        load: Load,
    }

    fn offered(line: &str) -> Outcome<Option<Offered>> {
        let words = std::iter::once("x").chain(line.split_whitespace());
        let slo = Slo::of_response(Duration::from_millis(200), 0.99);
        Flags::try_parse_from(words).unwrap().load.offered(Some(slo))
    }

    fn strategies(line: &str) -> Vec<Strategy> {
        match offered(line).unwrap().unwrap() {
            Offered::Demands(demands) => demands.into_iter().map(|demand| demand.arrival).collect(),
            Offered::Profile(profile) => panic!("{profile:?}"),
        }
    }

    /// Every strategy is what the configuration would say.
    #[test]
    fn flags_say_what_a_file_says() {
        let cases = [
            ("--strategy synchronous", "arrival = \"synchronous\""),
            ("--streams 3", "arrival = { concurrent = { streams = 3 } }"),
            ("--strategy concurrent", "arrival = { concurrent = { streams = 8 } }"),
            ("--max-concurrency 9", "arrival = { throughput = { max_concurrency = 9 } }"),
            ("--rate 5", "arrival = { constant = { rate = 5.0 } }"),
            ("--strategy poisson --rate 5", "arrival = { poisson = { rate = 5.0 } }"),
            ("--strategy gamma --rate 5 --cv 2", "arrival = { gamma = { rate = 5.0, cv = 2.0 } }"),
            (
                "--strategy ramp --rate 1 --to-rate 9 --over 30s --gaps constant",
                "arrival = { ramp = { from = 1.0, to = 9.0, over = \"30s\", gaps = \"constant\" } }",
            ),
            (
                "--steps 10:30s,50:500ms --repeat",
                "arrival = { steps = { steps = [{ rate = 10.0, duration = \"30s\" }, { rate = 50.0, duration = \"500ms\" }], repeat = true } }",
            ),
            (
                "--strategy spike --rate 1 --peak 20 --at 1s --lasting 2s --every 9s --cv 3",
                "arrival = { spike = { rate = 1.0, peak = 20.0, at = \"1s\", lasting = \"2s\", every = \"9s\", gaps = { gamma = { cv = 3.0 } } } }",
            ),
            (
                "--strategy sine --rate 10 --amplitude 5 --period 1m",
                "arrival = { sine = { rate = 10.0, amplitude = 5.0, period = \"1m\" } }",
            ),
            (
                "--strategy random_walk --rate 10 --deviation 2",
                "arrival = { random_walk = { rate = 10.0, deviation = 2.0, every = \"1s\", min = 5.0, max = 20.0 } }",
            ),
            (
                "--users 7 --think 2s --think-cv 1 --ramp-up 3s",
                "arrival = { users = { users = 7, think = { mean = \"2s\", cv = 1.0 }, ramp_up = \"3s\" } }",
            ),
            (
                "--strategy sessions --rate 2 --mean-turns 4 --think 1s",
                "arrival = { sessions = { rate = 2.0, turns = { mean = 4.0 }, think = { mean = \"1s\" } } }",
            ),
            (
                "--trace t.csv --trace-format azure_functions_2021 --time-scale 0.5 --timing idle_gaps --trace-function f",
                "arrival = { replay = { trace = \"t.csv\", format = \"azure_functions_2021\", time_scale = 0.5, timing = \"idle_gaps\", function = \"f\" } }",
            ),
        ];
        for (line, text) in cases {
            let demand: Demand = toml::from_str(text).unwrap();
            assert_eq!(strategies(line), [demand.arrival], "{line}");
        }
    }

    #[test]
    fn several_rates_are_several_demands() {
        let strategies = strategies("--strategy poisson --rate 1,2,4");
        assert_eq!(strategies.len(), 3);
        assert_eq!(strategies[2], Strategy::Poisson { rate: 4.0 });
    }

    #[test]
    fn profiles_take_the_objective() {
        let profile = |line| match offered(line).unwrap().unwrap() {
            Offered::Profile(profile) => profile,
            Offered::Demands(demands) => panic!("{demands:?}"),
        };
        let Profile::Search(search) =
            profile("--profile search --rate 10 --max-rate 500 --size 9 --resolution 0.1")
        else {
            panic!("no search")
        };
        assert_eq!((search.start_rate, search.max_rate, search.max_steps), (Some(10.0), 500.0, 9));
        assert_eq!(search.slo.response, Some(Duration::from_millis(200)));
        assert_eq!(profile("--strategy sweep --size 7").name(), "sweep");
        assert_eq!(profile("--strategy knee --max-streams 32").name(), "knee");
        assert_eq!(profile("--strategy goodput --streams 2").name(), "goodput");
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        assert_eq!(offered("").unwrap(), None);
        for (line, start) in [
            ("--rate 5 --streams 3", "--rate and --streams ask for"),
            ("--strategy poisson", "--strategy poisson needs a rate"),
            ("--strategy synchronous --streams 3", "--streams does not go with"),
            ("--strategy sine --rate 3", "--strategy sine needs --amplitude"),
            (
                "--strategy ramp --rate 1,2 --to-rate 3 --over 3s --cv 1 --gaps poisson",
                "--cv is for",
            ),
            ("--strategy gamma --rate 3", "--strategy gamma needs --cv"),
            ("--think 3s", "--think needs a strategy"),
            (
                "--strategy sine --rate 1,2 --amplitude 1 --period 3s",
                "--strategy sine has one rate",
            ),
        ] {
            let what = offered(line).unwrap_err().what;
            assert!(what.starts_with(start), "{line}: {what}");
        }
    }
}
