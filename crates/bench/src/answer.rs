use gatewright_determinism::Time;
use gatewright_protocol::SseDecoder;
use gatewright_record::TokenTimes;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::failure::Failure;
use crate::heard::Heard;

/// What the body of a good answer holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnswerKind {
    /// Bytes, which are counted.
    #[default]
    Opaque,
    /// The answer of a language model, in OpenAI's form (chat, completions, responses, embeddings): in one
    /// piece, or as a stream of events, whichever comes.
    OpenAi,
}

/// Follows the body of one answer of a language model.
#[derive(Debug)]
pub(crate) struct TokenWatch {
    decoder: SseDecoder,
    /// An answer in one piece.
    whole: Vec<u8>,
    is_stream: Option<bool>,
    first: Option<Time>,
    /// When the first piece of the answer proper was there.
    first_output: Option<Time>,
    last: Option<Time>,
    gaps: Vec<u64>,
    pieces: u64,
    usage: Usage,
    /// Whether the stream came to its own end.
    ended: bool,
    failure: Option<Failure>,
    /// What was answered, if that matters.
    heard: Option<Box<Heard>>,
}

/// One event is no longer than this.
const MAX_EVENT: usize = 4 << 20;
/// An answer in one piece is read for its usage up to this length.
const MAX_WHOLE: usize = 64 << 20;
/// Gaps that are kept of one answer; later ones are not in the distribution.
const MAX_GAPS: usize = 1 << 20;

/// Tokens as the server counts them, by either of OpenAI's names.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Usage {
    #[serde(alias = "input_tokens")]
    prompt_tokens: Option<u64>,
    #[serde(alias = "output_tokens")]
    completion_tokens: Option<u64>,
    #[serde(alias = "input_tokens_details")]
    prompt_tokens_details: Option<Cached>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Cached {
    cached_tokens: Option<u64>,
}

