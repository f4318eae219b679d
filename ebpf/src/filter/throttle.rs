//! What is held to a rate, per packet: which throttles are for it, and whether each lets it pass.
//!
//! Invariants: a throttle's numbers change under its lock only; the clock is read and shares are looked up before; a
//! lease that has ended holds nothing back, agent or no agent; nothing is looked up where nothing is throttled.

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, bpf_spin_lock},
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, lpm_trie::Key},
    helpers::{bpf_spin_lock as lock, bpf_spin_unlock as unlock},
    macros::btf_map,
};
use core::hint::black_box;
use portcullis_common::filter::{
    Packet,
    limit::{Load, Meter, Share},
    packet::{Opening, opening},
    throttle::{
        CHAIN, Chain, Counts, FLOW_FRESH, FLOW_IDLE, MAX_FLOWS, MAX_SHARES, MAX_THROTTLES, Throttle, flow_key,
        share_key, unit,
    },
};

use crate::{
    data::{Data, launder},
    judge::Seen,
    maps::{key_4, key_6},
};

const MOST: usize = MAX_THROTTLES as usize;
const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;
/// Chains of a packet: by network, by port, by interface.
const CHAINS: usize = 3;

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

/// What a packet counts as.
struct Weighed {
    packets: u64,
    bytes: u64,
    syn: u64,
    flow: u64,
}

/// The number of the throttle that holds the packet back; 0: it passes.
#[inline(always)]
pub fn holds_back(data: &Data, packet: Packet, seen: &Seen, now: u64) -> u32 {
    let Some(counts) = THROTTLE_COUNTS.get(0) else { return 0 };
    let opening = opening(data, packet);
    let flow = flow_key(packet.source, opening.from, packet.port, packet.protocol);
    let fresh = counts.flows != 0 && is_new(flow, opening, packet.protocol, now);
    let weighed = Weighed {
        packets: u64::from(seen.packets),
        bytes: u64::from(seen.length),
        syn: launder(u64::from(opening.syn)),
        flow: launder(u64::from(fresh)),
    };
    let mut turn = 0;
    while turn < CHAINS {
        let found = match turn {
            0 => by_net(counts, packet),
            1 if counts.ports != 0 => THROTTLE_PORTS.get_ptr(packet.port),
            2 if counts.links != 0 => THROTTLE_LINKS.get_ptr(seen.interface),
            _ => None,
        };
        if let Some(chain) = found {
            let rule = in_chain(chain, packet, &weighed, now);
            if rule != 0 {
                return rule;
            }
        }
        turn += 1;
    }
    if weighed.flow != 0 {
        // Without room it is a new one again.
        let _ = THROTTLE_FLOWS.insert(flow, now, 0);
    }
    0
}

#[inline(always)]
fn by_net(counts: &Counts, packet: Packet) -> Option<*const Chain> {
    let chain = if packet.source.family == 4 {
        if counts.nets_4 == 0 {
            return None;
        }
        THROTTLE_NETS_4.get(&Key::new(32, key_4(packet.source)))
    } else {
        if counts.nets_6 == 0 {
            return None;
        }
        THROTTLE_NETS_6.get(&Key::new(128, key_6(packet.source)))
    };
    chain.map(core::ptr::from_ref)
}

/// Asks the throttles of a chain, one after the other.
#[inline(always)]
fn in_chain(chain: *const Chain, packet: Packet, weighed: &Weighed, now: u64) -> u32 {
    let mut place = 0;
    while place < CHAIN {
        // SAFETY: a value of a map, and `place` is less than it has slots.
        let slot = unsafe { chain.cast::<u16>().add(place) };
        // SAFETY: as above; the agent writes whole words.
        let slot = u32::from(unsafe { slot.read_volatile() });
        if slot == 0 {
            return 0;
        }
        let rule = in_slot(slot, packet, weighed, now);
        if rule != 0 {
            return rule;
        }
        place += 1;
    }
    0
}

/// Asks one throttle.
#[inline(always)]
fn in_slot(slot: u32, packet: Packet, weighed: &Weighed, now: u64) -> u32 {
    let Some(throttle) = THROTTLES.get_ptr_mut(slot) else { return 0 };
    // SAFETY: an element of an ARRAY, which lives as long as the map; what changes does so under its lock.
    let throttle = unsafe { &mut *throttle };
    let units = match throttle.unit {
        unit::PACKETS => weighed.packets,
        unit::BYTES => weighed.bytes,
        unit::SYNS => weighed.syn,
        unit::FLOWS => weighed.flow,
        _ => 0,
    };
    let units = launder(units);
    let live = cfg!(feature = "mutation-no-throttle-end") || throttle.until > now;
    if units == 0 || !live {
        return 0;
    }
    let load = Load { units, packets: weighed.packets, bytes: weighed.bytes };
    let share = if throttle.meter.shared != 0 { share_of(slot, packet) } else { None };
    let rule = throttle.rule;
    let passes = match share {
        Some(share) => {
            // SAFETY: a value of a map; who changes this throttle's shares holds its lock.
            let share = unsafe { &mut *share };
            // SAFETY: the lock is a field of a map value, initialised by the kernel.
            unsafe { lock(&raw mut throttle.lock) };
            let passes = throttle.meter.passes(Some(share), now, load);
            // SAFETY: taken above on the same path; the verifier proves it.
            unsafe { unlock(&raw mut throttle.lock) };
            passes
        }
        None => {
            // SAFETY: as above.
            unsafe { lock(&raw mut throttle.lock) };
            let passes = throttle.meter.passes(None, now, load);
            // SAFETY: as above.
            unsafe { unlock(&raw mut throttle.lock) };
            passes
        }
    };
    if black_box(passes) { 0 } else { rule }
}

/// The share of the packet's source; none where there is no room for one.
#[inline(always)]
fn share_of(slot: u32, packet: Packet) -> Option<*mut Share> {
    let key = share_key(slot, packet.source);
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
