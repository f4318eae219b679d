//! Loads the observer's object over its pinned maps and puts its links in the place of older ones.
//!
//! Invariants: pins are root's (0600 in a 0700 folder); maps that are pinned are reused after their shape was checked;
//! nothing here changes the gate, the filter or their pins; without the gate's table nobody is kept from anything.

use std::path::{Path, PathBuf};

use aya::maps::MapType;
use aya::{Btf, EbpfLoader};
use portcullis_common::observer::{
    self, File, Layout, MAX_NAMES, MAX_RUNNING, MAX_WATCHED, OBSERVED_BYTES, OBSERVER_DIR, PIN_CHECK_LINK,
    PIN_LINKS, Process, Scope, Sieve, Watch, map, sieve, stat,
};

use super::ObserverError;
use super::denial::{self, Means};
use super::types::Types;
use crate::kernel::{self, Maps, Shape, bytes};

/// The eBPF object this agent was built with.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portcullis.observer.o"));

/// The kernel's type information.
const TYPES: &str = "/sys/kernel/btf/vmlinux";
/// Programs and the tracepoints they hang on, in the order of their links.
const PROGRAMS: [(&str, &str); 2] =
    [("observe_exec", "sched_process_exec"), ("observe_exit", "sched_process_exit")];
/// The program that refuses, and its hook.
const CHECK: (&str, &str) = ("observe_check", "bprm_check_security");
/// Variable of the object with the kernel's offsets.
const LAYOUT: &str = "LAYOUT";

const MAPS: Maps =
    Maps { folder: OBSERVER_DIR, shapes: &SHAPES, removed: "what is running then is not known" };
const SHAPES: [Shape; 9] = [
    Shape::new(map::WATCHED, MapType::Hash, bytes::<File>(), bytes::<Watch>(), MAX_WATCHED),
    Shape::new(map::NAMES, MapType::Hash, 16, 4, MAX_NAMES),
    Shape::new(map::RUNNING, MapType::Hash, 8, bytes::<Process>(), MAX_RUNNING),
    Shape::array(map::SIEVE, bytes::<Sieve>(), 1),
    Shape::array(map::COUNTERS, 4, sieve::COUNTERS),
    Shape::array(map::SCOPE, bytes::<Scope>(), 1),
    Shape::array(map::BLANK, bytes::<Process>(), 1),
    Shape::array(map::STATS, 8, stat::ENTRIES),
    Shape::ring(map::OBSERVED, OBSERVED_BYTES),
];

fn failed<E: std::error::Error + 'static>(what: &'static str) -> impl FnOnce(E) -> ObserverError {
    move |error| ObserverError::Kernel(format!("cannot {what}: {}", crate::text::chain(&error)))
}

/// Path of a map's pin.
#[must_use]
pub fn pin(name: &str) -> PathBuf {
    Path::new(OBSERVER_DIR).join(name)
}

/// Whether both programs hang on their tracepoints.
#[must_use]
pub fn attached() -> bool {
    PIN_LINKS.iter().all(|link| Path::new(link).exists())
}

/// Loads the object, pins its maps and attaches its programs, in the place of those that are attached: there is no moment
/// without. Tells how this kernel keeps locked-out users from starting programs. `deny`: whether it is to. `first`: a link that is
/// not wanted may be taken away; later it stays, and denies nothing, since its pin is watched over.
///
/// # Errors
/// `portcullis=off`, no bpffs, pins of another shape, or the kernel lacks what the observer reads.
pub fn load(object: &[u8], deny: bool, first: bool) -> Result<Means, ObserverError> {
    kernel::prepare()?;
    MAPS.prepare()?;
    let users = kernel::USERS.pinned();
    if !pin(map::COUNTERS).exists() {
        // Of a version that counted nobody: what runs there would never be found again.
        let _ = std::fs::remove_file(pin(map::RUNNING));
    }
    kernel::raise_memlock();
    let layout = layout()?;
    let btf = Btf::from_sys_fs().map_err(failed("read the kernel's type information"))?;
    let mut loader = EbpfLoader::new();
    loader.btf(Some(&btf)).override_global(LAYOUT, &layout, true);
    MAPS.pin(&mut loader);
    if users {
        kernel::USERS.check()?;
        kernel::USERS.pin(&mut loader);
    }
    let mut ebpf = loader.load(object).map_err(failed("load the observer's object"))?;
    MAPS.tighten()?;
    for (program, link) in PROGRAMS.into_iter().zip(observer::PIN_LINKS) {
        kernel::attach(&mut ebpf, &btf, program, Path::new(link))?;
    }
    let means = check(&mut ebpf, &btf, deny && users, first);
    if !users {
        return Ok(Means::none("the gate's table of refused users is not there"));
    }
    Ok(means)
}

/// Loads the program that refuses, and attaches it where it is to; or takes away an older one.
fn check(ebpf: &mut aya::Ebpf, btf: &Btf, deny: bool, first: bool) -> Means {
    let link = Path::new(PIN_CHECK_LINK);
    let attached = denial::lsm_called().and_then(|()| {
        let program = kernel::load_lsm(ebpf, btf, CHECK).map_err(|error| error.to_string())?;
        if deny {
            kernel::attach_lsm(program, CHECK.0, link).map_err(|error| error.to_string())?;
        }
        Ok(())
    });
    if first
        && (!deny || attached.is_err())
        && let Err(error) = std::fs::remove_file(link)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        log::error!("the observer: cannot remove {PIN_CHECK_LINK}: {error}");
    }
    match attached {
        Ok(()) => Means::lsm(),
        Err(why) => Means::signal(why),
    }
}

/// Where this kernel keeps what the observer reads.
fn layout() -> Result<Layout, ObserverError> {
    let bytes = std::fs::read(TYPES).map_err(failed("read the kernel's type information"))?;
    let types = Types::read(&bytes)
        .ok_or_else(|| ObserverError::Kernel(format!("{TYPES} is no type information that can be read")))?;
    Layout::fill(|structure, path| types.offset(structure, path))
        .map_err(|what| ObserverError::Kernel(format!("this kernel has no {what}, which the observer reads")))
}
