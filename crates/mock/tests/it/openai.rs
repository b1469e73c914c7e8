use gatewright_protocol::openai::{ChatChunk, ChatCompletion, FinishReason};
use gatewright_sim::Law;
use serde_json::{Value, json};

use crate::client::{Reply, get, openai, post};

fn chat(extra: Value) -> Value {
    let mut request =
        json!({"model": "m", "messages": [{"role": "user", "content": "Hello, wonderful world"}]});
    request.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    request
}

/// "Hello, wonderful world" is four tokens; the message and the answer's start are three each.
const PROMPT_TOKENS: u64 = 10;

fn count(mock: &gatewright_mock::Mock, text: &str) -> u64 {
    post(mock, "/tokenize", &json!({"prompt": text})).json()["count"].as_u64().unwrap()
}

/// The chunks of a chat stream, without the end mark.
fn chunks(reply: &Reply) -> Vec<Value> {
    let mut events = reply.events();
    assert_eq!(events.pop().unwrap().1, "[DONE]");
    events.iter().map(|(_, data)| serde_json::from_str(data).unwrap()).collect()
}

#[test]
fn a_chat_answer_has_the_tokens_it_says() {
    let mock = openai(|_| {});
    let reply = post(&mock, "/v1/chat/completions", &chat(json!({})));
    assert!(reply.head.contains("content-type: application/json"), "{}", reply.head);
    let answer: ChatCompletion = serde_json::from_slice(&reply.body).unwrap();
    let usage = answer.usage.unwrap();
    assert_eq!((usage.prompt_tokens, usage.completion_tokens), (PROMPT_TOKENS, Some(7)));
    assert_eq!(usage.total_tokens, PROMPT_TOKENS + 7);
    assert_eq!(answer.model, "m");
    let choice = &answer.choices[0];
    assert_eq!(choice.finish_reason, Some(FinishReason::Stop));
    assert_eq!(count(&mock, choice.message.content.as_ref().unwrap()), 7);
}

