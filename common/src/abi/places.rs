//! Where a soft lock is open: networks and terminals, and how a call is matched with them.

use super::{Detail, place, source, via};

/// Key of `PLACES`, behind its length in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Place {
    /// Generation of the configuration.
    pub generation: u32,
    /// Class.
    pub class: u32,
    /// One of [`place`].
    pub kind: u32,
    /// An IPv6 address or network (IPv4 mapped into it), or a terminal as in [`Detail::tty`].
    pub bytes: [u8; 16],
}

impl Place {
    /// Where a call comes from, as far as that may open a lock: only root's programs that no user started (real uid 0) are
    /// believed, and only from a place on this host (a terminal) or a literal address. A kind of 0 is no place.
    #[inline(always)]
    pub fn of(detail: &Detail) -> Self {
        let mut found = Self { generation: 0, class: 0, kind: 0, bytes: [0; 16] };
        let believed = detail.uid == 0 && detail.via == via::ROOT;
        if !believed && !cfg!(feature = "mutation-open-to-claims") {
            return found;
        }
        match detail.source {
            source::LOCAL => {
                found.kind = place::TERMINAL;
                found.bytes = detail.tty;
            }
            source::IPV4 => {
                let [a, b, c, d, ..] = detail.address;
                found.kind = place::NETWORK;
                found.bytes = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d];
            }
            source::IPV6 => {
                found.kind = place::NETWORK;
                found.bytes = detail.address;
            }
            _ => {}
        }
        found
    }
}
