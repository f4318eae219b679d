//! The agent's calls of the gate: lock, unlock, check, forget; of an account, or of a pair of it and a source.
//!
//! Invariants: the gate is opened anew for each call, so a gate that was replaced is never called by its old number; an
//! answer that is none is an error, never taken for a yes.

use portcullis_common::abi::{Answer, Entry, Request, ask, cause, op, outcome, verdict};
use portcullis_common::client::Gate;
use portcullis_common::ledger::Actor;

use super::{KernelError, TableRow};

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

/// Whose row a call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The account of this key.
    Account(u64),
    /// The account as this source sees it.
    Pair(u64, Actor),
}

impl Subject {
    /// Whose row that is.
    #[must_use]
    pub fn of(found: &TableRow) -> Self {
        if found.is_pair() {
            Self::Pair(found.row.account, found.actor())
        } else {
            Self::Account(found.account)
        }
    }

    fn request(self, op: u32) -> Request {
        match self {
            Self::Account(account) => Request::new(op, account),
            Self::Pair(account, actor) => {
                let mut request = Request::new(op, account);
                request.flags = ask::PAIR;
                request.entry.detail = actor.detail();
                request
            }
        }
    }
}

/// An account by its key, a uid.
impl From<u64> for Subject {
    fn from(account: u64) -> Self {
        Self::Account(account)
    }
}

/// Locks until `until` (boot time, `u64::MAX`: until released).
///
/// # Errors
/// The gate does not answer or has no room.
pub fn lock(subject: impl Into<Subject>, until: u64, cause: u32) -> Result<Answer, KernelError> {
    let mut request = subject.into().request(op::LOCK);
    request.until = until;
    request.arg = cause;
    call(&request)
}

/// What a gate that was lost knew of a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known {
    /// End of the lock, boot time; 0: none.
    pub until: u64,
    /// It is open to those whom the account's class names.
    pub soft: bool,
    /// Until when one more trip is one more of the row of trips; 0: it is the first.
    pub climb_until: u64,
    /// Trips of the row before the last.
    pub level: u32,
}

/// Gives back what a gate that was lost knew.
///
/// # Errors
/// As [`lock`].
pub fn restore(subject: impl Into<Subject>, known: Known) -> Result<Answer, KernelError> {
    let mut request = subject.into().request(op::LOCK);
    request.until = known.until;
    request.arg = if known.until == 0 { 0 } else { cause::RESTORED } | (known.level & 0xff) << 8;
    request.entry.token = known.climb_until;
    request.flags |= if known.soft { ask::SOFT } else { 0 };
    call(&request)
}

/// Takes the lock off and forgets the failures.
///
/// # Errors
/// The gate does not answer.
pub fn unlock(subject: impl Into<Subject>) -> Result<Answer, KernelError> {
    call(&subject.into().request(op::UNLOCK))
}

/// Looks, and lets come due what is due.
///
/// # Errors
/// The gate does not answer.
pub fn check(subject: impl Into<Subject>) -> Result<Answer, KernelError> {
    call(&subject.into().request(op::CHECK))
}

/// Drops a row if nothing in it matters any more.
///
/// # Errors
/// The gate does not answer.
pub fn forget(subject: impl Into<Subject>) -> Result<Answer, KernelError> {
    call(&subject.into().request(op::FORGET))
}

/// Tells the gate of a logon that another program saw fail or succeed: counts for its source alone.
///
/// # Errors
/// The gate does not answer.
pub fn report(entry: Entry, result: u32) -> Result<Answer, KernelError> {
    let mut request = Request::new(op::REPORT, entry.account);
    request.entry = entry;
    request.arg = result;
    call(&request)
}

/// One whole attempt at an account that another program saw: counted for the account (and for the pair, where its class
/// counts pairs) as well. A logon clears the failures, as one through PAM does.
///
/// # Errors
/// The gate does not answer, or has no guess free just now.
pub fn attempt(entry: Entry, result: u32) -> Result<Answer, KernelError> {
    // A right password is no guess: while the account is locked it counts for its source, and clears nothing.
    if result == outcome::PASS {
        let pair = Subject::Pair(entry.account, Actor::of(&entry.detail));
        if check(entry.account)?.refuses() || check(pair)?.refuses() {
            return report(entry, result);
        }
    }
    let mut account = Request::new(op::ADMIT, entry.account);
    account.entry = entry;
    account.flags = ask::LAST_TRY;
    let mut pair = None;
    let mut admitted = call(&account)?;
    if admitted.verdict == verdict::PAIR {
        let mut request = account;
        request.flags = ask::LAST_TRY | ask::PAIR;
        match call(&request) {
            Ok(answer) if answer.verdict == verdict::ADMITTED => {
                request.entry.token = answer.token;
                pair = Some(request);
            }
            Ok(answer) => return Ok(answer),
            // No room for the pair: the account's own limit holds.
            Err(error) => log::debug!("{error}"),
        }
        account.flags = ask::LAST_TRY | ask::PAIRED;
        admitted = call(&account)?;
    }
    account.entry.token = admitted.token;
    let refused = admitted.verdict != verdict::ADMITTED;
    let requests = pair.into_iter().chain((!refused).then_some(account));
    let mut told = admitted;
    for mut request in requests {
        request.flags &= ask::PAIR;
        request.op = op::RESOLVE;
        request.arg = if refused { outcome::VOID } else { result };
        let resolved = call(&request)?;
        if !refused {
            told = resolved;
        }
        if !refused && result == outcome::PASS {
            request.op = op::CONFIRM;
            told = call(&request)?;
        }
    }
    Ok(told)
}
