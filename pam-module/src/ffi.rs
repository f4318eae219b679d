//! libpam's side. All `unsafe` of the crate: the entry points here, the items of a [`handle`], what is [`armed`] until
//! the stack ends, the [`conversation`] that is listened to.
//!
//! Invariant: every function that C calls catches panics (the text of one would otherwise reach the user's terminal, and
//! unwinding into C is undefined).

mod armed;
mod conversation;
mod handle;

use std::ffi::{CStr, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

use pam_sys::{PamFlag, PamHandle};

use crate::module;
use crate::options::Options;
use crate::status;
use handle::Pam;

/// PAM_PRELIM_CHECK (pam_modules.h).
const PRELIM_CHECK: c_int = 0x4000;

/// Runs an entry point; a panic becomes `otherwise`, and its text goes nowhere.
fn quietly<T>(otherwise: T, run: impl FnOnce() -> T) -> T {
    static SILENCE: std::sync::Once = std::sync::Once::new();
    // This object carries its own standard library: the application's hook is another.
    SILENCE.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(otherwise)
}

/// The words of the line.
///
/// # Safety
/// `argv` holds `argc` NUL-terminated strings.
unsafe fn options(argc: c_int, argv: *const *const c_char) -> Options {
    let count = if argv.is_null() { 0 } else { usize::try_from(argc).unwrap_or(0) };
    let words = (0..count).filter_map(|n| {
        // SAFETY: below `argc`.
        let place = unsafe { argv.add(n) };
        // SAFETY: an element of the array.
        let word = unsafe { *place };
        // SAFETY: the caller's promise.
        (!word.is_null()).then(|| unsafe { CStr::from_ptr(word) }.to_bytes())
    });
    Options::parse(words)
}

/// pam_sm_authenticate(3).
///
/// # Safety
/// Called by libpam with a live handle and the words of the line.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pam_sm_authenticate(
    pamh: *mut PamHandle,
    _flags: c_int,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    quietly(status::AUTH_ERR, || {
        // SAFETY: libpam's promise.
        let options = unsafe { options(argc, argv) };
        module::authenticate(&Pam(pamh), &options)
    })
}

/// pam_sm_setcred(3).
///
/// # Safety
/// Called by libpam with a live handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pam_sm_setcred(
    pamh: *mut PamHandle,
    flags: c_int,
    _argc: c_int,
    _argv: *const *const c_char,
) -> c_int {
    let establishing = PamFlag::ESTABLISH_CRED as c_int | PamFlag::REINITIALIZE_CRED as c_int;
    quietly(status::IGNORE, || module::set_credentials(&Pam(pamh), flags & establishing != 0))
}

/// pam_sm_acct_mgmt(3).
///
/// # Safety
/// Called by libpam with a live handle and the words of the line.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pam_sm_acct_mgmt(
    pamh: *mut PamHandle,
    _flags: c_int,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    quietly(status::PERM_DENIED, || {
        // SAFETY: libpam's promise.
        let options = unsafe { options(argc, argv) };
        module::account::account(&Pam(pamh), &options)
    })
}

/// pam_sm_chauthtok(3).
///
/// # Safety
/// Called by libpam with a live handle and the words of the line.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pam_sm_chauthtok(
    pamh: *mut PamHandle,
    flags: c_int,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    quietly(status::AUTH_ERR, || {
        let pam = Pam(pamh);
        if flags & PRELIM_CHECK == 0 {
            return module::change::update(&pam);
        }
        // SAFETY: libpam's promise.
        let options = unsafe { options(argc, argv) };
        let expired = flags & PamFlag::CHANGE_EXPIRED_AUTHTOK as c_int != 0;
        module::change::check(&pam, &options, expired)
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    const INSIDE: &str = "PORTCULLIS_TEST_PANIC";

    #[test]
    fn a_panic_is_an_answer_and_shows_no_text() {
        if std::env::var_os(INSIDE).is_some() {
            let answers = [status::AUTH_ERR, status::PERM_DENIED, status::IGNORE]
                .map(|otherwise| quietly(otherwise, || panic!("said to nobody")));
            assert_eq!(answers, [status::AUTH_ERR, status::PERM_DENIED, status::IGNORE]);
            return;
        }
        // In a process of its own: the hook is the whole process's.
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "ffi::tests::a_panic_is_an_answer_and_shows_no_text", "--nocapture"])
            .env(INSIDE, "1")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success() && text[0].contains("1 passed"), "{text:?}");
        assert!(!text.concat().contains("said to nobody"), "{text:?}");
    }
}
