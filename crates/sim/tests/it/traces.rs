//! Recorded demand, replayed.

use std::io::{self, BufRead};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gatewright_control::config::SystemFile;
use gatewright_record::Invocation;
use gatewright_sim::{Model, Scenario, Simulation, SimulationError};
use gatewright_workload::trace::TraceSource;

use crate::rig::records;

const FUNCTIONS: &str = "app,func,end_timestamp,duration\n\
    a,f,1.5,0.5\na,g,2.5,0.25\na,f,5,1\na,f,4,0.125\na,g,7,0\n";
const TOKENS: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
    2023-11-16 18:00:00.0000000,5,1\n2023-11-16 18:00:01.0000000,7,2\n";

fn source(text: &'static str) -> Arc<dyn TraceSource> {
    Arc::new(move || -> io::Result<Box<dyn BufRead + Send>> { Ok(Box::new(text.as_bytes())) })
}

/// The scenario of one demand for function `f`, its traces read from `trace`.
fn scenario(arrival: &str, trace: &Arc<dyn TraceSource>) -> Result<Scenario, String> {
    let text = format!("[[demand]]\nfunction = \"f\"\narrival = {{ replay = {arrival}\n");
    let mut scenario = Scenario::parse(&text).unwrap();
    let read = scenario.read_traces(&|_| Arc::clone(trace));
    read.map(|()| scenario).map_err(|fault| fault.to_string())
}

fn simulation(model: &str, scenario: &Scenario) -> Simulation {
    let system = "[function.f]\nhttp = \"http://127.0.0.1:1\"\ntimeout = \"1h\"";
    let model = format!("[function.f]\nservice = {{ fixed = 0.01 }}\n{model}");
    let (system, model) = (SystemFile::parse(system, &[]).unwrap(), Model::parse(&model).unwrap());
    Simulation::new(&system, &model, scenario).unwrap()
}

fn seconds(records: &[Invocation]) -> Vec<[f64; 2]> {
    let since = |at: Option<gatewright_determinism::Time>| at.unwrap().as_secs_f64();
    let of = |record: &Invocation| [since(record.sent), since(record.finished)];
    let mut seconds: Vec<_> = records.iter().map(of).collect();
    seconds.sort_by(|one, other| one[0].total_cmp(&other[0]));
    seconds
}

#[test]
fn requests_come_when_they_came_and_take_as_long() {
    let played = |arrival: &str| {
        let scenario = scenario(arrival, &source(FUNCTIONS)).unwrap();
        seconds(&records(&simulation("", &scenario), 1))
    };
    let all = played("{ trace = \"t\" } }");
    assert_eq!(all.iter().map(|[sent, _]| *sent).collect::<Vec<_>>(), [1.0, 2.25, 3.875, 4.0, 7.0]);
    assert!(all.iter().all(|[sent, finished]| (finished - sent - 0.01).abs() < 1e-9), "{all:?}");
    let of_f =
        played("{ trace = \"t\", function = \"f\", time_scale = 2.0 } }\nas_recorded = true");
    assert_eq!(of_f, [[2.0, 2.5], [7.75, 7.875], [8.0, 9.0]]);
    // Whether or not records are written.
    let arrival = "{ trace = \"t\", function = \"f\" } }\nas_recorded = true";
    let plain = simulation("", &scenario(arrival, &source(FUNCTIONS)).unwrap());
    let report = plain.run(1, None, &mut |_| ()).unwrap().summary().report();
    assert_eq!(report.response_time.mean, Some((0.5 + 1.0 + 0.125) / 3.0 * 1e9));
    // Where the trace says nothing, the model does.
    let of_g = played("{ trace = \"t\", function = \"g\" } }\nas_recorded = true");
    assert_eq!(of_g, [[2.25, 2.5], [7.0, 7.01]]);
    assert_eq!(played("{ trace = \"t\", requests = 2 } }"), all[..2]);
}

/// Requests of another demand take as long as their model says, whatever was told of those before them.
#[test]
fn what_is_told_of_one_demand_is_not_told_of_another() {
    let text = "[[demand]]\nfunction = \"f\"\narrival = { replay = { trace = \"t\" } }\nas_recorded = true\n\
        [[demand]]\nfunction = \"g\"\narrival = { constant = { rate = 2 } }\nrequests = 20";
    let mut scenario = Scenario::parse(text).unwrap();
    scenario.read_traces(&|_| source(FUNCTIONS)).unwrap();
    let system =
        "[function.f]\nhttp = \"http://127.0.0.1:1\"\n[function.g]\nhttp = \"http://127.0.0.1:2\"";
    let model =
        "[function.f]\nservice = { fixed = 0.01 }\n[function.g]\nservice = { fixed = 0.03 }";
    let (system, model) = (SystemFile::parse(system, &[]).unwrap(), Model::parse(model).unwrap());
    let records = records(&Simulation::new(&system, &model, &scenario).unwrap(), 1);
    let of_g: Vec<_> = records.into_iter().filter(|record| &*record.function == "g").collect();
    assert_eq!(of_g.len(), 20);
    let all = seconds(&of_g);
    assert!(all.iter().all(|[sent, end]| (end - sent - 0.03).abs() < 1e-9), "{all:?}");
}

