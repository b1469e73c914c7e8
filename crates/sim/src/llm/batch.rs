use std::collections::VecDeque;
use std::mem;

use super::blocks::Blocks;
use super::{LlmModel, StepTime};

/// Requests of one replica and the plan of each step: the scheduler of vLLM's engine, version 1.
///
/// Running requests come first, in the order in which they began; what is left of the step's budget of tokens goes to
/// those that wait. A prompt that does not fit into it is worked through in parts. When blocks run out, the request
/// that began last is put back to the front of those that wait, and has to be worked through again.
///
/// It knows no time: [`Batcher::begin_step`] says how long a step takes, and [`Batcher::end_step`] is called when it
/// is over.
#[derive(Clone, Debug)]
pub struct Batcher<T> {
    limits: Limits,
    step: StepTime,
    blocks: Blocks,
    running: Vec<Sequence<T>>,
    waiting: VecDeque<Sequence<T>>,
    /// Tokens of each running request in the step that is under way.
    plan: Vec<u32>,
    stepping: bool,
    put_back: u64,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    batch: usize,
    token_budget: u32,
    block_tokens: u32,
    blocks: u64,
}

/// What is asked of a language model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Tokens of the prompt; 0 counts as 1.
    pub prompt: u32,
    /// Tokens of the answer; 0 counts as 1.
    pub output: u32,
    /// Which beginning the prompt has, and how many tokens of it, if it shares one with others.
    pub prefix: Option<(u32, u32)>,
}

/// A token that a step has given a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given<T> {
    /// The request.
    pub tag: T,
    /// Whether it is the first of its answer.
    pub first: bool,
    /// Whether it is the last; the request has left then.
    pub last: bool,
    /// Tokens of its prompt that were in the cache when it began.
    pub cached: u32,
}

#[derive(Clone, Copy, Debug)]
struct Sequence<T> {
    tag: T,
    asked: Asked,
    /// Tokens that have been worked through.
    computed: u32,
    /// Tokens of the answer so far.
    given: u32,
    /// Blocks of its own.
    own: u32,
    /// Blocks of its beginning that it shares.
    shared: u32,
    cached: u32,
}

impl<T: Copy + PartialEq> Batcher<T> {
    /// Without any request; the model must have passed [`LlmModel::check`].
    #[must_use]
    pub fn new(model: &LlmModel) -> Self {
        let blocks = model.kv_blocks.map_or(u64::MAX / 4, u64::from);
        Self {
            limits: Limits {
                batch: model.batch as usize,
                token_budget: model.token_budget,
                block_tokens: model.block_tokens,
                blocks,
            },
            step: model.step,
            blocks: Blocks::new(blocks),
            running: Vec::new(),
            waiting: VecDeque::new(),
            plan: Vec::new(),
            stepping: false,
            put_back: 0,
        }
    }

    /// Takes a request; false if prompt and answer together would never fit into the key-value cache.
    pub fn enter(&mut self, tag: T, asked: Asked) -> bool {
        let asked = Asked { prompt: asked.prompt.max(1), output: asked.output.max(1), ..asked };
        let tokens = u64::from(asked.prompt) + u64::from(asked.output);
        if tokens > u64::from(u32::MAX)
            || tokens.div_ceil(u64::from(self.limits.block_tokens)) > self.limits.blocks
        {
            return false;
        }
        let (computed, given, own, shared, cached) = (0, 0, 0, 0, 0);
        let sequence = Sequence { tag, asked, computed, given, own, shared, cached };
        self.waiting.push_back(sequence);
        true
    }

    /// A request's client has gone; its blocks are free at once, and a step under way goes on as planned.
    pub fn leave(&mut self, tag: T) {
        self.waiting.retain(|sequence| sequence.tag != tag);
        if let Some(place) = self.running.iter().position(|sequence| sequence.tag == tag) {
            let sequence = self.running.remove(place);
            if place < self.plan.len() {
                self.plan.remove(place);
            }
            self.release(&sequence);
        }
    }

