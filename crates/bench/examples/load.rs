//! Drives the load engine from the command line with as little as a benchmark needs:
//! `load URL STRATEGY SECONDS [THREADS]`, where STRATEGY is `concurrent=64`, `constant=10000` or `poisson=1000`.
//! Prints one line of JSON.

use std::io::Write as _;
use std::ops::ControlFlow;
use std::time::Duration;

use gatewright_bench::{Plan, Snapshot, Target, run};
use gatewright_workload::{Limits, Strategy};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, strategy, seconds, rest @ ..] = &arguments[..] else {
        return Err("usage: load URL STRATEGY SECONDS [THREADS]".into());
    };
    let (name, value) = strategy.split_once('=').ok_or("STRATEGY is name=value")?;
    let strategy = match name {
        "concurrent" => Strategy::Concurrent { streams: value.parse()? },
        "constant" => Strategy::Constant { rate: value.parse()? },
        "poisson" => Strategy::Poisson { rate: value.parse()? },
        _ => return Err("STRATEGY is concurrent, constant or poisson".into()),
    };
    let duration = Some(Duration::try_from_secs_f64(seconds.parse()?)?);
    let limits = Limits { duration, ..Limits::default() };
    let mut plan = Plan::new(Target::get(url), strategy, limits);
    plan.threads = rest.first().map(|threads| threads.parse()).transpose()?;
    let outcome = run(&plan, &mut |_: &Snapshot| ControlFlow::Continue(()), None)?;
    Ok(writeln!(std::io::stdout(), "{}", serde_json::to_string(&outcome.report())?)?)
}
