//! The ABI between the gate (eBPF), the PAM module and the agent: requests, answers, events, map values, pin names.
//!
//! Invariants: every record is `repr(C)`, made of fixed-width integers with explicit padding, and its size is asserted
//! below; numbers are never reused. A change of any record raises [`ABI`], which is part of the pin path, so two
//! versions never read each other's maps. Times are CLOCK_BOOTTIME nanoseconds.

use core::ffi::CStr;
use core::net::{IpAddr, Ipv4Addr};

use crate::ledger::{Ledger, Rule};
use crate::sources::SourceCounts;

/// A version of this file, and where its gate is pinned.
#[derive(Clone, Copy, Debug)]
pub struct Version {
    /// Its number.
    pub abi: u32,
    /// The folder of its pins.
    pub folder: &'static str,
    /// Its gate: a program to be called with `BPF_PROG_TEST_RUN`, never attached.
    pub gate: &'static str,
    /// The same path for `BPF_OBJ_GET`.
    pub gate_c: &'static CStr,
    /// Its `SETTINGS`, for `BPF_OBJ_GET`.
    pub settings_c: &'static CStr,
    /// The links of its exit programs, which end what killed tasks held: at accounts, at pairs.
    pub exit_links: [&'static str; 2],
}

macro_rules! version {
    ($number:literal) => {
        Version {
            abi: $number,
            folder: concat!("/sys/fs/bpf/portcullis/v", $number),
            gate: concat!("/sys/fs/bpf/portcullis/v", $number, "/gate"),
            gate_c: c_text(concat!("/sys/fs/bpf/portcullis/v", $number, "/gate\0")),
            settings_c: c_text(concat!("/sys/fs/bpf/portcullis/v", $number, "/SETTINGS\0")),
            exit_links: [
                concat!("/sys/fs/bpf/portcullis/v", $number, "/exit_link"),
                concat!("/sys/fs/bpf/portcullis/v", $number, "/exit_pair_link"),
            ],
        }
    };
}

const fn c_text(text: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(text.as_bytes()) {
        Ok(text) => text,
        Err(_) => c"",
    }
}

/// The versions that this build speaks, its own first, then the one before: its gate may be running when this build is
/// installed, and hands its counts over (see `agent/src/kernel/upgrade.rs`). Their records are laid out alike; a version
/// that lays them out anew converts in `client` and there.
#[cfg(not(feature = "abi-next"))]
pub const VERSIONS: [Version; 1] = [version!(1)];
/// For the tests of an upgrade: the next version, which differs in its number alone.
#[cfg(feature = "abi-next")]
pub const VERSIONS: [Version; 2] = [version!(2), version!(1)];

const OWN: Version = {
    let [own, ..] = VERSIONS;
    own
};

/// Version of everything in this file.
pub const ABI: u32 = OWN.abi;
/// The folder of all pins, mode 0700, root's. Its mode is the whole guard of the gate (`BPF_PROG_TEST_RUN` asks for no
/// capability on new kernels).
pub const PIN_ROOT: &str = "/sys/fs/bpf/portcullis";
/// The pins of this ABI version.
pub const PIN_DIR: &str = OWN.folder;
/// The gate: a program to be called with `BPF_PROG_TEST_RUN`, never attached.
pub const PIN_GATE: &str = OWN.gate;
/// The agent's socket for callers who may not open the gate themselves: one [`Request`] at a time, one [`Answer`] each,
/// as they lie in memory. A connection carries one attempt. See `agent/src/callers`.
pub const CALLERS: &str = "/run/portcullis/callers.sock";
/// Where the module notes what it did without the gate, see [`unreachable`].
pub const UNREACHABLE: &str = "/run/portcullis/unreachable";
/// The links of the exit programs, see [`Version::exit_links`].
pub const PIN_EXIT_LINKS: [&str; 2] = OWN.exit_links;
/// The word on the kernel command line that keeps Portcullis from loading and from refusing.
pub const OFF_WORD: &str = "portcullis=off";

/// Names of the maps, which are the names of their pins too.
pub mod map {
    /// HASH: account key (u64) → [`super::Row`]. Known users; the key is the uid.
    pub const ACCOUNTS: &str = "ACCOUNTS";
    /// HASH: account key (u64, [`super::UNKNOWN`] set) → [`super::Row`]. Names no user has.
    pub const UNKNOWN: &str = "UNKNOWN_NAMES";
    /// HASH: key of a pair (u64, [`crate::pair::key`]) → [`super::Row`]. Accounts as single sources see them.
    pub const PAIRS: &str = "PAIRS";
    /// HASH: [`super::task_key`] (u64) → [`super::Entry`]. One reservation a task, and one of a pair.
    pub const TASKS: &str = "TASKS";
    /// ARRAY: class index, see [`super::class_index`] and [`super::pair_index`] → [`crate::ledger::Rule`].
    pub const CLASSES: &str = "CLASSES";
    /// HASH: [`super::member_key`] (u64) → class (u32). Users, and names no user has, that are not in class 0.
    pub const MEMBERS: &str = "MEMBERS";
    /// LPM_TRIE: [`super::Place`] → u32. Places to which the soft lock of a class is open.
    pub const PLACES: &str = "PLACES";
    /// ARRAY of one [`super::Settings`].
    pub const SETTINGS: &str = "SETTINGS";
    /// ARRAY of u64 counters, see [`super::stat`].
    pub const STATS: &str = "STATS";
    /// ARRAY: [`crate::sources::bucket_of`] → [`crate::sources::Bucket`]. What sources did.
    pub const SOURCES: &str = "SOURCES";
    /// ARRAY of one [`crate::sources::SourceRule`]; all zero: the default.
    pub const SOURCE_RULE: &str = "SOURCE_RULE";
    /// HASH: uid (u64) → boot time in nanoseconds (u64) until which that local user is refused at other accounts.
    pub const ACTORS: &str = "ACTORS";
    /// RINGBUF of [`super::Event`].
    pub const EVENTS: &str = "EVENTS";
}

/// Rows of `ACCOUNTS`; memory is taken as rows are made.
pub const MAX_ACCOUNTS: u32 = 65_536;
/// Rows of `UNKNOWN_NAMES`. Full means: further invented names are let through uncounted (no such user can log in).
pub const MAX_UNKNOWN: u32 = 8_192;
/// Rows of `PAIRS`. Full means: a source without a row is not counted by itself, the account's own limit holds for it.
pub const MAX_PAIRS: u32 = 32_768;
/// Rows of `TASKS`. Full means: reservations end by their maximum age instead of at exit.
pub const MAX_TASKS: u32 = 16_384;
/// Rows of `MEMBERS`.
pub const MAX_MEMBERS: u32 = 131_072;
/// Rows of `ACTORS`.
pub const MAX_ACTORS: u32 = 1_024;
/// Classes of one generation of the configuration.
pub const MAX_CLASSES: u32 = 32;
/// Rows of `PLACES`.
pub const MAX_PLACES: u32 = 4_096;
/// Bytes of the ring buffer.
pub const EVENTS_BYTES: u32 = 1 << 20;

/// Bit of an account key that marks a name no user has (the rest is a keyed hash of it).
pub const UNKNOWN: u64 = 1 << 63;

/// Stands in `MEMBERS` for all names no user has: (uid_t)-1, which is no uid.
pub const NOBODY: u32 = u32::MAX;

/// Who in `MEMBERS` an account key is: its uid, or [`NOBODY`]. Arithmetic, so that the verifier sees one way.
#[inline(always)]
pub const fn member_of(account: u64) -> u32 {
    (account | (account.cast_signed() >> 63).cast_unsigned()) as u32
}

/// Key of a uid in `MEMBERS` for a generation of the configuration.
#[inline(always)]
pub const fn member_key(generation: u32, uid: u32) -> u64 {
    ((generation as u64) << 32) | uid as u64
}

/// Index of a class in `CLASSES`: two banks, so that a new configuration is written beside the running one and takes
/// effect in one store (`Settings::generation`).
#[inline(always)]
pub const fn class_index(generation: u32, class: u32) -> u32 {
    (generation & 1) * MAX_CLASSES + (class & (MAX_CLASSES - 1))
}

/// Index in `CLASSES` of what holds for the pairs of a class, see [`Rule::of_pairs`].
#[inline(always)]
pub const fn pair_index(generation: u32, class: u32) -> u32 {
    2 * MAX_CLASSES + class_index(generation, class)
}

/// Key in `TASKS` of the reservation that `task` holds at an account, or at a pair: the address of a task is even.
#[inline(always)]
pub const fn task_key(task: u64, pair: bool) -> u64 {
    task | pair as u64
}

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

/// What the caller knows about an attempt. Only root callers reach the gate, so these are root's words; the names and
/// addresses in them came from outside and are never trusted as anything but bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Detail {
    /// One of [`source`].
    pub source: u32,
    /// Of a local caller, his login uid, which he keeps through su and sudo; where that is not set, and of any other, the
    /// real uid of the calling process.
    pub uid: u32,
    /// Remote address in network order, IPv4 in the first four bytes.
    pub address: [u8; 16],
    /// Calling process, in its own pid namespace.
    pub pid: u32,
    /// Its parent: sshd's keyboard-interactive child authenticates, its parent goes on to setcred.
    pub parent: u32,
    /// PAM status the stack ended with (resolve), else 0.
    pub status: i32,
    /// One of [`via`].
    pub via: u32,
    /// PAM service, cut at 16 bytes, zero-filled.
    pub service: [u8; 16],
    /// PAM tty without "/dev/", cut at 16 bytes, zero-filled.
    pub tty: [u8; 16],
}

