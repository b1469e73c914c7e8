//! What was said so far in sessions with a language model: the user's messages, what the model really answered, and what
//! came of its calls.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::heard::Heard;
use crate::{Amount, Data};

/// How requests of a session go on from the answers before.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Dialogue {
    /// How what was said is written.
    pub form: DialogueForm,
    /// Calls that the model has to make.
    pub tools: ToolTurns,
}

/// How what was said in a session is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DialogueForm {
    /// Messages of a chat.
    #[default]
    Messages,
    /// Items of a response's input.
    Items,
}

/// Turns of a session in which the model has to call a tool. Each such turn takes two requests: the next one brings made
/// up results of the calls, and the model answers them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ToolTurns {
    /// So many of the user's messages, the first ones, have to be answered with a call.
    pub turns: u32,
    /// Tokens of the result of a call.
    pub result_tokens: Amount,
    /// What it means if the model does not call.
    pub missing: MissingCall,
}

/// What it means if a model that has to call a tool does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MissingCall {
    /// The request has failed, and its conversation is over.
    #[default]
    Fail,
    /// The conversation is over.
    End,
    /// The user says something else.
    GoOn,
}

/// What was said in one session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    /// Objects of JSON with commas between them.
    all: String,
    /// How often the user said something.
    users: u64,
    /// Names of the calls of the last answer, whose results are to be told next.
    calls: Vec<String>,
    /// Name of the last answer.
    id: Option<String>,
}

/// The conversations that a thread has going on, by the number of their session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conversations {
    said: HashMap<u64, Said>,
    nothing: Said,
}

/// A conversation that has grown to so many bytes is over: no model reads more.
const MAX_LENGTH: usize = 16 << 20;

impl Default for ToolTurns {
    fn default() -> Self {
        Self { turns: 0, result_tokens: Amount::Fixed(32), missing: MissingCall::Fail }
    }
}

impl Conversations {
    /// What was said in a session.
    pub(crate) fn said(&self, session: u64) -> &Said {
        self.said.get(&session).unwrap_or(&self.nothing)
    }

    /// In `session` somebody said `asked`, in JSON, and was answered. Whether it may go on.
    /// `remembers`: the server knows what was said.
    pub(crate) fn hear(
        &mut self,
        session: u64,
        asked: &str,
        answer: &Heard,
        (dialogue, remembers): (&Dialogue, bool),
    ) -> bool {
        let said = self.said.entry(session).or_default();
        said.users += u64::from(said.calls.is_empty());
        said.calls = answer.calls.iter().map(|call| call.id.clone()).collect();
        said.id.clone_from(&answer.id);
        if remembers {
            return said.id.is_some();
        }
        for part in [asked, &dialogue.form.answered(answer)] {
            if !said.all.is_empty() && !part.is_empty() {
                said.all.push(',');
            }
            said.all.push_str(part);
        }
        said.all.len() <= MAX_LENGTH
    }

    /// How many go on.
    pub(crate) fn count(&self) -> usize {
        self.said.len()
    }

    /// The session is over.
    pub(crate) fn forget(&mut self, session: u64) {
        self.said.remove(&session);
    }
}

impl Said {
    /// Objects of JSON with commas between them.
    pub(crate) fn all(&self) -> &str {
        &self.all
    }

    /// Name of the last answer, in JSON.
    pub(crate) fn previous(&self) -> Value {
        json!(self.id)
    }

    /// Whether the next answer has to be a call.
    pub(crate) fn wants_call(&self, tools: &ToolTurns) -> bool {
        self.calls.is_empty() && self.users < u64::from(tools.turns)
    }

    /// What is said next, in JSON, and whether the user has more to say after that: results of calls, or else the user's
    /// message in `text`, or with `each` all of that.
    pub(crate) fn next(
        &self,
        text: &str,
        each: bool,
        dialogue: &Dialogue,
        result: impl Fn(u64) -> String,
    ) -> (String, bool) {
        if !self.calls.is_empty() {
            let results = (0..).zip(&self.calls);
            let results =
                results.map(|(nth, id)| dialogue.form.result(id, &result(nth)).to_string());
            let has_more = each || new_messages(text, self.users.saturating_sub(1)).1;
            return (results.collect::<Vec<_>>().join(","), has_more);
        }
        if each { (user_message(text), true) } else { new_messages(text, self.users) }
    }

    /// How the results of this turn's calls are told apart from those of others.
    pub(crate) const fn turn(&self) -> u64 {
        self.users
    }
}

impl DialogueForm {
    /// What the model answered, in JSON; nothing if it said nothing.
    fn answered(self, answer: &Heard) -> String {
        match self {
            Self::Messages => {
                let mut message = json!({ "role": "assistant", "content": answer.text });
                if !answer.calls.is_empty() {
                    let call = |call: &crate::heard::Call| {
                        let function = json!({ "name": call.name, "arguments": call.arguments });
                        json!({ "id": call.id, "type": "function", "function": function })
                    };
                    message["tool_calls"] = answer.calls.iter().map(call).collect();
                }
                message.to_string()
            }
            Self::Items => {
                let text = (!answer.text.is_empty())
                    .then(|| json!({ "role": "assistant", "content": answer.text }));
                let call = |call: &crate::heard::Call| {
                    json!({
                        "type": "function_call", "call_id": call.id, "name": call.name,
                        "arguments": call.arguments,
                    })
                };
                let items = text.into_iter().chain(answer.calls.iter().map(call));
                items.map(|item| item.to_string()).collect::<Vec<_>>().join(",")
            }
        }
    }