#[test]
fn a_chat_stream_is_the_answer_token_by_token() {
    let mock = openai(|_| {});
    let asked = json!({"seed": 5, "stream": true, "stream_options": {"include_usage": true}});
    let reply = post(&mock, "/v1/chat/completions", &chat(asked));
    assert!(reply.head.contains("content-type: text/event-stream"), "{}", reply.head);
    let chunks = chunks(&reply);
    let (usage, rest) = chunks.split_last().unwrap();
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(
        usage["usage"],
        json!({"prompt_tokens": 10, "completion_tokens": 7, "total_tokens": 17,
            "prompt_tokens_details": {"cached_tokens": 0}})
    );
    assert!(rest.iter().all(|chunk| chunk["usage"].is_null() && chunk["id"] == usage["id"]));
    let (last, rest) = rest.split_last().unwrap();
    assert_eq!(last["choices"][0]["finish_reason"], "stop");
    let (first, rest) = rest.split_first().unwrap();
    assert_eq!(first["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    let tokens: Vec<&str> = rest
        .iter()
        .map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().unwrap())
        .collect();
    assert_eq!(tokens.len(), 7);
    // Without streaming, the same seed gives the same text.
    let whole = post(&mock, "/v1/chat/completions", &chat(json!({"seed": 5}))).json();
    assert_eq!(whole["choices"][0]["message"]["content"], tokens.concat());
}

#[test]
fn usage_comes_in_every_chunk_or_none_as_asked() {
    let mock = openai(|_| {});
    let asked = json!({"stream": true,
        "stream_options": {"include_usage": true, "continuous_usage_stats": true}});
    let reply = post(&mock, "/v1/chat/completions", &chat(asked));
    let given: Vec<u64> = chunks(&reply)
        .iter()
        .map(|chunk| chunk["usage"]["completion_tokens"].as_u64().unwrap())
        .collect();
    assert_eq!(given, [1, 1, 2, 3, 4, 5, 6, 7, 7, 7]);
    let reply = post(&mock, "/v1/chat/completions", &chat(json!({"stream": true})));
    assert!(chunks(&reply).iter().all(|chunk| chunk.get("usage").is_none()));
}

#[test]
fn the_length_is_the_laws_unless_the_request_says_otherwise() {
    let mock = openai(|openai| openai.output_tokens = Law::Uniform { min: 10.0, max: 20.0 });
    let tokens = |extra: Value| {
        let answer = post(&mock, "/v1/chat/completions", &chat(extra)).json();
        let finish = answer["choices"][0]["finish_reason"].as_str().unwrap().to_owned();
        (answer["usage"]["completion_tokens"].as_u64().unwrap(), finish)
    };
    let length = || "length".to_owned();
    assert!((10..=20).contains(&tokens(json!({})).0));
    assert_eq!(tokens(json!({"max_tokens": 5})), (5, length()));
    assert_eq!(tokens(json!({"max_completion_tokens": 4, "max_tokens": 5})), (4, length()));
    assert_eq!(tokens(json!({"max_tokens": 50, "ignore_eos": true, "stop": null})), (50, length()));
    assert_eq!(tokens(json!({"min_tokens": 30})), (30, "stop".to_owned()));
}

fn weather() -> Value {
    json!({"name": "weather", "parameters": {"type": "object", "properties": {
        "city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 9}}}})
}

#[test]
fn a_function_is_called_with_arguments_that_fit() {
    let mock = openai(|_| {});
    let tools = json!({"tools": [{"type": "function", "function": weather()}], "seed": 1});
    let answer = post(&mock, "/v1/chat/completions", &chat(tools.clone())).json();
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["message"]["content"], Value::Null);
    let call = &choice["message"]["tool_calls"][0];
    assert_eq!(call["function"]["name"], "weather");
    let text = call["function"]["arguments"].as_str().unwrap();
    let arguments: Value = serde_json::from_str(text).unwrap();
    assert!(arguments["city"].is_string() && arguments["days"].is_u64(), "{arguments}");
    assert_eq!(answer["usage"]["completion_tokens"], 1 + count(&mock, text));

    let mut streamed = tools.clone();
    streamed["stream"] = json!(true);
    let chunks = chunks(&post(&mock, "/v1/chat/completions", &chat(streamed)));
    let delta = |chunk: &Value| chunk["choices"][0]["delta"]["tool_calls"][0].clone();
    assert_eq!(delta(&chunks[0])["function"], json!({"name": "weather", "arguments": ""}));
    let pieces: String = chunks
        .iter()
        .filter_map(|chunk| Some(delta(chunk)["function"]["arguments"].as_str()?.to_owned()))
        .collect();
    assert_eq!(pieces, text);
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");

    // The model speaks once results have come, or when it may not call.
    let mut free = chat(tools.clone());
    free["tool_choice"] = json!("none");
    let spoken = post(&mock, "/v1/chat/completions", &free).json();
    assert!(spoken["choices"][0]["message"]["content"].is_string(), "{spoken}");
    let mut after = chat(tools);
    after["messages"].as_array_mut().unwrap().push(json!({"role": "tool", "content": "42"}));
    let spoken = post(&mock, "/v1/chat/completions", &after).json();
    assert_eq!(spoken["choices"][0]["finish_reason"], "stop");
}

#[test]
fn completions_stream_what_they_answer() {
    let mock = openai(|_| {});
    let request =
        |stream: bool| json!({"prompt": "a b c", "seed": 3, "stream": stream, "max_tokens": 4});
    let whole = post(&mock, "/v1/completions", &request(false)).json();
    assert_eq!(whole["object"], "text_completion");
    assert_eq!(whole["model"], "mock");
    assert_eq!(whole["usage"]["prompt_tokens"], 3);
    let chunks = chunks(&post(&mock, "/v1/completions", &request(true)));
    let text: String =
        chunks.iter().map(|chunk| chunk["choices"][0]["text"].as_str().unwrap()).collect();
    assert_eq!(text, whole["choices"][0]["text"]);
    assert_eq!((chunks.len(), count(&mock, &text)), (5, 4));
    let numbers = json!({"prompt": [1, 2, 3, 4, 5]});
    let usage = post(&mock, "/v1/completions", &numbers).json()["usage"].clone();
    assert_eq!(usage["prompt_tokens"], 5);
}

#[test]
fn responses_stream_in_the_order_of_the_api() {
    let mock = openai(|_| {});
    let request = json!({"model": "m", "input": "a b", "stream": true, "max_output_tokens": 3});
    let reply = post(&mock, "/v1/responses", &request);
    let events = reply.events();
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    let delta = "response.output_text.delta";
    let expected = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        delta,
        delta,
        delta,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ];
    assert_eq!(names, expected);
    let data: Vec<Value> =
        events.iter().map(|(_, data)| serde_json::from_str(data).unwrap()).collect();
    for (number, (event, name)) in data.iter().zip(&names).enumerate() {
        assert_eq!((&event["type"], &event["sequence_number"]), (&json!(name), &json!(number)));
    }
    let text: String = data
        .iter()
        .filter(|event| event["type"] == delta)
        .map(|e| e["delta"].as_str().unwrap())
        .collect();
    let response = &data.last().unwrap()["response"];
    assert_eq!(response["output"][0]["content"][0]["text"], text);
    assert_eq!(response["usage"]["output_tokens"], 3);
    // Two words, three marks of the message and three of the answer.
    assert_eq!(response["usage"]["input_tokens"], 8);

    let tools =
        json!([{"type": "function", "name": "weather", "parameters": weather()["parameters"]}]);
    let request = json!({"input": [{"role": "user", "content": "x"}], "tools": tools});
    let called = post(&mock, "/v1/responses", &request).json();
    assert_eq!(called["status"], "completed");
    assert_eq!(called["output"][0]["type"], "function_call");
    assert_eq!(called["output"][0]["name"], "weather");
}

#[test]
fn embeddings_have_length_one_and_depend_on_the_text() {
    let mock = openai(|_| {});
    let request = json!({"input": ["a b", "c", "a b"], "dimensions": 64});
    let answer = post(&mock, "/v1/embeddings", &request).json();
    let vector = |index: usize| -> Vec<f64> {
        let values = answer["data"][index]["embedding"].as_array().unwrap();
        values.iter().map(|value| value.as_f64().unwrap()).collect()
    };
    let length: f64 = vector(0).iter().map(|value| value * value).sum();
    assert_eq!(vector(0).len(), 64);
    assert!((length - 1.0).abs() < 1e-5, "{length}");
    assert_eq!(vector(0), vector(2));
    assert_ne!(vector(0), vector(1));
    assert_eq!(answer["usage"], json!({"prompt_tokens": 5, "total_tokens": 5}));
    let request = json!({"input": "a b", "dimensions": 64, "encoding_format": "base64"});
    let coded = post(&mock, "/v1/embeddings", &request).json();
    assert_eq!(
        coded["data"][0]["embedding"].as_str().unwrap().len(),
        (64_usize * 4).div_ceil(3) * 4
    );
}

#[test]
fn models_health_and_tokens_are_told() {
    let mock = openai(|openai| openai.models = vec!["one".to_owned(), "two".to_owned()]);
    let models = get(&mock, "/v1/models").json();
    assert_eq!((&models["data"][1]["id"], &models["object"]), (&json!("two"), &json!("list")));
    assert_eq!(get(&mock, "/v1/models/one").json()["object"], "model");
    assert_eq!(get(&mock, "/v1/models/three").status, 404);
    assert_eq!(get(&mock, "/health").status, 200);
    let tokens = post(&mock, "/tokenize", &json!({"prompt": "Hello, wonderful wörld"})).json();
    assert_eq!(tokens["count"], 4);
    let back = post(&mock, "/detokenize", &json!({"tokens": tokens["tokens"]})).json();
    assert_eq!(back["prompt"], "Hello, wonderful wörld");
    let messages = json!({"messages": chat(json!({}))["messages"]});
    assert_eq!(post(&mock, "/tokenize", &messages).json()["count"], PROMPT_TOKENS);
}

#[test]
fn what_is_wrong_is_said_in_openais_words() {
    let mock = openai(|openai| openai.context = 100);
    let error = |path: &str, body: Value| {
        let reply = post(&mock, path, &body);
        (reply.status, reply.json()["error"]["message"].as_str().unwrap().to_owned())
    };
    let (status, message) = error("/v1/chat/completions", json!({"messages": 7}));
    assert!(status == 400 && message.contains("invalid type"), "{message}");
    let (status, message) = error("/v1/chat/completions", chat(json!({"max_tokens": 91})));
    assert!(status == 400 && message.contains("10 tokens") && message.contains("91"), "{message}");
    assert_eq!(error("/v1/chat/completions", chat(json!({"max_tokens": 0}))).0, 400);
    assert_eq!(error("/v1/chat/completions", chat(json!({"n": 2}))).0, 400);
    let forced = json!({"tools": [], "tool_choice": "required"});
    assert_eq!(error("/v1/chat/completions", chat(forced)).0, 400);
    assert_eq!(error("/v1/embeddings", json!({"input": []})).0, 400);
    assert_eq!(error("/detokenize", json!({"tokens": [u64::MAX]})).0, 400);
    assert_eq!(error("/v1/nothing", json!({})).0, 404);
    let reply = get(&mock, "/v1/completions");
    assert!(reply.status == 405 && reply.head.contains("allow: POST"), "{}", reply.head);
}

#[test]
fn a_key_is_asked_for() {
    let mock = openai(|openai| openai.api_key = Some("secret".to_owned()));
    assert_eq!(get(&mock, "/v1/models").status, 401);
    assert_eq!(get(&mock, "/health").status, 200);
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let bytes = |seed: u64| {
        let openai = gatewright_mock::OpenAiConfig {
            ttft: Law::Exponential { mean: 0.001 },
            itl: Law::Exponential { mean: 0.0001 },
            output_tokens: Law::Uniform { min: 1.0, max: 30.0 },
            ..gatewright_mock::OpenAiConfig::default()
        };
        let mock = crate::client::server(|config| {
            config.openai = Some(openai);
            config.seed = seed;
        });
        let streams = (0..5).map(|_| {
            let reply = post(&mock, "/v1/chat/completions", &chat(json!({"stream": true})));
            let chunks = chunks(&reply);
            let mut text = String::new();
            for chunk in &chunks {
                let chunk = chunk.to_string();
                let chunk: ChatChunk<'_> = serde_json::from_str(&chunk).unwrap();
                text += chunk.choices[0].delta.content.as_deref().unwrap_or("");
            }
            (chunks[0]["id"].clone(), text)
        });
        streams.collect::<Vec<_>>()
    };
    assert_eq!(bytes(1), bytes(1));
    assert_ne!(bytes(1), bytes(2));
}
