//! The short way for most packets: plain IPv4 and IPv6, whose source alone decides.
//!
//! Invariants: what the short way says is what the long one would say; it neither reads the clock nor a port; a drop that
//! is not looked at closely is owed to the next one that is, so that no packet is left out of the totals.

use portcullis_common::filter::{
    Bytes, Source,
    fast::{Heads, Look},
    is_spared, pace, stat,
};

use crate::{
    data::Data,
    fast::{self, FAST},
    maps::{FILTER_PACE, FILTER_SETTINGS, Maps, add},
};

/// What the short way says of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Quick {
    /// Drop it; it is counted.
    Drop,
    /// Let it through; it is counted.
    Pass,
    /// Go the long way.
    Ask,
}

const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];

/// Judges a packet with a plain Ethernet header.
#[inline(always)]
pub fn judge(data: &Data, length: u32) -> Quick {
    let Some(settings) = FILTER_SETTINGS.get(0) else { return Quick::Ask };
    let Some(kind) = data.load::<2>(12) else { return Quick::Ask };
    let source = if kind == IPV4 {
        four(data)
    } else if kind == IPV6 {
        six(data)
    } else {
        None
    };
    let Some(source) = source else { return Quick::Ask };
    match fast::look(source) {
        // The long way counts who is spared.
        Look::Yes if !is_spared(&Maps { settings }, source) && owed(length) => Quick::Drop,
        Look::No if settings.nets | settings.throttles == 0 => {
            add(stat::PASSED, 1);
            Quick::Pass
        }
        _ => Quick::Ask,
    }
}

/// The source of an IPv4 packet without options.
#[inline(always)]
fn four(data: &Data) -> Option<Source> {
    let [first, _] = data.load::<2>(14)?;
    let address = data.load::<4>(26)?;
    // All of the header is there.
    data.load::<2>(32)?;
    if first != 0x45 {
        return None;
    }
    Some(Source::v4(u32::from_be_bytes(address)))
}

/// The source of an IPv6 packet.
#[inline(always)]
fn six(data: &Data) -> Option<Source> {
    let [first, _] = data.load::<2>(14)?;
    let high = data.load::<8>(22)?;
    // For the allow-list, which may have longer prefixes.
    let low = data.load::<8>(30)?;
    // All of the header is there.
    data.load::<2>(52)?;
    let (high, low) = (u64::from_be_bytes(high), u64::from_be_bytes(low));
    // IPv4 in IPv6 begins with zeros.
    if first >> 4 != 6 || high == 0 {
        return None;
    }
    Some(Source::v6(high, low))
}

/// Whether a drop need not be looked at closely now; its packet is then owed.
#[inline(always)]
pub fn owed(length: u32) -> bool {
    let Some(heads) = FAST.get_ptr(0) else { return false };
    let Some(mine) = FILTER_PACE.get_ptr_mut(0) else { return false };
    // SAFETY: this processor's element, which lives as long as the map.
    let mine = unsafe { &mut *mine };
    let beat = beat(heads);
    if mine[pace::BEAT] != beat {
        mine[pace::BEAT] = beat;
        mine[pace::CLOSE] = 0;
    }
    if mine[pace::CLOSE] < pace::EACH || mine[pace::PACKETS] >= pace::ONE_OF - 1 {
        return false;
    }
    mine[pace::PACKETS] += 1;
    mine[pace::BYTES] += u64::from(length);
    true
}

/// Packets and bytes that a drop which is looked at closely stands for: its own, and what was owed.
#[inline(always)]
pub fn closely(length: u32) -> (u64, u64) {
    let Some(mine) = FILTER_PACE.get_ptr_mut(0) else { return (1, u64::from(length)) };
    // SAFETY: this processor's element, which lives as long as the map.
    let mine = unsafe { &mut *mine };
    let owed = (mine[pace::PACKETS] + 1, mine[pace::BYTES] + u64::from(length));
    mine[pace::CLOSE] += 1;
    mine[pace::PACKETS] = 0;
    mine[pace::BYTES] = 0;
    owed
}

#[inline(always)]
fn beat(heads: *const Heads) -> u64 {
    // SAFETY: an element of an ARRAY, which lives as long as the map.
    let beat = unsafe { &raw const (*heads).beat };
    // SAFETY: as above; the sweep writes it meanwhile, by whole words.
    unsafe { beat.read_volatile() }
}
