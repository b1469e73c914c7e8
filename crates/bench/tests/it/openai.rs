//! Language models: what is sent, and what is made of the answers.

use std::collections::BTreeMap;
use std::time::Duration;

use gatewright_bench::{AnswerKind, Dialogue, OpenAi, OpenAiApi, Plan, Target, WeightedTarget};
use gatewright_workload::Strategy;
use gatewright_workload::profile::Slo;

use crate::server::{Answer, OK, Server};
use crate::{bench, plan};

const MILLI: u64 = 1_000_000;

fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}

fn token(text: &str) -> Vec<u8> {
    chunk(&format!(
        "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n"
    ))
}

/// Three tokens: the first after 30 ms, the second 5 ms later, the third after a stall of 40 ms.
fn stream(end: &str) -> Answer {
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let millis = Duration::from_millis;
    Answer::Slow(vec![
        (millis(0), head.into()),
        (millis(30), token("a")),
        (millis(5), token("b")),
        (millis(40), token("c")),
        (millis(0), [chunk(end), b"0\r\n\r\n".to_vec()].concat()),
    ])
}

const END: &str = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: {\"choices\":[],\
                   \"usage\":{\"prompt_tokens\":11,\"completion_tokens\":3,\"total_tokens\":14}}\n\ndata: [DONE]\n\n";

fn model(server: &Server) -> OpenAi {
    OpenAi { model: Some("m".into()), max_tokens: Some(3), ..OpenAi::chat(server.url(), "Hi") }
}

fn openai_plan(server: &Server, model: &OpenAi, strategy: Strategy, requests: u64) -> Plan {
    Plan { mix: model.targets(None).unwrap(), ..plan(server, strategy, requests) }
}

#[test]
fn a_stream_is_measured_token_by_token() {
    let server = Server::start(|request| {
        assert!(
            request.head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"),
            "{}",
            request.head
        );
        assert!(request.head.contains("\r\nauthorization: Bearer secret\r\n"), "{}", request.head);
        let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(body["messages"][0]["content"], "Hi");
        assert_eq!((&body["stream"], &body["ignore_eos"]), (&true.into(), &true.into()));
        assert_eq!((&body["max_tokens"], &body["model"]), (&3.into(), &"m".into()));
        assert_eq!(body["stream_options"]["include_usage"], true);
        stream(END)
    });
    let model = OpenAi { api_key: Some("secret".into()), exact_tokens: true, ..model(&server) };
    let slo = Slo {
        response: None,
        ttft: Some(Duration::from_secs(20)),
        itl: None,
        tpot: None,
        attainment: 0.9,
    };
    let plan = openai_plan(&server, &model, Strategy::Constant { rate: 50.0 }, 20);
    let (outcome, records) = bench(&Plan { slo: Some(slo), ..plan });
    assert_eq!(outcome.summary.statuses.ok, 20, "{:?}", outcome.summary.reasons);
    let tokens = outcome.tokens.as_ref().unwrap();
    assert_eq!(
        (tokens.ttft.count(), tokens.gaps.count(), tokens.longest_gap.count()),
        (20, 40, 20)
    );
    // Sleeps are never too short; how much too long is the machine's affair.
    assert!(tokens.ttft.min().unwrap() >= 30 * MILLI);
    // A piece that is read late makes the gap after it shorter: one of the twenty was read in time.
    assert!(tokens.longest_gap.max().unwrap() >= 39 * MILLI, "{:?}", tokens.longest_gap);
    assert!(tokens.gaps.min().unwrap() < 39 * MILLI, "the stall is one gap, not the mean of two");
    assert!(tokens.itl.max().unwrap() >= 22 * MILLI, "{:?}", tokens.itl);
    assert_eq!((tokens.itl.count(), tokens.tpot.count()), (40, 60));
    assert_eq!((tokens.total_in, tokens.total_out, tokens.pieces), (220, 60, 60));
    let report = outcome.token_report().unwrap();
    assert_eq!(report.tokens_per_piece, Some(1.0));
    let rate = 60.0 / outcome.summary.span().as_secs_f64();
    assert!((report.output_tokens_per_second.unwrap() - rate).abs() < 1e-9);
    let record = &records[7];
    assert_eq!((record.tokens_in, record.tokens_out), (Some(11), Some(3)));
    assert!(
        record.first_byte.unwrap().nanos_since(record.sent.unwrap()) >= 30 * MILLI,
        "the first token"
    );
    let attainment = outcome.attainment.unwrap();
    assert_eq!((attainment.met, attainment.counted), (20, 20));
}

#[test]
fn an_answer_in_one_piece_has_tokens_and_no_first_one() {
    let server = Server::start(|request| {
        assert!(request.head.starts_with("POST /v1/completions HTTP/1.1\r\n"), "{}", request.head);
        let body = "{\"choices\":[{\"text\":\"ok\",\"finish_reason\":\"stop\"}],\
                    \"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2,\"total_tokens\":7}}";
        Answer::Bytes(
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into(),
        )
    });
    let model = OpenAi { api: OpenAiApi::Completions, stream: false, ..model(&server) };
    let (outcome, _) =
        bench(&openai_plan(&server, &model, Strategy::Concurrent { streams: 2 }, 10));
    assert_eq!(outcome.summary.statuses.ok, 10, "{:?}", outcome.summary.reasons);
    let tokens = outcome.tokens.unwrap();
    assert_eq!((tokens.ttft.count(), tokens.itl.count(), tokens.gaps.count()), (0, 0, 0));
    assert_eq!((tokens.total_in, tokens.total_out, tokens.tpot.count()), (50, 20, 20));
}

#[test]
fn answers_that_are_none_are_failures_by_name() {
    let server = Server::start(|request| match request.number % 3 {
        0 => stream("data: {\"error\":{\"message\":\"no memory\"}}\n\ndata: [DONE]\n\n"),
        1 => stream(": that is all\n\n"),
        _ => Answer::Bytes(OK.into()),
    });
    let (outcome, _) = bench(&openai_plan(&server, &model(&server), Strategy::Synchronous, 6));
    assert_eq!(outcome.summary.statuses.error, 6);
    let reasons: Vec<_> =
        outcome.summary.reasons.iter().map(|(reason, count)| (&**reason, *count)).collect();
    assert_eq!(
        reasons,
        [("the stream ended before its end was told", 4), ("the stream told of an error", 2),]
    );
    assert!(outcome.tokens.is_none(), "of failures, no token counts");
}

#[test]
fn several_targets_share_the_load_by_weight() {
    let server = Server::start(|_| Answer::ok());
    let weighted = |name: &str, weight| WeightedTarget {
        name: Some(name.into()),
        weight,
        target: Target::get(format!("{}{name}", server.url())),
        answer: AnswerKind::Opaque,
        dialogue: Dialogue::default(),
    };
    for threads in [1, 3] {
        let mix = vec![weighted("common", 9.0), weighted("rare", 1.0)];
        let strategy = Strategy::Constant { rate: 2_000.0 };
        let plan = Plan { mix, threads: Some(threads), seed: 4, ..plan(&server, strategy, 500) };
        let (outcome, records) = bench(&plan);
        assert_eq!(outcome.summary.statuses.ok, 500);
        let mut counts = BTreeMap::new();
        for record in &records {
            *counts.entry(record.class.as_deref().unwrap()).or_insert(0) += 1;
        }
        // Which target a request has hangs on its number alone.
        let rare = counts["rare"];
        assert_eq!(counts["common"] + rare, 500);
        assert!((25..80).contains(&rare), "{rare}");
        let first_rare =
            records.iter().find(|record| record.class.as_deref() == Some("rare")).unwrap().id;
        assert_eq!(first_rare, records_of_seed(&server, &plan));
    }
}

/// Number of the first rare request in a closed loop of the same seed.
fn records_of_seed(server: &Server, like: &Plan) -> u64 {
    let plan =
        Plan { mix: like.mix.clone(), seed: like.seed, ..plan(server, Strategy::Synchronous, 200) };
    let (_, records) = bench(&plan);
    records.iter().find(|record| record.class.as_deref() == Some("rare")).unwrap().id
}

#[test]
fn a_server_on_a_unix_socket_is_reached() {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;

    let path = std::env::temp_dir().join(format!("gatewright-bench-{}.sock", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 4_096];
                while stream.read(&mut buffer).unwrap_or(0) > 0 {
                    stream.write_all(OK).unwrap();
                }
            });
        }
    });
    let server = Server::start(|_| Answer::ok());
    let unix_socket = Some(path.clone());
    let plan = Plan { unix_socket, ..plan(&server, Strategy::Concurrent { streams: 3 }, 60) };
    let (outcome, _) = bench(&plan);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(outcome.summary.statuses.ok, 60, "{:?}", outcome.summary.reasons);
    assert_eq!(server.requests(), 0);
    let mut silent = |_: &gatewright_bench::Snapshot| std::ops::ControlFlow::Continue(());
    let error = gatewright_bench::run(&plan, &mut silent, None).unwrap_err().to_string();
    assert!(error.contains("is the server running there?"), "{error}");
}

