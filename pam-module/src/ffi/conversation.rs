//! The conversation, listened to: between the modules behind and the application's own function.

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void};
use std::ptr::null_mut;

use pam_sys::{PamConversation, PamHandle, PamMessage, PamMessageStyle, PamResponse};

use super::handle::Pam;
use super::quietly;
use crate::module::conversation::{Answered, Pending, answered};
use crate::status;
use crate::world::Attempt;

/// Most messages in one call (PAM_MAX_NUM_MSG, _pam_types.h).
const MAX_MESSAGES: c_int = 32;

#[derive(Clone, Copy)]
enum State {
    /// Nothing was answered yet.
    Listening,
    /// Answers go on.
    Going(Option<Attempt>),
    /// No answer goes on any more.
    Refused,
}

/// A conversation that is listened to. PAM_CONV's application pointer leads here until the stack has ended.
pub(super) struct Conversation {
    handle: *mut PamHandle,
    original: PamConversation,
    pending: Pending,
    state: Cell<State>,
}

impl Conversation {
    /// Puts itself in the place of the handle's conversation. To be given to [`Conversation::end`]. Err: the code of
    /// libpam.
    pub(super) fn begin(pam: &Pam, pending: Pending) -> Result<*mut Self, c_int> {
        let original = pam.conversation().ok_or(status::CONV_ERR)?;
        let state = Cell::new(State::Listening);
        let this = Box::into_raw(Box::new(Self { handle: pam.0, original, pending, state }));
        let code = pam.set_conversation(&PamConversation { conv: Some(listening), data_ptr: this.cast() });
        if code == status::SUCCESS {
            return Ok(this);
        }
        // SAFETY: from `into_raw` above, and libpam has not taken it.
        drop(unsafe { Box::from_raw(this) });
        Err(code)
    }

    /// Puts the application's function back, where ours is still in its place. Returns the attempt that is to be resolved, and the application's pointer.
    ///
    /// # Safety
    /// `this` comes from [`Conversation::begin`] on the same handle and is not used again.
    pub(super) unsafe fn end(pam: &Pam, this: *mut Self) -> (Option<Attempt>, *mut c_void) {
        // SAFETY: the caller's promise.
        let this = unsafe { Box::from_raw(this) };
        let here = pam.conversation().is_some_and(|now| std::ptr::addr_eq(now.data_ptr, &raw const *this));
        if here && pam.set_conversation(&this.original) != status::SUCCESS {
            // Out of memory: libpam still points here, so here it must stay.
            return Box::leak(this).ended();
        }
        this.ended()
    }

    fn ended(&self) -> (Option<Attempt>, *mut c_void) {
        let attempt = match self.state.replace(State::Refused) {
            State::Going(attempt) => attempt,
            State::Listening | State::Refused => None,
        };
        (attempt, self.original.data_ptr)
    }

    /// Has the question asked and decides about the answer.
    ///
    /// # Safety
    /// The arguments are those of a conversation function (pam_conv(3)).
    unsafe fn talk(
        &self,
        count: c_int,
        messages: *mut *mut PamMessage,
        responses: *mut *mut PamResponse,
    ) -> c_int {
        let Some(original) = self.original.conv else {
            return status::CONV_ERR;
        };
        // SAFETY: the caller's promise.
        let asks = unsafe { asks(count, messages) };
        if asks && matches!(self.state.get(), State::Refused) {
            return status::CONV_ERR;
        }
        let code = original(count, messages, responses, self.original.data_ptr);
        // SAFETY: after a success `count` responses were made, or none.
        let told = code == status::SUCCESS && asks && unsafe { has_answer(count, responses) };
        if !told || !matches!(self.state.get(), State::Listening) {
            return code;
        }
        match answered(&Pam(self.handle), &self.pending) {
            Answered::GoOn(attempt) => {
                self.state.set(State::Going(attempt));
                code
            }
            Answered::Refused => {
                self.state.set(State::Refused);
                // SAFETY: `count` responses were just made by the application (pam_conv(3)).
                unsafe { wipe(count, responses) };
                status::CONV_ERR
            }
        }
    }
}

/// Whether one of the messages asks for an answer: everything but PAM_ERROR_MSG and PAM_TEXT_INFO. Not hidden prompts
/// alone: one-time codes are asked for in the clear.
///
/// # Safety
/// `messages` points to `count` pointers to messages (Linux-PAM's reading of pam_conv(3)).
unsafe fn asks(count: c_int, messages: *mut *mut PamMessage) -> bool {
    let silent = [PamMessageStyle::ERROR_MSG as c_int, PamMessageStyle::TEXT_INFO as c_int];
    if messages.is_null() {
        return false;
    }
    let count = usize::try_from(count.clamp(0, MAX_MESSAGES)).unwrap_or(0);
    (0..count).any(|n| {
        // SAFETY: below `count`.
        let place = unsafe { messages.add(n) };
        // SAFETY: an element of the array.
        let message = unsafe { *place };
        // SAFETY: a message, or null.
        unsafe { message.as_ref() }.is_some_and(|message| !silent.contains(&message.msg_style))
    })
}

/// Whether there is an answer: an application whose user is gone may succeed with nothing.
///
/// # Safety
/// `responses` leads to `count` responses, or to null.
unsafe fn has_answer(count: c_int, responses: *mut *mut PamResponse) -> bool {
    // SAFETY: the caller's promise.
    let list = unsafe { responses.as_ref() }.copied().unwrap_or(null_mut());
    let count = usize::try_from(count.clamp(0, MAX_MESSAGES)).unwrap_or(0);
    !list.is_null()
        && (0..count).any(|n| {
            // SAFETY: below `count`.
            let response = unsafe { list.add(n) };
            // SAFETY: an element of the array.
            !unsafe { (*response).resp }.is_null()
        })
}

/// Overwrites and frees the answers.
///
/// # Safety
/// `responses` leads to `count` responses made by malloc(3), or to null.
unsafe fn wipe(count: c_int, responses: *mut *mut PamResponse) {
    // SAFETY: the caller's promise.
    let Some(list) = (unsafe { responses.as_mut() }) else {
        return;
    };
    if list.is_null() {
        return;
    }
    for n in 0..usize::try_from(count.clamp(0, MAX_MESSAGES)).unwrap_or(0) {
        // SAFETY: below `count`.
        let response = unsafe { list.add(n) };
        // SAFETY: an element of the array.
        let text: *mut c_char = unsafe { (*response).resp };
        if !text.is_null() {
            // SAFETY: a NUL-terminated string of the application's.
            let length = unsafe { libc::strlen(text) };
            // SAFETY: `length` bytes of it; a write that is never read must still happen.
            unsafe { libc::explicit_bzero(text.cast(), length) };
            // SAFETY: made by malloc(3).
            unsafe { libc::free(text.cast()) };
        }
    }
    // SAFETY: made by malloc(3).
    unsafe { libc::free((*list).cast()) };
    *list = null_mut();
}

/// The conversation function while we listen (pam_conv(3)).
extern "C" fn listening(
    count: c_int,
    messages: *mut *mut PamMessage,
    responses: *mut *mut PamResponse,
    this: *mut c_void,
) -> c_int {
    quietly(status::CONV_ERR, || {
        let this: *const Conversation = this.cast();
        // SAFETY: PAM_CONV's pointer, which `begin` set; it lives until `end` has put the application's back.
        let Some(this) = (unsafe { this.as_ref() }) else {
            return status::CONV_ERR;
        };
        // SAFETY: as libpam or a module called us.
        unsafe { this.talk(count, messages, responses) }
    })
}
