//! The flags that say how requests are offered.

mod offered;

use std::time::Duration;

use clap::{Args, ValueEnum};
use gatewright_workload::trace::TraceFormat;
use gatewright_workload::{Step, Timing};

pub(super) use self::offered::Offered;
use super::values::{parse_named, parse_span, parse_step};

/// How requests are offered.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Load")]
pub(super) struct Load {
    /// How requests are offered; --help says which ways there are.
    ///
    /// Without it, and without a flag below that implies one, 8 streams ask one request after the other.
    #[arg(long, alias = "profile", value_enum, value_name = "NAME", hide_possible_values = true)]
    #[arg(long_help = strategies())]
    strategy: Option<Kind>,

    /// Requests per second, whatever the answers do: 100, or 10,20,50.
    ///
    /// Alone, it means --strategy constant.
    #[arg(long, value_name = "PER_SECOND", value_delimiter = ',')]
    rate: Vec<f64>,

    /// Streams that each ask again when they were answered: 8, or 1,8,64.
    ///
    /// Alone, it means --strategy concurrent.
    #[arg(long, value_name = "N", value_delimiter = ',')]
    streams: Vec<u32>,

    /// As much as the server can do, with so many requests in flight at most.
    ///
    /// Alone, it means --strategy throughput.
    #[arg(long, value_name = "N")]
    max_concurrency: Option<u32>,

    /// Users who think (--think) between an answer and the next request.
    ///
    /// Alone, it means --strategy users.
    #[arg(long, value_name = "N")]
    users: Option<u32>,

    /// Trace to be replayed.
    ///
    /// Its format is told from its first line: Azure LLM 2023, Azure Functions 2019 and 2021, Mooncake, OpenDC. Alone,
    /// it means --strategy replay.
    #[arg(long, value_name = "FILE")]
    trace: Option<String>,

    #[command(flatten)]
    shape: Shape,
}

/// What the strategies need besides.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Shape of the load")]
struct Shape {
    /// How the gaps between requests vary, in an open loop whose rate changes: constant, poisson (the default), or
    /// gamma with --cv.
    #[arg(long, value_name = "LAW", hide_short_help = true)]
    gaps: Option<GapLaw>,

    /// Coefficient of variation of gamma distributed gaps: 1 is poisson, more is burstier. What others call
    /// burstiness is 1/cv^2.
    #[arg(long, value_name = "X", hide_short_help = true)]
    cv: Option<f64>,

    /// Rate at the end of a ramp, which begins at --rate.
    #[arg(long, value_name = "PER_SECOND", hide_short_help = true)]
    to_rate: Option<f64>,

    /// How long a ramp takes.
    #[arg(long, value_name = "DURATION", value_parser = parse_span, hide_short_help = true)]
    over: Option<Duration>,

    /// Rates of --strategy steps with how long each lasts, such as 10:30s,50:10s.
    #[arg(long, value_name = "RATE:DURATION", value_delimiter = ',', value_parser = parse_step)]
    #[arg(hide_short_help = true)]
    steps: Vec<Step>,

    /// The steps come again and again.
    #[arg(long, hide_short_help = true)]
    repeat: bool,

    /// Rate in a spike, before and after which it is --rate.
    #[arg(long, value_name = "PER_SECOND", hide_short_help = true)]
    peak: Option<f64>,

    /// When a spike begins.
    #[arg(long, value_name = "DURATION", value_parser = parse_span, hide_short_help = true)]
    at: Option<Duration>,

    /// How long a spike lasts.
    #[arg(long, value_name = "DURATION", value_parser = parse_span, hide_short_help = true)]
    lasting: Option<Duration>,

    /// A spike comes again after this time; a random walk takes a step.
    #[arg(long, value_name = "DURATION", value_parser = parse_span, hide_short_help = true)]
    every: Option<Duration>,

    /// How far a sine swings to both sides of --rate.
    #[arg(long, value_name = "PER_SECOND", hide_short_help = true)]
    amplitude: Option<f64>,

    /// Time from one peak of a sine to the next.
    #[arg(long, value_name = "DURATION", value_parser = parse_span, hide_short_help = true)]
    period: Option<Duration>,

    /// Standard deviation of a step of a random walk, which begins at --rate.
    #[arg(long, value_name = "PER_SECOND", hide_short_help = true)]
    deviation: Option<f64>,

