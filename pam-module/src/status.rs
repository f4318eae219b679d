//! PAM return codes (`security/_pam_types.h`) and what the final status of a stack says about the secret.

use libc::c_int;
use pam_sys::PamReturnCode as Code;
use portcullis_common::abi::outcome;

/// PAM_SUCCESS.
pub const SUCCESS: c_int = Code::SUCCESS as c_int;
/// PAM_SERVICE_ERR.
pub const SERVICE_ERR: c_int = Code::SERVICE_ERR as c_int;
/// PAM_PERM_DENIED.
pub const PERM_DENIED: c_int = Code::PERM_DENIED as c_int;
/// PAM_AUTH_ERR.
pub const AUTH_ERR: c_int = Code::AUTH_ERR as c_int;
/// PAM_IGNORE.
pub const IGNORE: c_int = Code::IGNORE as c_int;
/// PAM_CRED_UNAVAIL: what the factor line answers where no other factor is due.
pub const CRED_UNAVAIL: c_int = Code::CRED_UNAVAIL as c_int;
/// PAM_CONV_ERR.
pub const CONV_ERR: c_int = Code::CONV_ERR as c_int;
/// PAM_CONV_AGAIN: the application will come back.
pub const CONV_AGAIN: c_int = Code::CONV_AGAIN as c_int;
/// PAM_INCOMPLETE.
pub const INCOMPLETE: c_int = Code::INCOMPLETE as c_int;

/// What a stack's final status says about the secret: one of `abi::outcome`.
///
/// An expired account or password means that the secret was right. Codes for a broken service say nothing. Everything
/// else, unknown codes too, is a failure: a conversation that breaks off after the secret was submitted is one, or a
/// second prompt would tell for free whether the first answer was right.
#[must_use]
pub fn outcome_of(status: c_int) -> u32 {
    const PASSED: [c_int; 3] =
        [Code::SUCCESS as c_int, Code::NEW_AUTHTOK_REQD as c_int, Code::ACCT_EXPIRED as c_int];
    const SILENT: [c_int; 9] = [
        Code::OPEN_ERR as c_int,
        Code::SYMBOL_ERR as c_int,
        Code::SERVICE_ERR as c_int,
        Code::SYSTEM_ERR as c_int,
        Code::BUF_ERR as c_int,
        Code::AUTHINFO_UNAVAIL as c_int,
        Code::MODULE_UNKNOWN as c_int,
        Code::ABORT as c_int,
        Code::BAD_ITEM as c_int,
    ];
    if PASSED.contains(&status) {
        outcome::PASS
    } else if SILENT.contains(&status) {
        outcome::VOID
    } else {
        outcome::FAIL
    }
}
