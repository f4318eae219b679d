//! `auth [cred_unavail=1 ignore=ignore default=die] pam_portcullis.so factor`: asks for another factor, or has the line
//! behind it, which asks, jumped over.
//!
//! Invariants: it never grants; it says "not due" (PAM_CRED_UNAVAIL) only on the gate's word, or where the gate cannot be
//! asked by the line's `on_error`; whatever else happens ends the stack.

use libc::c_int;
use portcullis_common::abi::{Request, ask, flag, op, verdict};

use super::trouble::{Trouble, unreachable_gate};
use super::{LOCKED, REFUSAL_DELAY, paused, reserve, who};
use crate::options::Options;
use crate::status;
use crate::world::{Level, World};

/// pam_sm_authenticate of the second line.
pub fn ask_for(world: &impl World, options: &Options) -> c_int {
    let user = match world.user() {
        Ok(user) => user,
        Err(code) => return paused(code),
    };
    // Where nothing is enforced nothing more is asked for.
    let unasked = |trouble: &Trouble| match unreachable_gate(world, options, &user, trouble) {
        status::IGNORE => status::CRED_UNAVAIL,
        code => code,
    };
    let account = match who::account_of(world, &user) {
        Ok(account) => account,
        Err(trouble) => return unasked(&trouble),
    };
    let mut request = Request::new(op::CHECK, account);
    request.flags = ask::FACTOR;
    request.entry.detail = who::detail(world);
    match reserve::ask_both(world, &request) {
        Ok(answer) if !matches!(answer.verdict, verdict::DONE | verdict::NOTHING) => {
            unasked(&Trouble::Verdict(answer.verdict))
        }
        Ok(answer) if answer.refuses() => {
            // It was locked for all while the password was checked.
            world.log(
                Level::Notice,
                "attempt refused before another factor was asked for: the account is locked",
            );
            if !options.silent {
                world.tell(LOCKED);
            }
            world.fail_delay(REFUSAL_DELAY);
            status::AUTH_ERR
        }
        Ok(answer)
            if answer.flags & flag::FACTOR != 0
                && answer.flags & flag::MONITORED == 0
                && !cfg!(feature = "mutation-skip-factor") =>
        {
            world.keep_factor();
            status::IGNORE
        }
        Ok(_) => status::CRED_UNAVAIL,
        Err(error) => unasked(&Trouble::Gate(error)),
    }
}
