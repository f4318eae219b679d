//! What the kernel tells about the loaded programs: how many instructions its verifier went through. In a guest the
//! gate and the exit program are the only ones of their types, but for the kernel's own, which are tiny.

use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::PathBuf;

const BPF_PROG_GET_NEXT_ID: libc::c_int = 11;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
/// Types as in fdinfo, and what is ours of each: XDP, SCHED_CLS (the gate of old kernels), TRACING.
const OURS: [(&str, &str); 3] = [("6", "gate"), ("3", "gate as classifier"), ("26", "exit")];

/// `union bpf_attr`, the part of those two.
#[repr(C)]
#[derive(Default)]
struct ById {
    id: u32,
    next_id: u32,
    flags: u32,
}

/// One line: each program and the instructions verified.
///
/// # Errors
/// A program's information cannot be read.
pub fn verified() -> Result<String> {
    let mut most = BTreeMap::new();
    let mut asked = ById::default();
    while bpf(BPF_PROG_GET_NEXT_ID, &mut asked) >= 0 {
        asked = ById { id: asked.next_id, ..ById::default() };
        let number = bpf(BPF_PROG_GET_FD_BY_ID, &mut asked);
        let Ok(number) = i32::try_from(number) else { continue };
        if number < 0 {
            // It ended between the two questions.
            continue;
        }
        // SAFETY: a descriptor that the kernel made for this call alone.
        let program = File::from(unsafe { OwnedFd::from_raw_fd(number) });
        let path = PathBuf::from(format!("/proc/self/fdinfo/{}", program.as_raw_fd()));
        let text = std::fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let Some((_, name)) = OURS.iter().find(|(kind, _)| field("prog_type:") == Some(kind)) else {
            continue;
        };
        // Told since 5.16.
        let count = field("verified_insns:").and_then(|number| number.parse::<u32>().ok());
        let most = most.entry(name).or_default();
        *most = count.max(*most);
    }
    let told: Vec<_> = most
        .iter()
        .map(|(name, count)| match count {
            Some(count) => format!("{name}: {count} instructions verified"),
            None => format!("{name}: loaded, the kernel tells no more"),
        })
        .collect();
    Ok(told.join(", "))
}

fn bpf(command: libc::c_int, attr: &mut ById) -> libc::c_long {
    // SAFETY: `attr` is a prefix of `union bpf_attr` of the size given, and holds no pointers.
    unsafe { libc::syscall(libc::SYS_bpf, command, core::ptr::from_mut(attr), size_of::<ById>()) }
}
