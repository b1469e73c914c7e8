//! Loads a language model behind OpenAI's API and prints what came of it as JSON:
//! `cargo run --release --example openai -- URL chat|completions STREAM RATE SECONDS MAX_TOKENS`.

use std::ops::ControlFlow;
use std::time::Duration;

use gatewright_bench::{OpenAi, OpenAiApi, Plan, Snapshot, Target, run};
use gatewright_workload::{Limits, Strategy};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, api, stream, rate, seconds, max_tokens] = &arguments[..] else {
        return Err("usage: openai URL chat|completions true|false RATE SECONDS MAX_TOKENS".into());
    };
    let model = OpenAi {
        api: if api == "chat" { OpenAiApi::Chat } else { OpenAiApi::Completions },
        stream: stream.parse()?,
        max_tokens: Some(max_tokens.parse()?),
        exact_tokens: true,
        ..OpenAi::chat(url, "Tell me about rivers.")
    };
    let duration = Some(Duration::from_secs_f64(seconds.parse()?));
    let limits = Limits { duration, ..Limits::default() };
    // A rate of 0 is a closed loop of 64 streams.
    let strategy = match rate.parse()? {
        0.0 => Strategy::Concurrent { streams: 64 },
        rate => Strategy::Constant { rate },
    };
    let plan = Plan::new(Target::default(), strategy, limits);
    let plan = Plan { mix: model.targets(None)?, ..plan };
    let outcome = run(&plan, &mut |_: &Snapshot| ControlFlow::Continue(()), None)?;
    let text = serde_json::to_string_pretty(&outcome.report())?;
    Ok(std::io::Write::write_all(&mut std::io::stdout().lock(), text.as_bytes())?)
}
