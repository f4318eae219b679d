//! libpam and the system behind one handle: `World` over the C interface.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::ptr::{null, null_mut};
use std::time::Duration;

use pam_sys::raw::{pam_get_data, pam_get_item, pam_get_user, pam_set_data, pam_set_item};
use pam_sys::{PamConversation, PamHandle, PamItemType, PamMessageStyle};
use portcullis_common::abi::{Answer, OFF_WORD, Request, UNREACHABLE, unreachable};
use portcullis_common::client::{Error, Gate};
use portcullis_common::link::Link;

use super::armed;
use crate::module::conversation::Pending;
use crate::status;
use crate::world::{Attempt, Level, World};

/// The function in the PAM_FAIL_DELAY item (pam_fail_delay(3)).
pub(super) type DelayFn = unsafe extern "C" fn(retval: c_int, usec_delay: c_uint, appdata: *mut c_void);

// What pam-sys 0.5 leaves out of pam_ext.h and pam_modules.h.
// SAFETY: the signatures are those of these headers (Linux-PAM 1.1 and later).
unsafe extern "C" {
    fn pam_get_authtok(
        pamh: *mut PamHandle,
        item: c_int,
        authtok: *mut *const c_char,
        prompt: *const c_char,
    ) -> c_int;
    fn pam_fail_delay(pamh: *mut PamHandle, usec: c_uint) -> c_int;
    fn pam_syslog(pamh: *const PamHandle, priority: c_int, fmt: *const c_char, ...);
    fn pam_prompt(
        pamh: *mut PamHandle,
        style: c_int,
        response: *mut *mut c_char,
        fmt: *const c_char,
        ...
    ) -> c_int;
}

/// Name of what a handle keeps (pam_set_data(3)): the uid whose attempt it carries, plus one, as a pointer that points
/// to nothing and needs no cleanup.
const ACCOUNT: &CStr = c"portcullis_account";
/// The same, 1: an attempt was decided without the gate.
const TROUBLE: &CStr = c"portcullis_trouble";

/// The same for another factor that was asked for: there, or not.
const FACTOR: &CStr = c"portcullis_factor";

/// libpam and the system behind one handle.
pub(super) struct Pam(pub(super) *mut PamHandle);

impl Pam {
    /// A string item, empty where there is none.
    fn item(&self, item: PamItemType) -> Vec<u8> {
        let mut value: *const c_void = null();
        // SAFETY: the handle is the one libpam called us with; `value` outlives the call.
        let code = unsafe { pam_get_item(self.0, item as c_int, &raw mut value) };
        if code != status::SUCCESS || value.is_null() {
            return Vec::new();
        }
        // SAFETY: for the string items asked for here, a NUL-terminated string that libpam owns.
        unsafe { CStr::from_ptr(value.cast()) }.to_bytes().to_vec()
    }

    /// Keeps a number on the handle: the code of pam_set_data(3).
    fn keep(&self, name: &CStr, value: usize) -> c_int {
        // SAFETY: the handle is live, the name is copied, the value is never followed and has no cleanup.
        unsafe { pam_set_data(self.0, name.as_ptr(), value as *mut c_void, None) }
    }

    /// What [`Pam::keep`] kept; 0: nothing.
    fn kept(&self, name: &CStr) -> usize {
        let mut value: *const c_void = null();
        // SAFETY: the handle is live; `value` outlives the call.
        let code = unsafe { pam_get_data(self.0, name.as_ptr(), &raw mut value) };
        if code == status::SUCCESS { value as usize } else { 0 }
    }

    /// Has a secret entered, or finds it there (pam_get_authtok(3)).
    fn token(&self, item: PamItemType) -> Result<(), c_int> {
        let mut token: *const c_char = null();
        // SAFETY: the handle is live; `token` outlives the call and is not read.
        let code = unsafe { pam_get_authtok(self.0, item as c_int, &raw mut token, null()) };
        if code == status::SUCCESS { Ok(()) } else { Err(code) }
    }

