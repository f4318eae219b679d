//! What is held to a rate, per packet: which throttles are for it, and whether each lets it pass.
//!
//! Invariants: a throttle's numbers change under its lock only; the clock is read and shares are looked up before; a
//! lease that has ended holds nothing back, agent or no agent; nothing is looked up where nothing is throttled.

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, bpf_spin_lock},
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, lpm_trie::Key},
    helpers::{bpf_for_each_map_elem, bpf_spin_lock as lock, bpf_spin_unlock as unlock},
    macros::btf_map,
};
use core::ffi::c_void;
use portcullis_common::filter::{
    Packet,
    fast::TURNS,
    limit::{Load, Meter, Share},
    packet::{Opening, opening},
    throttle::{
        CHAIN, Chain, Counts, FLOW_FRESH, FLOW_IDLE, MAX_FLOWS, MAX_SHARES, MAX_THROTTLES, Throttle, Weight,
        flow_key, share_key,
    },
};

use crate::{
    data::{Data, launder},
    judge::Seen,
    maps::{key_4, key_6},
    sweep::FAST_TURNS,
};

const MOST: usize = MAX_THROTTLES as usize;
const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;
// By network, by port, by interface: the slots of a packet's chains, and the end of each.
const _: () = assert!(3 * (CHAIN + 1) <= TURNS as usize);

/// `throttle::Throttle` with the lock under the name by which the verifier knows it.
#[repr(C)]
pub struct KernelThrottle {
    lock: bpf_spin_lock,
    unit: u32,
    until: u64,
    rule: u32,
    reason: u32,
    target: [u8; 24],
    meter: Meter,
}

const _: () = assert!(size_of::<KernelThrottle>() == size_of::<Throttle>());

#[btf_map]
pub static THROTTLES: Array<KernelThrottle, MOST> = Array::new();
#[btf_map]
pub static THROTTLE_COUNTS: Array<Counts, 1> = Array::new();
#[btf_map]
pub static THROTTLE_NETS_4: LpmTrie<[u8; 8], Chain, MOST> = LpmTrie::new();
#[btf_map]
pub static THROTTLE_NETS_6: LpmTrie<[u8; 16], Chain, MOST> = LpmTrie::new();
#[btf_map]
pub static THROTTLE_PORTS: HashMap<u32, Chain, MOST, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub static THROTTLE_LINKS: HashMap<u32, Chain, MOST, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub static THROTTLE_SHARES: LruHashMap<[u64; 2], Share, { MAX_SHARES as usize }> = LruHashMap::new();
#[btf_map]
pub static THROTTLE_FLOWS: LruHashMap<[u64; 3], u64, { MAX_FLOWS as usize }> = LruHashMap::new();

/// The number of the throttle that holds the packet back; 0: it passes.
#[inline(always)]
pub fn holds_back(data: &Data, packet: Packet, seen: &Seen, now: u64) -> u32 {
    let Some(counts) = THROTTLE_COUNTS.get(0) else { return 0 };
    let opening = opening(data, packet);
    let flow = flow_key(packet.source, opening.from, packet.port, packet.protocol);
    let new = u64::from(counts.flows != 0 && is_new(flow, opening, packet.protocol, now));
    let weight = Weight {
        packets: u64::from(seen.packets),
        bytes: u64::from(seen.length),
        syns: launder(u64::from(opening.syn)),
        flows: launder(new),
    };
    let chain = launder(by_net(counts, packet));
    let next = launder(if counts.ports == 0 { 0 } else { word(THROTTLE_PORTS.get_ptr(packet.port)) });
    let last = launder(if counts.links == 0 { 0 } else { word(THROTTLE_LINKS.get_ptr(seen.interface)) });
    if chain | next | last != 0 {
        let [who, number] = share_key(0, packet.source);
        let (who, number) = (launder(who), launder(number));
        let mut asked = Asked { chain, next, last, who, number, weight, now, rule: 0 };
        let context = (&raw mut asked).cast::<c_void>();
        let map = (&raw const FAST_TURNS).cast_mut().cast::<c_void>();
        // SAFETY: a function of the signature of such loops, which ends before this one does.
        unsafe { bpf_for_each_map_elem(map, ask as *mut c_void, context, 0) };
        // SAFETY: the loop has written it, by the pointer that the compiler lost sight of.
        let rule = unsafe { (&raw const asked.rule).read_volatile() };
        if rule != 0 {
            return rule as u32;
        }
    }
    if launder(new) != 0 {
        // Without room it is a new one again.
        let _ = THROTTLE_FLOWS.insert(flow, now, 0);
    }
    0
}

