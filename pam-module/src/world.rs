//! What the module needs of the world around it: libpam, the user database, the gate, a clock. One trait, so that the
//! decisions in `module` can be tried without any of them.

use std::time::Duration;

use libc::c_int;
use portcullis_common::abi::{Answer, Request, verdict};
use portcullis_common::client::Error;
use portcullis_common::link::Link;

use crate::module::conversation::Pending;

/// How long what is to be told may wait for a gate that is being replaced.
const REPLACED: Duration = Duration::from_secs(10);
/// Pause between two tries of it.
const PAUSE: Duration = Duration::from_millis(20);

/// How loudly a line of the log speaks (syslog.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// LOG_ERR.
    Error,
    /// LOG_WARNING.
    Warning,
    /// LOG_NOTICE.
    Notice,
}

/// An admitted attempt, to be resolved when the stack's result is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// What was asked at admission; its token is that of the reservation at the account.
    pub request: Request,
    /// The reservation at the pair; 0: none.
    pub pair: u64,
    /// The connection over which the agent was asked, where the gate itself is closed.
    pub link: Link,
}

/// The world.
pub trait World {
    /// PAM_USER, asked for if need be. Err: the code to return.
    fn user(&self) -> Result<Vec<u8>, c_int>;
    /// Lets the password be entered, or takes the one that is there. Err: the code to return.
    fn password(&self) -> Result<(), c_int>;
    /// Whether a password is there already (PAM_AUTHTOK).
    fn has_password(&self) -> bool;
    /// Lets the current password be entered (PAM_OLDAUTHTOK), or takes the one that is there. Err: the code to return.
    fn current_password(&self) -> Result<(), c_int>;
    /// PAM_SERVICE.
    fn service(&self) -> Vec<u8>;
    /// PAM_TTY.
    fn tty(&self) -> Vec<u8>;
    /// PAM_RHOST.
    fn rhost(&self) -> Vec<u8>;
    /// uid of a user; None: no such user. Err: errno of the user database.
    fn uid(&self, user: &[u8]) -> Result<Option<u32>, i32>;
    /// Key of the hash of unknown names.
    fn hash_key(&self) -> Result<[u64; 2], Error>;
    /// Real uid of this process.
    fn real_uid(&self) -> u32;
    /// Login uid of this process, which it keeps through su and sudo; none where it is not set.
    fn login_uid(&self) -> Option<u32>;
    /// Effective uid of this process.
    fn effective_uid(&self) -> u32;
    /// This process and its parent.
    fn process(&self) -> (u32, u32);
    /// Whether the word that switches Portcullis off stands on the kernel command line.
    fn switched_off(&self) -> bool;
    /// Asks the gate, or the agent over `link`, which stays open for the rest of the attempt.
    fn gate(&self, request: &Request, link: &mut Link) -> Result<Answer, Error>;
    /// Asks; again and again, for up to [`REPLACED`], while the gate is being replaced or the row deleted.
    fn settled(&self, request: &Request, link: &mut Link) -> Result<Answer, Error> {
        let mut waited = Duration::ZERO;
        loop {
            let answer = self.gate(request, link)?;
            if !matches!(answer.verdict, verdict::MOVED | verdict::AGAIN) || waited >= REPLACED {
                return Ok(answer);
            }
            self.sleep(PAUSE);
            waited += PAUSE;
        }
    }
    /// Asks once, outside an attempt.
    fn ask(&self, request: &Request) -> Result<Answer, Error> {
        let mut link = Link::NONE;
        let answer = self.settled(request, &mut link);
        link.close();
        answer
    }
    /// Keeps on this handle whose attempt it carries; a newer one replaces it.
    fn keep_account(&self, uid: u32);
    /// What [`World::keep_account`] kept; None on a handle that carried no attempt.
    fn kept_account(&self) -> Option<u32>;
    /// Keeps on this handle that an attempt of it was decided without the gate, and told so.
    fn keep_trouble(&self);
    /// Whether [`World::keep_trouble`] did.
    fn trouble_kept(&self) -> bool;
    /// Keeps on this handle that another factor was asked for.
    fn keep_factor(&self);
    /// Whether [`World::keep_factor`] was called on this handle.
    fn kept_factor(&self) -> bool;
    /// Has `attempt` resolved when the stack ends. Err: the code of libpam.
    fn arm(&self, attempt: Attempt) -> Result<(), c_int>;
    /// Listens to the conversation (PAM_CONV) until the stack ends: `conversation::answered` decides about the first
    /// answer, and its attempt is resolved at the end. Err: the code of libpam.
    fn listen(&self, pending: Pending) -> Result<(), c_int>;
    /// Resolves this handle's armed attempt as passed, before the stack has ended.
    fn passed(&self);
    /// Leaves one of `abi::unreachable` where the agent will count it.
    fn note(&self, what: u8);
    /// pam_fail_delay(3).
    fn fail_delay(&self, delay: Duration);
    /// Sleeps; the caller's wait for a reservation.
    fn sleep(&self, time: Duration);
    /// pam_syslog(3).
    fn log(&self, level: Level, text: &str);
    /// Tells the user (PAM_ERROR_MSG).
    fn tell(&self, text: &str);
}