    /// The delay function that is set; the item holds the function itself.
    pub(super) fn delay_fn(&self) -> Option<DelayFn> {
        let mut value: *const c_void = null();
        // SAFETY: as in `item`.
        let code = unsafe { pam_get_item(self.0, PamItemType::FAIL_DELAY as c_int, &raw mut value) };
        if code != status::SUCCESS || value.is_null() {
            return None;
        }
        // SAFETY: PAM_FAIL_DELAY holds a pointer to a function of this type (pam_set_item(3)).
        Some(unsafe { std::mem::transmute::<*const c_void, DelayFn>(value) })
    }

    pub(super) fn set_delay_fn(&self, function: Option<DelayFn>) -> c_int {
        let value = function.map_or(null(), |function| function as *const c_void);
        // SAFETY: the handle is live; libpam keeps the pointer itself, which is a function or null.
        unsafe { pam_set_item(self.0, PamItemType::FAIL_DELAY as c_int, value) }
    }

    /// The conversation that is set.
    pub(super) fn conversation(&self) -> Option<PamConversation> {
        let mut value: *const c_void = null();
        // SAFETY: as in `item`.
        let code = unsafe { pam_get_item(self.0, PamItemType::CONV as c_int, &raw mut value) };
        if code != status::SUCCESS || value.is_null() {
            return None;
        }
        let place: *const PamConversation = value.cast();
        // SAFETY: PAM_CONV holds a pointer to libpam's copy of a whole struct pam_conv, which is plain data.
        let PamConversation { conv, data_ptr } = unsafe { &*place };
        Some(PamConversation { conv: *conv, data_ptr: *data_ptr })
    }

    pub(super) fn set_conversation(&self, conversation: &PamConversation) -> c_int {
        let value = std::ptr::from_ref(conversation).cast();
        // SAFETY: the handle is live; libpam copies the struct.
        unsafe { pam_set_item(self.0, PamItemType::CONV as c_int, value) }
    }
}

impl World for Pam {
    fn user(&self) -> Result<Vec<u8>, c_int> {
        let mut user: *const c_char = null();
        // SAFETY: the handle is live; `user` outlives the call.
        let code = unsafe { pam_get_user(self.0, &raw mut user, null()) };
        if code != status::SUCCESS {
            return Err(code);
        }
        if user.is_null() {
            return Err(status::SERVICE_ERR);
        }
        // SAFETY: PAM_USER, a NUL-terminated string that libpam owns.
        Ok(unsafe { CStr::from_ptr(user) }.to_bytes().to_vec())
    }

    fn password(&self) -> Result<(), c_int> {
        self.token(PamItemType::AUTHTOK)
    }

    fn has_password(&self) -> bool {
        let mut value: *const c_void = null();
        // SAFETY: the handle is live; `value` outlives the call and is not read.
        let code = unsafe { pam_get_item(self.0, PamItemType::AUTHTOK as c_int, &raw mut value) };
        code == status::SUCCESS && !value.is_null()
    }

    fn current_password(&self) -> Result<(), c_int> {
        self.token(PamItemType::OLDAUTHTOK)
    }

    fn service(&self) -> Vec<u8> {
        self.item(PamItemType::SERVICE)
    }

    fn tty(&self) -> Vec<u8> {
        self.item(PamItemType::TTY)
    }

    fn rhost(&self) -> Vec<u8> {
        self.item(PamItemType::RHOST)
    }

