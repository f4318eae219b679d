//! The rung above the shadow lock: `chage -E`, and what /etc/shadow says before and after.
//!
//! Invariants
//! * An account that had expired before is not touched; an expiry that was changed since we set ours is left alone.
//! * The former value is known before ours is set, and is what is set again.
//! * The truth is what is read back from the file, not an exit status.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::program::{self, RunError};
use crate::shadow::{self, ShadowError, can_be_named};

/// What the field holds while the rung is ours: the second day of 1970, by its number.
const OURS: &str = "1";
const CHAGE: &str = "/usr/bin/chage";
/// Tries while another program holds the lock of the files.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(500);

/// The expiry of an account as /etc/shadow has it: days since 1970, or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Former(pub String);

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Done and read back.
    Verified,
    /// Nothing was done: it had expired before, or it was changed since.
    Theirs,
}

/// Why it failed.
#[derive(Debug, thiserror::Error)]
pub enum ExpiryError {
    /// The file or the name.
    #[error(transparent)]
    Shadow(#[from] ShadowError),
    /// The program.
    #[error("{0}; it belongs to the package passwd")]
    Run(#[from] RunError),
    /// Not a number of days.
    #[error("/etc/shadow holds no date of expiry for {0}, but something else: look at it with chage -l {0}")]
    Odd(String),
    /// The file says that it did not work.
    #[error("chage -E {wanted} {name} ended with {status} and the expiry is {found:?}: {said}")]
    NotDone {
        /// The account.
        name: String,
        /// What was asked.
        wanted: String,
        /// Exit status or signal.
        status: String,
        /// What the file says.
        found: String,
        /// What the program said.
        said: String,
    },
}

impl ExpiryError {
    /// Whether another try may help.
    #[must_use]
    pub fn retry(&self) -> bool {
        match self {
            Self::Shadow(error) => error.retry(),
            Self::Odd(_) => false,
            Self::Run(_) | Self::NotDone { .. } => true,
        }
    }
}

/// Sets and restores expiries on a host.
#[derive(Clone, Debug)]
pub struct Expiry {
    root: PathBuf,
    timeout: Duration,
}

impl Expiry {
    /// For the host under `root`, with the time limit of one run of `chage`.
    #[must_use]
    pub fn new(root: &Path, timeout: Duration) -> Self {
        Self { root: root.to_owned(), timeout }
    }

    /// The expiry as it is.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&self, name: &str) -> Result<Former, ExpiryError> {
        if !can_be_named(name) {
            return Err(ShadowError::Name(name.to_owned()).into());
        }
        let field = shadow::expiry(&self.root, name)?;
        let text = String::from_utf8(field).map_err(|_| ExpiryError::Odd(name.to_owned()))?;
        // A negative number is none.
        if text.is_empty() || text.parse::<i64>().is_ok_and(|days| days < 0) {
            return Ok(Former(String::new()));
        }
        if text.parse::<u64>().is_ok() { Ok(Former(text)) } else { Err(ExpiryError::Odd(name.to_owned())) }
    }

    /// Whether the expiry is the one we set.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn holds(&self, name: &str) -> Result<bool, ExpiryError> {
        Ok(self.read(name)?.0 == OURS)
    }

    /// Whether an account with this expiry has expired on the day `today`.
    #[must_use]
    pub fn over(former: &Former, today: u64) -> bool {
        former.0.parse::<u64>().is_ok_and(|day| day <= today)
    }

    /// Lets the account expire, unless it has.
    ///
    /// # Errors
    /// It has not expired afterwards.
    pub async fn set(&self, name: &str) -> Result<Change, ExpiryError> {
        if Self::over(&self.read(name)?, today()) {
            return Ok(Change::Theirs);
        }
        self.change(name, OURS, OURS).await?;
        Ok(Change::Verified)
    }

    /// Gives back the former expiry, unless somebody changed ours.
    ///
    /// # Errors
    /// The former expiry is not there afterwards.
    pub async fn restore(&self, name: &str, former: &Former) -> Result<Change, ExpiryError> {
        if !self.holds(name)? && !cfg!(feature = "mutation-undo-theirs") {
            return Ok(Change::Theirs);
        }
        let former = if cfg!(feature = "mutation-forget-expiry-date") { "" } else { former.0.as_str() };
        let wanted = if former.is_empty() { "-1" } else { former };
        self.change(name, wanted, former).await?;
        Ok(Change::Verified)
    }

    /// Runs `chage` and reads back, until the field is as wanted or it is given up.
    async fn change(&self, name: &str, wanted: &str, left: &str) -> Result<(), ExpiryError> {
        let mut arguments = Vec::new();
        if self.root != Path::new("/") {
            arguments.extend(["-R".into(), self.root.clone().into_os_string()]);
        }
        arguments.extend(["-E", wanted, "--", name].map(Into::into));
        let mut tries = 0;
        loop {
            tries += 1;
            let ended = program::run(Path::new(CHAGE), &arguments, Vec::new(), self.timeout).await;
            let found = self.read(name)?;
            if found.0 == left {
                return Ok(());
            }
            let ended = ended?;
            if tries < TRIES {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            return Err(ExpiryError::NotDone {
                name: name.to_owned(),
                wanted: wanted.to_owned(),
                status: ended.status,
                found: found.0,
                said: ended.said,
            });
        }
    }
}

/// Days since 1970.
#[must_use]
pub fn today() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second() / 86_400).unwrap_or(0)
}
