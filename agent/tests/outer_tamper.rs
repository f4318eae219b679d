//! The pins of a gate that somebody moved about; a breakpoint.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed step is a failed test")]

mod bpffs;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;

use bpffs::with_bpffs;
use portcullis_agent::kernel;
use portcullis_agent::tamper::Kind;
use portcullis_agent::tamper::pins::Pins;
use portcullis_agent::tamper::probes::Probes;
use portcullis_agent::tamper::watch::Watch;
use portcullis_common::abi::{PIN_DIR, map};

#[test]
fn a_pin_that_holds_another_map_is_told_and_put_back() {
    with_bpffs(|| {
        kernel::load_if_missing(kernel::OBJECT).unwrap();
        let mut pins = Pins::gate();
        let mut wrong = BTreeMap::new();
        pins.look(true, &mut wrong);
        assert!(wrong.is_empty(), "{wrong:?}");
        // The same object once more is the same gate.
        kernel::load(kernel::OBJECT).unwrap();
        pins.look(true, &mut wrong);
        assert!(wrong.is_empty(), "{wrong:?}");
        let (members, stats) = (Path::new(PIN_DIR).join(map::MEMBERS), Path::new(PIN_DIR).join(map::STATS));
        fs::rename(&members, &stats).unwrap();
        pins.look(true, &mut wrong);
        let kinds: Vec<Kind> = wrong.keys().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [Kind::PinGone, Kind::PinReplaced]);
        for path in [&members, &stats] {
            pins.put_back(path).unwrap();
        }
        wrong.clear();
        pins.look(true, &mut wrong);
        assert!(wrong.is_empty(), "{wrong:?}");
    });
}

/// A breakpoint at a place of a file, for every process, as long as the result lives (perf_event_open(2)).
fn breakpoint(path: &Path, offset: u64) -> OwnedFd {
    /// Bytes of struct perf_event_attr (PERF_ATTR_SIZE_VER5).
    const SIZE: usize = 112;
    let kind = fs::read_to_string("/sys/bus/event_source/devices/uprobe/type").unwrap();
    let kind: u32 = kind.trim().parse().unwrap();
    let path = CString::new(path.to_str().unwrap()).unwrap();
    let mut attr = [0_u8; SIZE];
    attr[..4].copy_from_slice(&kind.to_ne_bytes());
    attr[4..8].copy_from_slice(&u32::try_from(SIZE).unwrap().to_ne_bytes());
    // uprobe_path and probe_offset.
    attr[56..64].copy_from_slice(&(path.as_ptr() as u64).to_ne_bytes());
    attr[64..72].copy_from_slice(&offset.to_ne_bytes());
    // SAFETY: a whole struct of the size that it names; the path outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, attr.as_ptr(), -1, 0, -1, 8_u64) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the kernel made this descriptor for this call alone.
    unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap()) }
}

#[test]
fn a_breakpoint_in_a_file_is_told_as_long_as_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("program");
    fs::copy("/proc/self/exe", &file).unwrap();
    let mut probes = Probes::of(vec![file.clone()]);
    let mut look = || {
        let mut wrong = BTreeMap::new();
        probes.look(&mut wrong);
        wrong.into_keys().map(|(kind, _)| kind).collect::<Vec<_>>()
    };
    assert_eq!(look(), []);
    let set = breakpoint(&file, entry(&file));
    assert_eq!(look(), [Kind::Uprobe]);
    drop(set);
    assert_eq!(look(), []);
}

/// Where the first instruction of a 64-bit ELF file lies in it (elf(5)).
fn entry(file: &Path) -> u64 {
    let bytes = fs::read(file).unwrap();
    let number = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
    let (entry, headers) = (number(24), usize::try_from(number(32)).unwrap());
    let each = usize::from(u16::from_ne_bytes(bytes[54..56].try_into().unwrap()));
    let count = usize::from(u16::from_ne_bytes(bytes[56..58].try_into().unwrap()));
    let loaded = (0..count).map(|header| headers + header * each).find_map(|at| {
        let (offset, address, length) = (number(at + 8), number(at + 16), number(at + 32));
        (bytes[at] == 1 && (address..address + length).contains(&entry)).then(|| entry - address + offset)
    });
    loaded.unwrap()
}

#[test]
fn what_the_agent_itself_writes_is_no_touch() {
    let folder = tempfile::tempdir().unwrap();
    let (watch, mut touches) = Watch::start([folder.path().to_owned()]).unwrap();
    fs::write(folder.path().join("ours"), "a batch of attempts").unwrap();
    let theirs = folder.path().join("theirs");
    let mut child = std::process::Command::new("touch").arg(&theirs).spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    // In the order in which they came.
    let first = touches.blocking_recv().unwrap();
    assert_eq!(first.name.as_deref(), Some(&b"theirs"[..]), "{first:?}");
    assert_eq!(first.who.map(|who| who.pid), Some(pid));
    drop(watch);
}
