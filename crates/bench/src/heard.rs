//! What a language model answered, where a conversation goes on from it.

use serde::Deserialize;

/// An answer's text, its calls and its name.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) text: String,
    /// Functions that the model wants to be called.
    pub(crate) calls: Vec<Call>,
    /// Its name, by which the server may remember it.
    pub(crate) id: Option<String>,
}

/// A function that is to be called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) name: String,
    /// A text that should be JSON.
    pub(crate) arguments: String,
}

/// Bytes that are kept of each text; what is longer is cut off.
const MAX_TEXT: usize = 4 << 20;
/// Calls that are kept of an answer.
const MAX_CALLS: usize = 128;

/// What matters of an event or of an answer in one piece: of chat, or of responses.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Event {
    id: Option<String>,
    choices: Vec<Choice>,
    output: Vec<Item>,
    /// Of responses, at the beginning and at the end.
    response: Option<Whole>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Whole {
    id: Option<String>,
    output: Vec<Item>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Choice {
    #[serde(alias = "message")]
    delta: Option<Delta>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Delta {
    content: Option<String>,
    tool_calls: Option<Vec<CallPart>>,
}

/// A call, or more of one.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CallPart {
    index: Option<usize>,
    id: Option<String>,
    function: FunctionPart,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FunctionPart {
    name: Option<String>,
    arguments: Option<String>,
}

/// A message or a call, of responses.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Item {
    call_id: Option<String>,
    name: Option<String>,
    arguments: Option<String>,
    content: Option<Vec<Text>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Text {
    text: Option<String>,
}

impl Heard {
    /// Takes an event of a stream, or all of an answer. What is neither tells nothing.
    pub(crate) fn take(&mut self, data: &[u8]) {
        let Ok(event) = serde_json::from_slice::<Event>(data) else { return };
        if let Some(delta) = event.choices.into_iter().next().and_then(|choice| choice.delta) {
            append(&mut self.text, delta.content.as_deref().unwrap_or_default());
            let parts = delta.tool_calls.into_iter().flatten();
            parts.enumerate().for_each(|(nth, part)| self.take_part(nth, part));
        }
        let whole = event.response.unwrap_or(Whole { id: event.id, output: event.output });
        self.id = whole.id.or_else(|| self.id.take());
        whole.output.into_iter().for_each(|item| self.take_item(item));
    }

    fn take_part(&mut self, nth: usize, part: CallPart) {
        let nth = part.index.unwrap_or(nth);
        if nth >= MAX_CALLS {
            return;
        }
        if self.calls.len() <= nth {
            self.calls.resize_with(nth + 1, Call::default);
        }
        let call = &mut self.calls[nth];
        for (text, more) in [
            (&mut call.id, part.id),
            (&mut call.name, part.function.name),
            (&mut call.arguments, part.function.arguments),
        ] {
            append(text, more.as_deref().unwrap_or_default());
        }
    }

    fn take_item(&mut self, item: Item) {
        for text in item.content.iter().flatten() {
            append(&mut self.text, text.text.as_deref().unwrap_or_default());
        }
        if let Some((id, name)) = item.call_id.zip(item.name)
            && self.calls.len() < MAX_CALLS
        {
            let arguments = item.arguments.unwrap_or_default();
            self.calls.push(Call { id, name, arguments });
        }
    }
}

/// Appends as much of `more` as there is room for.
fn append(text: &mut String, more: &str) {
    let mut room = MAX_TEXT.saturating_sub(text.len()).min(more.len());
    while !more.is_char_boundary(room) {
        room -= 1;
    }
    text.push_str(&more[..room]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(events: &[&str]) -> Heard {
        let mut heard = Heard::default();
        events.iter().for_each(|event| heard.take(event.as_bytes()));
        heard
    }

    #[test]
    fn a_chat_is_heard_whole_and_in_pieces() {
        let pieces = heard(&[
            r#"{"id":"c1","choices":[{"delta":{"role":"assistant","content":""}}]}"#,
            r#"{"id":"c1","choices":[{"delta":{"content":"one "}}]}"#,
            r#"{"id":"c1","choices":[{"delta":{"content":"two"}}]}"#,
            r#"{"id":"c1","choices":[],"usage":{"prompt_tokens":1}}"#,
        ]);
        assert_eq!((pieces.text.as_str(), pieces.id.as_deref()), ("one two", Some("c1")));
        let whole = heard(&[r#"{"id":"c2","choices":[{"message":{"content":"all"}}]}"#]);
        assert_eq!((whole.text.as_str(), whole.calls.len()), ("all", 0));
    }

    #[test]
    fn calls_are_put_together() {
        let expected = [
            Call { id: "a".into(), name: "f".into(), arguments: r#"{"x":1}"#.into() },
            Call { id: "b".into(), name: "g".into(), arguments: "{}".into() },
        ];
        let pieces = heard(&[
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":""}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"x\""}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":":1}"}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":1,"id":"b","function":{"name":"g","arguments":"{}"}}]}}]}"#,
        ]);
        assert_eq!(pieces.calls, expected);
        let whole = heard(&[r#"{"choices":[{"message":{"content":null,"tool_calls":[
                {"id":"a","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}},
                {"id":"b","type":"function","function":{"name":"g","arguments":"{}"}}]}}]}"#]);
        assert_eq!(whole.calls, expected);
        let odd = heard(&[r#"{"choices":[{"delta":{"tool_calls":[{"index":1000000}]}}]}"#]);
        assert!(odd.calls.is_empty(), "a number that means nothing takes no memory");
    }

    #[test]
    fn a_response_is_heard_at_its_end() {
        let response = r#"{"id":"r1","output":[
            {"type":"reasoning","summary":[]},
            {"type":"message","role":"assistant","content":[{"type":"output_text","text":"so"}]},
            {"type":"function_call","call_id":"a","name":"f","arguments":"{}"}]}"#;
        let streamed = heard(&[
            r#"{"type":"response.created","response":{"id":"r1","output":[]}}"#,
            r#"{"type":"response.output_text.delta","delta":"so"}"#,
            &format!(r#"{{"type":"response.completed","response":{response}}}"#),
        ]);
        for heard in [streamed, heard(&[response])] {
            assert_eq!((heard.text.as_str(), heard.id.as_deref()), ("so", Some("r1")));
            assert_eq!(heard.calls.len(), 1);
            assert_eq!(heard.calls[0].id, "a");
        }
    }
}
