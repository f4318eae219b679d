//! Shared objects, loaded and unloaded by hand: dlopen(3).

use std::ffi::{CStr, CString, c_void};

use crate::{Error, Result};

/// Where Debian's libpam looks for modules.
pub const MODULES: &str = "/lib/x86_64-linux-gnu/security";

/// A loaded object. Stays loaded until [`Object::close`].
#[derive(Debug)]
pub struct Object(*mut c_void);

impl Object {
    /// Loads a PAM module as libpam does.
    ///
    /// # Errors
    /// With the loader's words.
    pub fn open(module: &str) -> Result<Self> {
        let path = format!("{MODULES}/{module}");
        let text = CString::new(path.clone())
            .map_err(|error| Error::Answer { program: path.clone(), output: error.to_string() })?;
        // SAFETY: a NUL-terminated path; the constructors of a PAM module are the loader's and the standard library's.
        let handle = unsafe { libc::dlopen(text.as_ptr(), libc::RTLD_NOW) };
        if handle.is_null() { Err(trouble(&path)) } else { Ok(Self(handle)) }
    }

    /// Unloads it, if nobody else holds it.
    ///
    /// # Errors
    /// With the loader's words.
    pub fn close(self) -> Result<()> {
        // SAFETY: from dlopen, and closed once: `self` is gone afterwards.
        if unsafe { libc::dlclose(self.0) } == 0 { Ok(()) } else { Err(trouble("dlclose")) }
    }
}

fn trouble(what: &str) -> Error {
    // SAFETY: no arguments; the answer is null or a string that lives until this thread's next call.
    let text = unsafe { libc::dlerror() };
    let output = if text.is_null() {
        "no reason given".to_owned()
    } else {
        // SAFETY: not null, see above.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    };
    Error::Answer { program: what.into(), output }
}
