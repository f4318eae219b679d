//! The records: what travels between the gate, the module and the agent, and what the maps hold.

use core::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::ledger::{Ledger, Rule};
use crate::sources::SourceCounts;

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
