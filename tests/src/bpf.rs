//! bpf(2) by hand, for what a test does to the pins behind everybody's back: maps written to, a program that is no gate.

use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use portcullis_common::abi::PIN_DIR;

use crate::{Error, Result};

const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_RAW_TRACEPOINT_OPEN: libc::c_int = 17;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_ENABLE_STATS: libc::c_int = 32;
const BPF_LINK_DETACH: libc::c_int = 34;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_F_BEFORE: u32 = 1 << 3;

/// A pinned map.
#[derive(Debug)]
pub struct Map(OwnedFd);

/// The part of `union bpf_attr` for pins.
#[repr(C)]
struct Pin {
    path: u64,
    fd: u32,
    flags: u32,
}

/// The part for elements.
#[repr(C)]
struct Element {
    fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The part for programs.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel: u32,
    flags: u32,
}

impl Map {
    /// Opens the pin of a map of the running gate; `name` is one of `abi::map`.
    ///
    /// # Errors
    /// With the system's words.
    pub fn open(name: &str) -> Result<Self> {
        let path = text(&format!("{PIN_DIR}/{name}"))?;
        let mut attr = Pin { path: path.as_ptr() as u64, fd: 0, flags: 0 };
        call(BPF_OBJ_GET, &mut attr, name).map(Self)
    }

    /// The value of `key`.
    ///
    /// # Safety
    /// `K` and `V` are integers, or records of integers without padding, of the sizes of the map.
    ///
    /// # Errors
    /// With the system's words, also where there is none.
    pub unsafe fn get<K, V: Default>(&self, key: &K) -> Result<V> {
        let mut value = V::default();
        let place = &raw mut value;
        self.element(BPF_MAP_LOOKUP_ELEM, key, place as u64)?;
        // SAFETY: written by the kernel at this very address; any bytes are a `V`.
        Ok(unsafe { place.read_volatile() })
    }

    /// Sets the value of `key`.
    ///
    /// # Safety
    /// As [`Map::get`].
    ///
    /// # Errors
    /// With the system's words: E2BIG where the map is full.
    pub unsafe fn set<K, V>(&self, key: &K, value: &V) -> Result<()> {
        self.element(BPF_MAP_UPDATE_ELEM, key, std::ptr::from_ref(value) as u64)
    }

    fn element<K>(&self, command: libc::c_int, key: &K, value: u64) -> Result<()> {
        let fd = self.0.as_raw_fd().cast_unsigned();
        let mut attr = Element { fd, pad: 0, key: std::ptr::from_ref(key) as u64, value, flags: 0 };
        bpf(command, &mut attr, "an element").map(drop)
    }
}

/// Pins a program that says XDP_PASS to everything and writes no answer, in the place of `path`.
///
/// # Errors
/// With the system's words.
pub fn pin_what_is_no_gate(path: &str) -> Result<()> {
    let program = program(BPF_PROG_TYPE_XDP, 2)?;
    std::fs::remove_file(path).map_err(|error| answer(path, &error))?;
    pin(&program, path)
}

/// Loads a program that gives this answer to everything.
fn program(kind: u32, answer: u32) -> Result<OwnedFd> {
    // r0 = answer; exit (linux/bpf_common.h: BPF_ALU64 | BPF_MOV | BPF_K, BPF_JMP | BPF_EXIT).
    let instructions: [u64; 2] = [u64::from(answer) << 32 | 0xb7, 0x95];
    let license = text("GPL")?;
    let mut attr = Load {
        kind,
        count: 2,
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel: 0,
        flags: 0,
    };
    call(BPF_PROG_LOAD, &mut attr, "two instructions")
}

/// The part of `union bpf_attr` for links of tcx.
#[repr(C)]
struct Tcx {
    program: u32,
    interface: u32,
    kind: u32,
    flags: u32,
    relative: u32,
    pad: u32,
    revision: u64,
}

/// Attaches a classifier that says TC_ACT_OK to everything, behind all others or before them. It hangs there as long as
/// what is returned lives.
///
/// # Errors
/// With the system's words.
pub fn attach_foreign(interface: &str, before: bool) -> Result<OwnedFd> {
    let program = program(BPF_PROG_TYPE_SCHED_CLS, 0)?;
    let index = nix::net::if_::if_nametoindex(interface).map_err(|error| answer(interface, &error))?;
    let mut attr = Tcx {
        program: program.as_raw_fd().cast_unsigned(),
        interface: index,
        kind: BPF_TCX_INGRESS,
        flags: if before { BPF_F_BEFORE } else { 0 },
        relative: 0,
        pad: 0,
        revision: 0,
    };
    call(BPF_LINK_CREATE, &mut attr, interface)
}

/// Pins a program or map.
///
/// # Errors
/// With the system's words.
pub fn pin(fd: &impl std::os::fd::AsFd, path: &str) -> Result<()> {
    let place = text(path)?;
    let fd = fd.as_fd().as_raw_fd().cast_unsigned();
    let mut attr = Pin { path: place.as_ptr() as u64, fd, flags: 0 };
    bpf(BPF_OBJ_PIN, &mut attr, path).map(drop)
}

