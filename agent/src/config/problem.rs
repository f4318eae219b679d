//! Errors and warnings of a configuration file, each with its line and key.
//!
//! Invariants: every problem is one line of text; text from the file is escaped.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::{Config, Loaded};
use crate::text::escape;

/// Something wrong or odd in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// Line, from 1; none: the file as a whole.
    pub line: Option<usize>,
    /// The key, with its table.
    pub key: String,
    /// What is wrong and what to do.
    pub text: String,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: cannot be read: {source}; write it (the documentation has a sample) and try again", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no text.
    #[error("{path}: is not UTF-8 text, or larger than 1 MiB: this is no configuration", path = path.display())]
    NoText {
        /// The file.
        path: PathBuf,
    },
    /// The file has errors: all of them, a line each.
    #[error("{}", lines(.0))]
    Wrong(Vec<Problem>),
}

/// Problems on the way.
#[derive(Debug)]
pub(super) struct Problems<'a> {
    path: &'a Path,
    text: &'a str,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl<'a> Problems<'a> {
    pub(super) fn new(path: &'a Path, text: &'a str) -> Self {
        Self { path, text, errors: Vec::new(), warnings: Vec::new() }
    }

    /// Takes note of an error at a place in the text.
    pub(super) fn error(&mut self, at: Option<Range<usize>>, key: &str, text: impl fmt::Display) {
        let problem = self.problem(at, key, &text);
        self.errors.push(problem);
    }

    /// Takes note of an oddity at a place in the text.
    pub(super) fn warning(&mut self, at: Option<Range<usize>>, key: &str, text: impl fmt::Display) {
        let problem = self.problem(at, key, &text);
        self.warnings.push(problem);
    }

    /// Takes note of an error of the TOML parser.
    pub(super) fn syntax(&mut self, error: &toml::de::Error) {
        let at = error.span();
        let key = at.as_ref().map(|at| self.key_at(at.start)).unwrap_or_default();
        let hint = "see the sample configuration for the keys there are and how values are written";
        self.error(at, &key, format_args!("{}; {hint}", error.message()));
    }

    /// Whether there were errors.
    pub(super) fn wrong(&self) -> bool {
        !self.errors.is_empty()
    }

    pub(super) fn into_error(self) -> ConfigError {
        ConfigError::Wrong(self.errors)
    }

    pub(super) fn into_result(self, config: Config) -> Result<Loaded, ConfigError> {
        if self.wrong() {
            return Err(self.into_error());
        }
        Ok(Loaded { config, warnings: self.warnings })
    }

    fn problem(&self, at: Option<Range<usize>>, key: &str, text: &dyn fmt::Display) -> Problem {
        let before = at.and_then(|at| self.text.get(..at.start));
        let line = before.map(|before| before.matches('\n').count() + 1);
        // The parser's messages may span lines.
        let text = text.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        Problem {
            path: self.path.to_owned(),
            line,
            key: escape(key.as_bytes()),
            text: escape(text.as_bytes()),
        }
    }

    /// The key of a place in the text, as the text has it: the nearest table above and what is left of the line's `=`.
    fn key_at(&self, place: usize) -> String {
        let start = self.text.get(..place).and_then(|before| before.rfind('\n')).map_or(0, |end| end + 1);
        let line = self.text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
        let (key, _) = line.split_once('=').unwrap_or((line, ""));
        let above = self.text.get(..start).unwrap_or_default();
        let table = above.lines().rev().map(str::trim).find(|line| line.starts_with('['));
        match table {
            Some(table) => {
                let table = table.split(']').next().unwrap_or_default().trim_start_matches('[');
                format!("{table}.{}", key.trim())
            }
            None => key.trim().to_owned(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(formatter, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(formatter, ": {}", self.key)?;
        }
        write!(formatter, ": {}", self.text)
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
