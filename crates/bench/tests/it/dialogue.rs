//! Sessions with a language model: histories that the server keeps, and calls of tools.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use gatewright_bench::{
    Amount, Data, DataSpec, MissingCall, OpenAi, OpenAiApi, Outcome, Plan, Replies, Synthetic,
    ToolTurns,
};
use gatewright_workload::{Gaps, Strategy, Think, Turns};
use serde_json::{Value, json};

use crate::server::{Answer, Server};
use crate::{bench, plan};

type Asked = Arc<Mutex<Vec<Value>>>;

/// A server that answers as `reply` says, in one piece, and what it was asked.
fn server(reply: impl Fn(u64, &Value) -> Value + Send + Sync + 'static) -> (Server, Asked) {
    let asked = Asked::default();
    let kept = Arc::clone(&asked);
    let server = Server::start(move |request| {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let reply = reply(request.number, &body).to_string();
        kept.lock().unwrap().push(body);
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", reply.len());
        Answer::Bytes((head + &reply).into())
    });
    (server, asked)
}

fn prompts() -> Data {
    let synthetic = Synthetic {
        prompt_tokens: Amount::Fixed(5),
        output_tokens: None,
        prefix: Vec::new(),
        tokenizer: None,
    };
    let spec = DataSpec { synthetic: Some(synthetic), ..DataSpec::default() };
    spec.open(std::path::Path::new(""), 1, None).unwrap()
}

fn converse(server: &Server, model: &OpenAi, turns: u32, requests: u64) -> Outcome {
    let data = prompts();
    let model = OpenAi { url: server.url(), prompts: Vec::new(), stream: false, ..model.clone() };
    let mix = model.targets(Some(&data)).unwrap();
    let strategy = Strategy::Sessions {
        rate: 100.0,
        turns: Turns::Fixed(turns),
        think: Think::default(),
        gaps: Gaps::Constant,
    };
    bench(&Plan { mix, data: Some(data), ..plan(server, strategy, requests) }).0
}

fn response(number: u64, text: &str) -> Value {
    let content = json!([{ "type": "output_text", "text": text }]);
    let message = json!({ "type": "message", "role": "assistant", "content": content });
    json!({ "id": format!("resp_{number}"), "output": [message] })
}

#[test]
fn a_server_with_a_memory_is_told_only_what_is_new() {
    let (server, asked) = server(|number, _| response(number, "yes"));
    let model =
        OpenAi { api: OpenAiApi::Responses, replies: Replies::Server, ..OpenAi::chat("", "") };
    let outcome = converse(&server, &model, 3, 30);
    assert_eq!((outcome.summary.statuses.ok, outcome.broken_conversations), (30, 0));
    let asked = asked.lock().unwrap();
    assert!(asked.iter().all(|body| body["input"].as_array().unwrap().len() == 1));
    // Each response is gone on from at most once, and each session begins with none.
    let mut before: BTreeMap<&str, u32> = BTreeMap::new();
    asked.iter().filter_map(|body| body["previous_response_id"].as_str()).for_each(|id| {
        *before.entry(id).or_default() += 1;
    });
    assert!(before.len() >= 15 && before.values().all(|count| *count == 1), "{before:?}");
    let first = asked.iter().filter(|body| body["previous_response_id"].is_null()).count();
    assert_eq!(first + before.len(), 30);
}

#[test]
fn responses_go_on_from_items_as_chats_from_messages() {
    let (server, asked) = server(|number, _| response(number, &format!("answer {number}")));
    let model = OpenAi { api: OpenAiApi::Responses, ..OpenAi::chat("", "") };
    let outcome = converse(&server, &model, 2, 20);
    assert_eq!(outcome.summary.statuses.ok, 20);
    let asked = asked.lock().unwrap();
    let second = asked.iter().find(|body| body["input"].as_array().unwrap().len() == 3).unwrap();
    let roles: Vec<_> =
        second["input"].as_array().unwrap().iter().map(|one| &one["role"]).collect();
    assert_eq!(roles, ["user", "assistant", "user"]);
    assert!(second["input"][1]["content"].as_str().unwrap().starts_with("answer "));
    assert!(second.get("previous_response_id").is_none());
}

