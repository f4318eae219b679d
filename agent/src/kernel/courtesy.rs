//! The agent gives way to those who log on.
//!
//! The gate wakes the agent in the middle of a failed logon. A task of SCHED_BATCH does not take the processor from the
//! one that woke it (sched(7)): on a busy machine the caller would otherwise wait until the agent has written to its
//! store.

use std::io;

/// Puts this thread, and all threads and processes that it starts from now on, into SCHED_BATCH.
///
/// # Errors
/// The kernel, or a seccomp filter, refuses.
pub fn give_way() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: this thread, a policy without a priority, a whole sched_param.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_are_started_later_give_way_too() {
        // SAFETY: this thread.
        let policy = || unsafe { libc::sched_getscheduler(0) };
        std::thread::spawn(move || {
            give_way().unwrap();
            assert_eq!(policy(), libc::SCHED_BATCH);
            assert_eq!(std::thread::spawn(policy).join().unwrap(), libc::SCHED_BATCH);
        })
        .join()
        .unwrap();
    }
}
