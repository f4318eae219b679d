//! One value after the other: types, ranges, defaults.
//!
//! Invariant: a value that is wrong is noted as a problem; what is returned then is of no consequence.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;

use toml::Value;

use super::Span;
use super::problem::Problems;
use super::raw::Item;

/// Place of an item.
pub(super) fn place(item: &Item) -> Option<Range<usize>> {
    item.as_ref().map(toml::Spanned::span)
}

/// Judges one value after the other.
pub(super) struct Reader<'a, 'b> {
    pub(super) problems: &'a mut Problems<'b>,
}

impl Reader<'_, '_> {
    /// A length of time, or, where that may be, never.
    pub(super) fn span(&mut self, item: &Item, key: &str, inherited: Span, may_never: bool) -> Span {
        let Some(item) = item else { return inherited };
        let text = match item.get_ref() {
            Value::String(text) => text.clone(),
            // What faillock.conf would say.
            Value::Integer(seconds) => seconds.to_string(),
            other => short(other),
        };
        if text == "never" {
            if may_never {
                return Span::NEVER;
            }
            self.problems.error(Some(item.span()), key, "cannot be never here: write a length of time");
            return inherited;
        }
        match Span::parse(&text) {
            Ok(span) => span,
            Err(error) => {
                self.problems.error(
                    Some(item.span()),
                    key,
                    format_args!("{} {error}", short(item.get_ref())),
                );
                inherited
            }
        }
    }

    /// A length of time, or false for none at all.
    pub(super) fn span_or_none(&mut self, item: &Item, key: &str, inherited: Span) -> Span {
        match item {
            Some(value) if value.get_ref().as_bool() == Some(false) => Span::seconds(0),
            item => self.span(item, key, inherited, false),
        }
    }

    /// One of two words.
    pub(super) fn word<T: Copy>(&mut self, item: &Item, key: &str, inherited: T, words: [(&str, T); 2]) -> T {
        let Some(item) = item else { return inherited };
        let word = item.get_ref().as_str().unwrap_or_default();
        if let Some((_, value)) = words.iter().find(|(name, _)| *name == word) {
            return *value;
        }
        let [(first, _), (second, _)] = words;
        let text = format!("must be \"{first}\" or \"{second}\", not {}", short(item.get_ref()));
        self.problems.error(Some(item.span()), key, text);
        inherited
    }

    /// A length of time with a default and an upper bound, in seconds.
    pub(super) fn time(&mut self, item: &Item, key: &str, default: u64, longest: u64) -> Span {
        let span = self.span(item, key, Span::seconds(default), false);
        if span > Span::seconds(longest) {
            let text = format!("{span} is too long: write at most \"{}\"", Span::seconds(longest));
            self.problems.error(place(item), key, text);
        }
        span
    }

    pub(super) fn flag(&mut self, item: &Item, key: &str, inherited: bool) -> bool {
        let Some(item) = item else { return inherited };
        item.get_ref().as_bool().unwrap_or_else(|| {
            let text = format!("must be true or false, not {}", short(item.get_ref()));
            self.problems.error(Some(item.span()), key, text);
            inherited
        })
    }

    pub(super) fn path(&mut self, item: &Item, key: &str, default: &str) -> PathBuf {
        let Some(item) = item else { return default.into() };
        match item.get_ref() {
            Value::String(path) if path.starts_with('/') && !path.contains('\0') => path.into(),
            other => {
                let text = format!("must be an absolute path, not {}", short(other));
                self.problems.error(Some(item.span()), key, text);
                default.into()
            }
        }
    }

    pub(super) fn listen(&mut self, item: &Item) -> Option<SocketAddr> {
        let key = "metrics.listen";
        let Some(item) = item else { return Some(SocketAddr::from(([127, 0, 0, 1], 9456))) };
        if item.get_ref().as_bool() == Some(false) {
            return None;
        }
        let address = item.get_ref().as_str().and_then(|text| text.parse::<SocketAddr>().ok());
        match address {
            Some(address) if !address.ip().is_loopback() => {
                self.problems.warning(
                    Some(item.span()),
                    key,
                    "is no loopback address: whoever reaches it can read the metrics, which name no account but \
                     count attempts",
                );
            }
            Some(_) => {}
            None => self.problems.error(
                Some(item.span()),
                key,
                format_args!(
                    "must be an address and a port (\"127.0.0.1:9456\", \"[::1]:9456\"), or false, not {}",
                    short(item.get_ref())
                ),
            ),
        }
        address
    }

    /// A list of names of users or groups.
    pub(super) fn names(&mut self, item: &Item, key: &str) -> Vec<String> {
        let Some(item) = item else { return Vec::new() };
        let wrong = "must be a list of names, as in [\"jon\", \"kon\"]";
        let Some(list) = item.get_ref().as_array() else {
            self.problems.error(Some(item.span()), key, wrong);
            return Vec::new();
        };
        let mut names = Vec::new();
        for value in list {
            match value.as_str() {
                Some(name) if is_name(name) => names.push(name.to_owned()),
                _ => {
                    let text = format!("{wrong}; {} is none", short(value));
                    self.problems.error(Some(item.span()), key, text);
                }
            }
        }
        names
    }
}

/// A value, short enough for a message.
pub(super) fn short(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Table(_) => "a table".to_owned(),
        other => {
            let mut text = other.to_string();
            if text.chars().count() > 40 {
                text = text.chars().take(40).chain(['…']).collect();
            }
            text
        }
    }
}

/// Whether a user database could hold it, and `passwd` take it.
pub(super) fn is_name(name: &str) -> bool {
    let odd = |letter: char| letter.is_control() || letter.is_whitespace() || ":/,".contains(letter);
    !name.is_empty() && name.len() <= 256 && !name.starts_with('-') && !name.contains(odd)
}
