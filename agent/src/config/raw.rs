//! The file as TOML sees it: known keys, values of any type, each with its place.
//!
//! Invariants: unknown keys and keys given twice are errors here; everything else is judged in `read`.

use serde::Deserialize;
use toml::{Spanned, Value};

use super::problem::Problems;

/// A value and its place; none where the key is missing.
pub(super) type Item = Option<Spanned<Value>>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) break_glass: Item,
    pub(super) reservation_max_age: Item,
    pub(super) confirm_time: Item,
    #[serde(default)]
    pub(super) default: Limits,
    #[serde(default)]
    pub(super) class: Vec<Spanned<Class>>,
    #[serde(default)]
    pub(super) root: Root,
    #[serde(default)]
    pub(super) metrics: Metrics,
    #[serde(default)]
    pub(super) agent: Agent,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) deny: Item,
    pub(super) fail_interval: Item,
    pub(super) unlock_time: Item,
    pub(super) shadow_lock: Item,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Class {
    pub(super) name: Item,
    pub(super) users: Item,
    pub(super) groups: Item,
    pub(super) deny: Item,
    pub(super) fail_interval: Item,
    pub(super) unlock_time: Item,
    pub(super) shadow_lock: Item,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Root {
    pub(super) even_deny_root: Item,
    pub(super) root_unlock_time: Item,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Metrics {
    pub(super) listen: Item,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Agent {
    pub(super) socket: Item,
    pub(super) store: Item,
    pub(super) reconcile: Item,
    pub(super) passwd_timeout: Item,
}

/// Reads the text; none, with the problem noted, where it is not of this form.
pub(super) fn parse(text: &str, problems: &mut Problems<'_>) -> Option<File> {
    match toml::from_str(text) {
        Ok(file) => Some(file),
        Err(error) => {
            problems.syntax(&error);
            None
        }
    }
}
