//! The words on our lines.

use super::pam::load::{Kind, What};

const EVERYWHERE: [&[u8]; 3] = [b"on_error=ignore", b"on_error=deny", b"silent"];
/// On an auth line: the promise of a line for another factor, and that line.
const FACTOR: [&[u8]; 2] = [b"offers_factor", b"factor"];
const CHARGE: [&[u8]; 3] = [b"charge=submit", b"charge=conversation", b"charge=begin"];
/// Longest `wait=`, in seconds.
const MAX_WAIT: u64 = 300;

fn wait(word: &[u8]) -> bool {
    let digits = word.strip_prefix(b"wait=").map(|digits| digits.strip_suffix(b"s").unwrap_or(digits));
    let number = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u64>().ok());
    number.is_some_and(|number| number <= MAX_WAIT)
}

fn known(kind: Kind, word: &[u8]) -> bool {
    match kind {
        Kind::Auth => {
            EVERYWHERE.contains(&word) || CHARGE.contains(&word) || FACTOR.contains(&word) || wait(word)
        }
        Kind::Password => EVERYWHERE.contains(&word) || wait(word),
        Kind::Account | Kind::Session => EVERYWHERE.contains(&word),
    }
}

/// Words that a line of that kind does not know or does not heed.
#[must_use]
pub fn unknown(kind: Kind, words: &[Vec<u8>]) -> Vec<String> {
    let unknown = words.iter().filter(|word| !known(kind, word));
    unknown.map(|word| crate::text::escape(word)).collect()
}

/// Whether this line of ours prompts for the password: `charge=submit`, as without a word. The last word counts.
#[must_use]
pub fn prompts(what: &What) -> bool {
    let What::Module { words, .. } = what else {
        return false;
    };
    let charge = words.iter().rev().find(|word| CHARGE.contains(&word.as_slice()));
    charge.is_none_or(|word| word == b"charge=submit")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first lines of docs/pam.md: each word in `[…]` of each line, `a=b|c` spelled out.
    #[test]
    fn the_words_of_the_documentation_are_known_and_no_others() {
        let page = include_str!("../../../docs/pam.md");
        let mut seen = 0;
        for line in page.lines().filter(|line| line.contains(" pam_portcullis.so [")) {
            let kind = match line.split_whitespace().next().unwrap() {
                "auth" => Kind::Auth,
                "account" => Kind::Account,
                "password" => Kind::Password,
                other => panic!("{other}"),
            };
            for option in line.split('[').skip(1).map(|rest| rest.split(']').next().unwrap()) {
                let (key, values) = option.split_once('=').unwrap_or((option, ""));
                for value in values.split('|') {
                    let value = value.replace("SECONDS", "12");
                    let word = if value.is_empty() { key.to_owned() } else { format!("{key}={value}") };
                    assert_eq!(unknown(kind, &[word.into_bytes()]), [""; 0]);
                    seen += 1;
                }
            }
        }
        assert_eq!(seen, 15, "words on the three lines");
        for word in ["wait=301", "wait=", "wait=-1", "wait=1m", "charge=", "Silent", "on_error", "debug"] {
            assert_eq!(unknown(Kind::Auth, &[word.into()]), [word]);
        }
        assert_eq!(unknown(Kind::Account, &[b"charge=begin".to_vec()]), ["charge=begin"]);
    }
}
