//! Exit statuses of `portcullisd` and `portcullis`: one table for both.

use std::process::ExitCode;

/// How a program ended. Numbers are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Failed for a reason the message tells.
    Failure = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// Another portcullisd is running.
    AlreadyRunning = 3,
    /// Not root, or not permitted.
    NotPermitted = 4,
    /// The agent cannot be reached.
    Unreachable = 5,
    /// The configuration has an error.
    Config = 6,
    /// No such account.
    NoSuchAccount = 7,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The table for `--help`.
pub const TABLE: &str = "Exit status:\n  0  done\n  1  failed, see the message\n  2  wrong usage\n  3  another portcullisd is running\n  4  not root, or not permitted\n  5  the agent cannot be reached\n  6  an error in the configuration\n  7  no such account";
