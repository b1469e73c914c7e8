//! The mock's tokens: a token is up to six bytes of a word, with the space before it.
//!
//! White space other than one space before a word is a token a character. English has about 1.3 such tokens a
//! word, as with the tokenizers of large models. The number of a token holds its bytes, so text goes to numbers
//! and back without a table, and every number fits a double.

use gatewright_determinism::Stream;

/// Most bytes of a token, besides the space before it.
const LONGEST: usize = 6;

/// The tokens of a text, in order; together they are the text.
pub(crate) fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (token, after) = rest.split_at_checked(token_end(rest))?;
        rest = after;
        (!token.is_empty()).then_some(token)
    })
}

fn token_end(text: &str) -> usize {
    let bytes = text.as_bytes();
    let space = usize::from(bytes.first() == Some(&b' '));
    let mut end = space;
    for (place, character) in text[space..].char_indices() {
        let next = place + character.len_utf8();
        if character.is_whitespace() {
            return if space + place == 0 { next } else { end };
        }
        if next > LONGEST {
            return end;
        }
        end = space + next;
    }
    end
}

/// Number of tokens of a text.
pub(crate) fn count(text: &str) -> u64 {
    tokens(text).count() as u64
}

const LENGTH_SHIFT: u32 = 49;
const SPACE_SHIFT: u32 = 48;

/// Number of a token, below 2^52: three bits of length, one for the space before it, six bytes.
pub(crate) fn number(token: &str) -> u64 {
    let (space, word) = match token.strip_prefix(' ') {
        Some(word) => (1, word),
        None => (0, token),
    };
    let mut bytes = [0; 8];
    bytes[2..2 + word.len()].copy_from_slice(word.as_bytes());
    (word.len() as u64) << LENGTH_SHIFT | space << SPACE_SHIFT | u64::from_be_bytes(bytes)
}

/// The token of a number; none if it is the number of none.
pub(crate) fn from_number(number: u64) -> Option<String> {
    let length =
        usize::try_from(number >> LENGTH_SHIFT).ok().filter(|&length| length <= LONGEST)?;
    let bytes = number.to_be_bytes();
    let word = std::str::from_utf8(&bytes[2..2 + length]).ok()?;
    let space = if number >> SPACE_SHIFT & 1 == 1 { " " } else { "" };
    let token = format!("{space}{word}");
    (self::number(&token) == number && !token.is_empty()).then_some(token)
}

/// A word of an answer, with the space before it: one token.
pub(crate) fn word(luck: &mut Stream) -> &'static str {
    let place = luck.below(WORDS.len() as u64);
    WORDS[usize::try_from(place).expect("it is an index of the table")]
}

#[rustfmt::skip]
const WORDS: [&str; 128] = [
    " the", " of", " and", " a", " to", " in", " is", " that", " it", " was", " for", " on", " are", " as",
    " with", " his", " they", " at", " be", " this", " from", " have", " or", " by", " one", " had", " not",
    " but", " what", " all", " were", " when", " we", " there", " can", " an", " your", " which", " their",
    " said", " if", " do", " will", " each", " about", " how", " up", " out", " them", " then", " she", " many",
    " some", " so", " these", " would", " other", " into", " has", " more", " her", " two", " like", " him",
    " see", " time", " could", " no", " make", " than", " first", " been", " its", " who", " now", " people",
    " my", " made", " over", " did", " down", " only", " way", " find", " use", " may", " water", " long",
    " little", " very", " after", " words", " called", " just", " where", " most", " know", " get", " back",
    " much", " go", " good", " new", " write", " our", " me", " man", " too", " any", " day", " same", " right",
    " look", " think", " also", " around", " came", " come", " work", " three", " must", " does", " part",
    " even", " place", " well", " such", " here",
];

#[cfg(test)]
mod tests {
    use gatewright_determinism::Purpose;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_are_cut_after_six_bytes() {
        let cut = |text| tokens(text).collect::<Vec<_>>();
        assert_eq!(cut("Hello, wonderful world"), ["Hello,", " wonder", "ful", " world"]);
        assert_eq!(cut("a  b\n c"), ["a", " ", " b", "\n", " c"]);
        assert_eq!(cut("ééééé "), ["ééé", "éé", " "]);
        assert_eq!(cut(""), [""; 0]);
    }

    #[test]
    fn every_word_is_one_token_wherever_it_stands() {
        assert!(WORDS.iter().all(|word| tokens(word).count() == 1));
        let mut luck = Stream::new(1, Purpose::Content, 0);
        let text: String = (0..1000).map(|_| word(&mut luck)).collect();
        assert_eq!(count(&text), 1000);
        assert_eq!(count(text.trim_start()), 1000);
    }

    #[test]
    fn what_is_no_number_of_a_token_is_none() {
        for number in [0, u64::MAX, 7 << LENGTH_SHIFT, 1 << LENGTH_SHIFT | 0xff, 1 << 53] {
            assert_eq!(from_number(number), None, "{number:x}");
        }
    }

    proptest! {
        #[test]
        fn text_goes_to_numbers_and_back(text in "\\PC{0,30}|[a-z \n\u{3000}é]{0,30}") {
            let numbers: Vec<u64> = tokens(&text).map(number).collect();
            prop_assert!(numbers.iter().all(|&number| number < 1 << 52));
            let back: Option<String> = numbers.into_iter().map(from_number).collect();
            prop_assert_eq!(back, Some(text));
        }

        #[test]
        fn any_number_is_a_token_or_none(number in any::<u64>()) {
            let number = number >> 11;
            if let Some(token) = from_number(number) {
                prop_assert_eq!(super::number(&token), number);
            }
        }
    }
}