/// What the server was asked in each session, by the first message of the user.
type Asked = std::sync::Arc<std::sync::Mutex<BTreeMap<String, Vec<serde_json::Value>>>>;

/// A model that answers "re: " and what the user said last, as a stream or whole; `wrong`, with a status instead.
fn echo(wrong: &'static str) -> (Server, Asked) {
    let asked = Asked::default();
    let seen = asked.clone();
    let server = Server::start(move |request| {
        let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        let messages = body["messages"].as_array().unwrap().clone();
        let said = |message: &serde_json::Value| message["content"].as_str().unwrap().to_owned();
        let of_user = |message: &&serde_json::Value| message["role"] == "user";
        let first = said(messages.iter().find(of_user).unwrap());
        let last = said(messages.last().unwrap());
        seen.lock().unwrap().entry(first).or_default().push(messages.into());
        if last == wrong {
            return Answer::Bytes(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n".to_vec());
        }
        let body = if body["stream"] == true {
            let piece = |text: &str| {
                let text = serde_json::Value::from(text);
                format!("data: {{\"choices\":[{{\"delta\":{{\"content\":{text}}}}}]}}\n\n")
            };
            format!("{}{}{END}", piece("re: "), piece(&last))
        } else {
            let text = serde_json::Value::from(format!("re: {last}"));
            format!("{{\"choices\":[{{\"message\":{{\"content\":{text}}}}}]}}")
        };
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        Answer::Bytes((head + &body).into())
    });
    (server, asked)
}

fn sessions() -> Strategy {
    Strategy::Sessions {
        rate: 50.0,
        turns: gatewright_workload::Turns::Fixed(3),
        think: gatewright_workload::Think::default(),
        gaps: gatewright_workload::Gaps::Constant,
    }
}

fn rows(lines: &str) -> (tempfile::TempDir, gatewright_bench::Data) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rows.jsonl"), lines).unwrap();
    let spec = gatewright_bench::DataSpec { file: Some("rows.jsonl".into()), ..Default::default() };
    let data = spec.open(folder.path(), 1, None).unwrap();
    (folder, data)
}

