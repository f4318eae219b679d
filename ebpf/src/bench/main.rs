//! Programs of the benchmarks (`cargo xtask bench filter`, `bench flood`); not part of what is installed.
//!
//! * [`flood`]: run by BPF_PROG_TEST_RUN with live frames, it gives each frame a source and sends it.
//! * [`drop_all`], [`hash`]: what the filter is compared with in the driver.
//! * [`tc_drop`]: drops whatever comes by, alone or behind the filter's classifier.
//! * [`then_drop_filter`] and its like: ask another program by a tail call in a function, and drop whatever it says. So
//!   the cost of a verdict that lets a packet go on is seen without the cost of what comes after.
//! * [`tested_filter`] and its like: the same for a packet that gets a new source each time, for BPF_PROG_TEST_RUN.
//!
//! Invariant: the flood leaves by the interface of the scene and no other.
#![no_std]
#![no_main]
#![allow(missing_docs, reason = "a binary; aya's macros make public items of their own")]

#[path = "../object.rs"]
mod object;
mod scene;

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, TC_ACT_SHOT, xdp_action},
    btf_maps::{Array, HashMap, ProgramArray},
    helpers::{bpf_get_prandom_u32, bpf_ktime_get_ns, bpf_redirect},
    macros::{btf_map, classifier, xdp},
    programs::{TcContext, XdpContext},
};
use core::hint::black_box;

use scene::{Scene, checksum, source_4, source_6, transport};

/// Entries of the kernel's hash that the filter is compared with.
const ENTRIES: usize = 1 << 20;
/// Bytes of a frame that are looked at: Ethernet, IPv4, TCP or UDP, padded to 60.
const FRAME: usize = 60;
/// The same with IPv6.
const FRAME_6: usize = 62;
/// A flood that fell behind by more does not catch up, in nanoseconds.
const SLACK: u64 = 2_000_000;

/// Places of [`JUDGES`].
mod judge {
    pub const DROP: u32 = 0;
    pub const FILTER: u32 = 1;
    pub const HASH: u32 = 2;
}

#[btf_map]
pub static SCENE: Array<Scene, 1> = Array::new();
#[btf_map]
pub static HASH_4: HashMap<[u8; 4], u64, ENTRIES, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();
#[btf_map]
pub static HASH_6: HashMap<[u8; 8], u64, ENTRIES, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();
#[btf_map]
pub static JUDGES: ProgramArray<3> = ProgramArray::new();

/// Gives the frame a source and sends it.
#[xdp(frags)]
pub fn flood(ctx: XdpContext) -> u32 {
    let Some(scene) = SCENE.get_ptr_mut(0) else { return xdp_action::XDP_ABORTED };
    // SAFETY: the map's element, which lives as long as the map; one flood runs at a time.
    let scene = unsafe { &mut *scene };
    if !on_time(scene) {
        return xdp_action::XDP_DROP;
    }
    if !give_source(&ctx, scene) {
        return xdp_action::XDP_ABORTED;
    }
    scene.sent += 1;
    if scene.mute == 1 {
        return xdp_action::XDP_DROP;
    }
    // SAFETY: a helper with plain numbers.
    unsafe { bpf_redirect(scene.interface, 0) as u32 }
}

#[inline(always)]
fn on_time(scene: &mut Scene) -> bool {
    if scene.pace == 0 || !scene.sent.is_multiple_of(scene.burst.max(1)) {
        return true;
    }
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    if now < scene.due {
        return false;
    }
    scene.due = if now - scene.due > SLACK { now } else { scene.due } + scene.pace * scene.burst.max(1);
    true
}

