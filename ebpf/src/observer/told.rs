//! From a start to an end: the row of a watched program in `RUNNING`, and what is told of it.
//!
//! Invariants: the row is its task's alone and is filled in place; what is not told is counted.

use aya_ebpf::{
    bindings::{BPF_RB_FORCE_WAKEUP, bpf_pidns_info},
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task,
        bpf_get_current_uid_gid, bpf_ktime_get_boot_ns,
        generated::{
            bpf_get_ns_current_pid_tgid, bpf_probe_read_kernel, bpf_probe_read_kernel_str,
            bpf_probe_read_user,
        },
    },
};
use portcullis_common::observer::{
    ANCESTORS, ARGUMENT_BYTES, Ancestor, File, NO_LOGIN, PATH_BYTES, Process, Scope, flag, kind,
    layout::ABSENT, stat,
};

use crate::{
    deny,
    kernel::{Place, Somewhere, at},
    maps::{BLANK, OBSERVED, OBSERVER_SCOPE, RUNNING, SIEVE, WATCHED, WATCHED_NAMES, count, may_run, runs},
};

/// A program was started by the current task. Nearly all leave by the sieve: some loads, no call.
#[inline(always)]
pub fn started(task: Place, program: Place) {
    let (Some(scope), Some(sieve)) = (OBSERVER_SCOPE.get(0), SIEVE.get(0)) else { return };
    if scope.on == 0 {
        return;
    }
    let passes = !sieve.may_file(program.to(at!(file)).to(at!(f_inode)).number(at!(i_ino)))
        && !sieve.may_name(task.number(at!(comm)))
        && !may_run(task.number(at!(pid)))
        && !may_run(task.to(at!(real_parent)).number(at!(pid)));
    if passes {
        return;
    }
    let file = file_of(program);
    // SAFETY: a helper without arguments.
    let key = unsafe { bpf_get_current_task() };
    // Elsewhere a file is what it is here, but a name may be a container's own su, and nobody is kept from anything.
    // SAFETY: the agent replaces whole values.
    let (number, guarded) = match unsafe { WATCHED.get(file) } {
        Some(watch) => (watch.program, if is_mounted_here(scope, task) { watch.guarded } else { 0 }),
        None => {
            pass_by(task, key);
            if !is_mounted_here(scope, task) || !named() {
                return;
            }
            (0, 0)
        }
    };
    watched(scope, file, number, guarded, key, program);
}

/// Whether a task is in the mount namespace of the agent or of process 1. Many a service has its own (PrivateTmp=), with
/// the same files in it: what is watched by its file is watched there, too.
#[inline(always)]
pub fn is_mounted_here(scope: &Scope, task: Place) -> bool {
    let mounts: u32 = task.to(at!(nsproxy)).to(at!(mnt_ns)).number(at!(mnt_inum));
    let [first, second] = scope.mounts;
    mounts == first || mounts == second
}

/// The file that is executed.
#[inline(always)]
pub fn file_of(program: Place) -> File {
    let inode = program.to(at!(file)).to(at!(f_inode));
    File { inode: inode.number(at!(i_ino)), device: inode.to(at!(i_sb)).number(at!(s_dev)), pad: 0 }
}

/// Whether the current task has the name of a watched program.
#[inline(always)]
fn named() -> bool {
    let Ok(name) = bpf_get_current_comm() else { return false };
    // SAFETY: the value is not read.
    unsafe { WATCHED_NAMES.get(name) }.is_some()
}

/// Something else was started: by a watched program, or in its place?
#[inline(always)]
fn pass_by(task: Place, key: u64) {
    if let Some(row) = RUNNING.get_ptr_mut(key) {
        finish(row, key, kind::BECAME);
        return;
    }
    let parent: u64 = task.number(at!(real_parent));
    if let Some(row) = RUNNING.get_ptr_mut(parent) {
        // SAFETY: a row that was found in this run of the program.
        let row = unsafe { &mut *row };
        let cred = Somewhere(key).to(at!(cred));
        let (real, effective): (u32, u32) = (cred.number(at!(uid)), cred.number(at!(euid)));
        if real == effective {
            row.flags |= flag::SERVED;
        }
    }
}

