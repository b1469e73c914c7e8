use std::collections::BTreeMap;

/// How many answers had each HTTP status code.
///
/// A run has few different ones and nearly all of its answers have the same: a row that is looked through from its
/// most frequent end is quicker than a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CodeCounts(Vec<(u16, u64)>);

impl CodeCounts {
    /// Counts `count` answers.
    #[inline]
    pub fn add(&mut self, code: u16, count: u64) {
        match self.0.iter().position(|(known, _)| *known == code) {
            Some(place) => {
                self.0[place].1 += count;
                // It moves forward past those that were seen less often.
                if place > 0 && self.0[place].1 > self.0[place - 1].1 {
                    self.0.swap(place, place - 1);
                }
            }
            None => self.0.push((code, count)),
        }
    }

    /// Adds the counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|(code, count)| self.add(*code, *count));
    }

    /// The counts by code.
    #[must_use]
    pub fn by_code(&self) -> BTreeMap<u16, u64> {
        self.0.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_counted_in_any_order() {
        let mut counts = CodeCounts::default();
        for code in [503, 200, 200, 404, 200, 503, 404, 404, 404] {
            counts.add(code, 1);
        }
        let mut all = CodeCounts::default();
        all.merge(&counts);
        all.merge(&counts);
        assert_eq!(all.by_code(), BTreeMap::from([(200, 6), (404, 8), (503, 4)]));
        assert_eq!(all.0[0].0, 404, "the most frequent is found first");
    }
}