/// An attempt under way: the value of `TASKS`, and the first part of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Entry {
    /// Account key: a uid, or [`UNKNOWN`] and a keyed hash.
    pub account: u64,
    /// Token of the reservation.
    pub token: u64,
    /// Who, where, by what.
    pub detail: Detail,
}

/// A call of the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Request {
    /// [`ABI`] of the caller.
    pub abi: u32,
    /// One of [`op`].
    pub op: u32,
    /// Bits of [`ask`].
    pub flags: u32,
    /// Argument of the op.
    pub arg: u32,
    /// LOCK: boot time in nanoseconds, u64::MAX for ever.
    pub until: u64,
    /// Account, token, detail.
    pub entry: Entry,
}

/// The gate's answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Answer {
    /// One of [`verdict`].
    pub verdict: u32,
    /// Bits of [`flag`].
    pub flags: u32,
    /// Failures in the window.
    pub failures: u32,
    /// Reservations out.
    pub reservations: u32,
    /// `deny` of the account's class.
    pub deny: u32,
    /// Times the account has tripped since its row was made.
    pub trips: u32,
    /// Token of the reservation (ADMITTED).
    pub token: u64,
    /// 0, or when the lock ends; u64::MAX: never.
    pub locked_until: u64,
    /// ADMITTED: how long to wait before the guess may be checked, nanoseconds.
    pub delay: u64,
    /// The gate's clock.
    pub now: u64,
}

