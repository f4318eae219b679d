//! A packet's bytes in the kernel.
//!
//! Invariant: each load is checked against the packet's end, in the form in which the verifier sees it.

use aya_ebpf::programs::TcContext;
use core::hint::black_box;
use portcullis_common::filter::{Bytes, pace::SCRATCH, packet::HEADERS};

use crate::maps::FILTER_PACE;

/// Bits of an offset that is within [`HEADERS`].
const LOW: usize = 2 * HEADERS - 1;
const _: () = assert!(HEADERS.is_power_of_two());

/// From the first byte of a packet to the end of what lies in one piece.
pub struct Data {
    pub start: usize,
    pub end: usize,
}

impl Data {
    /// The bytes of an skb, its headers made to lie in one piece first: drivers leave them in fragments at will.
    #[inline(always)]
    pub fn of_skb(ctx: &TcContext) -> Self {
        let wanted = (ctx.len() as usize).min(HEADERS);
        if ctx.data_end() - ctx.data() < wanted {
            // Without memory for it the headers are short, and read as far as they go.
            let _ = ctx.pull_data(wanted as u32);
        }
        Self { start: ctx.data(), end: ctx.data_end() }
    }
}

impl Bytes for Data {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        // Bounded by itself, and apart from `offset` to the compiler: Linux 6.1 forgets the bounds of a number that was
        // compared and is then fetched anew from the stack.
        let low = black_box(offset & LOW);
        if offset != low || low > HEADERS - N {
            return None;
        }
        let at = self.start + low;
        if at + N > self.end {
            return None;
        }
        // SAFETY: the N bytes from `at` on lie before the packet's end; bytes need no alignment.
        Some(unsafe { *(at as *const [u8; N]) })
    }

    #[inline(always)]
    fn launder(&self, number: u64) -> u64 {
        launder(number)
    }
}

/// Takes a number through memory, so that the verifier knows nothing of it any more.
#[inline(always)]
pub fn launder(number: u64) -> u64 {
    let Some(scratch) = FILTER_PACE.get_ptr_mut(0) else { return 0 };
    // SAFETY: this processor's element, which lives as long as the map.
    let place = unsafe { &raw mut (*scratch)[SCRATCH] };
    // SAFETY: as above.
    unsafe { place.write_volatile(number) };
    // SAFETY: as above. Another run on this processor may come in between on kernels that allow it; each number is
    // checked again where it is used.
    unsafe { place.read_volatile() }
}