/// Of a language model, tokens are those of the trace, whichever way it is read.
#[test]
fn tokens_are_those_of_the_trace() {
    let llm = "[function.f.llm]\nprompt = { fixed = 99 }\noutput = { fixed = 99 }\nstep = { base = 0.01 }";
    for timing in ["timestamps", "idle_gaps"] {
        let arrival = format!("{{ trace = \"t\", timing = \"{timing}\" }} }}");
        let scenario = scenario(&arrival, &source(TOKENS)).unwrap();
        let mut records = records(&simulation(llm, &scenario), 1);
        records.sort_by_key(|record| record.sent);
        let told: Vec<_> =
            records.iter().map(|record| (record.tokens_in, record.tokens_out)).collect();
        assert_eq!(told, [(Some(5), Some(1)), (Some(7), Some(2))], "{timing}");
    }
}

/// Each turn of a function of the trace has what the trace tells of that very turn.
#[test]
fn pauses_keep_what_is_told_of_each_request() {
    let arrival = "{ trace = \"t\", timing = \"idle_gaps\" } }\nas_recorded = true";
    let scenario = scenario(arrival, &source(FUNCTIONS)).unwrap();
    let mut spans: Vec<f64> = seconds(&records(&simulation("", &scenario), 1))
        .iter()
        .map(|[sent, finished]| finished - sent)
        .collect();
    spans.sort_by(f64::total_cmp);
    let expected = [0.01, 0.125, 0.25, 0.5, 1.0];
    assert!(
        spans.iter().zip(expected).all(|(span, exact)| (span - exact).abs() < 1e-9),
        "{spans:?}"
    );
}

/// A run holds one request of a trace at a time: the trace is read while the run goes on, and again by the next.
#[test]
fn a_trace_is_read_by_each_run() {
    let opened = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&opened);
    let source: Arc<dyn TraceSource> = Arc::new(move || -> io::Result<Box<dyn BufRead + Send>> {
        // From the third time on, it is another file.
        let text = if counter.fetch_add(1, Ordering::Relaxed) < 2 { FUNCTIONS } else { TOKENS };
        Ok(Box::new(text.as_bytes()))
    });
    let arrival = "{ trace = \"t\", format = \"azure_functions_2021\" } }";
    let simulation = simulation("", &scenario(arrival, &source).unwrap());
    assert_eq!(opened.load(Ordering::Relaxed), 1, "it was checked");
    assert_eq!(records(&simulation, 1).len(), 5);
    let changed = simulation.run(1, None, &mut |_| ()).unwrap_err();
    assert!(matches!(changed, SimulationError::Trace(_)), "{changed}");
    assert!(changed.to_string().starts_with("a trace has changed"), "{changed}");
}

#[test]
fn what_is_wrong_with_a_trace_is_said_before_a_run() {
    let told = |arrival: &str, text| scenario(arrival, &source(text)).unwrap_err();
    let (all, head) = ("{ trace = \"t\" } }", "app,func,end_timestamp,duration\n");
    let cases = [
        (all, "", "line 1 of the trace: it begins as no known trace does"),
        (all, head, "demand 1: replay: nothing of the trace is left"),
        (
            all,
            "app,func,end_timestamp,duration\na,f,x,1",
            "line 2 of the trace: column end_timestamp",
        ),
        (all, "app,func,end_timestamp,duration\na,f,1e300,1", "more than a century"),
        (all, "{\"timestamp\": -1, \"input_length\": 1, \"output_length\": 1}", "column timestamp"),
        (
            all,
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-01-01 00:00:00,1,1\n\
            2023-01-01 00:00:09,1,1\n2023-01-01 00:00:05,1,1",
            "line 4 of the trace: it is too far out of order",
        ),
        ("{ trace = \"t\", function = \"h\" } }", FUNCTIONS, "nothing of the trace is left"),
        ("{ trace = \"t\" } }\nas_recorded = true", TOKENS, "does not tell how long"),
    ];
    for (arrival, text, expected) in cases {
        let fault = told(arrival, text);
        assert!(fault.contains(expected), "{text}: {fault}");
        assert!(fault.starts_with("demand 1"), "{fault}");
    }
    let other =
        "[[demand]]\nfunction = \"f\"\narrival = \"synchronous\"\nrequests = 1\nas_recorded = true";
    let fault = Scenario::parse(other).unwrap_err().to_string();
    assert_eq!(fault, "demand 1, `as_recorded`: it is for an `arrival` that is a `replay`");
}
