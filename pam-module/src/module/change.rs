//! `password requisite pam_portcullis.so`: passwd's question for the current password is a guess like any other, and
//! passwd(1) asks it outside the auth stack.
//!
//! Charged at PAM_PRELIM_CHECK, when the current password was submitted; passed at PAM_UPDATE_AUTHTOK, which libpam calls
//! only when every module's check was good (pam_sm_chauthtok(3)): a new password that is too weak does not count.

use libc::c_int;

use super::{Charged, charge, complain, go_on, paused};
use crate::options::Options;
use crate::status;
use crate::world::World;

/// PAM_PRELIM_CHECK. `expired`: PAM_CHANGE_EXPIRED_AUTHTOK, a login that must change its password first.
pub fn check(world: &impl World, options: &Options, expired: bool) -> c_int {
    complain(world, options);
    // pam_unix asks root for nothing, unless root is a login that changes an expired one.
    if world.real_uid() == 0 && !expired {
        return status::IGNORE;
    }
    let user = match world.user() {
        Ok(user) => user,
        Err(code) => return paused(code),
    };
    if let Err(code) = world.current_password() {
        return paused(code);
    }
    match charge(world, options, &user) {
        Charged::Attempt(attempt) => go_on(world, attempt),
        Charged::Nothing => status::IGNORE,
        Charged::Refused(code) => code,
    }
}

/// PAM_UPDATE_AUTHTOK: the current password was right.
pub fn update(world: &impl World) -> c_int {
    world.passed();
    status::IGNORE
}
