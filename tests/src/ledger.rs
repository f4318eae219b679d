//! What the gate has on the books, asked without the agent.

use portcullis_common::abi::{Answer, Request, op};
use portcullis_common::client::Gate;

use crate::{Error, Result};

/// The numbers of the account `uid`.
///
/// # Errors
/// When the gate does not answer.
pub fn of(uid: u32) -> Result<Answer> {
    let answer = Gate::open().and_then(|gate| gate.call(&Request::new(op::CHECK, uid.into())));
    answer.map_err(|error| Error::Answer { program: "the gate".into(), output: error.to_string() })
}

/// Whether the account `uid` is locked.
///
/// # Errors
/// When the gate does not answer.
pub fn locked(uid: u32) -> Result<bool> {
    Ok(of(uid)?.locked_until != 0)
}
