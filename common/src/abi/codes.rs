//! The numbers in the records: what is asked, answered and told, and what is counted.
//!
//! Invariant: a number is never reused.

/// What a request asks for. See `ebpf/src/gate.rs` for what each does.
pub mod op {
    /// Reserve a guess: [`super::verdict::ADMITTED`], `BUSY` or `LOCKED`.
    pub const ADMIT: u32 = 1;
    /// Tell the result of an admitted guess: `Request::arg` is one of [`super::outcome`].
    pub const RESOLVE: u32 = 2;
    /// The login that passed goes on to setcred: clear the failures if none is newer. Keyed by `Detail::pid`.
    pub const CONFIRM: u32 = 3;
    /// Look, and let overdue reservations and expired locks take their course.
    pub const CHECK: u32 = 4;
    /// Lock until `Request::until` (u64::MAX: for ever; 0: no lock); `Request::arg` is one of [`super::cause`]. With a
    /// token, which is a boot time: until then one more trip is one more of a row, of which `arg >> 8` were before the last.
    pub const LOCK: u32 = 5;
    /// Take the lock off and forget the failures.
    pub const UNLOCK: u32 = 6;
    /// Delete the row if nothing in it matters any more.
    pub const FORGET: u32 = 7;
    /// The exit program's own: the task that held the reservation is gone. Refused from user space.
    pub const LAPSE: u32 = 8;
    /// Somebody else saw a logon fail or succeed (`Request::arg` is one of [`super::outcome`]): counts for the source in
    /// `Request::entry` alone, at the account named there. No account's row is touched.
    pub const REPORT: u32 = 16;
}

/// Results of a guess, as the PAM module reads them off the stack's final status.
pub mod outcome {
    /// The secret was right.
    pub const PASS: u32 = 1;
    /// The secret was wrong, or the stack refused.
    pub const FAIL: u32 = 2;
    /// The status says nothing about the secret: the reservation is returned, nothing else changes.
    pub const VOID: u32 = 3;
}

/// Who set a lock.
pub mod cause {
    /// The failure that reached `deny`.
    pub const TRIP: u32 = 1;
    /// An administrator.
    pub const ADMINISTRATOR: u32 = 2;
    /// The store, after a reboot.
    pub const RESTORED: u32 = 3;
}

/// Answers of the gate.
pub mod verdict {
    /// The gate did not understand the request; nothing was changed.
    pub const INVALID: u32 = 0;
    /// Go on. `Answer::token` names the reservation; 0 where the account is exempt or not counted.
    pub const ADMITTED: u32 = 1;
    /// All guesses are out: wait and ask again.
    pub const BUSY: u32 = 2;
    /// Refuse.
    pub const LOCKED: u32 = 3;
    /// Done (resolve, confirm, check, lock, unlock, forget).
    pub const DONE: u32 = 4;
    /// No row could be made or kept for the account: nothing was counted.
    pub const UNCOUNTED: u32 = 5;
    /// No row, or not in a state for this (confirm without a pass, forget of a live row).
    pub const NOTHING: u32 = 6;
    /// The gate is frozen: its successor holds the counts.
    pub const MOVED: u32 = 7;
    /// The row was deleted or reused under the call; nothing was changed. Ask again at once (the client does).
    pub const AGAIN: u32 = 8;
    /// ADMIT of an account in a class of pairs: reserve at the pair first ([`super::ask::PAIR`]), then ask again with
    /// [`super::ask::PAIRED`]. In that order a program that is killed between the two has hurt its own pair alone.
    pub const PAIR: u32 = 10;
    /// Only the agent says this, at its socket: the caller may not ask that about this account; nothing was changed.
    pub const NOT_YOURS: u32 = 9;
}

/// What is noted in [`UNREACHABLE`], a byte an attempt.
pub mod unreachable {
    /// Let through uncounted (`on_error=ignore`, or root on a local terminal).
    pub const IGNORED: u8 = b'i';
    /// Refused (`on_error=deny`, or what the caller can cause).
    pub const REFUSED: u8 = b'r';
    /// Bytes at which the agent empties the file; the module writes up to four times as many.
    pub const GROWN: u64 = 1 << 20;
}

/// How a call came to the gate: `Detail::via`.
pub mod via {
    /// The caller is root and called the gate itself, or by the agent.
    pub const ROOT: u32 = 0;
    /// By the agent, for a caller who is not root: service and tty are his claim, uid and pid the kernel's word.
    pub const CLAIM: u32 = 1;
}

/// Kinds of source.
pub mod source {
    /// Not known.
    pub const NONE: u32 = 0;
    /// A local user: `Detail::uid`.
    pub const LOCAL: u32 = 1;
    /// `Detail::address`, first four bytes.
    pub const IPV4: u32 = 2;
    /// `Detail::address`.
    pub const IPV6: u32 = 3;
}

