//! A row of `ACCOUNTS`, `UNKNOWN_NAMES` or `PAIRS` as the kernel sees it, and the one way to change one: lock, check that it is
//! still the row that was looked up, apply the rule, copy out what the caller needs, unlock.

use aya_ebpf::bindings::{BPF_NOEXIST, bpf_spin_lock};
use portcullis_common::{
    abi::{Packet, Row, UNKNOWN, op, verdict},
    ledger::{Actor, Call, Lapsed, Ledger, Rule, Step},
    pair::PAIR,
};

use crate::maps::{ACCOUNTS, PAIRS, UNKNOWN_NAMES};

/// errno(3): the other one's row is there.
const EEXIST: i32 = -17;

/// `abi::Row` with the lock under the name by which the verifier knows it.
#[repr(C)]
pub struct KernelRow {
    lock: bpf_spin_lock,
    alive: u32,
    key: u64,
    events: u64,
    scratch: u64,
    account: u64,
    actor: u64,
    source: u32,
    pad: u32,
    ledger: Ledger,
}

const _: () = assert!(size_of::<KernelRow>() == size_of::<Row>());

/// What the caller needs of the row, taken under the lock.
pub struct Seen {
    /// What the rule said.
    pub step: Step,
    /// Number for the event, if there will be one.
    pub seq: u64,
    /// Failures in the window.
    pub failures: u32,
    /// Guesses out.
    pub reservations: u32,
    /// Trips so far.
    pub trips: u32,
    /// Cause of the lock.
    pub cause: u32,
    /// 1: it is a soft one.
    pub soft: u32,
    /// End of the lock, 0: none.
    pub locked_until: u64,
    /// Who held the last reservation that lapsed: kind.
    pub lapsed_kind: u32,
    /// Who held the last reservation that lapsed: id.
    pub lapsed_actor: u64,
}

impl Seen {
    /// No row was touched.
    #[inline(always)]
    pub fn nothing(verdict: u32, flags: u32) -> Self {
        Self {
            step: Step { verdict, flags, token: 0, lapsed: 0 },
            seq: 0,
            failures: 0,
            reservations: 0,
            trips: 0,
            cause: 0,
            soft: 0,
            locked_until: 0,
            lapsed_kind: 0,
            lapsed_actor: 0,
        }
    }
}

/// Whether the row of `key` lies in the table of names nobody has.
#[inline(always)]
fn unknown(key: u64) -> bool {
    key & UNKNOWN != 0 && !cfg!(feature = "mutation-one-table")
}

/// The row of `key`: of an account, or of a pair (see `common::pair`).
#[inline(always)]
pub fn find(key: u64) -> Option<*mut KernelRow> {
    if unknown(key) {
        UNKNOWN_NAMES.get_ptr_mut(key)
    } else if key & PAIR != 0 {
        PAIRS.get_ptr_mut(key)
    } else {
        ACCOUNTS.get_ptr_mut(key)
    }
}

/// Makes a row for `key` out of the packet's scratch row, which came zeroed from the caller. Whoever comes second
/// finds the first one's. `actor`: of a pair, its source. Whether there was a row then, made or found: false where the
/// table is full.
#[inline(always)]
pub fn make(key: u64, account: u64, actor: Actor, packet: *mut Packet) -> bool {
    // SAFETY: `packet` was checked against the end of the data by the entry point; helpers called since do not move it.
    let scratch = unsafe { &mut (*packet).row };
    scratch.key = key;
    scratch.account = account;
    scratch.source = actor.kind;
    scratch.actor = actor.id;
    scratch.alive = 1;
    // SAFETY: the two types have the same layout (size asserted above; the kernel skips the lock when it copies).
    let row = unsafe { &*core::ptr::from_mut(scratch).cast::<KernelRow>() };
    let flags = u64::from(BPF_NOEXIST);
    let made = if unknown(key) {
        UNKNOWN_NAMES.insert(key, row, flags)
    } else if key & PAIR != 0 {
        PAIRS.insert(key, row, flags)
    } else {
        ACCOUNTS.insert(key, row, flags)
    };
    !matches!(made, Err(error) if error != EEXIST)
}

/// Deletes the row of `key`, which the caller has marked dead under the lock.
#[inline(always)]
pub fn delete(key: u64) {
    let _ = if unknown(key) {
        UNKNOWN_NAMES.remove(key)
    } else if key & PAIR != 0 {
        PAIRS.remove(key)
    } else {
        ACCOUNTS.remove(key)
    };
}

/// Applies `call` to the row under its lock. None: it is not `key`'s row any more. Whose guesses lapsed goes to `lapsed`,
/// which says nobody's before.
#[inline(always)]
pub fn apply(
    row: *mut KernelRow,
    key: u64,
    now: u64,
    rule: &Rule,
    call: &Call,
    lapsed: *mut Lapsed,
) -> Option<Seen> {
    // SAFETY: a map value stays mapped while the program runs (RCU), even when its row is deleted: that it still is this
    // key's is checked below, under the lock that the deleter takes as well.
    let row = unsafe { &mut *row };
    enter(row);
    if row.alive != 1 || row.key != key {
        leave(row);
        return None;
    }
    let mut step = row.ledger.settle_marked(now, rule);
    step.flags = launder(row, step.flags);
    step.lapsed = launder(row, step.lapsed);
    if step.lapsed != 0 {
        // SAFETY: the caller's own, valid and initialised.
        row.ledger.take_lapsed(unsafe { &mut *lapsed });
    }
    step = row.ledger.act(now, rule, call, step);
    step.flags = launder(row, step.flags);
    step.verdict = launder(row, step.verdict);
    let op = launder(row, call.op);
    let counts = row.ledger.counts();
    row.events += 1;
    let mut seen = Seen {
        step,
        seq: row.events,
        failures: counts.failures,
        reservations: counts.reservations,
        trips: row.ledger.trips,
        cause: row.ledger.cause,
        soft: row.ledger.soft & 1,
        locked_until: row.ledger.locked_until,
        lapsed_kind: row.ledger.lapsed_kind,
        lapsed_actor: row.ledger.lapsed_actor,
    };
    if op == op::FORGET {
        if row.ledger.idle(now, rule) {
            row.alive = 0;
        } else {
            seen.step.verdict = verdict::NOTHING;
        }
    }
    leave(row);
    Some(seen)
}

