//! Tags of stored responses, to purge them by.

use super::fields::Fields;
use super::policy::CachePolicy;

/// Most tags of a response; further ones do not count.
const TAGS_MAX: usize = 128;
/// Longest tag in bytes; a longer one does not count.
const TAG_MAX: usize = 256;

/// The policy's tags and those that the response gives itself, sorted, each once.
pub(super) fn of<R: Fields + ?Sized>(response: &R, policy: &CachePolicy) -> Vec<String> {
    let said = policy
        .tag_fields
        .iter()
        .flat_map(|name| response.values(name))
        .flat_map(|value| value.split(|&byte| byte == b' ' || byte == b',' || byte == b'\t'))
        .filter(|tag| !tag.is_empty() && tag.len() <= TAG_MAX)
        .filter_map(|tag| std::str::from_utf8(tag).ok())
        .map(str::to_owned);
    let mut tags: Vec<String> = policy.tags.iter().cloned().chain(said).take(TAGS_MAX).collect();
    tags.sort_unstable();
    tags.dedup();
    tags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn come_from_the_policy_and_the_response() {
        let policy = CachePolicy { tags: vec!["menu".to_owned()], ..CachePolicy::default() };
        let long = "x".repeat(TAG_MAX + 1);
        let fields = [
            ("surrogate-key", "b a".to_owned()),
            ("cache-tag", format!("c, a,{long}")),
            ("other", "d".to_owned()),
        ];
        assert_eq!(of(&fields[..], &policy), ["a", "b", "c", "menu"]);
        let many: Vec<_> = (0..1_000).map(|n| ("cache-tag", n.to_string())).collect();
        assert_eq!(of(&many, &policy).len(), TAGS_MAX);
    }
}