fn contents(messages: &serde_json::Value) -> Vec<String> {
    let all = messages.as_array().unwrap().iter();
    all.map(|message| message["content"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_conversation_goes_on_from_what_was_really_answered() {
    let lines = r#"{"messages":[{"role":"system","content":"s"},{"role":"user","content":"one \"1\""},{"role":"assistant","content":"made up"},{"role":"user","content":"two"},{"role":"assistant","content":"made up"}]}"#;
    for (stream, threads) in [(true, 1), (false, 2)] {
        let (_folder, data) = rows(lines);
        let (server, asked) = echo("");
        let model = OpenAi { stream, ..model(&server) };
        let mix = model.targets(Some(&data)).unwrap();
        let plan = plan(&server, sessions(), 20);
        let plan = Plan { mix, data: Some(data), threads: Some(threads), ..plan };
        let (outcome, _) = bench(&plan);
        assert_eq!(outcome.summary.statuses.ok, 20, "{:?}", outcome.summary.reasons);
        assert_eq!(outcome.broken_conversations, 0);
        let asked = asked.lock().unwrap();
        let turns = &asked["one \"1\""];
        assert_eq!(turns.len(), 20);
        let longest = turns.iter().max_by_key(|turn| turn.as_array().unwrap().len()).unwrap();
        assert_eq!(contents(longest), ["s", "one \"1\"", "re: one \"1\"", "two"]);
        assert_eq!(longest[2]["role"], "assistant");
        let ended = turns.iter().filter(|turn| turn.as_array().unwrap().len() == 4).count();
        assert!(ended > 0, "the second turn is the last one: {turns:?}");
    }
}

#[test]
fn prompts_go_on_as_well_and_a_failed_turn_ends_the_conversation() {
    let lines: String = (0..60).map(|n| format!("{{\"prompt\":\"p{n}\"}}\n")).collect();
    let (_folder, data) = rows(&lines);
    let (server, asked) = echo("p4");
    let model = model(&server);
    let mix = model.targets(Some(&data)).unwrap();
    let (outcome, _) = bench(&Plan { mix, data: Some(data), ..plan(&server, sessions(), 60) });
    assert_eq!((outcome.summary.statuses.ok, outcome.summary.statuses.error), (59, 1));
    assert_eq!(outcome.broken_conversations, 1);
    let asked = asked.lock().unwrap();
    let whole = asked.values().filter_map(|turns| turns.get(2)).map(contents);
    let mut count = 0;
    for said in whole {
        count += 1;
        assert_eq!(said.len(), 5);
        assert_eq!(
            (&said[1], &said[3]),
            (&format!("re: {}", said[0]), &format!("re: {}", said[2]))
        );
    }
    assert!(count > 0, "no conversation came to its third turn");
    let after = asked.values().flatten().filter(|turn| contents(turn).contains(&"re: p4".into()));
    assert_eq!(after.count(), 0);
    let of_failed = asked.values().flatten().filter(|turn| contents(turn).contains(&"p4".into()));
    assert_eq!(of_failed.count(), 1, "nothing was asked after the failure");

    let (_folder, data) = rows(&lines);
    let (server, asked) = echo("");
    let recorded = OpenAi { replies: gatewright_bench::Replies::Recorded, ..model };
    let recorded = OpenAi { url: server.url(), ..recorded };
    let mix = recorded.targets(Some(&data)).unwrap();
    bench(&Plan { mix, data: Some(data), ..plan(&server, sessions(), 30) });
    let asked = asked.lock().unwrap();
    assert!(asked.values().flatten().all(|turn| contents(turn).len() == 1));
}

#[test]
fn a_target_without_a_model_takes_the_first_of_the_server() {
    use gatewright_bench::{OpenAiTarget, Scenario, TargetSpec};

    let models = |body: &'static str, code: u16| {
        Server::start(move |request| {
            assert!(request.head.starts_with("GET /v1/models HTTP/1.1\r\n"), "{}", request.head);
            assert!(request.head.contains("authorization: Bearer secret\r\n"), "{}", request.head);
            let head = format!("HTTP/1.1 {code} X\r\ncontent-length: {}\r\n\r\n", body.len());
            Answer::Bytes((head + body).into())
        })
    };
    let find = |server: &Server| {
        let openai = Some(OpenAiTarget::default());
        let api_key_env = Some("KEY".to_owned());
        let target = TargetSpec { openai, api_key_env, ..TargetSpec::of(server.url()) };
        let mut scenario = Scenario { target: vec![target], ..Scenario::default() };
        let key = |_: &str| Some("secret".to_owned());
        let found = scenario.find_models(std::path::Path::new(""), &key);
        let model = scenario.target.remove(0).openai.unwrap().model;
        found.map(|found| model.filter(|_| found)).map_err(|error| error.to_string())
    };
    let found = find(&models(r#"{"object":"list","data":[{"id":"llama"},{"id":"other"}]}"#, 200));
    assert_eq!(found, Ok(Some("llama".to_owned())));
    for (body, code, part) in [
        (r#"{"data":[]}"#, 200, "names none"),
        ("nonsense", 200, "names none"),
        ("", 404, "answers with 404"),
    ] {
        let error = find(&models(body, code)).unwrap_err();
        assert!(error.contains("no model is given") && error.ends_with(part), "{error}");
    }
}
