//! `charge=conversation`: the modules behind ask for themselves (pam_sss, one-time codes, fingerprint, U2F). The guess is
//! charged when the first question is answered, before the answer reaches the module that asked; nothing asked, nothing
//! charged.
//!
//! Invariants: an answer for which no guess could be had reaches nobody (it is wiped, and the module gets
//! PAM_CONV_ERR); while the account is locked nothing is asked at all. One attempt is charged once, however many
//! questions follow: a code after a password is one logon.

use libc::c_int;
use portcullis_common::abi::{Request, ask, op, verdict};

use super::trouble::{Trouble, unreachable_gate};
use super::{Charged, charge, refuse, reserve, who};
use crate::options::Options;
use crate::status;
use crate::world::{Attempt, Level, World};

/// What is known when the stack begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The words of the line.
    pub options: Options,
    /// PAM_USER.
    pub user: Vec<u8>,
}

/// What to do with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// It may go on; the attempt, where one is counted, is to be resolved when the stack ends.
    GoOn(Option<Attempt>),
    /// It may not.
    Refused,
}

/// The stack begins: refuses a locked account, else has the conversation listened to.
pub(super) fn begin(world: &impl World, options: &Options, user: Vec<u8>) -> c_int {
    let account = match who::account_of(world, &user) {
        Ok(account) => account,
        Err(trouble) => return unreachable_gate(world, options, &user, &trouble),
    };
    let mut request = Request::new(op::CHECK, account);
    request.flags = if options.offers_factor { ask::FACTOR } else { 0 };
    request.entry.detail = who::detail(world);
    match reserve::ask_both(world, &request) {
        Ok(answer) if answer.refuses() => {
            return refuse(world, options, account, &answer);
        }
        Ok(answer) if matches!(answer.verdict, verdict::DONE | verdict::NOTHING) => {}
        Ok(answer) => {
            return unreachable_gate(world, options, &user, &Trouble::Verdict(answer.verdict));
        }
        Err(error) => return unreachable_gate(world, options, &user, &Trouble::Gate(error)),
    }
    match world.listen(Pending { options: options.clone(), user }) {
        Ok(()) => status::IGNORE,
        Err(code) => {
            world.log(Level::Error, &format!("attempt refused: libpam took no conversation (code {code})"));
            status::AUTH_ERR
        }
    }
}

/// The first question was answered.
pub fn answered(world: &impl World, pending: &Pending) -> Answered {
    match charge(world, &pending.options, &pending.user) {
        Charged::Attempt(attempt) => Answered::GoOn(Some(attempt)),
        Charged::Nothing => Answered::GoOn(None),
        Charged::Refused(_) => Answered::Refused,
    }
}
