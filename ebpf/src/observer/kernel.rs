//! The kernel's own structures, read at offsets that the loader found.
//!
//! Two ways. [`Place`] is a pointer whose type the verifier knows and follows: a load of it is one instruction, for what
//! every program passes by. [`Somewhere`] is an address, read by a helper: for what only watched programs come to.
//!
//! Invariant: nothing is written; what this kernel does not have is read as zero.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use portcullis_common::observer::{Layout, layout::ABSENT};

/// Offsets in the running kernel: frozen before the programs are loaded, so that the verifier reads them as constants.
#[unsafe(no_mangle)]
static LAYOUT: Layout = Layout::ABSENT;

/// An offset.
macro_rules! at {
    ($field:ident) => {
        $crate::kernel::offset(::core::mem::offset_of!(::portcullis_common::observer::Layout, $field))
    };
}
pub(crate) use at;

/// Reads an offset where the loader put it, not what was compiled in: `field` is its place in the layout.
#[inline(always)]
pub fn offset(field: usize) -> u32 {
    let place = (&raw const LAYOUT).cast::<u8>().wrapping_add(field).cast::<u32>();
    // SAFETY: a field of a static.
    unsafe { place.read_volatile() }
}

/// A structure of the kernel by a pointer that the verifier follows.
#[derive(Clone, Copy)]
pub struct Place(*const u8);

impl Place {
    /// An argument of a tracepoint, or a pointer that was read from one.
    #[inline(always)]
    pub const fn new(pointer: *const u8) -> Self {
        Self(pointer)
    }

    /// The number in a member.
    #[inline(always)]
    pub fn number<T: Copy>(self, offset: u32) -> T {
        let place = self.0.wrapping_add(offset as usize).cast::<T>();
        // SAFETY: the verifier knows the structure and turns a fault of this load into zero.
        unsafe { place.read_volatile() }
    }

    /// The structure that a member points to.
    #[inline(always)]
    pub fn to(self, offset: u32) -> Self {
        Self(self.number(offset))
    }
}

/// A structure of the kernel by its address alone.
#[derive(Clone, Copy)]
pub struct Somewhere(pub u64);

impl Somewhere {
    /// The number in a member; zero where there is none.
    #[inline(always)]
    pub fn number<T: Copy + Default>(self, offset: u32) -> T {
        let mut number = T::default();
        if offset == ABSENT {
            return number;
        }
        let from = self.0.wrapping_add(u64::from(offset)) as *const core::ffi::c_void;
        // SAFETY: the helper reads any address and writes `size` bytes of our own variable.
        let _ = unsafe { bpf_probe_read_kernel((&raw mut number).cast(), size_of::<T>() as u32, from) };
        number
    }

    /// The structure that a member points to; nowhere where there is none.
    #[inline(always)]
    pub fn to(self, offset: u32) -> Self {
        Self(self.number(offset))
    }
}