/// A chain as a number, its first slot lowest; 0: none.
#[inline(always)]
fn word(chain: Option<*const Chain>) -> u64 {
    // SAFETY: a value of a map: 8 bytes, 8-aligned; the agent writes it in one step.
    chain.map_or(0, |chain| unsafe { chain.cast::<u64>().read_volatile() })
}

#[inline(always)]
fn by_net(counts: &Counts, packet: Packet) -> u64 {
    let (four, six) = (counts.nets_4 != 0, counts.nets_6 != 0);
    let chain = if packet.source.family == 4 {
        if four { THROTTLE_NETS_4.get(&Key::new(32, key_4(packet.source))) } else { None }
    } else if six {
        THROTTLE_NETS_6.get(&Key::new(128, key_6(packet.source)))
    } else {
        None
    };
    word(chain.map(core::ptr::from_ref))
}

/// What the loop over a packet's throttles goes by. A loop by a helper: the verifier walks a turn once, not each of them
/// after each other.
#[repr(C)]
struct Asked {
    chain: u64,
    next: u64,
    last: u64,
    who: u64,
    number: u64,
    weight: Weight,
    now: u64,
    rule: u64,
}

/// One turn: asks the next throttle. 1 ends the loop.
extern "C" fn ask(_map: *mut c_void, _key: *mut u32, _turn: *mut u32, asked: *mut Asked) -> i64 {
    // SAFETY: the caller's, alone with it.
    let asked = unsafe { &mut *asked };
    let slot = asked.chain as u32 & 0xffff;
    asked.chain >>= 16;
    if slot == 0 {
        (asked.chain, asked.next, asked.last) = (asked.next, asked.last, 0);
        return i64::from(asked.chain | asked.next == 0);
    }
    asked.rule = u64::from(in_slot(slot, asked));
    i64::from(asked.rule != 0)
}

/// Asks one throttle.
#[inline(always)]
fn in_slot(slot: u32, asked: &Asked) -> u32 {
    let Some(throttle) = THROTTLES.get_ptr_mut(slot) else { return 0 };
    // SAFETY: an element of an ARRAY, which lives as long as the map; what changes does so under its lock.
    let throttle = unsafe { &mut *throttle };
    let units = asked.weight.of(throttle.unit);
    if units == 0 || throttle.until <= asked.now {
        return 0;
    }
    let rule = throttle.rule;
    let key = [u64::from(slot) << 32 | asked.who, asked.number];
    // The rate is held even when the kernel has no room for one more source.
    let Some(share) = share_of(key) else { return rule };
    let (now, load) = (asked.now, Load { units, packets: asked.weight.packets, bytes: asked.weight.bytes });
    // SAFETY: a value of a map; who changes this throttle's shares holds its lock.
    let share = unsafe { &mut *share };
    // SAFETY: the lock is a field of a map value, initialised by the kernel.
    unsafe { lock(&raw mut throttle.lock) };
    let passes = throttle.meter.passes(share, now, load);
    // SAFETY: taken above on the same path; the verifier proves it.
    unsafe { unlock(&raw mut throttle.lock) };
    if passes { 0 } else { rule }
}

/// The share of the packet's source; none where there is no room for one.
#[inline(always)]
fn share_of(key: [u64; 2]) -> Option<*mut Share> {
    let found = THROTTLE_SHARES.get_ptr_mut(key);
    if found.is_some() {
        return found;
    }
    let _ = THROTTLE_SHARES.insert(key, Share::default(), 0);
    THROTTLE_SHARES.get_ptr_mut(key)
}

/// Whether the packet begins a flow that was not seen of late.
#[inline(always)]
fn is_new(flow: [u64; 3], opening: Opening, protocol: u32, now: u64) -> bool {
    const TCP: u32 = 6;
    if protocol == TCP && !opening.syn {
        return false;
    }
    let Some(last) = THROTTLE_FLOWS.get_ptr_mut(flow) else { return true };
    // SAFETY: a value of a map, a whole word.
    let age = now.saturating_sub(unsafe { last.read_volatile() });
    if age > FLOW_IDLE {
        return true;
    }
    if age > FLOW_FRESH {
        // SAFETY: as above.
        unsafe { last.write_volatile(now) };
    }
    false
}
