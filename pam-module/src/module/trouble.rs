//! The gate cannot be asked: the line's documented choice of fail-open or fail-closed.
//!
//! Invariant: what a caller can cause himself always refuses.

use libc::c_int;
use portcullis_common::abi::{unreachable, verdict};
use portcullis_common::client::Error;

use super::REFUSAL_DELAY;
use crate::options::{OnError, Options};
use crate::status;
use crate::world::{Level, World};

/// Why the gate could not be asked.
#[derive(Debug)]
pub enum Trouble {
    /// The user database failed.
    Users(i32),
    /// The gate failed.
    Gate(Error),
    /// The gate gave an answer that is none.
    Verdict(u32),
}

impl Trouble {
    fn is_callers(&self) -> bool {
        match self {
            Self::Users(errno) => Error::Open(*errno).is_callers(),
            Self::Gate(error) => error.is_callers(),
            Self::Verdict(_) => false,
        }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Users(errno) => write!(f, "the user database failed: errno {errno}"),
            Self::Gate(error) => write!(f, "{error}"),
            Self::Verdict(verdict::MOVED) => write!(f, "the gate is being replaced"),
            Self::Verdict(verdict::AGAIN) => write!(f, "the account's row kept being deleted under the call"),
            Self::Verdict(verdict::UNCOUNTED) => {
                write!(
                    f,
                    "the gate keeps no row for this account: no configuration loaded, or its table is full"
                )
            }
            Self::Verdict(verdict::NOT_YOURS) => write!(
                f,
                "the gate is open to root only, and the agent answers others about their own account alone"
            ),
            Self::Verdict(other) => write!(f, "the gate answered {other}: restart portcullis-gate.service"),
        }
    }
}

/// The documented choice of fail-open or fail-closed, logged and counted.
pub fn unreachable_gate(world: &impl World, options: &Options, user: &[u8], trouble: &Trouble) -> c_int {
    decide(world, options, user, trouble, |level, why, what| {
        world.log(level, &format!("attempt {why}: {trouble}"));
        world.note(what);
        world.keep_trouble();
    })
}

/// The same in the account phase, which follows on an attempt: what was said and counted there is not said again.
pub fn unreachable_gate_after(
    world: &impl World,
    options: &Options,
    user: &[u8],
    trouble: &Trouble,
) -> c_int {
    if world.trouble_kept() {
        decide(world, options, user, trouble, |_, _, _| {})
    } else {
        unreachable_gate(world, options, user, trouble)
    }
}

fn decide(
    world: &impl World,
    options: &Options,
    user: &[u8],
    trouble: &Trouble,
    tell: impl Fn(Level, &str, u8),
) -> c_int {
    if trouble.is_callers() && !cfg!(feature = "mutation-open-on-exhaustion") {
        tell(Level::Error, "refused (the caller may have caused this)", unreachable::REFUSED);
        return status::AUTH_ERR;
    }
    if world.switched_off() && !cfg!(feature = "mutation-ignore-off-word") {
        return status::IGNORE;
    }
    let local_root = || world.rhost().is_empty() && matches!(world.uid(user), Ok(Some(0)));
    match options.on_error {
        OnError::Ignore => {
            tell(Level::Warning, "not counted (on_error=ignore)", unreachable::IGNORED);
            status::IGNORE
        }
        OnError::Deny if local_root() => {
            tell(Level::Warning, "not counted (root on a local terminal)", unreachable::IGNORED);
            status::IGNORE
        }
        OnError::Deny => {
            tell(Level::Error, "refused (on_error=deny)", unreachable::REFUSED);
            world.fail_delay(REFUSAL_DELAY);
            status::AUTH_ERR
        }
    }
}
