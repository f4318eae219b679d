//! The observer: entry points only. Which logon programs are started, by whom, and how they end.
//!
//! * [`observe_exec`] at `tp_btf/sched_process_exec`.
//! * [`observe_exit`] at `tp_btf/sched_process_exit`.
//! * [`observe_check`] at `lsm/bprm_check_security`, loaded only where who is locked out may start no su.
//!
//! Invariants: it only looks, but for [`deny`]; what nobody asked for leaves after a few loads and lookups (docs/observer.md has the cost);
//! nothing outside the agent's namespaces is told.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features, reason = "core_intrinsics: atomic_xadd, as in the gate")]
#![allow(missing_docs, reason = "a binary; aya's macros make public items of their own")]

mod deny;
mod kernel;
mod maps;
#[path = "../object.rs"]
mod object;
mod told;

use aya_ebpf::{
    macros::{btf_tracepoint, lsm},
    programs::{BtfTracePointContext, LsmContext},
};

use kernel::Place;

/// A process has become another program: task, its pid before, what is executed.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn observe_exec(ctx: BtfTracePointContext) -> i32 {
    told::started(Place::new(ctx.arg(0)), Place::new(ctx.arg(2)));
    0
}

/// A task ends; those that are no watched program leave after three loads.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn observe_exit(ctx: BtfTracePointContext) -> i32 {
    told::ended(Place::new(ctx.arg(0)));
    0
}

/// A program is about to be started: 0, or -EPERM.
#[lsm(hook = "bprm_check_security")]
pub fn observe_check(ctx: LsmContext) -> i32 {
    deny::check(Place::new(ctx.arg(0)))
}