/// Takes a number through the row's memory, after which the verifier knows nothing about it any more: without this it
/// walks the rest of the program once for each combination of flags.
#[inline(always)]
fn launder(row: &mut KernelRow, value: u32) -> u32 {
    let place = &raw mut row.scratch;
    // SAFETY: a field of the row, which is ours under the lock.
    unsafe { place.write_volatile(u64::from(value)) };
    // SAFETY: as above.
    unsafe { place.read_volatile() as u32 }
}

#[cfg(not(feature = "mutation-no-lock"))]
mod guard {
    use super::KernelRow;
    use aya_ebpf::helpers::{bpf_spin_lock as lock, bpf_spin_unlock as unlock};

    #[inline(always)]
    pub fn enter(row: &mut KernelRow) {
        // SAFETY: the lock is a field of a map value, initialised by the kernel.
        unsafe { lock(&raw mut row.lock) };
    }

    #[inline(always)]
    pub fn leave(row: &mut KernelRow) {
        // SAFETY: taken in `enter` on the same path; the verifier proves it.
        unsafe { unlock(&raw mut row.lock) };
    }
}

/// The gate without its lock: what `cargo xtask test mutations` must see fail. What it does on entry is what any program
/// without a lock does, read, then write; only that between the two it waits for a second call to do both, so that what
/// may happen once in many thousand calls happens in most: what the second one wrote is lost.
#[cfg(feature = "mutation-no-lock")]
mod guard {
    use super::KernelRow;
    use aya_ebpf::{
        btf_maps::{Array, PerCpuArray},
        helpers::{bpf_ktime_get_boot_ns, generated::bpf_loop},
        macros::btf_map,
    };
    use core::ffi::c_void;
    use core::intrinsics::{AtomicOrdering, atomic_xadd};
    use portcullis_common::ledger::Ledger;

    /// Nanoseconds that a call waits for a second one.
    const PATIENCE: u64 = 20_000_000;
    /// Nanoseconds in which the second one is through.
    const THROUGH: u64 = 50_000;
    /// More looks than fit into that time.
    const LOOKS: u32 = 1 << 21;

    /// What was read.
    #[btf_map]
    static DRAFTS: PerCpuArray<Ledger, 1> = PerCpuArray::new();
    /// Calls so far; every second one lets the one before go on.
    #[btf_map]
    static ARRIVALS: Array<u64, 1> = Array::new();

    /// What `look` looks at.
    #[repr(C)]
    struct Wait {
        /// Of this call; 0 when the second one has come.
        number: u64,
        end: u64,
    }

    #[inline(always)]
    pub fn enter(row: &mut KernelRow) {
        let Some(draft) = DRAFTS.get_ptr_mut(0) else {
            return;
        };
        // SAFETY: this processor's element; both are whole.
        unsafe { draft.copy_from_nonoverlapping(&raw const row.ledger, 1) };
        arrive();
        let number = arrivals();
        if number & 1 == 1 {
            // SAFETY: a helper without arguments.
            let end = unsafe { bpf_ktime_get_boot_ns() } + PATIENCE;
            let mut wait = Wait { number, end };
            let context = (&raw mut wait).cast::<c_void>();
            // SAFETY: the function is of the kind that bpf_loop calls, and `wait` outlives the call.
            unsafe { bpf_loop(LOOKS, look as *mut c_void, context, 0) };
            if wait.number == number {
                // Nobody came: the next one must wait again.
                arrive();
            }
        }
        // SAFETY: as above.
        unsafe { draft.copy_to_nonoverlapping(&raw mut row.ledger, 1) };
    }

    /// 1 ends the loop.
    extern "C" fn look(_look: u64, wait: *mut Wait) -> i64 {
        // SAFETY: a helper without arguments.
        let now = unsafe { bpf_ktime_get_boot_ns() };
        // SAFETY: `wait` is the variable in `enter`.
        let wait = unsafe { &mut *wait };
        if wait.number != 0 && arrivals() != wait.number {
            wait.number = 0;
            wait.end = now + THROUGH;
        }
        i64::from(now >= wait.end)
    }

    #[inline(always)]
    fn arrive() {
        if let Some(count) = ARRIVALS.get_ptr_mut(0) {
            // SAFETY: an element of an ARRAY map lives as long as the map and is 8-aligned; everybody adds atomically.
            unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(count, 1) };
        }
    }

    #[inline(always)]
    fn arrivals() -> u64 {
        // SAFETY: as in `arrive`.
        ARRIVALS.get_ptr(0).map_or(0, |count| unsafe { count.read_volatile() })
    }

    #[inline(always)]
    pub fn leave(_row: &mut KernelRow) {}
}

use guard::{enter, leave};