    fn uid(&self, user: &[u8]) -> Result<Option<u32>, i32> {
        let Ok(name) = CString::new(user) else {
            return Ok(None);
        };
        // SAFETY: integers and pointers; all zero is a valid passwd to be written over.
        let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
        let mut found: *mut libc::passwd = null_mut();
        let mut buffer = vec![0 as c_char; 1024];
        loop {
            // SAFETY: all pointers are to live memory of the sizes given.
            let error = unsafe {
                libc::getpwnam_r(
                    name.as_ptr(),
                    &raw mut entry,
                    buffer.as_mut_ptr(),
                    buffer.len(),
                    &raw mut found,
                )
            };
            match error {
                libc::ERANGE if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 4, 0),
                libc::EINTR => {}
                0 => return Ok((!found.is_null()).then_some(entry.pw_uid)),
                // How getpwnam(3) says "no such user" in some modules.
                libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM => return Ok(None),
                error => return Err(error),
            }
        }
    }

    fn hash_key(&self) -> Result<[u64; 2], Error> {
        Gate::settings().map(|settings| settings.hash_key)
    }

    fn real_uid(&self) -> u32 {
        // SAFETY: always succeeds.
        unsafe { libc::getuid() }
    }

    fn login_uid(&self) -> Option<u32> {
        let text = std::fs::read_to_string("/proc/self/loginuid").ok()?;
        text.trim().parse().ok().filter(|uid| *uid != u32::MAX)
    }

    fn effective_uid(&self) -> u32 {
        // SAFETY: always succeeds.
        unsafe { libc::geteuid() }
    }

    fn process(&self) -> (u32, u32) {
        // SAFETY: always succeeds.
        let parent = unsafe { libc::getppid() };
        (std::process::id(), parent.cast_unsigned())
    }

    fn switched_off(&self) -> bool {
        std::fs::read("/proc/cmdline")
            .is_ok_and(|line| line.split(u8::is_ascii_whitespace).any(|word| word == OFF_WORD.as_bytes()))
    }

    fn gate(&self, request: &Request, link: &mut Link) -> Result<Answer, Error> {
        link.call(request)
    }

    fn keep_account(&self, uid: u32) {
        let code = self.keep(ACCOUNT, (uid as usize).checked_add(1).unwrap_or_default());
        if code != status::SUCCESS {
            self.log(
                Level::Warning,
                &format!("libpam keeps no data (code {code}): this login may clear no failures"),
            );
        }
    }

    fn kept_account(&self) -> Option<u32> {
        self.kept(ACCOUNT).checked_sub(1).and_then(|uid| u32::try_from(uid).ok())
    }

    fn keep_trouble(&self) {
        // Not kept: it is said once more.
        let _ = self.keep(TROUBLE, 1);
    }

    fn trouble_kept(&self) -> bool {
        self.kept(TROUBLE) != 0
    }

    fn keep_factor(&self) {
        let value = std::ptr::without_provenance_mut::<c_void>(1);
        // SAFETY: as in `keep_account`. An error means that the account phase refuses.
        let _ = unsafe { pam_set_data(self.0, FACTOR.as_ptr(), value, None) };
    }

    fn kept_factor(&self) -> bool {
        let mut value: *const c_void = null();
        // SAFETY: the handle is live; `value` outlives the call.
        let code = unsafe { pam_get_data(self.0, FACTOR.as_ptr(), &raw mut value) };
        code == status::SUCCESS && !value.is_null()
    }

    fn arm(&self, attempt: Attempt) -> Result<(), c_int> {
        armed::attempt(self, attempt)
    }

    fn listen(&self, pending: Pending) -> Result<(), c_int> {
        armed::listen(self, pending)
    }

    fn passed(&self) {
        armed::passed(self);
    }

    fn note(&self, what: u8) {
        // Root's own file in root's own folder; for others, and where the agent never was, the log is all there is.
        let file = File::options()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(UNREACHABLE);
        if let Ok(mut file) = file
            && file.metadata().is_ok_and(|data| data.is_file() && data.len() < 4 * unreachable::GROWN)
        {
            let _ = file.write_all(&[what]);
        }
    }

    fn fail_delay(&self, delay: Duration) {
        // SAFETY: the handle is live. An error would only mean no delay.
        let _ = unsafe { pam_fail_delay(self.0, delay.as_micros().try_into().unwrap_or(c_uint::MAX)) };
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }

    fn log(&self, level: Level, text: &str) {
        let priority = match level {
            Level::Error => libc::LOG_ERR,
            Level::Warning => libc::LOG_WARNING,
            Level::Notice => libc::LOG_NOTICE,
        };
        let Ok(text) = CString::new(text) else {
            return;
        };
        // SAFETY: the handle is live, the format takes the one string that follows.
        unsafe { pam_syslog(self.0, priority, c"%s".as_ptr(), text.as_ptr()) };
    }

    fn tell(&self, text: &str) {
        let Ok(text) = CString::new(text) else {
            return;
        };
        let style = PamMessageStyle::ERROR_MSG as c_int;
        // SAFETY: the handle is live, no response is asked for, the format takes the one string that follows.
        let _ = unsafe { pam_prompt(self.0, style, null_mut(), c"%s".as_ptr(), text.as_ptr()) };
    }
}
