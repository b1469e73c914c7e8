//! What was said so far in sessions with a language model: the user's messages, and what the model really answered.

use std::collections::HashMap;

use serde_json::Value;

/// The conversations that a thread has going on, by the number of their session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conversations {
    said: HashMap<u64, String>,
}

/// A conversation that has grown to so many bytes is over: no model reads more.
const MAX_LENGTH: usize = 16 << 20;

impl Conversations {
    /// What was said in a session: objects of JSON with commas between them.
    pub(crate) fn said(&self, session: u64) -> &str {
        self.said.get(&session).map_or("", String::as_str)
    }

    /// In `session` somebody said `asked`, messages in JSON, and was answered. Whether it may go on.
    pub(crate) fn hear(&mut self, session: u64, asked: &str, answer: &str) -> bool {
        let said = self.said.entry(session).or_default();
        let answer = serde_json::json!({ "role": "assistant", "content": answer }).to_string();
        for part in [asked, &answer] {
            if !said.is_empty() && !part.is_empty() {
                said.push(',');
            }
            said.push_str(part);
        }
        said.len() <= MAX_LENGTH
    }

    /// The session is over.
    pub(crate) fn forget(&mut self, session: u64) {
        self.said.remove(&session);
    }
}

/// Of the messages of a recorded conversation, those that come new with the user's message number `turn`, from 0, and
/// whether the user says more after that. What an assistant said is left out: it is the server's to say.
pub(crate) fn new_messages(text: &str, turn: u64) -> (String, bool) {
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
pub(crate) fn user_message(text: &str) -> String {
    serde_json::json!({ "role": "user", "content": text }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(all.hear(4, "{1}", "one \"quoted\""));
        assert!(all.hear(4, "{2}", "two"));
        let expected = r#"{1},{"content":"one \"quoted\"","role":"assistant"},{2},{"content":"two","role":"assistant"}"#;
        assert_eq!(all.said(4), expected);
        assert_eq!(all.said(5), "");
        assert!(!all.hear(4, "{3}", &"x".repeat(MAX_LENGTH)));
        all.forget(4);
        assert!(all.said.is_empty());
    }
}
