//! Loads the observer's object over its pinned maps and puts its links in the place of older ones.
//!
//! Invariants: pins are root's (0600 in a 0700 folder); maps that are pinned are reused after their shape was checked;
//! nothing here touches the gate, the filter or their pins.

use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aya::maps::{MapInfo, MapType};
use aya::programs::BtfTracePoint;
use aya::programs::links::FdLink;
use aya::{Btf, Ebpf, EbpfLoader};
use portcullis_common::observer::{
    self, File, Layout, MAX_NAMES, MAX_RUNNING, MAX_WATCHED, OBSERVED_BYTES, OBSERVER_DIR, PIN_LINKS,
    Process, Scope, Watch, map, stat,
};

use super::ObserverError;
use super::types::Types;

/// The eBPF object this agent was built with.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portcullis.observer.o"));

/// The kernel's type information.
const TYPES: &str = "/sys/kernel/btf/vmlinux";
/// Programs and the tracepoints they hang on, in the order of their links.
const PROGRAMS: [(&str, &str); 2] =
    [("observe_exec", "sched_process_exec"), ("observe_exit", "sched_process_exit")];
/// Variable of the object with the kernel's offsets.
const LAYOUT: &str = "LAYOUT";

struct Shape(&'static str, MapType, u32, u32, u32);

const fn bytes<T>() -> u32 {
    size_of::<T>() as u32
}

const SHAPES: [Shape; 7] = [
    Shape(map::WATCHED, MapType::Hash, bytes::<File>(), bytes::<Watch>(), MAX_WATCHED),
    Shape(map::NAMES, MapType::Hash, 16, 4, MAX_NAMES),
    Shape(map::RUNNING, MapType::Hash, 8, bytes::<Process>(), MAX_RUNNING),
    Shape(map::SCOPE, MapType::Array, 4, bytes::<Scope>(), 1),
    Shape(map::BLANK, MapType::Array, 4, bytes::<Process>(), 1),
    Shape(map::STATS, MapType::Array, 4, 8, stat::ENTRIES),
    Shape(map::OBSERVED, MapType::RingBuf, 0, 0, OBSERVED_BYTES),
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

/// Loads the object, pins its maps and attaches its programs.
///
/// # Errors
/// `portcullis=off`, no bpffs, pins of another shape, or the kernel lacks what the observer reads.
pub fn load(object: &[u8]) -> Result<(), ObserverError> {
    crate::kernel::prepare().map_err(|error| ObserverError::Kernel(error.to_string()))?;
    match DirBuilder::new().mode(0o700).create(OBSERVER_DIR) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(failed("make the folder of the observer's pins")(error));
        }
        _ => {}
    }
    mode(Path::new(OBSERVER_DIR), 0o700)?;
    check_maps()?;
    crate::kernel::raise_memlock();
    let layout = layout()?;
    let btf = Btf::from_sys_fs().map_err(failed("read the kernel's type information"))?;
    let mut loader = EbpfLoader::new();
    loader.btf(Some(&btf)).override_global(LAYOUT, &layout, true);
    for Shape(name, ..) in &SHAPES {
        loader.map_pin_path(name, pin(name));
    }
    let mut ebpf = loader.load(object).map_err(failed("load the observer's object"))?;
    for Shape(name, ..) in &SHAPES {
        mode(&pin(name), 0o600)?;
    }
    for ((name, tracepoint), link) in PROGRAMS.into_iter().zip(observer::PIN_LINKS) {
        attach(&mut ebpf, &btf, name, tracepoint, Path::new(link))?;
    }
    Ok(())
}

/// Where this kernel keeps what the observer reads.
fn layout() -> Result<Layout, ObserverError> {
    let bytes = std::fs::read(TYPES).map_err(failed("read the kernel's type information"))?;
    let types = Types::read(&bytes)
        .ok_or_else(|| ObserverError::Kernel(format!("{TYPES} is no type information that can be read")))?;
    Layout::fill(|structure, path| types.offset(structure, path))
        .map_err(|what| ObserverError::Kernel(format!("this kernel has no {what}, which the observer reads")))
}

fn mode(path: &Path, mode: u32) -> Result<(), ObserverError> {
    std::fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(failed("set the mode of the observer's pins"))
}

/// Attaches a program and puts its link in the place of an older one, which detaches that.
fn attach(
    ebpf: &mut Ebpf,
    btf: &Btf,
    name: &'static str,
    tracepoint: &str,
    path: &Path,
) -> Result<(), ObserverError> {
    let program: &mut BtfTracePoint = ebpf
        .program_mut(name)
        .ok_or_else(|| {
            ObserverError::Kernel(format!(
                "the observer's object lacks {name}: build it anew with `cargo xtask build-ebpf`"
            ))
        })?
        .try_into()
        .map_err(failed("use a program as tp_btf"))?;
    program
        .load(tracepoint, btf)
        .map_err(|error| ObserverError::Kernel(crate::kernel::refused(name)(error).to_string()))?;
    let id = program.attach().map_err(failed("attach the observer"))?;
    let link: FdLink = program.take_link(id).map_err(failed("take the link of the observer"))?.into();
    // No dots: bpffs takes none in a name.
    let fresh = path.with_file_name(format!("{name}_next"));
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(failed("remove a left-over pin")(error));
        }
        _ => {}
    }
    link.pin(&fresh).map_err(failed("pin the link of the observer"))?;
    mode(&fresh, 0o600)?;
    std::fs::rename(&fresh, path).map_err(failed("put the new pin in place"))
}

/// Refuses pinned maps of another shape: aya would use them as they are.
fn check_maps() -> Result<(), ObserverError> {
    for Shape(name, kind, key, value, entries) in &SHAPES {
        let path = pin(name);
        if std::fs::symlink_metadata(&path).is_err() {
            continue;
        }
        let same = MapInfo::from_pin(&path).is_ok_and(|info| {
            info.map_type().is_ok_and(|found| found == *kind)
                && (info.key_size(), info.value_size(), info.max_entries()) == (*key, *value, *entries)
        });
        if !same {
            return Err(ObserverError::Kernel(format!(
                "the pin {} is none of this version's: stop portcullisd, `rm -r {OBSERVER_DIR}` and start it again",
                path.display()
            )));
        }
    }
    Ok(())
}