    /// Whether a step is under way, or has ended and the next one has not been planned.
    #[must_use]
    pub const fn is_stepping(&self) -> bool {
        self.stepping
    }

    /// Requests that run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// How often a request was put back because blocks had run out.
    #[must_use]
    pub const fn put_back(&self) -> u64 {
        self.put_back
    }

    /// Plans the next step, and says how many seconds it takes; none if there is nothing to do. The last one must have
    /// ended.
    pub fn begin_step(&mut self) -> Option<f64> {
        self.plan.clear();
        let mut budget = self.limits.token_budget;
        let had_room = self.plan_running(&mut budget);
        if had_room || self.running.is_empty() {
            self.plan_waiting(&mut budget);
        }
        self.stepping = !self.running.is_empty();
        if !self.stepping {
            return None;
        }
        self.plan.resize(self.running.len(), 0);
        let (mut prompts, mut requests, mut context) = (0u64, 0u64, 0u64);
        for (sequence, &tokens) in self.running.iter().zip(&self.plan) {
            let before = sequence.computed;
            if sequence.given > 0 && before + 1 == sequence.asked.prompt + sequence.given {
                requests += u64::from(tokens > 0);
                context += if tokens > 0 { u64::from(before) } else { 0 };
            } else {
                prompts += u64::from(tokens);
            }
        }
        let StepTime { base, per_prompt_token, per_request, per_context_token } = self.step;
        Some(
            base + per_prompt_token * prompts as f64
                + per_request * requests as f64
                + per_context_token * context as f64,
        )
    }

    /// The step is over: `each` is told of every token that it gave, in the order in which the requests began.
    pub fn end_step(&mut self, mut each: impl FnMut(Given<T>)) {
        let plan = mem::take(&mut self.plan);
        let mut running = mem::take(&mut self.running);
        for (sequence, &tokens) in running.iter_mut().zip(&plan) {
            sequence.computed += tokens;
            if tokens == 0 || sequence.computed < sequence.asked.prompt + sequence.given {
                continue;
            }
            let first = sequence.given == 0;
            sequence.given += 1;
            if first {
                self.share_prefix(sequence);
            }
            let last = sequence.given >= sequence.asked.output;
            each(Given { tag: sequence.tag, first, last, cached: sequence.cached });
            if last {
                self.release(sequence);
            }
        }
        running.retain(|sequence| sequence.given < sequence.asked.output);
        self.running = running;
        self.plan = plan;
    }

    /// Gives running requests their tokens; whether there were blocks for all.
    fn plan_running(&mut self, budget: &mut u32) -> bool {
        let mut had_room = true;
        let mut place = 0;
        while place < self.running.len() && *budget > 0 {
            let sequence = self.running[place];
            let tokens = sequence.left().min(*budget);
            let more = self.blocks_for(&sequence, tokens);
            if self.blocks.take(more) {
                self.running[place].own += more;
                self.plan.push(tokens);
                *budget -= tokens;
                place += 1;
                continue;
            }
            had_room = false;
            let Some(last) = self.running.pop() else { break };
            self.release(&last);
            self.put_back += 1;
            let put_back = Sequence { computed: 0, own: 0, shared: 0, ..last };
            self.waiting.push_front(put_back);
        }
        had_room
    }

    /// Lets requests that wait run, as far as batch, budget and blocks go.
    fn plan_waiting(&mut self, budget: &mut u32) {
        while self.running.len() < self.limits.batch && *budget > 0 {
            let Some(mut sequence) = self.waiting.front().copied() else { return };
            if let Some((prefix, tokens)) = sequence.asked.prefix {
                // The last token must be worked on, and with it its block.
                let most = tokens.min(sequence.asked.prompt - 1) / self.limits.block_tokens;
                sequence.shared = self.blocks.enter(prefix, most);
                sequence.computed = sequence.shared * self.limits.block_tokens;
            }
            if sequence.given == 0 {
                sequence.cached = sequence.computed;
            }
            let tokens = sequence.left().min(*budget);
            let more = self.blocks_for(&sequence, tokens);
            if !self.blocks.take(more) {
                let Some((prefix, _)) = sequence.asked.prefix else { return };
                self.blocks.leave(prefix);
                if !self.running.is_empty() {
                    return;
                }
                // More of its beginning is held for it than it can use: alone and without, it fits.
                if let Some(first) = self.waiting.front_mut() {
                    first.asked.prefix = None;
                }
                continue;
            }
            sequence.own = more;
            *budget -= tokens;
            self.plan.push(tokens);
            self.waiting.pop_front();
            self.running.push(sequence);
        }
    }