/// The current process's id in the pid namespace that is observed; none outside of it.
#[inline(always)]
pub fn pid_here(scope: &Scope) -> Option<u32> {
    let mut ids = bpf_pidns_info { pid: 0, tgid: 0 };
    // SAFETY: the helper writes our own variable.
    let outside = unsafe {
        bpf_get_ns_current_pid_tgid(
            scope.device,
            scope.pids,
            &raw mut ids,
            size_of::<bpf_pidns_info>() as u32,
        )
    };
    if outside == 0 { Some(ids.tgid) } else { None }
}

/// Makes the row of a watched program and tells of it; kills it first, where it must not run.
#[inline(always)]
fn watched(scope: &Scope, file: File, number: u32, guarded: u32, key: u64, program: Place) {
    let Some(pid) = pid_here(scope) else { return };
    let denied = deny::kill(scope, guarded, key);
    let Some(blank) = BLANK.get(0) else { return };
    let born: u64 = Somewhere(key).to(at!(group_leader)).number(at!(start_boottime));
    // SAFETY: a row that was found in this run of the program.
    let again = RUNNING.get_ptr(key).is_some_and(|row| unsafe { (*row).born } == born);
    if !again {
        runs(number_of_current(), 1);
    }
    if RUNNING.insert(key, blank, 0).is_err() {
        if !again {
            runs(number_of_current(), -1);
        }
        count(stat::NO_ROOM);
        return;
    }
    let Some(row) = RUNNING.get_ptr_mut(key) else { return };
    fill(row, file, number, pid, key, program.number(at!(filename)));
    // SAFETY: the row is this task's alone, and lives until its exit.
    unsafe { (*row).flags |= denied };
    tell(row, stat::STARTS);
}

/// The login uid of a task.
#[inline(always)]
pub fn login_of(task: Somewhere) -> u32 {
    if at!(loginuid) == ABSENT { NO_LOGIN } else { task.number(at!(loginuid)) }
}

/// Fills in a row, arguments as well.
#[inline(always)]
fn fill(row: *mut Process, file: File, number: u32, pid: u32, key: u64, path: u64) {
    describe(row, file, number, pid, key, path);
    arguments(row, Somewhere(key));
}

#[allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "one operation: the fields of one record, by one pointer"
)]
#[inline(always)]
pub fn describe(row: *mut Process, file: File, number: u32, pid: u32, key: u64, path: u64) {
    let task = Somewhere(key);
    let leader = task.to(at!(group_leader));
    let login = login_of(task);
    let session = if at!(sessionid) == ABSENT { NO_LOGIN } else { task.number(at!(sessionid)) };
    // SAFETY: helpers without arguments.
    let (now, cgroup) = unsafe { (bpf_ktime_get_boot_ns(), bpf_get_current_cgroup_id()) };
    let comm = bpf_get_current_comm().unwrap_or([0; 16]);
    // SAFETY: the row is this task's alone, and lives until its exit.
    unsafe {
        (*row).started = now;
        (*row).born = leader.number(at!(start_boottime));
        (*row).cgroup = cgroup;
        (*row).file = file;
        (*row).kind = kind::START;
        (*row).flags = if number == 0 { flag::BY_NAME } else { 0 };
        (*row).program = number;
        (*row).pid = pid;
        (*row).uid = bpf_get_current_uid_gid() as u32;
        (*row).login = login;
        (*row).session = session;
        (*row).comm = comm;
        let _ = bpf_probe_read_kernel_str((&raw mut (*row).path).cast(), PATH_BYTES as u32, path as *const _);
    }
    terminal(row, task);
    ancestors(row, task);
}

#[inline(always)]
fn terminal(row: *mut Process, task: Somewhere) {
    if at!(tty) == ABSENT || at!(tty_name) == ABSENT {
        return;
    }
    let tty = task.to(at!(signal)).to(at!(tty));
    if tty.0 != 0 {
        let name = tty.0.wrapping_add(u64::from(at!(tty_name)));
        // SAFETY: a field of the row, which is this task's alone.
        let place = unsafe { &raw mut (*row).tty };
        // SAFETY: the helper writes at most that field, and reads any address.
        let _ = unsafe { bpf_probe_read_kernel_str(place.cast(), 32, name as *const _) };
    }
}

