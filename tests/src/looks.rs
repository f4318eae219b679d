//! The agent's looks for tampering: what it has not raised after the next ones it will not raise.

use crate::system::{run, wait_for};
use crate::{Error, Result};

/// Looks of which at least one begins more than a second after the first: in that second there are nine at most, one
/// each 150 ms and one each 400 ms.
pub const PAST_MENDING: u64 = 15;

/// How many were made.
///
/// # Errors
/// When the agent does not tell.
pub fn made() -> Result<u64> {
    let (_, page) = run("portcullis", &["metrics"])?;
    let count = page.lines().find_map(|line| line.strip_prefix("portcullis_tamper_looks_total "));
    let count = count.and_then(|count| count.parse().ok());
    count.ok_or_else(|| Error::Answer { program: "portcullis metrics".into(), output: page })
}

/// Waits for `more` looks that began after now.
///
/// # Errors
/// When they are not made.
pub fn wait(more: u64) -> Result<()> {
    // One may be under way.
    let enough = made()? + more + 1;
    wait_for("looks for tampering", 10 + more, || Ok(made()? >= enough))
}
