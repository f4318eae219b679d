//! One packet: verdict, counters, sample.

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use portcullis_common::filter::{
    Bytes, Clock, Kind, Packet, Source, Verdict, is_spared, judge, reason, stat,
};

use crate::{
    data::Data,
    fast,
    maps::{FILTER_SETTINGS, Maps, add},
    quick, sample, throttle,
};

/// What only the entry point knows of a packet.
pub struct Seen {
    pub interface: u32,
    pub length: u32,
    /// Packets that the card or the kernel has made one of.
    pub packets: u32,
    pub raw: u32,
}

/// Whether the packet is to be dropped; counts it.
#[inline(always)]
pub fn drops(data: &Data, kind: Kind, seen: &Seen) -> bool {
    let packet = match kind {
        Kind::Ip(packet) => packet,
        Kind::NotIp => {
            add(stat::NOT_IP, 1);
            return false;
        }
        Kind::Malformed => {
            add(stat::MALFORMED, 1);
            return false;
        }
    };
    // So that what comes now is walked once, not once for each way through the headers.
    let port = data.launder(u64::from(packet.port)) as u32;
    let protocol = data.launder(u64::from(packet.protocol)) as u32;
    let offset = data.launder(u64::from(packet.offset)) as u32;
    let Source { family, high, low } = packet.source;
    let family = data.launder(u64::from(family)) as u32;
    let source = Source { family, high: data.launder(high), low: data.launder(low) };
    let packet = Packet { source, port, protocol, offset };
    let Some(settings) = FILTER_SETTINGS.get(0) else { return false };
    let bytes = u64::from(seen.length);
    let (rule, reason, packets, bytes) = match judge(&Maps { settings }, packet, Boot) {
        Verdict::Pass => {
            let throttled = settings.throttles != 0 && !is_spared(&Maps { settings }, packet.source);
            let rule = if throttled { throttle::holds_back(data, packet, seen, Boot.now()) } else { 0 };
            if rule == 0 {
                add(stat::PASSED, 1);
                return false;
            }
            (rule, reason::THROTTLE, u64::from(seen.packets), bytes)
        }
        Verdict::Allow => {
            add(stat::ALLOWED, 1);
            return false;
        }
        Verdict::Drop(lease) => {
            lease.count();
            (lease.rule, lease.reason, 1, bytes)
        }
        Verdict::DropSource => {
            if quick::owed(seen.length) {
                return true;
            }
            let (packets, bytes) = quick::closely(seen.length);
            let (rule, reason) = fast::count(packet.source, packets);
            (rule, reason, packets, bytes)
        }
    };
    // One way on from here: what follows is walked once.
    let rule = data.launder(u64::from(rule)) as u32;
    let reason = data.launder(u64::from(reason)) as u16;
    count(reason, data.launder(packets), data.launder(bytes));
    sample::take(data, seen, (rule, reason), Boot.now(), settings.samples);
    true
}

/// The kernel's clock.
struct Boot;

impl Clock for Boot {
    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_ktime_get_boot_ns() }
    }
}

/// Counts what was dropped.
#[inline(always)]
fn count(reason: u16, packets: u64, bytes: u64) {
    let reason = u32::from(reason) & u32::from(reason::END - 1);
    add(stat::DROPPED + reason, packets);
    add(stat::BYTES + reason, bytes);
}