/// Kinds of event.
pub mod event {
    /// A guess was refused: the account is locked.
    pub const REFUSED: u32 = 1;
    /// A guess was refused: the wait for a free reservation ended.
    pub const BUSY: u32 = 2;
    /// A guess was right.
    pub const PASS: u32 = 3;
    /// A guess was wrong.
    pub const FAIL: u32 = 4;
    /// A guess ended without a word about the secret.
    pub const VOID: u32 = 5;
    /// The task died before its guess was resolved: a failure.
    pub const DIED: u32 = 6;
    /// Only flags: something came due while the gate looked (see [`super::flag`]).
    pub const DUE: u32 = 7;
    /// A login was confirmed and the failures were cleared.
    pub const CLEARED: u32 = 8;
    /// A lock was set on request.
    pub const LOCKED: u32 = 9;
    /// A lock was taken off on request.
    pub const UNLOCKED: u32 = 10;
    /// An attempt on an account that could not be counted.
    pub const UNCOUNTED: u32 = 11;
    /// A prompt that nobody answered (see [`super::ask::ABANDONED`]): nothing was charged, nothing is kept of it.
    pub const ABANDONED: u32 = 12;
    /// Another program reported a failure (see [`super::op::REPORT`]).
    pub const REPORTED: u32 = 16;
    /// Another program reported a logon.
    pub const REPORTED_PASS: u32 = 17;
}

/// Bits of `Event::flags` and `Answer::flags`.
pub mod flag {
    /// The account tripped in this call: `locked_until` is the new lock.
    pub const TRIPPED: u32 = 1;
    /// At least one reservation passed its maximum age and became a failure in this call (`Event::lapsed`).
    pub const LAPSED: u32 = 2;
    /// A lock was found expired and taken off in this call.
    pub const EXPIRED: u32 = 4;
    /// The account is exempt.
    pub const EXEMPT: u32 = 8;
    /// A failure by lapse was withdrawn by a late pass.
    pub const WITHDRAWN: u32 = 16;
    /// The account's class is in monitor mode: what was refused was let through all the same.
    pub const MONITORED: u32 = 32;
    /// It is a pair's row that this tells of.
    pub const PAIR: u32 = 64;
    /// The account's class counts pairs: what is asked about the account is to be asked about the pair, too.
    pub const PAIRS: u32 = 128;
    /// The source tripped in this call: `Event::source` are the numbers that made it.
    pub const SOURCE_TRIPPED: u32 = 256;
    /// It is the local user who is refused, at every account but his own.
    pub const ACTOR: u32 = 512;
    /// The lock is a soft one.
    pub const SOFT: u32 = 1024;
    /// It is open to this caller, who is not to be refused.
    pub const OPEN: u32 = 2048;
    /// It is open to him for another factor alone.
    pub const FACTOR: u32 = 4096;
    /// Those that say whose row it is and how it stands, not that something happened.
    pub const STANDING: u32 = EXEMPT | MONITORED | PAIR | PAIRS | SOFT | OPEN | FACTOR;
}

/// Bits of `Request::flags`.
pub mod ask {
    /// The caller will not wait any longer: a BUSY verdict is to be told as an event.
    pub const LAST_TRY: u32 = 1;
    /// CHECK: a logon came without a guess (by a key) and is refused where the account is locked: to be told as an event.
    pub const LOGON: u32 = 2;
    /// Work on the row of the pair that account and detail make, not on the account's.
    pub const PAIR: u32 = 4;
    /// ADMIT: the guess is reserved at the pair already, or there is no room for the pair.
    pub const PAIRED: u32 = 8;
    /// ADMIT, CHECK: the caller's stack asks for another factor where the answer says [`super::flag::FACTOR`].
    pub const FACTOR: u32 = 16;
    /// LOCK: a soft lock.
    pub const SOFT: u32 = 32;
    /// CHECK: a prompt that nobody answered; told as [`super::event::ABANDONED`].
    pub const ABANDONED: u32 = 1 << 16;
}

/// Indexes of `STATS`.
pub mod stat {
    /// Events that found no room in the ring buffer.
    pub const LOST_EVENTS: u32 = 0;
    /// Rows that could not be made: table full.
    pub const NO_ROW: u32 = 1;
    /// `TASKS` was full: the reservation can only age out.
    pub const NO_TASK: u32 = 2;
    /// A row was deleted or reused under a call, which was answered AGAIN.
    pub const ROW_RACE: u32 = 3;
    /// Sources that were not counted: every place of their bucket is a tripped one's.
    pub const NO_SOURCE: u32 = 4;
    /// Times a source tripped.
    pub const SOURCE_TRIPS: u32 = 5;
    /// Calls of [`super::op::REPORT`].
    pub const REPORTS: u32 = 6;
    /// Gate calls by op: `CALLS + op`.
    pub const CALLS: u32 = 8;
    /// Gate latency: `LATENCY + floor(log2(ns))`, at most `LATENCY + 31`.
    pub const LATENCY: u32 = 16;
    /// Sum of the gate's nanoseconds.
    pub const LATENCY_SUM: u32 = 48;
    /// Entries of the map.
    pub const ENTRIES: u32 = 64;
}

/// Kinds of place.
pub mod place {
    /// A network.
    pub const NETWORK: u32 = 1;
    /// A terminal.
    pub const TERMINAL: u32 = 2;
    /// Bits before the address or name.
    pub const HEAD: u32 = 96;
}