/// Chat that calls where it has to, or never.
fn caller(calls: bool) -> impl Fn(u64, &Value) -> Value + Send + Sync + 'static {
    move |number, body| {
        let message = if calls && body["tool_choice"] == "required" {
            let name = &body["tools"][0]["function"]["name"];
            let function = json!({ "name": name, "arguments": "{\"query\":\"x\"}" });
            let id = format!("call_{number}");
            json!({ "role": "assistant", "content": null,
                "tool_calls": [{ "id": id, "type": "function", "function": function }] })
        } else {
            json!({ "role": "assistant", "content": "text" })
        };
        json!({ "choices": [{ "message": message, "finish_reason": "stop" }] })
    }
}

fn with_tools(missing: MissingCall) -> OpenAi {
    let tools = ToolTurns { turns: 1, result_tokens: Amount::Fixed(9), missing };
    OpenAi { tools, ..OpenAi::chat("", "") }
}

#[test]
fn a_call_is_answered_with_its_result() {
    let (server, asked) = server(caller(true));
    let outcome = converse(&server, &with_tools(MissingCall::Fail), 3, 30);
    assert_eq!((outcome.summary.statuses.ok, outcome.broken_conversations), (30, 0));
    let asked = asked.lock().unwrap();
    let of = |length: usize| {
        let length_of = |body: &&Value| body["messages"].as_array().unwrap().len() == length;
        asked.iter().filter(length_of).collect::<Vec<_>>()
    };
    assert!(of(1).iter().all(|body| body["tool_choice"] == "required"));
    for body in of(3) {
        let (call, result) = (&body["messages"][1]["tool_calls"][0], &body["messages"][2]);
        assert_eq!((&result["role"], &result["tool_call_id"]), (&json!("tool"), &call["id"]));
        assert_eq!(call["function"]["name"], "look_up");
        assert_eq!(result["content"].as_str().unwrap().split(' ').count(), 9);
        assert_eq!(body["tool_choice"], "none");
    }
    let last = of(5);
    assert!(!last.is_empty());
    for body in last {
        let roles = body["messages"].as_array().unwrap().iter().map(|one| one["role"].as_str());
        let roles: Vec<_> = roles.map(Option::unwrap).collect();
        assert_eq!(roles, ["user", "assistant", "tool", "assistant", "user"]);
        assert_eq!(body["tool_choice"], "none", "one turn was to have a call");
    }
    let results: std::collections::BTreeSet<_> =
        of(3).iter().map(|body| body["messages"][2]["content"].to_string()).collect();
    assert_eq!(results.len(), of(3).len(), "no two results are the same");
}

#[test]
fn what_a_missing_call_means_is_said() {
    for (missing, failed, broken, longest) in [
        (MissingCall::Fail, 1.0, 1.0, 1),
        (MissingCall::End, 0.0, 0.0, 1),
        (MissingCall::GoOn, 0.0, 0.0, 5),
    ] {
        let (server, asked) = server(caller(false));
        let outcome = converse(&server, &with_tools(missing), 3, 30);
        let requests = outcome.summary.requests() as f64;
        assert_eq!(outcome.summary.statuses.error as f64 / requests, failed, "{missing:?}");
        assert_eq!(outcome.broken_conversations as f64 / requests, broken, "{missing:?}");
        if failed > 0.0 {
            assert!(outcome.summary.reasons.contains_key("the model did not call a tool"));
        }
        let asked = asked.lock().unwrap();
        let length = asked.iter().map(|body| body["messages"].as_array().unwrap().len()).max();
        assert_eq!(length, Some(longest), "{missing:?}");
    }
}

#[test]
fn what_an_api_does_not_have_is_refused() {
    let chat = OpenAi { replies: Replies::Server, ..OpenAi::chat("http://a", "Hi") };
    let error = chat.targets(None).unwrap_err().to_string();
    assert!(error.contains("only a server of responses remembers"), "{error}");
    let tools = ToolTurns { turns: 1, ..ToolTurns::default() };
    let completions =
        OpenAi { api: OpenAiApi::Completions, tools, ..OpenAi::chat("http://a", "Hi") };
    let error = completions.targets(None).unwrap_err().to_string();
    assert!(error.contains("only chats and responses have tools"), "{error}");
}
