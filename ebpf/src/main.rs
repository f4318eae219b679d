//! The kernel side of Portcullis: entry points only.
//!
//! * [`gate`]: called with `BPF_PROG_TEST_RUN`, never attached; request and answer travel in the "packet".
//! * [`gate_tc`]: the same as a classifier, loaded in its place before Linux 5.18, which changes its own code at every
//!   test run of an XDP program.
//! * [`exit`]: `tp_btf/sched_process_exit`, ends the reservations of tasks that die.
//!
//! Invariants: nothing here trusts what is in the packet beyond its length; no call happens under a spin lock (Linux 6.1
//! allows none, and the build checks the object); every event is written after the unlock.
#![no_std]
#![no_main]
// `AtomicU64::fetch_add` does not exist for this target in the precompiled core; the instruction does.
#![feature(core_intrinsics)]
#![allow(internal_features, reason = "core_intrinsics, see above")]
#![allow(missing_docs, reason = "a binary; aya's macros make public items of their own")]

mod exit;
mod gate;
mod maps;
mod object;
mod output;
mod row;
mod sources;

use aya_ebpf::{
    bindings::xdp_action,
    macros::{btf_tracepoint, classifier, xdp},
    programs::{BtfTracePointContext, TcContext, XdpContext},
};
use portcullis_common::abi::Packet;

/// Answers with XDP_PASS, or XDP_ABORTED where the packet is too short to hold a call.
#[xdp]
pub fn gate(ctx: XdpContext) -> u32 {
    let start = ctx.data();
    if start + size_of::<Packet>() > ctx.data_end() {
        return xdp_action::XDP_ABORTED;
    }
    gate::answer(start as *mut Packet);
    xdp_action::XDP_PASS
}

/// Answers with the same words as [`gate`]: in a test run they are numbers only.
#[classifier]
pub fn gate_tc(ctx: TcContext) -> i32 {
    let start = ctx.data();
    if start + size_of::<Packet>() > ctx.data_end() {
        return xdp_action::XDP_ABORTED as i32;
    }
    gate::answer(start as *mut Packet);
    xdp_action::XDP_PASS as i32
}

/// Every task's end comes by here; those without a reservation leave after one hash lookup.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn exit(_ctx: BtfTracePointContext) -> i32 {
    exit::ended(false);
    0
}

/// The same, for reservations at pairs.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn exit_pair(_ctx: BtfTracePointContext) -> i32 {
    exit::ended(true);
    0
}