fn text(text: &str) -> Result<CString> {
    CString::new(text).map_err(|error| Error::Answer { program: text.into(), output: error.to_string() })
}

fn answer(what: &str, error: &impl ToString) -> Error {
    Error::Answer { program: what.into(), output: error.to_string() }
}

/// [`bpf`], where the answer is a descriptor.
fn call<T>(command: libc::c_int, attr: &mut T, what: &str) -> Result<OwnedFd> {
    let fd = bpf(command, attr, what)?;
    // SAFETY: these commands answer with a new descriptor, which is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf<T>(command: libc::c_int, attr: &mut T, what: &str) -> Result<i32> {
    // SAFETY: `attr` is a prefix of `union bpf_attr` of the size given; what it points to outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    i32::try_from(result)
        .ok()
        .filter(|result| *result >= 0)
        .ok_or_else(|| answer(&format!("bpf({command}) for {what}"), &std::io::Error::last_os_error()))
}

/// Takes a pinned link off what it hangs on; the pin stays.
///
/// # Errors
/// With the system's words.
pub fn detach(path: &str) -> Result<()> {
    let link = link(path)?;
    let mut attr = [link.as_raw_fd().cast_unsigned(), 0];
    bpf(BPF_LINK_DETACH, &mut attr, path).map(drop)
}

/// The interface that a pinned link of tcx or XDP hangs on; 0: none.
///
/// # Errors
/// With the system's words.
pub fn interface_of(path: &str) -> Result<u32> {
    number_of(path, 4)
}

/// The kernel's number of a pinned link's program.
///
/// # Errors
/// With the system's words.
pub fn program_number(path: &str) -> Result<u32> {
    number_of(path, 2)
}

/// A number of what the kernel tells of a pinned link (struct bpf_link_info).
fn number_of(path: &str, place: usize) -> Result<u32> {
    let link = link(path)?;
    let mut info = [0_u32; 64];
    let mut attr = Info { fd: link.as_raw_fd().cast_unsigned(), length: 256, info: info.as_mut_ptr() as u64 };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr, path)?;
    Ok(std::hint::black_box(info).get(place).copied().unwrap_or_default())
}

/// The program of a pinned link.
///
/// # Errors
/// With the system's words.
pub fn program_of_link(path: &str) -> Result<OwnedFd> {
    let mut attr = [program_number(path)?, 0, 0, 0];
    call(BPF_PROG_GET_FD_BY_ID, &mut attr, path)
}

/// The part of `union bpf_attr` for tracepoints.
#[repr(C)]
struct Tracepoint {
    name: u64,
    program: u32,
    pad: u32,
    cookie: u64,
}

/// Attaches a program of the kind tp_btf to its tracepoint, until the result is dropped.
///
/// # Errors
/// With the system's words.
pub fn attach(program: &OwnedFd) -> Result<OwnedFd> {
    let program = program.as_raw_fd().cast_unsigned();
    call(BPF_RAW_TRACEPOINT_OPEN, &mut Tracepoint { name: 0, program, pad: 0, cookie: 0 }, "a program")
}

/// The kernel counts runs of programs and their time, until the result is dropped.
///
/// # Errors
/// With the system's words.
pub fn count_runs() -> Result<OwnedFd> {
    // BPF_STATS_RUN_TIME.
    call(BPF_ENABLE_STATS, &mut [0_u32], "the kernel's statistics")
}

/// Runs of a program, as the kernel counts them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Runs {
    /// How many.
    pub count: u64,
    /// Nanoseconds of all.
    pub time: u64,
}

impl Runs {
    /// What came after `before`.
    #[must_use]
    pub const fn since(self, before: Self) -> Self {
        Self { count: self.count.saturating_sub(before.count), time: self.time.saturating_sub(before.time) }
    }

    /// Nanoseconds of one.
    #[must_use]
    pub fn each(self) -> f64 {
        if self.count == 0 { 0.0 } else { self.time as f64 / self.count as f64 }
    }
}

/// What the kernel has counted of a program.
///
/// # Errors
/// It does not tell.
pub fn runs(program: &OwnedFd) -> Result<Runs> {
    let path = format!("/proc/self/fdinfo/{}", program.as_raw_fd());
    let text = std::fs::read_to_string(&path).map_err(|error| answer(&path, &error))?;
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name))?;
        value.trim().parse().ok()
    };
    let (count, time) = field("run_cnt:").zip(field("run_time_ns:")).ok_or_else(|| answer(&path, &text))?;
    Ok(Runs { count, time })
}

/// The part of `union bpf_attr` for what an object is.
#[repr(C)]
struct Info {
    fd: u32,
    length: u32,
    info: u64,
}

fn link(path: &str) -> Result<OwnedFd> {
    let place = text(path)?;
    let mut attr = Pin { path: place.as_ptr() as u64, fd: 0, flags: 0 };
    call(BPF_OBJ_GET, &mut attr, path)
}
