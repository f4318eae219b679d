//! A service that speaks PAM itself, in this process: as many attempts, users and threads on one handle as it likes,
//! and a PAM_FAIL_DELAY function of its own, as KDM and some polkit helpers have.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::ptr::{null, null_mut};
use std::sync::Mutex;

use pam_sys::raw::{
    pam_acct_mgmt, pam_authenticate, pam_end, pam_get_item, pam_set_item, pam_setcred, pam_start,
};
use pam_sys::{
    PamConversation, PamFlag, PamHandle, PamItemType, PamMessage, PamMessageStyle, PamResponse, PamReturnCode,
};

use crate::{Error, Result};

/// PAM_SUCCESS.
pub const SUCCESS: c_int = PamReturnCode::SUCCESS as c_int;
/// PAM_AUTH_ERR.
pub const AUTH_ERR: c_int = PamReturnCode::AUTH_ERR as c_int;
/// PAM_INCOMPLETE.
pub const INCOMPLETE: c_int = PamReturnCode::INCOMPLETE as c_int;

/// The function in the PAM_FAIL_DELAY item.
pub type DelayFn = extern "C" fn(status: c_int, usec: c_uint, appdata: *mut c_void);

/// What hidden prompts are answered with; None: the conversation fails, as at Ctrl-C.
type Secret = Mutex<Option<CString>>;

/// A handle of pam_start(3).
pub struct Handle {
    handle: *mut PamHandle,
    // libpam keeps its address: it stays where it is as long as the handle lives.
    secret: Box<Secret>,
    last: c_int,
}

// SAFETY: libpam ties no handle to a thread; `&mut self` keeps two threads from using one at a time.
unsafe impl Send for Handle {}

impl Handle {
    /// Begins with `service`, for `user`, who answers with `password`.
    ///
    /// # Errors
    /// When libpam does not start.
    pub fn start(service: &str, user: &str, password: &str) -> Result<Self> {
        let secret = Box::new(Mutex::new(Some(text(password)?)));
        let data: *const Secret = &raw const *secret;
        let conversation = PamConversation { conv: Some(converse), data_ptr: data.cast_mut().cast() };
        let mut handle: *const PamHandle = null();
        // SAFETY: all pointers outlive the call; libpam copies the conversation, whose data lives in the result.
        let code = unsafe {
            pam_start(text(service)?.as_ptr(), text(user)?.as_ptr(), &raw const conversation, &raw mut handle)
        };
        answered("pam_start", code)?;
        Ok(Self { handle: handle.cast_mut(), secret, last: code })
    }

    /// The next attempt is for another user, with another password.
    ///
    /// # Errors
    /// When libpam does not take him.
    pub fn switch(&mut self, user: &str, password: &str) -> Result<()> {
        let user = text(user)?;
        // SAFETY: the handle is live, libpam copies the string.
        let code = unsafe { pam_set_item(self.handle, PamItemType::USER as c_int, user.as_ptr().cast()) };
        answered("pam_set_item", code)?;
        *self.secret.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(text(password)?);
        Ok(())
    }

    /// From now on the user aborts at the prompt.
    pub fn abort_at_the_prompt(&mut self) {
        *self.secret.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
    }

    /// The application's own delay function.
    ///
    /// # Errors
    /// When libpam does not take it.
    pub fn set_delay_fn(&mut self, function: DelayFn) -> Result<()> {
        // SAFETY: the handle is live; libpam keeps the pointer itself.
        let code =
            unsafe { pam_set_item(self.handle, PamItemType::FAIL_DELAY as c_int, function as *const c_void) };
        answered("pam_set_item", code)
    }

    /// Whether the delay function is `function` (None: none is set).
    ///
    /// # Errors
    /// When libpam does not tell.
    pub fn delay_fn_is(&self, function: Option<DelayFn>) -> Result<bool> {
        let mut value: *const c_void = null();
        // SAFETY: the handle is live, `value` outlives the call.
        let code = unsafe { pam_get_item(self.handle, PamItemType::FAIL_DELAY as c_int, &raw mut value) };
        answered("pam_get_item", code)?;
        Ok(value == function.map_or(null(), |function| function as *const c_void))
    }

    /// pam_authenticate(3); its status.
    pub fn authenticate(&mut self) -> c_int {
        // SAFETY: the handle is live.
        self.last = unsafe { pam_authenticate(self.handle, 0) };
        self.last
    }

    /// pam_acct_mgmt(3); its status.
    pub fn account(&mut self) -> c_int {
        // SAFETY: the handle is live.
        self.last = unsafe { pam_acct_mgmt(self.handle, 0) };
        self.last
    }

    /// pam_setcred(3) with PAM_ESTABLISH_CRED; its status.
    pub fn establish(&mut self) -> c_int {
        // SAFETY: the handle is live.
        self.last = unsafe { pam_setcred(self.handle, PamFlag::ESTABLISH_CRED as c_int) };
        self.last
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the handle is live, and not used after this.
        unsafe { pam_end(self.handle, self.last) };
    }
}

/// pam_conv(3): each hidden prompt gets the password, everything else nothing.
extern "C" fn converse(
    count: c_int,
    messages: *mut *mut PamMessage,
    responses: *mut *mut PamResponse,
    data: *mut c_void,
) -> c_int {
    let Ok(count) = usize::try_from(count) else {
        return PamReturnCode::CONV_ERR as c_int;
    };
    // SAFETY: the pointer given to pam_start, to a value that lives as long as the handle.
    let secret = unsafe { &*data.cast::<Secret>() };
    let secret = secret.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let Some(secret) = secret.as_ref() else {
        return PamReturnCode::CONV_ERR as c_int;
    };
    // SAFETY: libpam frees it; calloc leaves every response empty.
    let list: *mut PamResponse = unsafe { libc::calloc(count, size_of::<PamResponse>()) }.cast();
    if list.is_null() {
        return PamReturnCode::BUF_ERR as c_int;
    }
    for n in 0..count {
        // SAFETY: Linux-PAM hands over an array of `count` pointers.
        let message = unsafe { messages.add(n) };
        // SAFETY: an element of that array.
        let message = unsafe { *message };
        // SAFETY: it points to a message that lives as long as this call.
        let message = unsafe { &*message };
        if message.msg_style == PamMessageStyle::PROMPT_ECHO_OFF as c_int {
            // SAFETY: a NUL-terminated string; libpam frees the copy.
            let answer: *mut c_char = unsafe { libc::strdup(secret.as_ptr()) };
            // SAFETY: below `count`, the length of the list.
            let response = unsafe { list.add(n) };
            // SAFETY: an element of the list that nothing else refers to.
            unsafe { (*response).resp = answer };
        }
    }
    // SAFETY: libpam's place for the answer.
    unsafe { *responses = list };
    SUCCESS
}

fn text(text: &str) -> Result<CString> {
    CString::new(text).map_err(|error| Error::Answer { program: "libpam".into(), output: error.to_string() })
}

fn answered(call: &str, code: c_int) -> Result<()> {
    if code == SUCCESS {
        return Ok(());
    }
    // SAFETY: no handle is needed.
    let reason = unsafe { pam_sys::raw::pam_strerror(null_mut(), code) };
    // SAFETY: a constant string.
    let reason = unsafe { CStr::from_ptr(reason) };
    Err(Error::Answer { program: call.into(), output: reason.to_string_lossy().into_owned() })
}
