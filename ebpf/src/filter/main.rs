//! The filter: entry points only. One verdict (`common::filter`), three ways in:
//!
//! * [`filter_tc`]: a classifier, for tcx (Linux 6.6) and clsact, on interfaces with Ethernet headers.
//! * [`filter_raw`]: the same on interfaces without them (tunnels).
//! * [`filter_xdp`]: in the driver, or generic.
//!
//! And [`filter_sweep`], which the agent runs once: it starts the timer that ends leases.
//!
//! Invariants: a packet is read and judged, never changed; what is let through goes on to whoever else looks at it; no
//! packet can make a program end elsewhere than at its verdict.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features, reason = "core_intrinsics: atomic_xadd, as in the gate")]
#![allow(missing_docs, reason = "a binary; aya's macros make public items of their own")]

mod data;
mod fast;
mod judge;
mod maps;
#[path = "../object.rs"]
mod object;
mod quick;
mod sample;
mod sweep;
mod throttle;

use core::hint::black_box;

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
    helpers::bpf_xdp_get_buff_len,
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use portcullis_common::filter::packet;

use data::Data;
use judge::Seen;
use quick::Quick;

/// Drops, or leaves the packet to the next program.
#[classifier]
pub fn filter_tc(ctx: TcContext) -> i32 {
    match quick::judge(&Data::of_skb(&ctx), ctx.len()) {
        Quick::Drop => return act(true),
        Quick::Pass => return act(false),
        Quick::Ask => {}
    }
    // Read anew: the verifier then walks on once, not from each place in the headers at which that was said.
    let ctx = TcContext::new(black_box(ctx.skb.skb));
    let data = Data { start: ctx.data(), end: ctx.data_end() };
    let seen = seen_of(&ctx, 0);
    act(judge::drops(&data, packet::ethernet(&data), &seen))
}

/// The same for packets that begin with their IP header.
#[classifier]
pub fn filter_raw(ctx: TcContext) -> i32 {
    let data = Data::of_skb(&ctx);
    let seen = seen_of(&ctx, 1);
    act(judge::drops(&data, packet::raw(&data), &seen))
}

/// Drops or passes in the driver.
#[xdp(frags)]
pub fn filter_xdp(ctx: XdpContext) -> u32 {
    let data = Data { start: ctx.data(), end: ctx.data_end() };
    match quick::judge(&data, (data.end - data.start) as u32) {
        Quick::Drop => return xdp_action::XDP_DROP,
        Quick::Pass => return xdp_action::XDP_PASS,
        Quick::Ask => {}
    }
    // As in the classifier.
    let ctx = XdpContext::new(black_box(ctx.ctx));
    let data = Data { start: ctx.data(), end: ctx.data_end() };
    // SAFETY: the context is the kernel's, whole and read only.
    let interface = unsafe { (*ctx.ctx).ingress_ifindex };
    // SAFETY: a helper that reads the length of the context.
    let length = unsafe { bpf_xdp_get_buff_len(ctx.ctx) } as u32;
    let seen = Seen { interface, length, packets: 1, raw: 0 };
    if judge::drops(&data, packet::ethernet(&data), &seen) {
        xdp_action::XDP_DROP
    } else {
        xdp_action::XDP_PASS
    }
}

/// Starts the sweep. No packet goes through it.
#[classifier]
pub fn filter_sweep(_ctx: TcContext) -> i32 {
    sweep::start() as i32
}

#[inline(always)]
fn act(drops: bool) -> i32 {
    if drops { TC_ACT_SHOT } else { TC_ACT_UNSPEC }
}

#[inline(always)]
fn seen_of(ctx: &TcContext, raw: u32) -> Seen {
    // SAFETY: the context is the kernel's, whole and read only.
    let interface = unsafe { (*ctx.skb.skb).ifindex };
    // SAFETY: as above.
    let packets = unsafe { (*ctx.skb.skb).gso_segs }.max(1);
    Seen { interface, length: ctx.len(), packets, raw }
}
