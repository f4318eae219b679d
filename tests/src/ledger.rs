//! What the gate has on the books, asked without the agent.

use portcullis_common::abi::{Answer, Request, Version, op};
use portcullis_common::client::{self, Gate};

use crate::{Error, Result};

/// The numbers of the account `uid`.
///
/// # Errors
/// When the gate does not answer.
pub fn of(uid: u32) -> Result<Answer> {
    let answer = Gate::open().and_then(|gate| gate.call(&Request::new(op::CHECK, uid.into())));
    answer.map_err(|error| Error::Answer { program: "the gate".into(), output: error.to_string() })
}

/// The numbers of the account `uid` in the gate of one version.
///
/// # Errors
/// When there is none, or it gives no answer.
pub fn in_version(version: &Version, uid: u32) -> std::result::Result<Answer, client::Error> {
    Gate::open_version(version)?.call(&Request::new(op::CHECK, uid.into()))
}

/// Whether the account `uid` is locked.
///
/// # Errors
/// When the gate does not answer.
pub fn locked(uid: u32) -> Result<bool> {
    Ok(of(uid)?.locked_until != 0)
}
