//! The words on the PAM line: `[on_error=ignore|deny] [charge=submit|conversation|begin] [wait=SECONDS] [silent] [offers_factor]`,
//! or, on the line that has another factor asked for, `factor [on_error=ignore|deny] [silent]`.
//!
//! Invariant: a word that is not understood changes nothing but the log. A typing error in a PAM file locks nobody out.

use std::time::Duration;

/// What to do when the gate cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// Let the attempt go on, uncounted (fail open).
    Ignore,
    /// Refuse it (fail closed); root on a local terminal still passes.
    Deny,
}

/// When an attempt is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    /// When the password was entered: the module prompts for it.
    Submit,
    /// When the first question of a module behind was answered: nothing asked, nothing charged.
    Conversation,
    /// At once, without a prompt: for stacks whose first factor is no password.
    Begin,
}

/// The line's options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `on_error=`.
    pub on_error: OnError,
    /// `charge=`.
    pub charge: Charge,
    /// `wait=`: how long to wait for a free reservation.
    pub wait: Duration,
    /// `silent`: the user is not told why he is refused.
    pub silent: bool,
    /// `offers_factor`: further down the stack asks for another factor where the gate says so.
    pub offers_factor: bool,
    /// `factor`: this is the line that does.
    pub factor: bool,
    /// Words that were not understood.
    pub unknown: Vec<String>,
}

/// Longest `wait=`.
const MAX_WAIT: u64 = 300;

impl Default for Options {
    fn default() -> Self {
        Self {
            on_error: OnError::Ignore,
            charge: Charge::Submit,
            wait: Duration::from_secs(10),
            silent: false,
            offers_factor: false,
            factor: false,
            unknown: Vec::new(),
        }
    }
}

impl Options {
    /// Reads the words of a line.
    pub fn parse<'a>(words: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut options = Self::default();
        for word in words {
            match word {
                b"on_error=ignore" => options.on_error = OnError::Ignore,
                b"on_error=deny" => options.on_error = OnError::Deny,
                b"charge=submit" => options.charge = Charge::Submit,
                b"charge=conversation" => options.charge = Charge::Conversation,
                b"charge=begin" => options.charge = Charge::Begin,
                b"silent" => options.silent = true,
                b"offers_factor" => options.offers_factor = true,
                b"factor" => options.factor = true,
                _ => match seconds(word) {
                    Some(wait) => options.wait = wait,
                    None => options.unknown.push(word.escape_ascii().to_string()),
                },
            }
        }
        options
    }
}

/// `wait=N` or `wait=Ns`, at most [`MAX_WAIT`].
fn seconds(word: &[u8]) -> Option<Duration> {
    let digits = word.strip_prefix(b"wait=")?;
    let digits = digits.strip_suffix(b"s").unwrap_or(digits);
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (number <= MAX_WAIT).then(|| Duration::from_secs(number))
}
