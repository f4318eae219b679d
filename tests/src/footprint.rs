//! What this process holds: heap, memory, threads, descriptors, signal handlers, mapped files. Taken before and after
//! something that should leave nothing behind.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::path::Path;

use crate::system::read;
use crate::{Error, Result};

/// Signals of Linux.
const SIGNALS: i32 = 64;
/// Lines of /proc/self/status: blocked in this thread, ignored, caught. (SigQ counts the signals of all processes of a
/// user.)
const SIGNAL_LINES: [&str; 3] = ["SigBlk:", "SigIgn:", "SigCgt:"];

/// What is held at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Bytes of malloc(3) that were not given back, every thread's and every object's: mallinfo2(3).
    pub heap: usize,
    /// Resident memory, in KiB: VmRSS.
    pub resident: u64,
    /// Address space, in KiB: VmSize.
    pub mapped: u64,
    /// What is not a matter of size.
    pub holds: Holds,
}

/// Things that are there or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holds {
    /// Threads of the process.
    pub threads: usize,
    /// Open descriptors, and what each leads to.
    pub descriptors: BTreeMap<String, String>,
    /// What is done about each signal that has a handler or is ignored, by its number.
    pub handlers: BTreeMap<i32, Handler>,
    /// Signals blocked in this thread, ignored, caught: lines of /proc/self/status.
    pub signals: Vec<String>,
    /// How many mappings each mapped file has.
    pub files: BTreeMap<String, usize>,
}

/// What is done about one signal (sigaction(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handler {
    /// Address of the function, or SIG_DFL, SIG_IGN.
    pub function: usize,
    /// SA_RESTART and so on.
    pub flags: i32,
    /// First of the signals that it blocks; 0: none.
    pub blocks: i32,
}

impl Footprint {
    /// Of this process, now.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn take() -> Result<Self> {
        let status = read(Path::new("/proc/self/status"))?;
        // The heap last but one of all: what reading the rest takes is given back or is the same each time.
        let holds = Holds {
            threads: names("/proc/self/task")?.len(),
            descriptors: descriptors()?,
            handlers: (1..=SIGNALS).filter_map(|signal| Some((signal, handler(signal)?))).collect(),
            signals: status
                .lines()
                .filter(|line| SIGNAL_LINES.iter().any(|name| line.starts_with(name)))
                .map(str::to_owned)
                .collect(),
            files: files()?,
        };
        let (resident, mapped) = (kib(&status, "VmRSS:")?, kib(&status, "VmSize:")?);
        drop(status);
        Ok(Self { heap: heap(), resident, mapped, holds })
    }
}

/// Bytes of the heap in use.
#[must_use]
pub fn heap() -> usize {
    // SAFETY: no arguments; glibc 2.33 and later.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

fn kib(status: &str, name: &str) -> Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next()).and_then(|word| word.parse().ok());
    number.ok_or_else(|| Error::Answer { program: "/proc/self/status".into(), output: format!("no {name}") })
}

fn names(folder: &str) -> Result<Vec<String>> {
    let trouble = |source| Error::File { path: folder.into(), source };
    let entries = std::fs::read_dir(folder).map_err(trouble)?;
    entries.map(|entry| Ok(entry.map_err(trouble)?.file_name().to_string_lossy().into_owned())).collect()
}

/// The descriptor that lists the folder is gone by the time it is looked up.
fn descriptors() -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for name in names("/proc/self/fd")? {
        if let Ok(target) = std::fs::read_link(format!("/proc/self/fd/{name}")) {
            found.insert(name, target.to_string_lossy().into_owned());
        }
    }
    Ok(found)
}

fn files() -> Result<BTreeMap<String, usize>> {
    let mut found = BTreeMap::new();
    for line in read(Path::new("/proc/self/maps"))?.lines() {
        if let Some(path) = line.split_whitespace().nth(5).filter(|path| path.starts_with('/')) {
            *found.entry(path.to_owned()).or_default() += 1;
        }
    }
    Ok(found)
}

/// None: the default, or one of the two signals that the C library keeps for itself.
fn handler(signal: i32) -> Option<Handler> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: nothing is set; the place is large enough.
    if unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: integers and a function's address, all zero or written by the call.
    let action = unsafe { action.assume_init() };
    if action.sa_sigaction == libc::SIG_DFL {
        return None;
    }
    // SAFETY: a whole set.
    let blocks =
        (1..=SIGNALS).find(|other| unsafe { libc::sigismember(&raw const action.sa_mask, *other) } == 1);
    Some(Handler { function: action.sa_sigaction, flags: action.sa_flags, blocks: blocks.unwrap_or(0) })
}