/// A record of the ring buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// One of [`event`].
    pub kind: u32,
    /// Bits of [`flag`].
    pub flags: u32,
    /// Number of the gate call on its account's row that made this event: newer ones are higher, not every call
    /// makes one.
    pub seq: u64,
    /// When, CLOCK_BOOTTIME.
    pub time: u64,
    /// 0, or when the lock ends; u64::MAX: never.
    pub locked_until: u64,
    /// Failures in the window after this event.
    pub failures: u32,
    /// `deny` of the class.
    pub deny: u32,
    /// Trips of the account so far, this one included.
    pub trips: u32,
    /// Reservations that passed their maximum age in this call.
    pub lapsed: u32,
    /// The last of those: kind of actor in the upper 32 bits of the slot, see `ledger::Actor`.
    pub lapsed_actor: u64,
    /// One of [`source`] for `lapsed_actor`.
    pub lapsed_source: u32,
    /// One of [`cause`] where there is a lock.
    pub cause: u32,
    /// What its source did so far; all zero where it is not counted.
    pub source: SourceCounts,
    /// Account, token, detail of the caller.
    pub entry: Entry,
}

/// Value of `ACCOUNTS` and `UNKNOWN_NAMES`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Row {
    /// The kernel's `bpf_spin_lock`.
    pub lock: u32,
    /// 1 while the row may be used; checked under the lock together with `key`, since a deleted row's memory can be
    /// another account's the next moment.
    pub alive: u32,
    /// Account key this row belongs to.
    pub key: u64,
    /// Calls on this row so far, see `Event::seq`.
    pub events: u64,
    /// Scratch of the gate.
    pub scratch: u64,
    /// Account key: of a pair, its account's; else `key`.
    pub account: u64,
    /// Of a pair: `ledger::Actor::id`.
    pub actor: u64,
    /// Of a pair: one of [`source`].
    pub source: u32,
    /// Explicit padding.
    pub pad: u32,
    /// The counts.
    pub ledger: Ledger,
}

/// Key of `PLACES`, behind its length in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Place {
    /// Generation of the configuration.
    pub generation: u32,
    /// Class.
    pub class: u32,
    /// One of [`place`].
    pub kind: u32,
    /// An IPv6 address or network (IPv4 mapped into it), or a terminal as in [`Detail::tty`].
    pub bytes: [u8; 16],
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

