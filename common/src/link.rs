//! The way of one attempt to the gate: `bpf(2)`, or the agent's socket where that is closed to the caller (not root; root
//! without CAP_BPF; a container without the pins).
//!
//! Invariants: no allocation, no thread; bounded waiting ([`PATIENCE`] for each step); no SIGPIPE; close-on-exec. A
//! connection carries one attempt: whoever closes it with a guess out has failed.

use core::mem::zeroed;

use crate::abi::{Answer, CALLERS, Request, verdict};
use crate::client::{self, Error};

/// Seconds that connecting, asking or being answered may take.
const PATIENCE: libc::time_t = 2;

/// An open connection to the agent, or none. Plain data without a destructor, so that it can wait in a thread-local for
/// the end of the stack: [`Link::close`] it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link(libc::c_int);

impl Default for Link {
    fn default() -> Self {
        Self::NONE
    }
}

impl Link {
    /// No connection.
    pub const NONE: Self = Self(-1);

    /// Asks the gate itself; where it is closed to the caller, the agent, over this link, which is opened if need be and
    /// stays open. The same where the gate has moved, to a version that this program does not know: the agent knows both.
    ///
    /// # Errors
    /// What [`Gate`] says; [`Error::Agent`] where the agent was asked and gave no answer. Where there is no agent to be
    /// asked, the gate's own error.
    pub fn call(&mut self, request: &Request) -> Result<Answer, Error> {
        if self.0 < 0 {
            match client::ask(request) {
                Ok(answer) if answer.verdict == verdict::MOVED => match connect() {
                    Ok(socket) => *self = Self(socket),
                    Err(_) => return Ok(answer),
                },
                Err(error) if error.is_closed() => match connect() {
                    Ok(socket) => *self = Self(socket),
                    Err(libc::ENOENT) => return Err(error),
                    Err(errno) => return Err(Error::Agent(errno)),
                },
                other => return other,
            }
        }
        let answer = ask(self.0, request).map_err(Error::Agent);
        if answer.is_err() {
            self.close();
        }
        answer
    }

    /// Hangs up.
    pub fn close(&mut self) {
        if self.0 >= 0 {
            // SAFETY: the descriptor is this link's alone.
            unsafe { libc::close(self.0) };
            self.0 = -1;
        }
    }
}

fn errno() -> i32 {
    // SAFETY: no arguments, never null.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: errno of this thread.
    unsafe { *place }
}

/// Connects to the agent.
fn connect() -> Result<libc::c_int, i32> {
    // SAFETY: no pointers.
    let socket = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(errno());
    }
    let mut link = Link(socket);
    let time = libc::timeval { tv_sec: PATIENCE, tv_usec: 0 };
    let size = size_of::<libc::timeval>() as libc::socklen_t;
    for option in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO] {
        let value = (&raw const time).cast();
        // SAFETY: `value` is a timeval of `size` bytes.
        if unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, option, value, size) } < 0 {
            let errno = errno();
            link.close();
            return Err(errno);
        }
    }
    // SAFETY: integers only; all zero is valid.
    let mut address: libc::sockaddr_un = unsafe { zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    // One byte less than there is room for: the path stays terminated.
    let room = address.sun_path.len() - 1;
    for (to, from) in address.sun_path.iter_mut().take(room).zip(CALLERS.as_bytes()) {
        *to = *from as libc::c_char;
    }
    let size = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    loop {
        // SAFETY: a whole sockaddr_un.
        if unsafe { libc::connect(socket, (&raw const address).cast(), size) } == 0 {
            return Ok(socket);
        }
        let errno = errno();
        if errno != libc::EINTR {
            link.close();
            return Err(errno);
        }
    }
}

/// One question, one answer.
fn ask(socket: libc::c_int, request: &Request) -> Result<Answer, i32> {
    let mut left = size_of::<Request>();
    let mut place: *const u8 = core::ptr::from_ref(request).cast();
    while left > 0 {
        // SAFETY: `left` bytes of the request, which is integers without padding.
        let sent = unsafe { libc::send(socket, place.cast(), left, libc::MSG_NOSIGNAL) };
        let sent = moved(sent)?;
        left -= sent;
        // SAFETY: within the request, or its end.
        place = unsafe { place.add(sent) };
    }
    let mut answer = Answer::default();
    let start: *mut u8 = (&raw mut answer).cast();
    let mut got = 0;
    while got < size_of::<Answer>() {
        // SAFETY: within the answer.
        let place = unsafe { start.add(got) };
        // SAFETY: what is left of the answer, in which every bit pattern is valid.
        let read = unsafe { libc::recv(socket, place.cast(), size_of::<Answer>() - got, 0) };
        got += moved(read)?;
    }
    Ok(answer)
}

/// Bytes moved by a call of send(2) or recv(2); a signal moved none, an end of file is an error.
fn moved(result: libc::ssize_t) -> Result<usize, i32> {
    match usize::try_from(result) {
        Ok(0) => Err(0),
        Ok(bytes) => Ok(bytes),
        Err(_) if errno() == libc::EINTR => Ok(0),
        Err(_) => Err(errno()),
    }
}