    /// A random walk turns back here.
    #[arg(long, value_name = "PER_SECOND", hide_short_help = true)]
    min_rate: Option<f64>,

    /// A random walk turns back here; --strategy search tries no more.
    #[arg(long, value_name = "PER_SECOND", hide_short_help = true)]
    max_rate: Option<f64>,

    /// Mean time that users and sessions think between an answer and the next request.
    #[arg(long, value_name = "DURATION", value_parser = parse_span, hide_short_help = true)]
    think: Option<Duration>,

    /// Coefficient of variation of the thinking: 0 is always the mean, 1 exponential.
    #[arg(long, value_name = "X", hide_short_help = true)]
    think_cv: Option<f64>,

    /// Time over which users come.
    #[arg(long, value_name = "DURATION", value_parser = parse_span, hide_short_help = true)]
    ramp_up: Option<Duration>,

    /// Requests of every session; sessions begin at --rate.
    #[arg(long, value_name = "N", hide_short_help = true)]
    turns: Option<u32>,

    /// Mean number of requests of a session, geometrically distributed.
    #[arg(long, value_name = "X", conflicts_with = "turns", hide_short_help = true)]
    mean_turns: Option<f64>,

    /// Format of the trace; told from its first line if not given.
    #[arg(long, value_name = "FORMAT", value_parser = parse_named::<TraceFormat>)]
    #[arg(hide_short_help = true)]
    trace_format: Option<TraceFormat>,

    /// Only requests for this function of the trace.
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    trace_function: Option<String>,

    /// Factor of all times of the trace: 0.5 is twice as fast.
    #[arg(long, value_name = "X", hide_short_help = true)]
    time_scale: Option<f64>,

    /// What is kept of the trace's time: timestamps (the moments) or idle_gaps (the pauses between an answer and
    /// the next request).
    #[arg(long, value_name = "WHAT", value_parser = parse_named::<Timing>)]
    #[arg(hide_short_help = true)]
    timing: Option<Timing>,

    /// Steps of --strategy sweep and knee; most steps of search and goodput.
    #[arg(long, value_name = "N", hide_short_help = true)]
    size: Option<u32>,

    /// Most streams of --strategy goodput and knee.
    #[arg(long, value_name = "N", hide_short_help = true)]
    max_streams: Option<u32>,

    /// How near --strategy search and goodput come to the limit, as a part of it.
    #[arg(long, value_name = "PART", hide_short_help = true)]
    resolution: Option<f64>,
}

/// The strategies, and the profiles that choose them step by step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
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
    /// At a mean rate, in bursts (--cv)
    Gamma,
    /// From one rate to another (--rate, --to-rate, --over)
    Ramp,
    /// One rate after the other (--steps)
    Steps,
    /// A low rate with a high one in between (--rate, --peak, --at, --lasting)
    Spike,
    /// A rate that swings (--rate, --amplitude, --period)
    Sine,
    /// A rate that wanders (--rate, --deviation, --every, --min-rate, --max-rate)
    RandomWalk,
    /// Users who stay and think (--users, --think)
    Users,
    /// Users who come, ask some times and go (--rate, --turns, --think)
    Sessions,
    /// The requests of a trace once more (--trace)
    Replay,
    /// One stream, then as much as the server can do, then rates where the curve bends
    Sweep,
    /// Streams from few to many, and where more of them bring no more
    Knee,
    /// The most streams with which the server meets the objective (--slo-...)
    Goodput,
    /// The highest rate at which the server meets the objective (--slo-...)
    Search,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum GapLaw {
    Constant,
    Poisson,
    Gamma,
}

/// The long help of --strategy: clap would list the names without their meaning where values are hidden.
fn strategies() -> String {
    let mut text = "How requests are offered. Without it, and without a flag below that implies one, 8 streams ask \
                    one request after the other. --profile is the same flag.\n\nPossible values:"
        .to_owned();
    for kind in Kind::value_variants() {
        let Some(value) = kind.to_possible_value() else { continue };
        let about = value.get_help().map(ToString::to_string).unwrap_or_default();
        text.push_str(&format!("\n- {:12} {about}", format!("{}:", value.get_name())));
    }
    text
}
