//! The tables `[notify]` and `[breaker]`.
//!
//! Invariants: nobody is told and nothing is written unless the file says so; a command is a list of words whose first is
//! an absolute path, never text for a shell.

use std::path::PathBuf;

use portcullis_policy::breaker::Rules;
use serde::{Serialize, Serializer};

use super::Span;
use super::raw::{self, Item};
use super::values::{Reader, place, short};
use crate::notify::file::Place;
use crate::notify::kind;

/// Who is told of what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Notify {
    /// The file of JSON lines.
    #[serde(serialize_with = "path_or_false")]
    pub file: Option<PathBuf>,
    /// Megabytes after which it is put aside.
    pub file_megabytes: u64,
    /// Commands at once.
    pub parallel: usize,
    /// Commands that may wait.
    pub queue: usize,
    /// How long a command may take.
    pub timeout: Span,
    /// What is run.
    #[serde(rename = "command")]
    pub commands: Vec<Command>,
}

/// A command and the events that it is run for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Command {
    /// Names or classes of events.
    pub events: Vec<String>,
    /// The program and its arguments.
    pub argv: Vec<String>,
}

/// When rungs are withheld.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Breaker {
    /// Failing accounts; 0: never.
    #[serde(serialize_with = "super::rungs::number_or_false")]
    pub failing_accounts: u32,
    /// Within this time.
    pub failing_window: Span,
    /// Percent of the accounts that may be locked.
    pub locked_percent: u32,
}

impl Notify {
    /// Where lines go, and how many.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        let path = self.file.clone()?;
        Some(Place { path, most: self.file_megabytes.saturating_mul(1 << 20) })
    }
}

impl Breaker {
    /// The same in the policy's words.
    #[must_use]
    pub const fn rules(&self) -> Rules {
        Rules {
            accounts: self.failing_accounts,
            window: self.failing_window.nanoseconds(),
            locked_percent: self.locked_percent,
        }
    }
}

fn path_or_false<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => path.serialize(serializer),
        None => serializer.serialize_bool(false),
    }
}

impl Reader<'_, '_> {
    /// The table `[notify]`.
    pub(super) fn notify(&mut self, raw: &raw::Notify) -> Notify {
        let none = raw.file.as_ref().is_none_or(|item| item.get_ref().as_bool() == Some(false));
        let small = |number: u64| usize::try_from(number).unwrap_or(1);
        Notify {
            file: (!none).then(|| self.path(&raw.file, "notify.file", "/var/log/portcullis/events.json")),
            file_megabytes: self.number(&raw.file_megabytes, "notify.file_megabytes", 64, 1..=100_000),
            parallel: small(self.number(&raw.parallel, "notify.parallel", 4, 1..=64)),
            queue: small(self.number(&raw.queue, "notify.queue", 256, 1..=100_000)),
            timeout: self.time(&raw.timeout, "notify.timeout", 10, 3_600),
            commands: raw.command.iter().map(|command| self.command(command.get_ref())).collect(),
        }
    }

    /// The table `[breaker]`.
    pub(super) fn breaker(&mut self, raw: &raw::Breaker) -> Breaker {
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let off = raw.failing_accounts.as_ref().is_some_and(|item| item.get_ref().as_bool() == Some(false));
        let accounts = if off {
            0
        } else {
            small(self.number(&raw.failing_accounts, "breaker.failing_accounts", 20, 2..=4_000))
        };
        Breaker {
            failing_accounts: accounts,
            failing_window: self.time(&raw.failing_window, "breaker.failing_window", 300, 86_400),
            locked_percent: small(self.number(&raw.locked_percent, "breaker.locked_percent", 50, 1..=100)),
        }
    }

    fn number(&mut self, item: &Item, key: &str, default: u64, range: std::ops::RangeInclusive<u64>) -> u64 {
        let Some(item) = item else { return default };
        let number = item.get_ref().as_integer().and_then(|number| u64::try_from(number).ok());
        if let Some(number) = number.filter(|number| range.contains(number)) {
            return number;
        }
        let (least, most) = (range.start(), range.end());
        let text = format!("must be a whole number from {least} to {most}, not {}", short(item.get_ref()));
        self.problems.error(Some(item.span()), key, text);
        default
    }

    fn command(&mut self, raw: &raw::NotifyCommand) -> Command {
        let (key, events_key) = ("notify.command.argv", "notify.command.events");
        let argv = self.words(&raw.argv, key);
        let good = argv.first().is_some_and(|program| program.starts_with('/'));
        if !good || argv.iter().any(|word| word.contains('\0')) {
            let text = "must be a list whose first word is the absolute path of a program: [\"/usr/local/sbin/page\", \"now\"]";
            self.problems.error(place(&raw.argv), key, text);
        }
        let events = self.words(&raw.events, events_key);
        if events.is_empty() {
            let text = format!("must name events or classes of events ({}, all)", kind::CLASSES.join(", "));
            self.problems.error(place(&raw.events), events_key, text);
        }
        for word in events.iter().filter(|word| !kind::is_word(word)) {
            let text = format!(
                "no event and no class of events is named {word}: the classes are {}, all; the events are in docs/events.md",
                kind::CLASSES.join(", ")
            );
            self.problems.error(place(&raw.events), events_key, text);
        }
        Command { events, argv }
    }

    fn words(&mut self, item: &Item, key: &str) -> Vec<String> {
        let Some(item) = item else { return Vec::new() };
        let list = item.get_ref().as_array();
        let words = list.and_then(|list| list.iter().map(|word| word.as_str().map(str::to_owned)).collect());
        words.unwrap_or_else(|| {
            let text = format!("must be a list of texts, not {}", short(item.get_ref()));
            self.problems.error(Some(item.span()), key, text);
            Vec::new()
        })
    }
}
