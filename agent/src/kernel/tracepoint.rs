//! Programs on tracepoints (tp_btf) and on hooks of the LSM, and their pinned links.
//!
//! Invariant: a new link is put in the place of an older one in one step, which detaches that; there is no moment
//! without.

use std::path::Path;

use aya::programs::links::FdLink;
use aya::programs::{BtfTracePoint, Lsm};
use aya::{Btf, Ebpf};

use super::{KernelError, bpf, pins, refused};

/// Loads the program `name`, attaches it to `tracepoint` and pins its link at `path`.
///
/// # Errors
/// The object lacks the program, or the kernel refuses.
pub fn attach(
    ebpf: &mut Ebpf,
    btf: &Btf,
    (name, tracepoint): (&'static str, &str),
    path: &Path,
) -> Result<(), KernelError> {
    let program: &mut BtfTracePoint = ebpf
        .program_mut(name)
        .ok_or_else(|| KernelError::Object { what: format!("the program {name}") })?
        .try_into()
        .map_err(bpf(format!("use the program {name} as tp_btf")))?;
    program.load(tracepoint, btf).map_err(refused(name))?;
    let id = program.attach().map_err(bpf(format!("attach the program {name} to {tracepoint}")))?;
    let link: FdLink =
        program.take_link(id).map_err(bpf(format!("take the link of the program {name}")))?.into();
    pin(link, name, path)
}

/// Loads the program `name` for `hook` of the LSM. Loaded it does nothing yet: see [`attach_lsm`].
///
/// # Errors
/// The object lacks the program, or the kernel refuses: no CONFIG_BPF_LSM.
pub fn load_lsm<'a>(
    ebpf: &'a mut Ebpf,
    btf: &Btf,
    (name, hook): (&'static str, &str),
) -> Result<&'a mut Lsm, KernelError> {
    let program: &mut Lsm = ebpf
        .program_mut(name)
        .ok_or_else(|| KernelError::Object { what: format!("the program {name}") })?
        .try_into()
        .map_err(bpf(format!("use the program {name} as LSM")))?;
    program.load(hook, btf).map_err(refused(name))?;
    Ok(program)
}

/// Attaches a program of [`load_lsm`] and pins its link at `path`.
///
/// # Errors
/// The kernel refuses.
pub fn attach_lsm(program: &mut Lsm, name: &'static str, path: &Path) -> Result<(), KernelError> {
    let id = program.attach().map_err(bpf(format!("attach the program {name}")))?;
    let link: FdLink =
        program.take_link(id).map_err(bpf(format!("take the link of the program {name}")))?.into();
    pin(link, name, path)
}

/// Pins a link in the place of an older one.
fn pin(link: FdLink, name: &str, path: &Path) -> Result<(), KernelError> {
    // No dots: bpffs takes none in a name.
    let fresh = path.with_file_name(format!("{name}_link_next"));
    pins::remove_left_over(&fresh)?;
    link.pin(&fresh).map_err(bpf(format!("pin the link of the program {name}")))?;
    pins::replace(&fresh, path)
}
