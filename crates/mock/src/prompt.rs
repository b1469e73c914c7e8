use std::collections::{BTreeMap, HashMap};

use crate::config::PrefixCache;
use crate::text;

/// A prompt as the engine sees it: how long it is and what it has in common with others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prompt {
    /// Number of tokens.
    pub(crate) tokens: u64,
    /// A hash for each full block of tokens, of it and all before it.
    pub(crate) blocks: Vec<u64>,
    /// Hash of all.
    pub(crate) hash: u64,
}

/// Puts a [`Prompt`] together.
#[derive(Debug)]
pub(crate) struct PromptBuilder {
    block_tokens: u64,
    limit: u64,
    prompt: Prompt,
}

impl PromptBuilder {
    /// Blocks of this many tokens; none at all if 0. Tokens beyond `limit` are counted only: they make the
    /// prompt too long for the model anyway.
    pub(crate) fn new(block_tokens: u32, limit: u64) -> Self {
        Self { block_tokens: u64::from(block_tokens), limit, prompt: Prompt::default() }
    }

    pub(crate) fn text(&mut self, text: &str) {
        for token in text::tokens(text) {
            self.token(text::number(token));
        }
    }

    /// Tokens that are no text, such as those of a picture; `kind` tells them apart.
    pub(crate) fn marks(&mut self, kind: u64, count: u64) {
        let hashed = count.min(self.limit.saturating_sub(self.prompt.tokens));
        for _ in 0..hashed {
            self.token(u64::MAX - kind);
        }
        self.prompt.tokens = self.prompt.tokens.saturating_add(count - hashed);
    }

    pub(crate) fn token(&mut self, number: u64) {
        let prompt = &mut self.prompt;
        prompt.tokens = prompt.tokens.saturating_add(1);
        if prompt.tokens > self.limit {
            return;
        }
        prompt.hash = mix(prompt.hash ^ number);
        if self.block_tokens > 0 && prompt.tokens.is_multiple_of(self.block_tokens) {
            prompt.blocks.push(prompt.hash);
        }
    }

    pub(crate) fn build(self) -> Prompt {
        self.prompt
    }
}

/// A step of a hash that spreads every bit (Stafford's variant 13, as SplitMix64).
const fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The blocks that were prefilled last.
#[derive(Debug)]
pub(crate) struct Prefixes {
    config: PrefixCache,
    /// When each was used last.
    used: HashMap<u64, u64>,
    /// Which was used when.
    order: BTreeMap<u64, u64>,
    uses: u64,
}

impl Prefixes {
    pub(crate) fn new(config: PrefixCache) -> Self {
        Self { config, used: HashMap::new(), order: BTreeMap::new(), uses: 0 }
    }

    /// How many tokens at the start of the prompt are known. One at least is not: the engine needs it to go on
    /// from.
    pub(crate) fn known(&mut self, prompt: &Prompt) -> u64 {
        let known = prompt.blocks.iter().take_while(|block| self.used.contains_key(block)).count();
        // From the end, so that the start of a prompt is forgotten last.
        for &block in prompt.blocks[..known].iter().rev() {
            self.touch(block);
        }
        let size = u64::from(self.config.block_tokens);
        let most = prompt.tokens.saturating_sub(1) / size * size;
        most.min(known as u64 * size)
    }

    /// The prompt has been prefilled.
    pub(crate) fn learn(&mut self, prompt: &Prompt) {
        for &block in prompt.blocks.iter().rev() {
            self.touch(block);
        }
        while self.used.len() > self.config.blocks as usize {
            let Some((_, oldest)) = self.order.pop_first() else { return };
            self.used.remove(&oldest);
        }
    }

    fn touch(&mut self, block: u64) {
        self.uses += 1;
        if let Some(before) = self.used.insert(block, self.uses) {
            self.order.remove(&before);
        }
        self.order.insert(self.uses, block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(text: &str) -> Prompt {
        let mut builder = PromptBuilder::new(2, 1000);
        builder.text(text);
        builder.build()
    }

    #[test]
    fn what_prompts_have_in_common_is_known_from_their_start() {
        let mut prefixes = Prefixes::new(PrefixCache { blocks: 10, block_tokens: 2 });
        let first = prompt("a b c d e");
        assert_eq!((first.tokens, first.blocks.len()), (5, 2));
        assert_eq!(prefixes.known(&first), 0);
        prefixes.learn(&first);
        assert_eq!(prefixes.known(&first), 4);
        assert_eq!(prefixes.known(&prompt("a b c x e f")), 2);
        assert_eq!(prefixes.known(&prompt("x b c d")), 0);
        // The last token must be worked on, and with it its block.
        assert_eq!(prefixes.known(&prompt("a b c d")), 2);
    }

    #[test]
    fn what_is_too_long_is_counted() {
        let mut builder = PromptBuilder::new(2, 5);
        builder.text("a b c");
        builder.marks(1, u64::MAX);
        builder.text("d");
        let prompt = builder.build();
        assert_eq!((prompt.tokens, prompt.blocks.len()), (u64::MAX, 2));
    }

    #[test]
    fn the_least_recently_used_makes_room() {
        let mut prefixes = Prefixes::new(PrefixCache { blocks: 3, block_tokens: 2 });
        prefixes.learn(&prompt("a b c d e"));
        prefixes.learn(&prompt("p q r"));
        assert_eq!(prefixes.known(&prompt("a b c d e")), 4);
        prefixes.learn(&prompt("s t u"));
        assert_eq!(prefixes.known(&prompt("p q r")), 0, "it was used before the others");
        assert_eq!(prefixes.known(&prompt("a b c d e")), 4);
        prefixes.learn(&prompt("v w x"));
        prefixes.learn(&prompt("y z 1"));
        assert_eq!(prefixes.known(&prompt("a b c d e")), 2, "the end is forgotten first");
        assert!(prefixes.used.len() == 3 && prefixes.order.len() == 3);
    }
}
