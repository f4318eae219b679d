//! Who is locked out starts no su, login or sudo.
//!
//! Two ways, of which the first that comes wins: `bprm_check_security` refuses before the program is there; the exec
//! tracepoint kills it before its first instruction. The second always stands behind the first, so nothing depends on
//! whether this kernel calls its LSM programs.
//!
//! Invariants: without the word of the agent, or the gate's table, nobody is kept from anything; nobody outside the
//! agent's namespaces is; root and the break-glass account never are; a refusal ends with its lease, agent or no agent.

use aya_ebpf::{
    bindings::BPF_RB_FORCE_WAKEUP,
    helpers::{
        bpf_get_current_task, bpf_get_current_uid_gid, bpf_ktime_get_boot_ns,
        generated::{bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_send_signal},
    },
};
use portcullis_common::observer::{
    File, Process, Scope,
    denial::{self, scope},
    flag, kind, stat,
};

use crate::{
    kernel::{Place, Somewhere, at},
    maps::{ACTORS, BLANK, OBSERVED, OBSERVER_SCOPE, WATCHED, count},
    told,
};

const EPERM: i32 = 1;
const SIGKILL: u32 = 9;

/// Whether who is behind the current task may start no guarded program.
#[inline(always)]
fn is_locked_out(scope: &Scope, key: u64) -> bool {
    let uid = bpf_get_current_uid_gid() as u32;
    let login = told::login_of(Somewhere(key));
    if denial::is_spared(scope.spared, uid, login) {
        return false;
    }
    // SAFETY: the agent replaces whole u64 values.
    let Some(until) = (unsafe { ACTORS.get(u64::from(denial::actor(uid, login))) }) else { return false };
    // SAFETY: a helper without arguments.
    denial::is_locked_out(*until, unsafe { bpf_ktime_get_boot_ns() })
}

/// Kills the guarded program that the current task has just become, if its user is locked out: `flag::DENIED`, or 0.
#[inline(always)]
pub fn kill(scope: &Scope, guarded: u32, key: u64) -> u32 {
    if scope.on & scope::DENY == 0 || guarded == 0 || !is_locked_out(scope, key) {
        return 0;
    }
    // SAFETY: a signal to the current process.
    if unsafe { bpf_send_signal(SIGKILL) } != 0 {
        return 0;
    }
    count(stat::DENIED);
    flag::DENIED
}

/// Whether the current task may start `program`: 0, or -EPERM.
#[inline(always)]
pub fn check(program: Place) -> i32 {
    let Some(scope) = OBSERVER_SCOPE.get(0) else { return 0 };
    if scope.on & scope::DENY == 0 {
        return 0;
    }
    let file = told::file_of(program);
    // SAFETY: the agent replaces whole values.
    let Some(watch) = (unsafe { WATCHED.get(file) }) else { return 0 };
    let (number, guarded) = (watch.program, watch.guarded);
    // SAFETY: a helper without arguments.
    let task = Place::new(unsafe { bpf_get_current_task_btf() }.cast());
    // SAFETY: a helper without arguments.
    let key = unsafe { bpf_get_current_task() };
    if guarded == 0 || !told::is_mounted_here(scope, task) || !is_locked_out(scope, key) {
        return 0;
    }
    let Some(pid) = told::pid_here(scope) else { return 0 };
    count(stat::DENIED);
    refused(number, file, pid, key, program);
    -EPERM
}

/// Tells of a program that was refused.
#[inline(always)]
fn refused(number: u32, file: File, pid: u32, key: u64, program: Place) {
    let Some(blank) = BLANK.get_ptr(0) else { return };
    let Some(mut slot) = OBSERVED.reserve(0) else {
        count(stat::LOST_STARTS);
        return;
    };
    let row: *mut Process = slot.as_mut_ptr();
    // SAFETY: the helper writes the whole of what was reserved.
    let _ = unsafe { bpf_probe_read_kernel(row.cast(), size_of::<Process>() as u32, blank.cast()) };
    told::describe(row, file, number, pid, key, program.number(at!(filename)));
    // SAFETY: reserved above, and ours until it is submitted.
    unsafe { (*row).kind = kind::DENIED };
    slot.submit(u64::from(BPF_RB_FORCE_WAKEUP));
}
