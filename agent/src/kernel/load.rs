//! Loads the eBPF object and pins it: maps by name, the gate, the links of the exit programs.
//!
//! Invariants: idempotent; pinned maps are reused after their shape was checked; a running gate is replaced in one step
//! by a new one over the same maps; SETTINGS gets its random key once, when it is first made.

use std::path::Path;

use aya::maps::MapError;
use aya::programs::Program;
use aya::util::KernelVersion;
use aya::{Btf, Ebpf, EbpfLoader};
use portcullis_common::abi;

use super::pins::{self, MAPS};
use super::{KernelError, Tables, bpf, refused, tracepoint, upgrade};

/// The eBPF object this agent was built with.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portcullis.bpf.o"));

/// Name of the gate's program in the object.
const GATE: &str = "gate";
/// Name of the same as a classifier.
const GATE_TC: &str = "gate_tc";
/// Kernels before this one change the code of their XDP dispatcher at every test run of an XDP program: 20 times the
/// cost of a call, for every processor of the machine.
const XDP_RUNS_PLAINLY: KernelVersion = KernelVersion::new(5, 18, 0);
/// Names of the exit programs in the object, in the order of their links.
const EXITS: [&str; 2] = ["exit", "exit_pair"];
/// The tracepoint it hangs on.
const EXIT_TRACEPOINT: &str = "sched_process_exit";

/// What [`load`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loaded {
    /// Nothing was pinned before: a fresh gate.
    Fresh,
    /// A gate was running and was replaced over the same maps.
    Replaced,
    /// A gate of the ABI version before was running, and has handed over its counts.
    TookOver,
    /// A gate was running and was left as it is.
    Kept,
}

/// Loads `object` unless a gate of this version is pinned and answers.
///
/// # Errors
/// See [`load`].
pub fn load_if_missing(object: &[u8]) -> Result<Loaded, KernelError> {
    pins::prepare()?;
    MAPS.check()?;
    let whole = pins::gate_pinned() && abi::PIN_EXIT_LINKS.iter().all(|link| Path::new(link).exists());
    match super::gate::probe() {
        Ok(_) if whole => {
            pins::tighten()?;
            Ok(Loaded::Kept)
        }
        Ok(_) => load(object),
        Err(error) => {
            log::debug!("no gate answers, so one is loaded: {error}");
            load(object)
        }
    }
}

/// Loads `object` and pins what is in it.
///
/// # Errors
/// See [`KernelError`]: each names what is missing or in the way and what to do.
pub fn load(object: &[u8]) -> Result<Loaded, KernelError> {
    pins::prepare()?;
    MAPS.check()?;
    raise_memlock();
    let had_gate = pins::gate_pinned();
    let btf = Btf::from_sys_fs().map_err(|source| KernelError::Unsupported {
        feature: "type information at /sys/kernel/btf/vmlinux (CONFIG_DEBUG_INFO_BTF)",
        source: Box::new(source),
    })?;
    let mut loader = EbpfLoader::new();
    loader.btf(Some(&btf));
    MAPS.pin(&mut loader);
    let mut ebpf = loader.load(object).map_err(bpf("load the eBPF object"))?;
    for shape in MAPS.shapes {
        if ebpf.map(shape.name).is_none() {
            return Err(KernelError::Object { what: format!("the map {}", shape.name) });
        }
    }
    let old = upgrade::predecessor();
    match old {
        None => Tables::open()?.ensure_settings()?,
        Some(old) => upgrade::seal(old)?,
    }
    for (name, link) in EXITS.into_iter().zip(abi::PIN_EXIT_LINKS) {
        tracepoint::attach(&mut ebpf, &btf, (name, EXIT_TRACEPOINT), Path::new(link))?;
    }
    gate(&mut ebpf)?;
    pins::tighten()?;
    if let Some(old) = old {
        if upgrade::take_over(old)? {
            return Ok(Loaded::TookOver);
        }
        upgrade::retire_predecessors()?;
    }
    Ok(if had_gate { Loaded::Replaced } else { Loaded::Fresh })
}

/// Loads the gate and puts it in the place of an older one.
fn gate(ebpf: &mut Ebpf) -> Result<(), KernelError> {
    let kernel = KernelVersion::current().map_err(bpf("read the kernel's version"))?;
    let name = if kernel < XDP_RUNS_PLAINLY { GATE_TC } else { GATE };
    let program =
        ebpf.program_mut(name).ok_or_else(|| KernelError::Object { what: format!("the program {name}") })?;
    match program {
        Program::Xdp(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        _ => return Err(KernelError::Object { what: format!("the program {name} as XDP or classifier") }),
    }
    .map_err(refused(name))?;
    let path = Path::new(abi::PIN_GATE);
    let fresh = path.with_file_name("gate_next");
    pins::remove_left_over(&fresh)?;
    program.pin(&fresh).map_err(bpf("pin the gate"))?;
    pins::replace(&fresh, path)
}

/// Lifts the limit of locked memory: kernels before 5.11 charge maps against it. Where that is refused, creating the
/// maps will say so.
pub(crate) fn raise_memlock() {
    use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
    if let Err(error) = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY) {
        log::debug!("RLIMIT_MEMLOCK stays as it is: {error}");
    }
}

/// Whether an error of aya says that the element is not there.
pub(crate) fn absent(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound | MapError::ElementNotFound => true,
        MapError::SyscallError(error) => error.io_error.raw_os_error() == Some(libc::ENOENT),
        _ => false,
    }
}
