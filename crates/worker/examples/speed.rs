//! How fast a hub and one worker are, without HTTP: calls a second, and the middle of their times.
//!
//! ```text
//! speed --window 1 --callers 1 --seconds 2 -- python3 -m gatewright.worker mod:Noop --hub {hub} --function hub
//! speed --window 16 --callers 64 --seconds 2
//! ```
//!
//! The command behind `--` is the worker, with the hub's address in place of `{hub}`; without one, a Rust worker in
//! this process. Prints one JSON object.

use std::io::Write as _;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gatewright_serve::{EmbeddedHub, HubOptions};
use gatewright_worker::{Arguments, Request, Worker, service_fn};
use tokio::process::Command;

/// What to measure.
struct Plan {
    window: u32,
    callers: u32,
    seconds: f64,
    command: Vec<String>,
}

impl Plan {
    fn read(
        mut arguments: impl Iterator<Item = String>,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let mut plan = Self { window: 1, callers: 1, seconds: 2.0, command: Vec::new() };
        while let Some(name) = arguments.next() {
            if name == "--" {
                plan.command = arguments.by_ref().collect();
                break;
            }
            let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
            match &*name {
                "--window" => plan.window = value.parse()?,
                "--callers" => plan.callers = value.parse()?,
                "--seconds" => plan.seconds = value.parse()?,
                _ => return Err(format!("there is no {name}").into()),
            }
        }
        Ok(plan)
    }
}

/// Calls one after another until `end`; how long each took.
async fn call(hub: Arc<EmbeddedHub>, end: Instant) -> Vec<Duration> {
    let Arguments { args, kwargs } = Arguments::json(b"1").expect("it is JSON");
    let mut times = Vec::with_capacity(1 << 20);
    let mut before = Instant::now();
    while before < end {
        let answer = hub.request(args.clone(), kwargs.clone(), None, Some(0)).await;
        answer.expect("the worker answers");
        let after = Instant::now();
        times.push(after - before);
        before = after;
    }
    times
}

async fn measure(hub: &Arc<EmbeddedHub>, callers: u32, length: Duration) -> Vec<Duration> {
    let end = Instant::now() + length;
    let calls: Vec<_> = (0..callers).map(|_| tokio::spawn(call(Arc::clone(hub), end))).collect();
    let mut times = Vec::new();
    for call in calls {
        times.extend(call.await.expect("no caller panics"));
    }
    times.sort_unstable();
    times
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let plan = Plan::read(std::env::args().skip(1))?;
    let options = HubOptions {
        listen: "127.0.0.1:0".to_owned(),
        concurrency: plan.window,
        ..HubOptions::default()
    };
    let hub = Arc::new(EmbeddedHub::start(options).await?);
    let address = hub.address().to_string();
    let _child = match plan.command.split_first() {
        Some((program, arguments)) => {
            let arguments = arguments.iter().map(|text| text.replace("{hub}", &address));
            let mut command = Command::new(program);
            command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
            Some(command.spawn()?)
        }
        None => {
            let one = service_fn(async |_request: Request| Ok(1));
            let worker = Worker::new(address).token("").concurrency(plan.window);
            tokio::spawn(worker.run(one));
            None
        }
    };
    // Until the worker is there and warm.
    measure(&hub, plan.callers, Duration::from_millis(500)).await;
    let length = Duration::from_secs_f64(plan.seconds);
    let begun = Instant::now();
    let times = measure(&hub, plan.callers, length).await;
    let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
    let micros = |part: usize| times[times.len() * part / 100].as_secs_f64() * 1e6;
    writeln!(
        std::io::stdout(),
        "{{\"rate\": {rate:.0}, \"p50\": {:.1}, \"p99\": {:.1}}}",
        micros(50),
        micros(99)
    )?;
    Ok(())
}
