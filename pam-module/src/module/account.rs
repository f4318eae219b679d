//! The account phase: refuses a locked account in logon services. A lock is no obstacle to cron, root's su or a user
//! manager.

use libc::c_int;
use portcullis_common::abi::{Request, ask, flag, op, verdict};
use portcullis_common::services;

use super::trouble::{Trouble, unreachable_gate_after};
use super::{LOCKED, LOCKED_HERE, reserve, who};
use crate::options::Options;
use crate::status;
use crate::world::{Level, World};

/// pam_sm_acct_mgmt.
pub fn account(world: &impl World, options: &Options) -> c_int {
    let service = world.service();
    let here = services::is_logon(&service) || (services::is_switch(&service) && world.real_uid() != 0);
    if !here && !cfg!(feature = "mutation-refuse-own-work") {
        return status::IGNORE;
    }
    let Ok(user) = world.user() else {
        return status::IGNORE;
    };
    let uid = match world.uid(&user) {
        Ok(Some(uid)) => uid,
        Ok(None) => return status::IGNORE,
        Err(errno) => return unreachable_gate_after(world, options, &user, &Trouble::Users(errno)),
    };
    let mut request = Request::new(op::CHECK, u64::from(uid));
    // What asked for the other factor on this handle has let it pass.
    request.flags = ask::LOGON | if world.kept_factor() { ask::FACTOR } else { 0 };
    request.entry.detail = who::detail(world);
    match reserve::ask_both(world, &request) {
        Ok(answer) if matches!(answer.verdict, verdict::DONE | verdict::NOTHING) => {
            if !answer.refuses() {
                return status::IGNORE;
            }
            world.log(
                Level::Notice,
                &format!("uid {uid} refused in the account phase: the account is locked"),
            );
            if !options.silent {
                world.tell(if answer.flags & flag::PAIR != 0 { LOCKED_HERE } else { LOCKED });
            }
            status::PERM_DENIED
        }
        Ok(answer) => unreachable_gate_after(world, options, &user, &Trouble::Verdict(answer.verdict)),
        Err(error) => unreachable_gate_after(world, options, &user, &Trouble::Gate(error)),
    }
}
