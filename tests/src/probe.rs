//! What a thief of credentials does: a breakpoint of perf_event_open(2) in a library.

use std::ffi::CString;
use std::os::fd::{FromRawFd, OwnedFd};

use crate::stack::must;
use crate::{Error, Result};

/// Bytes of struct perf_event_attr that are passed (PERF_ATTR_SIZE_VER5).
const SIZE: usize = 112;

fn trouble(program: &str, output: impl Into<String>) -> Error {
    Error::Answer { program: program.into(), output: output.into() }
}

/// Sets a breakpoint at the function `name` of the library for every process of the machine that maps it, as long as the
/// result lives.
///
/// # Errors
/// With the system's words.
pub fn uprobe(library: &str, name: &str) -> Result<OwnedFd> {
    let symbols = must("readelf", &["-W", "--dyn-syms", library])?;
    let line = symbols
        .lines()
        .find(|line| line.split_whitespace().nth(7).is_some_and(|word| word.split('@').next() == Some(name)));
    let address = line.and_then(|line| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok());
    let offset = address.ok_or_else(|| trouble("readelf", symbols.clone()))?;
    let kind = must("cat", &["/sys/bus/event_source/devices/uprobe/type"])?;
    let kind: u32 = kind.trim().parse().map_err(|_| trouble("cat", kind.clone()))?;
    let path = CString::new(library).map_err(|_| trouble("perf_event_open", library))?;
    let mut attr = [0_u8; SIZE];
    let fields: [(usize, &[u8]); 4] = [
        (0, &kind.to_ne_bytes()),
        (4, &(SIZE as u32).to_ne_bytes()),
        // uprobe_path and probe_offset.
        (56, &(path.as_ptr() as u64).to_ne_bytes()),
        (64, &offset.to_ne_bytes()),
    ];
    for (at, bytes) in fields {
        if let Some(place) = attr.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
    // SAFETY: a whole struct of the size that it names; the path outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, attr.as_ptr(), -1, 0, -1, 8_u64) };
    if fd < 0 {
        let source = std::io::Error::last_os_error();
        return Err(Error::Program { program: "perf_event_open".into(), source });
    }
    // SAFETY: the kernel made this descriptor for this call alone.
    Ok(unsafe { OwnedFd::from_raw_fd(libc::c_int::try_from(fd).unwrap_or(-1)) })
}
