use std::sync::Arc;

use gatewright_determinism::{Purpose, Stream};

use crate::AnswerKind;
use crate::answer::TokenWatch;
use crate::conversation::{Conversations, MissingCall};
use crate::failure::Failure;
use crate::feed::Turn;
use crate::template::RequestTemplate;

/// The requests that a run makes, and which of them each number gets.
#[derive(Clone, Debug)]
pub(crate) struct Requests {
    templates: Vec<Prepared>,
    choice: Choice,
    conversations: Conversations,
    has_conversations: bool,
}

/// A request that is ready to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) template: RequestTemplate,
    pub(crate) kind: AnswerKind,
    /// Name of the target, in records.
    pub(crate) name: Option<Arc<str>>,
}

#[derive(Clone, Debug)]
enum Choice {
    /// One after the other.
    InTurn,
    /// By weight, drawn from the number of the request.
    Weighted { bounds: Vec<f64>, seed: u64 },
}

impl Requests {
    /// Weights are positive; if they are all the same, the requests come one after the other.
    pub(crate) fn new(prepared: Vec<(f64, Prepared)>, seed: u64) -> Self {
        let total: f64 = prepared.iter().map(|(weight, _)| weight).sum();
        let even = prepared.windows(2).all(|pair| pair[0].0 == pair[1].0);
        let mut sum = 0.0;
        let (mut bounds, mut templates) = (Vec::new(), Vec::new());
        for (weight, prepared) in prepared {
            sum += weight / total;
            bounds.push(sum);
            templates.push(prepared);
        }
        let choice = if even { Choice::InTurn } else { Choice::Weighted { bounds, seed } };
        let has_conversations =
            templates.iter().any(|prepared: &Prepared| prepared.template.is_conversation());
        let conversations = Conversations::default();
        Self { templates, choice, conversations, has_conversations }
    }

    /// Which request number `number` is, at `turn` of its session: a conversation stays with whom it began with.
    pub(crate) fn choose(&self, number: u64, turn: Turn) -> usize {
        let number = if self.has_conversations { turn.session } else { number };
        let last = self.templates.len() - 1;
        match &self.choice {
            Choice::InTurn if last == 0 => 0,
            Choice::InTurn => (number % self.templates.len() as u64) as usize,
            Choice::Weighted { bounds, seed } => {
                let luck = Stream::new(*seed, Purpose::Content, number).unit();
                bounds.partition_point(|bound| *bound <= luck).min(last)
            }
        }
    }

    pub(crate) fn get(&self, choice: usize) -> &Prepared {
        &self.templates[choice]
    }

    /// The bytes of request `number`, which stands at `turn` of its session.
    pub(crate) fn bytes(&mut self, choice: usize, number: u64, turn: Turn) -> &[u8] {
        let said = self.conversations.said(turn.session);
        self.templates[choice].template.for_request(number, turn, said)
    }

    /// Head and body of the same.
    pub(crate) fn parts(&mut self, choice: usize, number: u64, turn: Turn) -> (&[u8], &[u8]) {
        let said = self.conversations.said(turn.session);
        self.templates[choice].template.parts(number, turn, said)
    }

    /// Whether requests go on from what was said before.
    pub(crate) const fn has_conversations(&self) -> bool {
        self.has_conversations
    }

    /// What is wrong with a good answer, if something is: a model that had to call a tool did not.
    pub(crate) fn lacks(&self, choice: usize, turn: Turn, answer: &TokenWatch) -> Option<Failure> {
        let tools = &self.templates[choice].template.dialogue()?.tools;
        let fails = tools.missing == MissingCall::Fail && self.misses_call(choice, turn, answer);
        fails.then_some(Failure::NoCall)
    }

    fn misses_call(&self, choice: usize, turn: Turn, answer: &TokenWatch) -> bool {
        let Some(dialogue) = self.templates[choice].template.dialogue() else { return false };
        self.conversations.said(turn.session).wants_call(&dialogue.tools)
            && answer.heard().is_some_and(|heard| heard.calls.is_empty())
    }

    /// A request has ended, with a good answer or none. Whether its session may go on; a conversation does not after a
    /// failure.
    pub(crate) fn hear(
        &mut self,
        choice: usize,
        number: u64,
        turn: Turn,
        answer: Option<&TokenWatch>,
    ) -> bool {
        let Some(dialogue) = self.templates[choice].template.dialogue() else { return true };
        let Some(answer) = answer else { return false };
        let Some(heard) = answer.heard() else { return false };
        let ends = dialogue.tools.missing == MissingCall::End;
        if ends && self.misses_call(choice, turn, answer) {
            return false;
        }
        let template = &mut self.templates[choice].template;
        let said = self.conversations.said(turn.session);
        let (asked, has_more) = template.new_messages(number, turn, said);
        let how = (&dialogue, template.remembers());
        has_more && self.conversations.hear(turn.session, &asked, heard, how)
    }

    /// Conversations that go on.
    pub(crate) fn conversations(&self) -> usize {
        self.conversations.count()
    }

    /// A session is over.
    pub(crate) fn forget(&mut self, session: u64) {
        self.conversations.forget(session);
    }
}
