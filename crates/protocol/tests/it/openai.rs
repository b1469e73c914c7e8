use std::borrow::Cow;

use gatewright_protocol::openai::{
    Answer, ChatChoice, ChatChunk, ChatCompletion, ChatRequest, CompletionRequest, Content,
    EmbeddingRequest, EmbeddingValues, Embeddings, ErrorBody, FinishReason, Prompt, ResponseEvent,
    ResponseInput, ResponseRequest, ToolChoice, Usage,
};
use serde_json::{Value, json};

fn usage() -> Usage {
    let completion_tokens = Some(2);
    Usage { prompt_tokens: 5, completion_tokens, total_tokens: 7, ..Usage::default() }
}

#[test]
fn a_chat_request_is_read_leniently() {
    let request: ChatRequest = serde_json::from_value(json!({
        "model": "m", "frequency_penalty": 0.5, "stop": null, "stream": true, "user": "u",
        "stream_options": {"include_usage": true, "new": 1},
        "max_tokens": null, "max_completion_tokens": 9, "ignore_eos": true,
        "messages": [
            {"role": "system", "content": "be kind"},
            {"role": "user", "name": "n", "content": [
                {"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "data:"}}]},
            {"role": "assistant", "content": null,
                "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "1", "content": "42"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "strict": true, "parameters": {}}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
    }))
    .unwrap();
    assert_eq!((request.max_tokens, request.max_completion_tokens), (None, Some(9)));
    assert_eq!(request.stream_options.unwrap().include_usage, Some(true));
    let content = request.messages[1].content.as_ref().unwrap();
    assert_eq!((content.texts().collect::<Vec<_>>(), content.images()), (vec!["look"], 1));
    assert_eq!(request.messages[0].content, Some(Content::from("be kind")));
    assert_eq!(request.messages[2].tool_calls.as_ref().unwrap()[0].function.name, "f");
    assert_eq!(request.tool_choice.unwrap().name(), Some("f"));
    let bare: ChatRequest = serde_json::from_str(r#"{"messages": []}"#).unwrap();
    assert_eq!(serde_json::to_string(&bare).unwrap(), r#"{"messages":[]}"#);
}

#[test]
fn prompts_take_every_form() {
    let read = |prompt: Value| {
        let request = json!({"prompt": prompt, "logprobs": null});
        serde_json::from_value::<CompletionRequest>(request).unwrap().prompt
    };
    assert_eq!(read(json!("a")), Prompt::Text("a".to_owned()));
    assert_eq!(read(json!(["a", "b"])).count(), 2);
    assert_eq!(read(json!([1, 2])), Prompt::Tokens(vec![1, 2]));
    assert_eq!(read(json!([[1], [2, 3]])), Prompt::TokenLists(vec![vec![1], vec![2, 3]]));
    let input: EmbeddingRequest =
        serde_json::from_str(r#"{"input":"x","encoding_format":"base64"}"#).unwrap();
    assert_eq!(input.encoding_format.as_deref(), Some("base64"));
}

#[test]
fn a_chat_completion_is_written_exactly() {
    let message = Answer {
        role: "assistant".to_owned(),
        content: Some("a b".to_owned()),
        ..Answer::default()
    };
    let finish_reason = Some(FinishReason::Length);
    let choice = ChatChoice { index: 0, message, logprobs: None, finish_reason };
    let written = ChatCompletion::new("i".to_owned(), 3, "m".to_owned(), choice, usage());
    let expected = r#"{"id":"i","object":"chat.completion","created":3,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"a b","refusal":null},"logprobs":null,"finish_reason":"length"}],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}"#;
    assert_eq!(serde_json::to_string(&written).unwrap(), expected);
    assert_eq!(serde_json::from_str::<ChatCompletion>(expected).unwrap(), written);
}

#[test]
fn a_chat_chunk_tells_no_usage_from_null() {
    let chunk = |usage| ChatChunk {
        id: Cow::Borrowed("i"),
        object: Cow::Borrowed("chat.completion.chunk"),
        created: 3,
        model: Cow::Borrowed("m"),
        choices: vec![],
        usage,
    };
    let head = r#"{"id":"i","object":"chat.completion.chunk","created":3,"model":"m","choices":[]"#;
    let written = |usage| serde_json::to_string(&chunk(usage)).unwrap();
    assert_eq!(written(None), format!("{head}}}"));
    assert_eq!(written(Some(None)), format!("{head},\"usage\":null}}"));
    let with = written(Some(Some(usage())));
    let read: ChatChunk<'_> = serde_json::from_str(&with).unwrap();
    assert_eq!(read.usage.flatten(), Some(usage()));
}

#[test]
fn chunks_of_other_servers_are_read() {
    let text = r#"{"id":"x","choices":[{"delta":{"content":"é\n","reasoning":"hm","audio":{}},
        "finish_reason":"abort","stop_reason":null}],"usage":null,"service_tier":"default"}"#;
    let chunk: ChatChunk<'_> = serde_json::from_str(text).unwrap();
    let choice = &chunk.choices[0];
    assert_eq!(choice.delta.content.as_deref(), Some("é\n"));
    assert_eq!(choice.delta.reasoning_content.as_deref(), Some("hm"));
    assert_eq!(choice.finish_reason, Some(FinishReason::Other("abort".to_owned())));
    assert!(matches!(chunk.id, Cow::Borrowed("x")), "an id is not copied");
    let stop = r#"{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}"#;
    let chunk: ChatChunk<'_> = serde_json::from_str(stop).unwrap();
    assert_eq!(chunk.choices[0].finish_reason, Some(FinishReason::ToolCalls));
}

#[test]
fn embeddings_come_as_numbers_or_base64() {
    let vectors =
        vec![EmbeddingValues::Floats(vec![0.5]), EmbeddingValues::Base64("AAAAPw==".to_owned())];
    let written = Embeddings::new(vectors, "m".to_owned(), Usage::default());
    let text = serde_json::to_string(&written).unwrap();
    assert!(text.starts_with(
        r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5]}"#
    ));
    assert!(!text.contains("completion_tokens"), "{text}");
    assert_eq!(serde_json::from_str::<Embeddings>(&text).unwrap(), written);
}

#[test]
fn responses_are_asked_for_and_read() {
    let request: ResponseRequest = serde_json::from_value(json!({
        "model": "m", "store": false, "tool_choice": "required", "max_output_tokens": 4,
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            {"type": "function_call_output", "call_id": "c", "output": "42"}],
        "tools": [{"type": "function", "name": "f", "parameters": {}}, {"type": "web_search"}],
    }))
    .unwrap();
    let ResponseInput::Items(items) = request.input else { panic!("{:?}", request.input) };
    assert_eq!(items[1].output, Some(Content::from("42")));
    assert_eq!(request.tool_choice, Some(ToolChoice::Mode("required".to_owned())));

    let delta = ResponseEvent::TextDelta {
        item_id: Cow::Borrowed("i"),
        output_index: 0,
        content_index: 0,
        delta: Cow::Borrowed(" hi"),
        sequence_number: 4,
    };
    let text = serde_json::to_string(&delta).unwrap();
    assert_eq!(
        text,
        r#"{"type":"response.output_text.delta","item_id":"i","output_index":0,"content_index":0,"delta":" hi","sequence_number":4}"#
    );
    assert_eq!(serde_json::from_str::<ResponseEvent<'_>>(&text).unwrap(), delta);
    let other = r#"{"type":"response.reasoning.delta","delta":"x","sequence_number":4}"#;
    assert_eq!(serde_json::from_str::<ResponseEvent<'_>>(other).unwrap(), ResponseEvent::Unknown);
}

#[test]
fn errors_of_openai_and_vllm_are_read() {
    for code in [json!("model_not_found"), json!(404), Value::Null] {
        let body = json!({"error": {"message": "no", "type": "e", "param": null, "code": code}});
        let read: ErrorBody = serde_json::from_value(body.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), body);
    }
}
