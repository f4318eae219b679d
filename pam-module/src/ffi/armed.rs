//! Attempts under way in this thread, until libpam tells the stack's result.
//!
//! Invariants: the per-thread places have no destructor, since the module is unloaded while its threads live on; whatever
//! was put in place of the application's own functions is put back before they are called; a result goes to the handle
//! that has it, in whatever order handles end.

use std::cell::Cell;
use std::ffi::{c_int, c_uint, c_void};
use std::time::Duration;

use pam_sys::PamHandle;

use super::conversation::Conversation;
use super::handle::{DelayFn, Pam};
use super::quietly;
use crate::module::conversation::Pending;
use crate::world::{Attempt, World as _};
use crate::{module, status};

/// Attempts of one thread that may be under way at once: handles that authenticate inside one another.
const DEPTH: usize = 8;

/// What is to be done when the stack has ended.
#[derive(Clone, Copy)]
enum Task {
    /// Tell what became of this.
    Attempt(Attempt),
    /// Tell what became of the attempt that the conversation brought, if it did. Ours, from `Box::into_raw`.
    Conversation(*mut Conversation),
    /// It was told already.
    Nothing,
}

/// An attempt whose result the delay function will tell.
#[derive(Clone, Copy)]
struct Armed {
    handle: *mut PamHandle,
    original: Option<DelayFn>,
    task: Task,
}

/// What stands in PAM_FAIL_DELAY, a function for each place: libpam tells it no handle, and handles that wait for their
/// application (PAM_INCOMPLETE) end in any order.
const ENDED: [DelayFn; DEPTH] =
    [ended::<0>, ended::<1>, ended::<2>, ended::<3>, ended::<4>, ended::<5>, ended::<6>, ended::<7>];

fn is_ours(function: DelayFn) -> bool {
    ENDED.iter().any(|ours| std::ptr::fn_addr_eq(*ours, function))
}

thread_local! {
    // Cells of plain data: no destructor is registered.
    static ARMED: [Cell<Option<Armed>>; DEPTH] = const { [const { Cell::new(None) }; DEPTH] };
}

/// Has `attempt` resolved when the stack of this handle ends. Err: the code of libpam.
pub(super) fn attempt(pam: &Pam, attempt: Attempt) -> Result<(), c_int> {
    forget_stale(pam);
    arm(pam, Task::Attempt(attempt))
}

/// Has `task` done when the stack of this handle ends.
fn arm(pam: &Pam, task: Task) -> Result<(), c_int> {
    // A module that found ours in an earlier attempt may have put it back after that.
    let original = pam.delay_fn().filter(|function| !is_ours(*function));
    let armed = Armed { handle: pam.0, original, task };
    let function = ARMED.with(|places| {
        let free = places.iter().zip(ENDED).find(|(place, _)| place.get().is_none());
        free.map(|(place, function)| {
            place.set(Some(armed));
            function
        })
    });
    let Some(function) = function else {
        return Err(status::SERVICE_ERR);
    };
    let code = pam.set_delay_fn(Some(function));
    if code != status::SUCCESS {
        take_of(pam.0);
        return Err(code);
    }
    // libpam never forgets an old delay of the same handle: without this the next call may sleep it.
    pam.fail_delay(Duration::from_micros(1));
    Ok(())
}

/// Listens to the conversation until the stack ends. Err: the code of libpam.
pub(super) fn listen(pam: &Pam, pending: Pending) -> Result<(), c_int> {
    forget_stale(pam);
    let conversation = Conversation::begin(pam, pending)?;
    arm(pam, Task::Conversation(conversation)).inspect_err(|_| {
        // SAFETY: from `begin` just now, and nobody else's.
        unsafe { Conversation::end(pam, conversation) };
    })
}

/// Tells at once that this handle's attempt passed.
pub(super) fn passed(pam: &Pam) {
    ARMED.with(|places| {
        for place in places {
            if let Some(armed) = place.get()
                && armed.handle == pam.0
                && let Task::Attempt(attempt) = armed.task
            {
                place.set(Some(Armed { task: Task::Nothing, ..armed }));
                module::resolve(pam, attempt, status::SUCCESS);
            }
        }
    });
}

/// An earlier call on this handle was never told its end (PAM_INCOMPLETE, and the application began anew): what it put
/// in place is taken out. Its guess fails by its age. Nothing of ours in place: another handle at the same address.
fn forget_stale(pam: &Pam) {
    let Some(stale) = take_of(pam.0) else {
        return;
    };
    if pam.delay_fn().is_some_and(is_ours) {
        pam.set_delay_fn(stale.original);
    }
    if let Task::Conversation(conversation) = stale.task {
        // SAFETY: from `Conversation::begin`, and taken off the stack: nobody else's.
        unsafe { Conversation::end(pam, conversation) };
    }
}

/// What is armed for this handle.
fn take_of(handle: *mut PamHandle) -> Option<Armed> {
    ARMED.with(|places| {
        let place =
            places.iter().find(|place| place.get().is_some_and(|armed| std::ptr::eq(armed.handle, handle)));
        place.and_then(Cell::take)
    })
}

/// libpam calls this at the end of every pam_authenticate(3), success included, with the stack's final status and before
/// it would sleep; it gets no handle.
///
/// # Safety
/// Called by libpam, on the thread that armed the attempt, while its handle is live.
unsafe extern "C" fn ended<const PLACE: usize>(code: c_int, usec: c_uint, appdata: *mut c_void) {
    quietly((), || {
        let Some(armed) = ARMED.with(|places| places.get(PLACE).and_then(Cell::take)) else {
            return;
        };
        let pam = Pam(armed.handle);
        let mut appdata = appdata;
        let attempt = match armed.task {
            Task::Attempt(attempt) => Some(attempt),
            Task::Conversation(conversation) => {
                // SAFETY: from `Conversation::begin`, and taken off the stack: nobody else's.
                let (attempt, data) = unsafe { Conversation::end(&pam, conversation) };
                appdata = data;
                attempt
            }
            Task::Nothing => None,
        };
        if let Some(attempt) = attempt {
            module::resolve(&pam, attempt, code);
        }
        // For the application it is as if we had never been here.
        pam.set_delay_fn(armed.original);
        match armed.original {
            // SAFETY: the application's own function, called as libpam would have.
            Some(original) => unsafe { original(code, usec, appdata) },
            // libpam leaves the sleeping to the function once there is one.
            None if code != status::SUCCESS => pam.sleep(Duration::from_micros(usec.into())),
            None => {}
        }
    });
}
