//! The agent's calls of the gate: lock, unlock, check, forget.
//!
//! Invariants: the gate is opened anew for each call, so a gate that was replaced is never called by its old number; an
//! answer that is none is an error, never taken for a yes.

use portcullis_common::abi::{Answer, Request, op, verdict};
use portcullis_common::client::Gate;

use super::KernelError;

/// One call.
fn call(request: &Request) -> Result<Answer, KernelError> {
    let failed = |error: String| KernelError::Gate { what: error };
    let gate = Gate::open().map_err(|error| failed(format!("it cannot be opened: {error}")))?;
    let answer = gate.call(request).map_err(|error| failed(error.to_string()))?;
    match answer.verdict {
        verdict::INVALID => Err(failed("it speaks another version: restart portcullisd".to_owned())),
        verdict::MOVED => Err(failed(format!(
            "it is frozen, as for an upgrade that never ended: `systemctl restart portcullis-gate portcullisd` ends it; \
             else stop portcullisd, `rm -r {}`, then start both (locks come back from the store, counts do not)",
            portcullis_common::abi::PIN_DIR
        ))),
        verdict::AGAIN => Err(failed("the account's row changed under the call: try again".to_owned())),
        verdict::UNCOUNTED => {
            Err(failed("no room for the account: a table is full, see `portcullis status`".to_owned()))
        }
        _ => Ok(answer),
    }
}

/// Whether the gate answers; changes nothing.
///
/// # Errors
/// [`KernelError::NoGate`] when its pin is gone, else why it gives no answer that can be used: frozen, another version.
pub fn probe() -> Result<(), KernelError> {
    if !super::gate_pinned() {
        return Err(KernelError::NoGate { path: portcullis_common::abi::PIN_GATE.into() });
    }
    // An account nobody has: no row is made for it.
    check(u64::from(u32::MAX)).map(|_| ())
}

/// Locks an account until `until` (boot time, `u64::MAX`: until released).
///
/// # Errors
/// The gate does not answer or has no room.
pub fn lock(account: u64, until: u64, cause: u32) -> Result<Answer, KernelError> {
    let mut request = Request::new(op::LOCK, account);
    request.until = until;
    request.arg = cause;
    call(&request)
}

/// Takes the lock off and forgets the failures.
///
/// # Errors
/// The gate does not answer.
pub fn unlock(account: u64) -> Result<Answer, KernelError> {
    call(&Request::new(op::UNLOCK, account))
}

/// Looks at an account and lets come due what is due.
///
/// # Errors
/// The gate does not answer.
pub fn check(account: u64) -> Result<Answer, KernelError> {
    call(&Request::new(op::CHECK, account))
}

/// Drops an account's row if nothing in it matters any more.
///
/// # Errors
/// The gate does not answer.
pub fn forget(account: u64) -> Result<Answer, KernelError> {
    call(&Request::new(op::FORGET, account))
}
