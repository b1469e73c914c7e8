use std::collections::BTreeMap;

/// The key-value cache of a replica, in blocks: those that requests have to themselves, and beginnings of prompts that
/// requests share. Beginnings that nobody uses stay until room is needed, and then the one goes first that was used
/// longest ago.
#[derive(Clone, Debug)]
pub(super) struct Blocks {
    free: u64,
    prefixes: BTreeMap<u32, Prefix>,
    uses: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Prefix {
    /// Blocks of it that are there.
    known: u32,
    users: u32,
    last: u64,
}

impl Blocks {
    pub(super) const fn new(total: u64) -> Self {
        Self { free: total, prefixes: BTreeMap::new(), uses: 0 }
    }

    /// Takes `count` blocks, in place of beginnings that nobody uses if need be; none if there are not so many.
    pub(super) fn take(&mut self, count: u32) -> bool {
        let count = u64::from(count);
        if self.free < count && self.free + self.idle() < count {
            return false;
        }
        while self.free < count {
            let idle = self.prefixes.iter_mut().filter(|(_, prefix)| prefix.users == 0);
            let oldest = idle.min_by_key(|(_, prefix)| prefix.last);
            let Some((&number, prefix)) = oldest else { return false };
            // From its end: what is left is still a beginning.
            let part = u64::from(prefix.known).min(count - self.free);
            prefix.known -= part as u32;
            self.free += part;
            if prefix.known == 0 {
                self.prefixes.remove(&number);
            }
        }
        self.free -= count;
        true
    }

    pub(super) fn give_back(&mut self, count: u32) {
        self.free += u64::from(count);
    }

    /// A request uses a beginning, of which it wants at most `most` blocks; how many there are.
    pub(super) fn enter(&mut self, prefix: u32, most: u32) -> u32 {
        self.uses += 1;
        let entry = self.prefixes.entry(prefix).or_default();
        entry.users += 1;
        entry.last = self.uses;
        entry.known.min(most)
    }

    /// It uses it no more.
    pub(super) fn leave(&mut self, prefix: u32) {
        if let Some(entry) = self.prefixes.get_mut(&prefix) {
            entry.users -= 1;
            if entry.users == 0 && entry.known == 0 {
                self.prefixes.remove(&prefix);
            }
        }
    }

    /// A request that uses a beginning and has worked through `blocks` of it leaves them to all: how many of its own
    /// blocks these were, beyond `shared` that it had from the beginning already.
    pub(super) fn share(&mut self, prefix: u32, blocks: u32, shared: u32) -> u32 {
        let Some(entry) = self.prefixes.get_mut(&prefix) else { return 0 };
        // Another one may have been faster; then each keeps its own.
        if entry.known != shared || blocks <= shared {
            return 0;
        }
        entry.known = blocks;
        blocks - shared
    }

    fn idle(&self) -> u64 {
        let idle = self.prefixes.values().filter(|prefix| prefix.users == 0);
        idle.map(|prefix| u64::from(prefix.known)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_uses_makes_room_the_oldest_first() {
        let mut blocks = Blocks::new(10);
        for prefix in [1, 2] {
            assert_eq!(blocks.enter(prefix, 4), 0);
            assert!(blocks.take(4));
            assert_eq!(blocks.share(prefix, 4, 0), 4);
            blocks.leave(prefix);
        }
        assert_eq!(blocks.enter(1, 3), 3, "no more than is asked for");
        blocks.leave(1);
        assert!(blocks.take(5), "two were free, three go from the end of prefix 2");
        assert_eq!((blocks.enter(2, 4), blocks.enter(1, 4)), (1, 4));
        assert!(!blocks.take(1), "both are used now");
        blocks.give_back(5);
        assert!(blocks.take(5) && !blocks.take(1));
    }
}
