//! The stacks that are compared. pam_permit and pam_deny stand for a right and a wrong password: the check itself, 40 ms
//! of hashing in pam_unix, would drown what is measured.

use std::ffi::{c_int, c_uint, c_void};
use std::time::Instant;

use crate::object::Object;
use crate::pam::{AUTH_ERR, Handle, SUCCESS};
use crate::stack::{must, service};
use crate::{Error, Result};

/// `deny` of both counters.
pub const DENY: usize = 3;
/// Who tries while it is measured.
pub const USER: &str = "jon";
/// Whose account is locked beforehand, to see that it is.
const PROVEN: &str = "kon";
const MODULES: [&str; 4] = ["pam_portcullis.so", "pam_faillock.so", "pam_permit.so", "pam_deny.so"];

/// What stands above the check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stack {
    /// Nothing.
    None,
    /// pam_faillock(8)'s own example: preauth, authfail, authsucc.
    Faillock,
    /// Our line as it is documented: it asks for the password, which the other stacks do not here.
    Portcullis,
    /// Our line with `charge=begin`: the counting alone, without the prompt.
    Counting,
}

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// A right password: pam_authenticate and pam_setcred.
    Right,
    /// A wrong one: pam_authenticate. The application's own delay function does not sleep.
    Wrong,
}

/// Times of one attempt on a fresh handle, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// pam_start and pam_end.
    pub handle: u64,
    /// What is between them.
    pub calls: u64,
}

impl Stack {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::None, Self::Faillock, Self::Portcullis, Self::Counting];

    /// In tables and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Faillock => "pam_faillock",
            Self::Portcullis => "pam_portcullis",
            Self::Counting => "pam_portcullis charge=begin",
        }
    }

    fn service(self, path: Path) -> String {
        let stack = match self {
            Self::None => "none",
            Self::Faillock => "faillock",
            Self::Portcullis => "portcullis",
            Self::Counting => "counting",
        };
        format!("bench-{stack}-{}", path.name())
    }

    fn lines(self, path: Path) -> String {
        let check = match path {
            Path::Right => "pam_permit.so",
            Path::Wrong => "pam_deny.so",
        };
        match self {
            Self::None => format!("auth required {check}\n"),
            Self::Faillock => format!(
                "auth requisite pam_faillock.so preauth deny={DENY}\n\
                 auth [success=1 default=bad] {check}\n\
                 auth [default=die] pam_faillock.so authfail deny={DENY}\n\
                 auth sufficient pam_faillock.so authsucc deny={DENY}\n"
            ),
            Self::Portcullis => format!("auth requisite pam_portcullis.so\nauth required {check}\n"),
            Self::Counting => {
                format!("auth requisite pam_portcullis.so charge=begin\nauth required {check}\n")
            }
        }
    }

    /// Writes this stack's services.
    ///
    /// # Errors
    /// When one cannot be written.
    pub fn install(self) -> Result<()> {
        for path in [Path::Right, Path::Wrong] {
            service(&self.service(path), &self.lines(path))?;
        }
        Ok(())
    }

    /// One attempt of the user on a fresh handle.
    ///
    /// # Errors
    /// When it does not end as it should.
    pub fn attempt(self, path: Path) -> Result<Attempt> {
        let begun = Instant::now();
        let mut handle = self.handle(path, USER)?;
        let started = Instant::now();
        let code = handle.authenticate();
        let code = if path == Path::Right && code == SUCCESS { handle.establish() } else { code };
        let ended = Instant::now();
        drop(handle);
        let closed = Instant::now();
        if code != path.code() {
            return Err(Error::Answer { program: self.service(path), output: format!("PAM code {code}") });
        }
        let calls = ended - started;
        Ok(Attempt { handle: nanoseconds(closed - begun - calls), calls: nanoseconds(calls) })
    }

    /// Sees that this stack counts: [`DENY`] wrong passwords, and the right one is refused.
    ///
    /// # Errors
    /// When it is not.
    pub fn prove(self) -> Result<()> {
        if matches!(self, Self::Portcullis | Self::Counting) {
            // Both count in the same books; an account without a row has nothing to unlock.
            must("portcullis", &["lock", PROVEN])?;
            must("portcullis", &["unlock", PROVEN])?;
        }
        for _ in 0..DENY {
            self.handle(Path::Wrong, PROVEN)?.authenticate();
        }
        match self.handle(Path::Right, PROVEN)?.authenticate() {
            SUCCESS => Err(Error::Answer {
                program: self.name().into(),
                output: format!(
                    "{DENY} wrong passwords do not lock: it does not count, nothing can be compared"
                ),
            }),
            _ => Ok(()),
        }
    }

    fn handle(self, path: Path, user: &str) -> Result<Handle> {
        let mut handle = Handle::start(&self.service(path), user, "a password")?;
        handle.set_delay_fn(no_delay)?;
        Ok(handle)
    }
}

impl Path {
    /// In tables and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::Wrong => "wrong",
        }
    }

    fn code(self) -> c_int {
        match self {
            Self::Right => SUCCESS,
            Self::Wrong => AUTH_ERR,
        }
    }
}

/// Keeps the modules loaded, as in a process that has authenticated before.
///
/// # Errors
/// When one cannot be loaded.
pub fn keep_loaded() -> Result<Vec<Object>> {
    MODULES.iter().map(|module| Object::open(module)).collect()
}

/// In whole nanoseconds.
#[must_use]
pub fn nanoseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The application's own delay function.
extern "C" fn no_delay(_status: c_int, _usec: c_uint, _appdata: *mut c_void) {}
