//! The decision table of docs/sources.md, read from there: a row that is not understood is an error, so that no row of
//! the page goes unplayed.

use crate::{Error, Result};

/// The page.
const PAGE: &str = include_str!("../../docs/sources.md");
/// How the table begins.
const HEAD: &str = "| from | failures of each |";

/// What happens besides the failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Besides {
    /// Nothing.
    Nothing,
    /// After every second failure the owner logs on from there.
    LogsOn,
    /// The configuration exempts the source.
    Exempt,
    /// An administrator is logged on from the same address.
    Administrator,
    /// The source is in an IPv6 network that this host is in.
    Near,
}

/// What comes of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It trips nothing.
    None,
    /// It trips, and that is told.
    Told,
    /// It trips, and is exempt.
    Exempt,
    /// It is answered, as this class.
    Answered(&'static str),
}

/// A row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// How many hosts; none: a local user.
    pub hosts: u8,
    /// Failures of each.
    pub failures: usize,
    /// At so many accounts, in turn.
    pub accounts: usize,
    /// What happens besides.
    pub besides: Besides,
    /// Whether the word in `[sc5]` is monitor.
    pub monitor: bool,
    /// What comes of each source.
    pub source: Fate,
    /// Whether the first account is locked for others then.
    pub locked: bool,
}

impl Row {
    fn read(line: &str) -> Option<Self> {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [from, failures, accounts, besides, word, source, account] = cells.as_slice() else {
            return None;
        };
        Some(Self {
            hosts: match *from {
                "1 host" => 1,
                "3 hosts" => 3,
                "1 local user" => 0,
                _ => return None,
            },
            failures: failures.parse().ok()?,
            accounts: accounts.parse().ok()?,
            besides: match *besides {
                "" => Besides::Nothing,
                "logs on after every second" => Besides::LogsOn,
                "its network is exempt" => Besides::Exempt,
                "an administrator is logged on from there" => Besides::Administrator,
                "its IPv6 network is this host's, too" => Besides::Near,
                _ => return None,
            },
            monitor: match *word {
                "drop" | "refuse" => false,
                "monitor" => true,
                _ => return None,
            },
            source: match *source {
                "none" => Fate::None,
                "told" => Fate::Told,
                "exempt" => Fate::Exempt,
                "guess" => Fate::Answered("guess"),
                "spray" => Fate::Answered("spray"),
                "local" => Fate::Answered("local"),
                _ => return None,
            },
            locked: match *account {
                "open" => false,
                "locked" => true,
                _ => return None,
            },
        })
    }
}

/// All rows.
///
/// # Errors
/// The table is not there, or a row is not understood.
pub fn rows() -> Result<Vec<Row>> {
    let trouble = |output: &str| Error::Answer { program: "docs/sources.md".into(), output: output.into() };
    let table = PAGE.find(HEAD).and_then(|start| PAGE.get(start..)).ok_or_else(|| trouble("no table"))?;
    let lines = table.lines().take_while(|line| line.starts_with('|')).skip(2);
    lines.map(|line| Row::read(line).ok_or_else(|| trouble(line))).collect()
}
