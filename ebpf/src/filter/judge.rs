//! One packet: verdict, counters, sample.

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use portcullis_common::filter::{Bytes, Kind, Packet, Verdict, judge, reason, stat};

use crate::{
    data::Data,
    maps::{FILTER_SETTINGS, Maps, add},
    sample,
};

/// What only the entry point knows of a packet.
pub struct Seen {
    pub interface: u32,
    pub length: u32,
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
    let packet = Packet { port, ..packet };
    let Some(settings) = FILTER_SETTINGS.get(0) else { return false };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    match judge(&Maps { settings }, packet, now) {
        Verdict::Pass => {
            add(stat::PASSED, 1);
            false
        }
        Verdict::Allow => {
            add(stat::ALLOWED, 1);
            false
        }
        Verdict::Drop(lease) => {
            lease.count();
            let reason = u32::from(lease.reason) & u32::from(reason::END - 1);
            add(stat::DROPPED + reason, 1);
            add(stat::BYTES + reason, u64::from(seen.length));
            sample::take(data, seen, &lease, now, settings.samples);
            true
        }
    }
}