    /// What came of a call.
    fn result(self, id: &str, text: &str) -> Value {
        match self {
            Self::Messages => json!({ "role": "tool", "tool_call_id": id, "content": text }),
            Self::Items => {
                json!({ "type": "function_call_output", "call_id": id, "output": text })
            }
        }
    }
}

/// The made up result of call `nth` of a turn of a session.
pub(crate) fn result(data: &Data, tools: &ToolTurns, session: u64, turn: u64, nth: u64) -> String {
    const CALLS: u64 = 1 << 8;
    const TURNS: u64 = 1 << 16;
    data.made_up(
        session.wrapping_mul(CALLS * TURNS) + turn % TURNS * CALLS + nth,
        tools.result_tokens,
    )
}

/// Of the messages of a recorded conversation, those that come new with the user's message number `turn`, from 0, and
/// whether the user says more after that. What an assistant said is left out: it is the server's to say.
fn new_messages(text: &str, turn: u64) -> (String, bool) {
    let messages = serde_json::from_str::<Vec<Value>>(text).unwrap_or_default();
    let mut users = 0;
    let mut new = Vec::new();
    for message in &messages {
        if users == turn && message["role"] != "assistant" {
            new.push(message.to_string());
        }
        users += u64::from(message["role"] == "user");
    }
    (new.join(","), users > turn + 1)
}

/// A message of the user in JSON.
fn user_message(text: &str) -> String {
    json!({ "role": "user", "content": text }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heard::Call;

    const CHAT: Dialogue = Dialogue {
        form: DialogueForm::Messages,
        tools: ToolTurns { turns: 1, result_tokens: Amount::Fixed(2), missing: MissingCall::Fail },
    };

    fn answer(text: &str) -> Heard {
        Heard { text: text.into(), calls: Vec::new(), id: Some(format!("id of {text}")) }
    }

    fn call(id: &str) -> Heard {
        let call = Call { id: id.into(), name: "f".into(), arguments: "{}".into() };
        Heard { calls: vec![call], ..answer("") }
    }

    #[test]
    fn each_turn_has_its_new_messages() {
        let text = r#"[{"role":"system","content":"s"},{"role":"user","content":"1"},{"role":"assistant","content":"a"},{"role":"user","content":"2"},{"role":"assistant","content":"b"}]"#;
        let (first, goes_on) = new_messages(text, 0);
        assert_eq!(
            (first.as_str(), goes_on),
            (r#"{"content":"s","role":"system"},{"content":"1","role":"user"}"#, true)
        );
        assert_eq!(new_messages(text, 1), (r#"{"content":"2","role":"user"}"#.to_owned(), false));
        assert_eq!(new_messages(text, 2), (String::new(), false));
        assert_eq!(new_messages("broken", 0), (String::new(), false));
    }

    #[test]
    fn what_was_said_is_kept_until_the_end() {
        let mut all = Conversations::default();
        let how = (&Dialogue::default(), false);
        assert!(all.hear(4, "{1}", &answer("one \"quoted\""), how));
        assert!(all.hear(4, "{2}", &answer("two"), how));
        let expected = r#"{1},{"content":"one \"quoted\"","role":"assistant"},{2},{"content":"two","role":"assistant"}"#;
        assert_eq!(all.said(4).all(), expected);
        assert_eq!(all.said(5).all(), "");
        assert!(!all.hear(4, "{3}", &answer(&"x".repeat(MAX_LENGTH)), how));
        all.forget(4);
        assert!(all.said.is_empty());
    }

    #[test]
    fn a_server_that_remembers_is_told_only_what_is_new() {
        let mut all = Conversations::default();
        let how = (&Dialogue { form: DialogueForm::Items, ..Dialogue::default() }, true);
        assert!(all.said(1).previous().is_null());
        assert!(all.hear(1, "{1}", &answer("one"), how));
        assert_eq!((all.said(1).all(), all.said(1).previous()), ("", json!("id of one")));
        assert!(!all.hear(1, "{2}", &Heard::default(), how), "an answer without a name");
    }

    #[test]
    fn calls_are_answered_before_the_user_goes_on() {
        let mut all = Conversations::default();
        let next = |all: &Conversations| {
            let result = |nth| format!("result {nth}");
            all.said(1).next("hello", true, &CHAT, result).0
        };
        assert!(all.said(1).wants_call(&CHAT.tools));
        let asked = next(&all);
        assert_eq!(asked, r#"{"content":"hello","role":"user"}"#);
        all.hear(1, &asked, &call("c7"), (&CHAT, false));
        assert!(!all.said(1).wants_call(&CHAT.tools));
        let asked = next(&all);
        assert_eq!(asked, r#"{"content":"result 0","role":"tool","tool_call_id":"c7"}"#);
        all.hear(1, &asked, &answer("done"), (&CHAT, false));
        assert_eq!(next(&all), r#"{"content":"hello","role":"user"}"#);
        assert!(!all.said(1).wants_call(&CHAT.tools), "one turn with a call was wanted");
        let roles: Vec<Value> = serde_json::from_str(&format!("[{}]", all.said(1).all())).unwrap();
        let roles: Vec<_> = roles.iter().map(|message| message["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["user", "assistant", "tool", "assistant"]);
    }

    #[test]
    fn responses_have_items() {
        let mut all = Conversations::default();
        let dialogue = Dialogue { form: DialogueForm::Items, ..CHAT };
        all.hear(1, "{1}", &call("c7"), (&dialogue, false));
        let expected = r#"{1},{"arguments":"{}","call_id":"c7","name":"f","type":"function_call"}"#;
        assert_eq!(all.said(1).all(), expected);
        let (result, _) = all.said(1).next("", true, &dialogue, |_| "r".to_owned());
        assert_eq!(result, r#"{"call_id":"c7","output":"r","type":"function_call_output"}"#);
    }
}
