//! Public traces are read as their publishers describe them.

use std::sync::Arc;
use std::time::Duration;

use gatewright_determinism::Time;
use gatewright_workload::trace::{
    Recorded, Selection, TraceFormat, TraceOptions, TraceProblem, TraceReader, TraceRequest,
};
use gatewright_workload::{Pacing, Replay, Strategy, Timing};

macro_rules! trace {
    ($name:literal) => {
        include_bytes!(concat!("../../../../examples/traces/", $name)).as_slice()
    };
}

fn open(text: &'static [u8]) -> TraceReader<&'static [u8]> {
    TraceReader::new(text, TraceOptions::default()).unwrap()
}

fn read(text: &'static [u8]) -> Vec<TraceRequest> {
    let requests: Vec<_> = open(text).map(Result::unwrap).collect();
    assert!(requests.is_sorted_by_key(|request| request.at), "it is not in order");
    requests
}

fn read_text(text: &str, options: TraceOptions) -> Result<Vec<TraceRequest>, String> {
    let reader = TraceReader::new(text.as_bytes(), options).map_err(|error| error.to_string())?;
    reader.collect::<Result<_, _>>().map_err(|error| error.to_string())
}

/// Figures computed from the whole file with other tools.
#[test]
fn azure_llm() {
    let requests = read(trace!("azure_llm_2023_code.csv"));
    assert_eq!(open(trace!("azure_llm_2023_code.csv")).format(), TraceFormat::AzureLlm);
    assert_eq!(requests.len(), 8_819);
    assert_eq!((requests[0].tokens_in, requests[0].tokens_out), (Some(4_808), Some(10)));
    assert_eq!(requests[1].at, Time::from_nanos(52_000_000));
    let mean = |tokens: fn(&TraceRequest) -> Option<u32>| {
        requests.iter().map(|request| f64::from(tokens(request).unwrap())).sum::<f64>()
            / requests.len() as f64
    };
    assert_eq!(mean(|request| request.tokens_in).round(), 2_048.0);
    assert_eq!(mean(|request| request.tokens_out).round(), 28.0);
    assert_eq!(requests[8_818].at.as_secs_f64().round(), 3_436.0);
}

#[test]
fn azure_functions_2021() {
    let requests = read(trace!("azure_functions_2021.csv"));
    assert_eq!(requests.len(), 199);
    let mut functions: Vec<_> =
        requests.iter().filter_map(|request| request.function.clone()).collect();
    functions.sort_unstable();
    functions.dedup();
    assert_eq!(functions.len(), 31);
    assert!(requests.iter().all(|request| request.duration.is_some()));
}

#[test]
fn azure_functions_2019() {
    let requests = read(trace!("azure_functions_2019.csv"));
    assert_eq!(requests.len(), 1_150 + 3 * 1_125);
    let of_first = |request: &&TraceRequest| {
        request.function.as_deref().is_some_and(|name| name.starts_with("c13acdc7"))
    };
    let first_minute =
        requests.iter().filter(of_first).take_while(|request| request.at.as_secs_f64() < 60.0);
    assert_eq!(first_minute.count(), 5);
    let again = read(trace!("azure_functions_2019.csv"));
    assert_eq!(requests, again, "the moments are drawn from the seed");
}

#[test]
fn mooncake() {
    let requests = read(trace!("mooncake_conversation.jsonl"));
    assert_eq!(requests.len(), 300);
    let first = &requests[0];
    assert_eq!((first.tokens_in, first.tokens_out), (Some(6_758), Some(500)));
    assert_eq!(first.blocks, (0..14).collect::<Vec<_>>());
}

#[test]
fn opendc() {
    let requests = read(trace!("opendc_faas.csv"));
    assert!(!requests.is_empty());
    assert!(requests[0].at.as_secs_f64() < 60.0);
    assert_eq!(requests[0].duration, Some(Duration::from_millis(300_262)));
    assert!(requests[0].function.as_deref().is_some_and(|name| name.starts_with("004c1ea5")));
}

#[test]
fn faults_are_named_with_their_line() {
    let llm = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.97,1,2\n";
    assert_eq!(read_text(llm, TraceOptions::default()).unwrap().len(), 1);
    let cases = [
        ("", "line 1 of the trace: it begins as no known trace does"),
        ("a,b,c\n", "line 1 of the trace: it begins as no known trace does"),
        (&format!("{llm}soon,1,2\n"), "line 3 of the trace: column TIMESTAMP holds \"soon\""),
        (&format!("{llm}\n2023-11-16 18:17:04,x,2\n"), "line 4 of the trace: column ContextTokens"),
        (
            &format!("{llm}2023-11-16 18:17:04,1\n"),
            "line 3 of the trace: column GeneratedTokens is m",
        ),
        (&format!("{llm}2023-11-16 18:17:02,1,2\n"), "line 3 of the trace: it is too far out of"),
        ("{\"timestamp\": 0}\n", "line 1 of the trace: it is not a request as JSON: missing field"),
        ("app,func,end_timestamp,duration\na,f,1,-1\n", "line 2 of the trace: column duration"),
        (
            "HashOwner,HashApp,HashFunction,Trigger,1\no,a,f,http,x\n",
            "line 2 of the trace: column count",
        ),
    ];
    for (text, start) in cases {
        let error = read_text(text, TraceOptions::default()).unwrap_err();
        assert!(error.starts_with(start), "{error}");
    }
    let options = TraceOptions { format: Some(TraceFormat::Mooncake), ..TraceOptions::default() };
    assert!(
        read_text(llm, options)
            .unwrap_err()
            .contains("not the first line of a trace of the format mooncake")
    );
    let long = format!("{llm}{}", "x".repeat(2 << 20));
    assert!(read_text(&long, TraceOptions::default()).unwrap_err().contains("longer than"));
    let reader = TraceReader::new(&b"\xff\xfe"[..], TraceOptions::default());
    assert!(matches!(reader.unwrap_err().problem, TraceProblem::NotText));
}

#[test]
fn what_is_listed_by_its_end_is_given_by_its_start() {
    let text = "app,func,end_timestamp,duration\na,f,1.0,0.5\na,g,2.0,2.0\na,f,3.0,0.25\n";
    let requests = read_text(text, TraceOptions::default()).unwrap();
    let starts: Vec<_> = requests.iter().map(|request| request.at.as_nanos() / 1_000_000).collect();
    assert_eq!(starts, [0, 500, 2_750]);
}

const TWO: &str =
    "app,func,end_timestamp,duration\na,f,1.5,0.5\na,g,2.0,0.5\na,f,4.0,1.0\na,f,4.2,0.2\n";

fn recorded(selection: &Selection) -> Arc<Recorded> {
    let reader = TraceReader::new(TWO.as_bytes(), TraceOptions::default()).unwrap();
    Arc::new(Recorded::read(reader, selection).unwrap())
}

#[test]
fn a_trace_is_replayed_at_its_own_times_and_at_others() {
    let moments = |mut replay: Replay| {
        assert!(Strategy::Replay(replay.clone()).ready().is_err());
        replay.read(TWO.as_bytes(), 1).unwrap();
        let replay = Strategy::Replay(replay);
        replay.check().unwrap();
        replay.ready().unwrap();
        match replay.pacing(1, 0) {
            Pacing::Open(schedule) => {
                schedule.map(|at| at.as_nanos() / 1_000_000).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(moments(Replay::new("two")), [1_000, 1_500, 3_000, 4_000]);
    assert_eq!(moments(Replay { time_scale: 0.5, ..Replay::new("two") }), [500, 750, 1_500, 2_000]);
    assert_eq!(moments(Replay { function: Some("g".into()), ..Replay::new("two") }), [1_500]);
    assert_eq!(moments(Replay { requests: Some(2), ..Replay::new("two") }), [1_000, 1_500]);
    let none = Replay { function: Some("h".into()), ..Replay::new("two") };
    assert!(Strategy::Replay(none.clone().with(recorded(&none.selection()))).check().is_err());
}

#[test]
fn idle_gaps_follow_the_answers() {
    let replay = Replay { timing: Timing::IdleGaps, time_scale: 2.0, ..Replay::new("two") };
    let Pacing::Sessions(sessions) =
        Strategy::Replay(replay.with(recorded(&Selection::default()))).pacing(1, 0)
    else {
        panic!("not sessions")
    };
    let starts: Vec<_> = sessions.starts(0, 1).map(|(_, at)| at.as_nanos() / 1_000_000).collect();
    assert_eq!(starts, [2_000, 3_000]);
    // f ended at 1.5 and came again at 3.0; then it came before it had ended; then never again.
    let pause = |turn| sessions.next_turn(0, turn, Time::ZERO).map(|at| at.as_nanos() / 1_000_000);
    assert_eq!((pause(0), pause(1), pause(2)), (Some(3_000), Some(0), None));
    assert_eq!(sessions.recorded_number(0, 1), Some(2));
}