    /// Blocks that a request needs beyond its own for `tokens` more.
    const fn blocks_for(&self, sequence: &Sequence<T>, tokens: u32) -> u32 {
        let all = (sequence.computed + tokens).div_ceil(self.limits.block_tokens);
        all.saturating_sub(sequence.own + sequence.shared)
    }

    /// What a request has worked through of its beginning is there for others.
    fn share_prefix(&mut self, sequence: &mut Sequence<T>) {
        let Some((prefix, tokens)) = sequence.asked.prefix else { return };
        let whole = tokens.min(sequence.asked.prompt) / self.limits.block_tokens;
        let given = self.blocks.share(prefix, whole, sequence.shared);
        sequence.own -= given;
        sequence.shared += given;
    }

    fn release(&mut self, sequence: &Sequence<T>) {
        self.blocks.give_back(sequence.own);
        if let Some((prefix, _)) = sequence.asked.prefix {
            self.blocks.leave(prefix);
        }
    }
}

impl<T> Sequence<T> {
    /// Tokens to work through until the next one of the answer.
    const fn left(&self) -> u32 {
        self.asked.prompt + self.given - self.computed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Law;

    /// Steps of 10 ms, 1 ms more for a token of a prompt, 2 ms for a request that gets a token.
    fn model() -> LlmModel {
        LlmModel {
            prompt: Law::Fixed(1.0),
            output: Law::Fixed(1.0),
            batch: 4,
            token_budget: 8,
            block_tokens: 4,
            kv_blocks: None,
            prefix: None,
            step: StepTime {
                base: 0.010,
                per_prompt_token: 0.001,
                per_request: 0.002,
                per_context_token: 0.0,
            },
        }
    }

    const fn asked(prompt: u32, output: u32) -> Asked {
        Asked { prompt, output, prefix: None }
    }

    /// Milliseconds of the next step, and who got a token in it; capitals stand for first tokens, and `.` behind for
    /// last ones.
    fn step(batcher: &mut Batcher<char>) -> (u32, String) {
        let Some(seconds) = batcher.begin_step() else { return (0, String::new()) };
        let mut text = String::new();
        batcher.end_step(|given| {
            text.push(if given.first { given.tag.to_ascii_uppercase() } else { given.tag });
            if given.last {
                text.push('.');
            }
        });
        ((seconds * 1e3).round() as u32, text)
    }

    fn steps(batcher: &mut Batcher<char>) -> Vec<(u32, String)> {
        std::iter::from_fn(|| Some(step(batcher)).filter(|(span, _)| *span > 0)).collect()
    }

    fn of(expected: &[(u32, &str)]) -> Vec<(u32, String)> {
        expected.iter().map(|(span, text)| (*span, (*text).to_owned())).collect()
    }

    #[test]
    fn a_lone_request_is_prefilled_and_then_decoded() {
        let mut batcher = Batcher::new(&model());
        assert!(batcher.enter('a', asked(5, 3)));
        assert_eq!(steps(&mut batcher), of(&[(15, "A"), (12, "a"), (12, "a.")]));
        assert_eq!(batcher.begin_step(), None);
    }

    /// A budget of 8: `a` decodes 1, 7 of `b`'s prompt of 10 fit beside it, then 3.
    #[test]
    fn a_long_prompt_is_worked_through_beside_the_others() {
        let mut batcher = Batcher::new(&model());
        batcher.enter('a', asked(2, 4));
        assert_eq!(step(&mut batcher), (12, "A".to_owned()));
        batcher.enter('b', asked(10, 2));
        let expected = [(10 + 2 + 7, "a"), (10 + 2 + 3, "aB"), (10 + 2 + 2, "a.b.")];
        assert_eq!(steps(&mut batcher), of(&expected));
    }

    #[test]
    fn a_full_batch_makes_wait() {
        let mut batcher = Batcher::new(&LlmModel { batch: 1, ..model() });
        batcher.enter('a', asked(1, 2));
        batcher.enter('b', asked(1, 1));
        assert_eq!(steps(&mut batcher), of(&[(11, "A"), (12, "a."), (11, "B.")]));
    }

    /// Four blocks of four tokens. `a` and `b` have 7 tokens each, two blocks; with the third token of the answers
    /// both need a third: `b` is put back, and its 9 tokens are worked through again when `a` has gone.
    #[test]
    fn when_blocks_run_out_the_last_one_is_put_back() {
        let mut batcher =
            Batcher::new(&LlmModel { kv_blocks: Some(4), token_budget: 64, ..model() });
        batcher.enter('a', asked(7, 4));
        batcher.enter('b', asked(7, 3));
        let expected =
            [(10 + 14, "AB"), (10 + 4, "ab"), (10 + 2, "a"), (10 + 2, "a."), (10 + 9, "b.")];
        assert_eq!(steps(&mut batcher), of(&expected));
        assert_eq!(batcher.put_back(), 1);
        assert!(!batcher.enter('c', asked(10, 7)), "17 tokens never fit into 16");
        assert!(batcher.enter('d', asked(10, 6)));
        assert_eq!(steps(&mut batcher).len(), 6, "all blocks came back");
    }

    #[test]
    fn a_known_beginning_is_not_worked_through_again() {
        let prefix = Some((3, 6));
        let mut batcher = Batcher::new(&model());
        batcher.enter('a', Asked { prefix, ..asked(8, 1) });
        assert_eq!(steps(&mut batcher), of(&[(18, "A.")]));
        // Of its 6 tokens one block of 4 is whole; 4 of 8 tokens are left.
        batcher.enter('b', Asked { prefix, ..asked(8, 1) });
        assert_eq!(steps(&mut batcher), of(&[(14, "B.")]));
        batcher.enter('c', Asked { prefix: Some((4, 6)), ..asked(8, 1) });
        assert_eq!(steps(&mut batcher), of(&[(18, "C.")]));
        // The last token of a prompt is always worked on.
        batcher.enter('d', Asked { prefix, ..asked(4, 1) });
        assert_eq!(steps(&mut batcher), of(&[(14, "D.")]));
    }

    /// Four blocks, three of which hold a beginning that a short prompt has too and cannot use: it is given up.
    #[test]
    fn a_beginning_is_given_up_for_who_has_it() {
        let prefix = Some((1, 12));
        let mut batcher =
            Batcher::new(&LlmModel { kv_blocks: Some(4), token_budget: 64, ..model() });
        batcher.enter('a', Asked { prefix, ..asked(13, 1) });
        assert_eq!(steps(&mut batcher).len(), 1);
        assert!(batcher.enter('b', Asked { prefix, ..asked(4, 10) }));
        let text: String = steps(&mut batcher).into_iter().map(|(_, text)| text).collect();
        assert_eq!(text, "Bbbbbbbbbb.");
    }

    #[test]
    fn who_leaves_makes_room() {
        let mut batcher = Batcher::new(&LlmModel { kv_blocks: Some(2), ..model() });
        batcher.enter('a', asked(6, 2));
        batcher.enter('b', asked(6, 2));
        assert_eq!(step(&mut batcher), (16, "A".to_owned()));
        batcher.leave('a');
        assert_eq!(steps(&mut batcher), of(&[(16, "B"), (12, "b.")]));
    }
}
