//! What every object needs beside its programs: a panic handler that nothing calls, and the licence that the kernel asks
//! for before it gives its helpers.

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // SAFETY: nothing in these objects panics (no indexing, no unwrap, no division); the linker drops this.
    unsafe { core::hint::unreachable_unchecked() }
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