/// What matters of an event or an answer: of chat, completions or responses.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Message<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a str>,
    choices: Vec<Choice>,
    /// Of responses: the text itself; of others, absent.
    delta: Option<Text>,
    usage: Option<Usage>,
    response: Option<Inner>,
    error: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Inner {
    usage: Option<Usage>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Choice {
    delta: Delta,
    text: Option<Text>,
    finish_reason: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Delta {
    content: Option<Text>,
    #[serde(alias = "reasoning")]
    reasoning_content: Option<Text>,
    tool_calls: Option<Vec<IgnoredAny>>,
}

/// Whether there is any text, without the text.
#[derive(Debug)]
struct Text {
    is_empty: bool,
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Text;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("text")
            }

            fn visit_str<E>(self, text: &str) -> Result<Text, E> {
                Ok(Text { is_empty: text.is_empty() })
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Text, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Text { is_empty: true })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

fn some(text: &Option<Text>) -> bool {
    text.as_ref().is_some_and(|text| !text.is_empty)
}

impl Message<'_> {
    /// Whether a token is in it: text, thoughts, or a part of a call.
    fn has_token(&self) -> bool {
        let thinks = |choice: &Choice| some(&choice.delta.reasoning_content);
        some(&self.delta) || self.has_output() || self.choices.iter().any(thinks)
    }

    /// Whether a token of the answer proper is in it.
    fn has_output(&self) -> bool {
        let in_choice = |choice: &Choice| {
            some(&choice.text)
                || some(&choice.delta.content)
                || choice.delta.tool_calls.as_ref().is_some_and(|calls| !calls.is_empty())
        };
        let is_thought = self.kind.is_some_and(|kind| kind.contains("reasoning"));
        (some(&self.delta) && !is_thought) || self.choices.iter().any(in_choice)
    }

    fn is_last(&self) -> bool {
        matches!(self.kind, Some("response.completed" | "response.incomplete"))
            || self.choices.iter().any(|choice| choice.finish_reason.is_some())
    }
}

impl Default for TokenWatch {
    fn default() -> Self {
        Self {
            decoder: SseDecoder::new(MAX_EVENT),
            whole: Vec::new(),
            is_stream: None,
            first: None,
            first_output: None,
            last: None,
            gaps: Vec::new(),
            pieces: 0,
            usage: Usage::default(),
            ended: false,
            failure: None,
            heard: None,
        }
    }
}

impl TokenWatch {
    /// Makes ready for the next answer.
    pub(crate) fn reset(&mut self) {
        let (mut whole, mut gaps) =
            (std::mem::take(&mut self.whole), std::mem::take(&mut self.gaps));
        whole.clear();
        gaps.clear();
        *self = Self { whole, gaps, ..Self::default() };
    }

    /// Keeps what will be answered.
    pub(crate) fn keep_text(&mut self) {
        self.heard.get_or_insert_default();
    }

    /// What was answered, if it was to be kept.
    pub(crate) fn heard(&self) -> Option<&Heard> {
        self.heard.as_deref()
    }

    /// More of the body, which was there at `now`.
    pub(crate) fn feed(&mut self, piece: &[u8], now: Time) {
        let mut piece = piece;
        if self.is_stream.is_none() {
            let start = piece.trim_ascii_start();
            let Some(&first) = start.first() else { return };
            // JSON begins with a brace, an event with the name of a field.
            self.is_stream = Some(first != b'{' && first != b'[');
            piece = start;
        }
        if self.is_stream == Some(false) {
            if self.whole.len() + piece.len() <= MAX_WHOLE {
                self.whole.extend_from_slice(piece);
            }
            return;
        }
        let mut decoder = std::mem::replace(&mut self.decoder, SseDecoder::new(0));
        if decoder.feed(piece, |event| self.event(event.data, now)).is_err() {
            self.failure.get_or_insert(Failure::BadEvent);
        }
        self.decoder = decoder;
    }

    fn event(&mut self, data: &[u8], now: Time) {
        if data == gatewright_protocol::SSE_DONE {
            self.ended = true;
            return;
        }
        let Ok(message) = serde_json::from_slice::<Message<'_>>(data) else {
            self.failure.get_or_insert(Failure::BadEvent);
            return;
        };
        if message.error.is_some() {
            self.failure.get_or_insert(Failure::ErrorEvent);
        }
        if message.has_token() {
            if let Some(last) = self.last
                && self.gaps.len() < MAX_GAPS
            {
                self.gaps.push(now.nanos_since(last));
            }
            self.first.get_or_insert(now);
            if message.has_output() {
                self.first_output.get_or_insert(now);
            }
            self.last = Some(now);
            self.pieces += 1;
        }
        self.ended |= message.is_last();
        self.take_usage(&message);
        if let Some(heard) = &mut self.heard {
            heard.take(data);
        }
    }

    fn take_usage(&mut self, message: &Message<'_>) {
        let inner = message.response.as_ref().and_then(|response| response.usage);
        if let Some(usage) = message.usage.or(inner) {
            self.usage = usage;
        }
    }

    /// The answer is complete; what is wrong with it.
    pub(crate) fn finish(&mut self) -> Option<Failure> {
        match self.is_stream {
            Some(true) if self.failure.is_none() && !self.ended => Some(Failure::StreamCut),
            Some(false) => {
                let whole = std::mem::take(&mut self.whole);
                if let Some(heard) = &mut self.heard {
                    heard.take(&whole);
                }
                match serde_json::from_slice::<Message<'_>>(&whole) {
                    Ok(message) => {
                        self.take_usage(&message);
                        None
                    }
                    Err(_) => Some(Failure::BadEvent),
                }
            }
            Some(true) => self.failure,
            None => Some(Failure::StreamCut),
        }
    }

    /// When the first piece with a token was there.
    pub(crate) const fn first(&self) -> Option<Time> {
        self.first
    }

    /// What a finished answer tells.
    pub(crate) fn times(
        &self,
        scheduled: Option<Time>,
        sent: Time,
        finished: Time,
    ) -> TokenTimes<'_> {
        let counted = (self.pieces > 0).then_some(self.pieces);
        TokenTimes {
            scheduled,
            sent,
            first: self.first,
            first_output: self.first_output,
            last: self.last,
            finished,
            gaps: &self.gaps,
            pieces: self.pieces,
            tokens_in: self.usage.prompt_tokens,
            tokens_out: self.usage.completion_tokens.or(counted),
            tokens_cached: self
                .usage
                .prompt_tokens_details
                .and_then(|details| details.cached_tokens),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_nanos(millis * 1_000_000)
    }

    /// Feeds pieces, one a millisecond.
    fn watch(pieces: &[&str]) -> (TokenWatch, Option<Failure>) {
        let mut watch = TokenWatch::default();
        for (now, piece) in (1..).zip(pieces) {
            watch.feed(piece.as_bytes(), at(now));
        }
        let failure = watch.finish();
        (watch, failure)
    }

    #[test]
    fn chat_streams_are_timed_piece_by_piece() {
        let (watch, failure) = watch(&[
            "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n",
            "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"so\"}}]}\n\nda",
            "ta: {\"choices\":[{\"delta\":{\"content\":\"He\\\"y\"}}],\"usage\":null}\n\n",
            ": still there\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\":\"!\"},\"finish_reason\":\"stop\"}]}\n\n",
            "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":3,\"total_tokens\":12,\
             \"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\ndata: [DONE]\n\n",
        ]);
        assert_eq!(failure, None);
        let times = watch.times(None, at(0), at(6));
        assert_eq!((times.first, times.last, times.pieces), (Some(at(2)), Some(at(5)), 3));
        assert_eq!(times.first_output, Some(at(3)), "thoughts come before the answer");
        assert_eq!(times.gaps, [1_000_000, 2_000_000]);
        assert_eq!(
            (times.tokens_in, times.tokens_out, times.tokens_cached),
            (Some(9), Some(3), Some(4))
        );
    }

    #[test]
    fn completions_and_responses_are_read_as_well() {
        let (completions, failure) = watch(&[
            "data: {\"choices\":[{\"text\":\"a\"}]}\n\n",
            "data: {\"choices\":[{\"text\":\"b\",\"finish_reason\":\"length\"}]}\n\n",
        ]);
        assert_eq!(
            (failure, completions.pieces, completions.usage.completion_tokens),
            (None, 2, None)
        );
        assert_eq!(completions.times(None, at(0), at(3)).tokens_out, Some(2));
        let (responses, failure) = watch(&[
            "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"usage\":null}}\n\n",
            "data: {\"type\":\"response.output_text.delta\",\"delta\":\"a\"}\n\n",
            "data: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":5,\"output_tokens\":1}}}\n\n",
        ]);
        assert_eq!((failure, responses.pieces), (None, 1));
        assert_eq!(responses.usage.prompt_tokens, Some(5));
        let (whole, failure) = watch(&[
            "\n{\"choices\":[{\"message\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}],",
            "\"usage\":{\"prompt_tokens\":2,\"completion_tokens\":1}}",
        ]);
        assert_eq!((failure, whole.first, whole.usage.completion_tokens), (None, None, Some(1)));
    }

    #[test]
    fn what_is_wrong_with_an_answer_is_a_failure() {
        let token = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
        assert_eq!(watch(&[token]).1, Some(Failure::StreamCut));
        assert_eq!(watch(&[]).1, Some(Failure::StreamCut));
        assert_eq!(
            watch(&[token, "data: {broken\n\n", "data: [DONE]\n\n"]).1,
            Some(Failure::BadEvent)
        );
        assert_eq!(watch(&["{\"choices\":"]).1, Some(Failure::BadEvent));
        let error = "data: {\"error\":{\"message\":\"no memory\"}}\n\ndata: [DONE]\n\n";
        assert_eq!(watch(&[token, error]).1, Some(Failure::ErrorEvent));
    }
}