impl Place {
    /// Where a call comes from, as far as that may open a lock: only root's programs that no user started (real uid 0) are
    /// believed, and only from a place on this host (a terminal) or a literal address. A kind of 0 is no place.
    #[inline(always)]
    pub fn of(detail: &Detail) -> Self {
        let mut found = Self { generation: 0, class: 0, kind: 0, bytes: [0; 16] };
        let believed = detail.uid == 0 && detail.via == via::ROOT;
        if !believed && !cfg!(feature = "mutation-open-to-claims") {
            return found;
        }
        match detail.source {
            source::LOCAL => {
                found.kind = place::TERMINAL;
                found.bytes = detail.tty;
            }
            source::IPV4 => {
                let [a, b, c, d, ..] = detail.address;
                found.kind = place::NETWORK;
                found.bytes = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d];
            }
            source::IPV6 => {
                found.kind = place::NETWORK;
                found.bytes = detail.address;
            }
            _ => {}
        }
        found
    }
}

/// Value of `SETTINGS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Settings {
    /// Generation of the configuration: its parity picks the bank of `CLASSES`, its value the keys of `MEMBERS`.
    pub generation: u32,
    /// 1: every request is answered MOVED.
    pub frozen: u32,
    /// Key of the hash of unknown names and of pairs.
    pub hash_key: [u64; 2],
}

impl Detail {
    /// Sets the address a call comes from. IPv4 mapped into IPv6 is IPv4. All loopback addresses are one, 127.0.0.1: the
    /// host itself, whose users could else take any of 16 million.
    pub fn locate(&mut self, address: IpAddr) {
        let host = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let address = address.to_canonical();
        self.address = [0; 16];
        match if address.is_loopback() { host } else { address } {
            IpAddr::V4(address) => {
                self.source = source::IPV4;
                let [a, b, c, d] = address.octets();
                self.address = [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            }
            IpAddr::V6(address) => {
                self.source = source::IPV6;
                self.address = address.octets();
            }
        }
    }

    /// Nothing known.
    pub const EMPTY: Self = Self {
        source: source::NONE,
        uid: 0,
        address: [0; 16],
        pid: 0,
        parent: 0,
        status: 0,
        via: via::ROOT,
        service: [0; 16],
        tty: [0; 16],
    };
}

impl Answer {
    /// Of a CHECK: whether a logon is to be refused.
    #[must_use]
    pub const fn refuses(&self) -> bool {
        self.locked_until != 0 && self.flags & (flag::MONITORED | flag::OPEN) == 0
    }
}

impl Request {
    /// A request about an account, with nothing else set.
    pub const fn new(op: u32, account: u64) -> Self {
        Self {
            abi: ABI,
            op,
            flags: 0,
            arg: 0,
            until: 0,
            entry: Entry { account, token: 0, detail: Detail::EMPTY },
        }
    }
}

/// What a gate call has found, on its way from the account's row to the source and the event. It goes through the
/// packet's memory, so that all ways to get here are one to the verifier.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Found {
    /// One of [`event`]; 0: none is told.
    pub kind: u32,
    /// 1: counts for the source.
    pub counts: u32,
    /// As in [`Event`], as are the rest.
    pub flags: u32,
    /// See there.
    pub failures: u32,
    /// See there.
    pub deny: u32,
    /// See there.
    pub trips: u32,
    /// See there.
    pub lapsed: u32,
    /// See there.
    pub lapsed_source: u32,
    /// See there.
    pub lapsed_actor: u64,
    /// See there.
    pub seq: u64,
    /// See there.
    pub time: u64,
    /// See there.
    pub locked_until: u64,
    /// See there.
    pub cause: u32,
    /// Explicit padding.
    pub pad: u32,
}

/// Bytes of the packet in which a call travels: request, answer, and room for a new row, which the gate fills and
/// inserts when the account has none (a BPF stack holds 512 bytes).
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Packet {
    /// In.
    pub request: Request,
    /// Out.
    pub answer: Answer,
    /// Scratch of the gate.
    pub found: Found,
    /// Scratch of the gate.
    pub row: Row,
}

const _: () = {
    assert!(size_of::<Detail>() == 72);
    assert!(size_of::<Entry>() == 88);
    assert!(size_of::<Request>() == 112);
    assert!(size_of::<Answer>() == 56);
    assert!(size_of::<Event>() == 176);
    assert!(size_of::<Settings>() == 24);
    assert!(size_of::<Place>() == 28);
    assert!(size_of::<Rule>() == 96);
    assert!(size_of::<Row>() == 56 + size_of::<Ledger>());
    // XDP test runs take one page less head room and skb_shared_info.
    assert!(size_of::<Packet>() <= 3000);
    assert!(MAX_CLASSES.is_power_of_two());
};
