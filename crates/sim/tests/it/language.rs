//! Language models: replicas that work requests off in steps, against cases worked out by hand.

use std::sync::Arc;

use gatewright_determinism::Time;
use gatewright_record::{Invocation, Status};
use gatewright_workload::trace::{Arrival, Recorded, TraceFormat, TraceOptions, TraceReader};
use gatewright_workload::{Replay, Strategy};

use crate::rig::{assert_mean, of_texts, records, run};

/// A step takes 10 ms, 1 ms more for a token of a prompt, 2 ms for a request that gets a token.
const STEP: &str = "step = { base = 0.010, per_prompt_token = 0.001, per_request = 0.002 }";

fn chat(function: &str, llm: &str, demand: &str) -> gatewright_sim::Simulation {
    of_texts(
        &format!("[function.chat]\nhttp = \"http://127.0.0.1:1\"\nconcurrency = 8\n{function}"),
        &format!("[function.chat]\nservice = {{ fixed = 0 }}\n[function.chat.llm]\n{llm}\n{STEP}"),
        &format!("[[demand]]\nfunction = \"chat\"\n{demand}"),
    )
}

fn ms(record: &Invocation, at: Option<Time>) -> f64 {
    at.unwrap().nanos_since(record.received.unwrap()) as f64 / 1e6
}

/// Prompts of 20 tokens, answers of 3, one request every 25 ms. The first has its prompt worked through by 30 ms; the
/// second, which came at 25, is in the next step: its 20 tokens beside the first one's second. And so on.
#[test]
fn requests_share_the_steps() {
    let llm = "prompt = { fixed = 20 }\noutput = { fixed = 3 }";
    let simulation = chat("", llm, "arrival = { constant = { rate = 40 } }\nrequests = 2");
    let records = records(&simulation, 1);
    let times: Vec<_> =
        records.iter().map(|r| (ms(r, r.first_byte), ms(r, r.finished), r.id)).collect();
    // Steps end at 30, then 10 + 20 + 2 = 62, then 10 + 2 + 2 = 76, then 10 + 2 = 88.
    assert_eq!(times, [(30.0, 76.0, 0), (62.0 - 25.0, 88.0 - 25.0, 1)]);
    assert_eq!((records[0].tokens_in, records[0].tokens_out), (Some(20), Some(3)));
    let (report, _) = run(&simulation, 1);
    let tokens = report.demands[0].tokens.as_ref().unwrap();
    assert_eq!((tokens.total_in, tokens.total_out), (40, 6));
    assert_eq!(tokens.ttft.max(), Some(37_000_000));
    assert_eq!(tokens.itl.max(), Some(23_000_000));
}

/// What comes before a request joins is its `service`; what does not fit is an error, and what is given up makes room.
#[test]
fn what_never_fits_and_what_is_given_up() {
    let llm = "prompt = { fixed = 20 }\noutput = { fixed = 3 }\nkv_blocks = 1";
    let simulation = chat("", llm, "arrival = \"synchronous\"\nrequests = 3");
    assert!(records(&simulation, 1).iter().all(|record| record.status == Status::Error));
    let llm = "prompt = { fixed = 20 }\noutput = { fixed = 1000 }\nbatch = 1";
    let simulation =
        chat("timeout = \"1s\"", llm, "arrival = { constant = { rate = 0.5 } }\nrequests = 3");
    let records = records(&simulation, 1);
    assert!(records.iter().all(|record| record.status == Status::Timeout));
    // None waits for the one before it, which would take 12 s more.
    assert!(records.iter().all(|record| ms(record, record.first_byte) == 30.0));
}

/// A trace tells the tokens of each of its requests.
#[test]
fn traces_tell_tokens() {
    let trace = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
                 2023-11-16 18:00:00.0000000,5,1\n2023-11-16 18:00:01.0000000,7,2\n";
    let format = Some(TraceFormat::AzureLlm);
    let options = TraceOptions { format, seed: 0 };
    let recorded =
        Recorded::read(TraceReader::new(trace.as_bytes(), options).unwrap(), &Default::default());
    let recorded = recorded.unwrap();
    assert_eq!(recorded.arrivals().len(), 2);
    let told = |arrival: &Arrival| (arrival.tokens_in, arrival.tokens_out);
    assert_eq!(recorded.arrivals().iter().map(told).collect::<Vec<_>>(), [(5, 1), (7, 2)]);
    let strategy = Strategy::Replay(Replay::new("t.csv").with(Arc::new(recorded)));
    let mut scenario = gatewright_sim::Scenario::parse(
        "[[demand]]\nfunction = \"chat\"\narrival = { constant = { rate = 1 } }\nrequests = 9",
    )
    .unwrap();
    scenario.demand[0].arrival = strategy;
    let system = gatewright_control::config::SystemFile::parse(
        "[function.chat]\nhttp = \"http://127.0.0.1:1\"",
        &[],
    );
    let model = format!(
        "[function.chat]\nservice = {{ fixed = 0 }}\n[function.chat.llm]\nprompt = {{ fixed = 99 }}\noutput = {{ fixed = 99 }}\n{STEP}"
    );
    let model = gatewright_sim::Model::parse(&model).unwrap();
    let simulation = gatewright_sim::Simulation::new(&system.unwrap(), &model, &scenario).unwrap();
    let records = records(&simulation, 1);
    let spans: Vec<f64> = records.iter().map(|record| ms(record, record.finished)).collect();
    assert_eq!(spans, [10.0 + 5.0, 10.0 + 7.0 + 12.0]);
}

/// With one request at a time and one token each, a step is a service of 10 ms + 1 ms a token of the prompt: M/G/1.
#[test]
fn alone_it_is_a_queue() {
    let llm = "prompt = { uniform = { min = 0.5, max = 20.5 } }\noutput = { fixed = 1 }\nbatch = 1";
    let simulation = chat(
        "timeout = \"1day\"\nqueue = { capacity = 100000 }",
        &llm.replace("batch = 1", "batch = 1\ntoken_budget = 100000"),
        "arrival = { poisson = { rate = 30 } }\nrequests = 400000",
    );
    let (_, times) = run(&simulation, 1);
    // 1 to 20 tokens, all as often: mean 10.5, variance (20^2 - 1) / 12.
    let (mean, variance) = (0.0205, (400.0 - 1.0) / 12.0 * 1e-6);
    let wait = 30.0 * (variance + mean * mean) / (2.0 * (1.0 - 30.0 * mean));
    assert_mean("response", &times.responses, mean + wait);
}

#[test]
fn beginnings_in_common_are_cheaper() {
    let demand = "arrival = \"synchronous\"\nrequests = 200";
    let llm = "prompt = { fixed = 64 }\noutput = { fixed = 1 }";
    let mean = |llm: &str| {
        let (report, _) = run(&chat("", llm, demand), 1);
        report.summary().response_time.mean().unwrap() / 1e6
    };
    assert_eq!(mean(llm), 74.0);
    let shared = mean(&format!("{llm}\nprefix = {{ count = 2, tokens = 32 }}"));
    // All but the first of each of the two kinds save 32 tokens.
    assert!((shared - (42.0 + 32.0 * 2.0 / 200.0)).abs() < 1e-6, "{shared}");
}