/// Writes a random source of the scene into the frame, and the checksums that go with it.
#[inline(always)]
fn give_source(ctx: &XdpContext, scene: &Scene) -> bool {
    // SAFETY: a helper without arguments.
    let chance = unsafe { bpf_get_prandom_u32() };
    let place = scene.first + ((u64::from(chance) * u64::from(scene.count)) >> 32) as u32;
    // SAFETY: as above.
    let more = unsafe { bpf_get_prandom_u32() };
    let port = if scene.ports == 1 { 1024 | (more & 0x7fff) } else { 0xc000 };
    let start = ctx.data();
    if scene.family == 4 {
        if start + FRAME > ctx.data_end() {
            return false;
        }
        let source = source_4(place);
        let words = (source >> 16) + (source & 0xffff);
        put(start + 24, checksum(scene.header + words));
        put(start + 26, (source >> 16) as u16);
        put(start + 28, source as u16);
        if scene.ports == 1 {
            put(start + 34, port as u16);
        }
        if scene.transport == transport::TCP4 {
            put(start + 50, checksum(scene.covered + words + port));
        }
    } else {
        if start + FRAME_6 > ctx.data_end() {
            return false;
        }
        let net = source_6(place);
        let (high, low) = ((net >> 32) as u32, net as u32);
        put(start + 22, (high >> 16) as u16);
        put(start + 24, high as u16);
        put(start + 26, (low >> 16) as u16);
        put(start + 28, low as u16);
        put(start + 34, (more >> 16) as u16);
        put(start + 36, more as u16);
        if scene.transport == transport::UDP6 {
            let net = (high >> 16) + (high & 0xffff) + (low >> 16) + (low & 0xffff);
            put(start + 60, checksum(scene.covered + net + (more >> 16) + (more & 0xffff)));
        }
    }
    true
}

/// Writes a word in network order.
#[inline(always)]
fn put(at: usize, word: u16) {
    // SAFETY: the callers have seen that the packet is longer; frames begin at even addresses, and so do these words.
    unsafe { *(at as *mut u16) = word.to_be() };
}

/// Drops everything.
#[xdp(frags)]
pub fn drop_all(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

/// Drops what the kernel's own hash holds.
#[xdp(frags)]
pub fn hash(ctx: XdpContext) -> u32 {
    if listed(&ctx) { xdp_action::XDP_DROP } else { xdp_action::XDP_PASS }
}

#[inline(always)]
fn listed(ctx: &XdpContext) -> bool {
    let start = ctx.data();
    if start + FRAME > ctx.data_end() {
        return false;
    }
    // SAFETY: byte 12 lies before the packet's end.
    match u16::from_be(unsafe { *((start + 12) as *const u16) }) {
        // SAFETY: so do bytes 26 to 29.
        0x0800 => HASH_4.get_ptr(unsafe { *((start + 26) as *const [u8; 4]) }).is_some(),
        // SAFETY: so do bytes 22 to 29.
        0x86dd => HASH_6.get_ptr(unsafe { *((start + 22) as *const [u8; 8]) }).is_some(),
        _ => false,
    }
}

/// Drops everything.
#[classifier]
pub fn tc_drop(_ctx: TcContext) -> i32 {
    TC_ACT_SHOT
}

/// Asks a judge; what it answers comes back to who called this function.
#[inline(never)]
fn ask<const JUDGE: u32>(ctx: &XdpContext) -> u32 {
    // SAFETY: no value with a destructor is alive here.
    unsafe { JUDGES.tail_call(ctx, JUDGE) };
    // There is no judge.
    black_box(xdp_action::XDP_ABORTED)
}

macro_rules! judged {
    ($then_drop:ident, $tested:ident, $judge:expr) => {
        #[xdp(frags)]
        pub fn $then_drop(ctx: XdpContext) -> u32 {
            let _ = black_box(ask::<{ $judge }>(&ctx));
            xdp_action::XDP_DROP
        }

        #[xdp(frags)]
        pub fn $tested(ctx: XdpContext) -> u32 {
            let Some(scene) = SCENE.get_ptr(0) else { return xdp_action::XDP_ABORTED };
            // SAFETY: the map's element, which lives as long as the map.
            if !give_source(&ctx, unsafe { &*scene }) {
                return xdp_action::XDP_ABORTED;
            }
            ask::<{ $judge }>(&ctx)
        }
    };
}

judged!(then_drop_drop, tested_drop, judge::DROP);
judged!(then_drop_filter, tested_filter, judge::FILTER);
judged!(then_drop_hash, tested_hash, judge::HASH);