#[allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "one operation: the fields of one record, by one pointer"
)]
#[inline(always)]
fn arguments(row: *mut Process, task: Somewhere) {
    let memory = task.to(at!(mm));
    let (start, end): (u64, u64) = (memory.number(at!(arg_start)), memory.number(at!(arg_end)));
    let mut length = end.wrapping_sub(start);
    if length > ARGUMENT_BYTES as u64 {
        length = ARGUMENT_BYTES as u64;
    }
    let length = core::hint::black_box(length as u32);
    if length == 0 || length > ARGUMENT_BYTES as u32 {
        return;
    }
    // SAFETY: the helper writes at most that field, and reads the program's own memory.
    unsafe {
        let place = (&raw mut (*row).arguments).cast();
        if bpf_probe_read_user(place, length, start as *const _) == 0 {
            (*row).argument_bytes = length;
        }
    }
}

#[allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "one operation: the fields of one record, by one pointer"
)]
#[inline(always)]
fn ancestors(row: *mut Process, task: Somewhere) {
    let mut above = task;
    let depth: u32 = task.to(at!(thread_pid)).number(at!(level));
    // SAFETY: a field of the row, which is this task's alone.
    let list = unsafe { (&raw mut (*row).ancestors).cast::<Ancestor>() };
    let mut place = 0;
    while place < ANCESTORS {
        above = above.to(at!(group_leader)).to(at!(real_parent)).to(at!(group_leader));
        let one = list.wrapping_add(place);
        // Whoever made the namespace is nobody in it.
        if above.to(at!(thread_pid)).number::<u32>(at!(level)) != depth {
            return;
        }
        // SAFETY: below ANCESTORS.
        unsafe {
            (*one).pid = pid_of(above);
            (*one).uid = above.to(at!(cred)).number(at!(uid));
            let name = above.0.wrapping_add(u64::from(at!(comm))) as *const core::ffi::c_void;
            let _ = bpf_probe_read_kernel((&raw mut (*one).comm).cast(), 16, name);
        }
        place += 1;
    }
}

/// A task's pid in its own, innermost namespace.
#[inline(always)]
fn pid_of(task: Somewhere) -> u32 {
    let pid = task.to(at!(thread_pid));
    let level: u32 = pid.number(at!(level));
    let number = u64::from(level & 31) * u64::from(at!(upid_bytes)) + u64::from(at!(numbers));
    Somewhere(pid.0.wrapping_add(number)).number(at!(nr))
}

/// The current task's pid in the machine's own namespace.
#[inline(always)]
fn number_of_current() -> u32 {
    bpf_get_current_pid_tgid() as u32
}

/// A task ended.
#[inline(always)]
pub fn ended(task: Place) {
    if !may_run(task.number(at!(pid))) {
        return;
    }
    // The tracepoint's argument is the same task, but a pointer, which the verifier lets nobody use as a key.
    // SAFETY: a helper without arguments.
    let key = unsafe { bpf_get_current_task() };
    if let Some(row) = RUNNING.get_ptr_mut(key) {
        finish(row, key, kind::END);
    }
}

#[allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "one operation: the fields of one record, by one pointer"
)]
#[inline(always)]
fn finish(row: *mut Process, key: u64, what: u32) {
    let task = Somewhere(key);
    let born: u64 = task.to(at!(group_leader)).number(at!(start_boottime));
    // SAFETY: the row is this task's alone, unless it was left by another at the same address.
    unsafe {
        if (*row).born == born {
            (*row).ended = bpf_ktime_get_boot_ns();
            (*row).kind = what;
            (*row).status = task.number(at!(exit_code));
            (*row).ran = task.number(at!(ran));
            (*row).waited = task.number(at!(waited));
            (*row).children = task.to(at!(signal)).number(at!(cmin_flt));
            tell(row, stat::ENDS);
        }
    }
    if RUNNING.remove(key).is_ok() {
        runs(number_of_current(), -1);
    }
}

/// Writes a row into the ring buffer; `which` counts it, and two further on what found no room.
#[inline(always)]
fn tell(row: *const Process, which: u32) {
    // SAFETY: a whole row.
    let whole: &Process = unsafe { &*row };
    let told = OBSERVED.output(whole, u64::from(BPF_RB_FORCE_WAKEUP));
    count(if told.is_ok() { which } else { which + stat::LOST_STARTS });
}
