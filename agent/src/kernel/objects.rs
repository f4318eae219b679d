//! Objects of bpf(2) by what they are: what a pin holds, which code a program has, what a link hangs on.
//!
//! Invariants: looking at an object changes nothing; a descriptor is closed when its [`Object`] is dropped; what the kernel
//! does not tell (an older one) is zero or empty, never guessed.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::filter::netlink::array;

const OBJ_PIN: libc::c_int = 6;
const OBJ_GET: libc::c_int = 7;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const TASK_FD_QUERY: libc::c_int = 20;
const LINK_GET_FD_BY_ID: libc::c_int = 30;
const LINK_GET_NEXT_ID: libc::c_int = 31;
/// Longer than any of the kernel's records of an object.
const INFO: usize = 512;
/// Maps of one program that are told.
const MAPS: usize = 64;
/// Links of the whole machine that are looked at.
const LINKS: usize = 4_096;

const LINK_TRACING: u32 = 2;
const LINK_XDP: u32 = 6;
const LINK_PERF_EVENT: u32 = 7;
const LINK_TCX: u32 = 11;
const LINK_UPROBE_MULTI: u32 = 12;

/// What an object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A map, by its number.
    Map {
        /// The kernel's number, never used again while it runs.
        id: u32,
    },
    /// A program.
    Program(Code),
    /// A link.
    Link(Link),
}

/// The code of a program: the same object loaded twice has the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Code {
    /// The kernel's hash of its instructions.
    pub tag: [u8; 8],
    /// Its maps, sorted.
    pub maps: Vec<u32>,
}

/// A link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number.
    pub id: u32,
    /// Its program's number.
    pub program: u32,
    /// What it hangs on.
    pub on: On,
}

/// What a link hangs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum On {
    /// A function or tracepoint of the kernel.
    Tracing,
    /// An interface by its index; 0: none any more.
    Interface(u32),
    /// Code of this file.
    User {
        /// The file as the one who attached it named it.
        path: PathBuf,
    },
    /// Something else: the kernel's number of it.
    Other(u32),
}

/// An open object.
#[derive(Debug)]
pub struct Object {
    fd: OwnedFd,
}

#[repr(C)]
#[derive(Default)]
struct PathAttr {
    pathname: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
struct InfoAttr {
    fd: u32,
    length: u32,
    info: u64,
}

#[repr(C)]
#[derive(Default)]
struct IdAttr {
    id: u32,
    next: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    pid: u32,
    fd: u32,
    flags: u32,
    length: u32,
    buffer: u64,
    program: u32,
    kind: u32,
    offset: u64,
    address: u64,
}

/// bpf(2), again when a signal came between.
fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_int> {
    loop {
        // SAFETY: `attr` is a prefix of `union bpf_attr` of the size given, and what it points to outlives the call.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
        if result >= 0 {
            return Ok(libc::c_int::try_from(result).unwrap_or(-1));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// bpf(2) with a command that answers with a descriptor.
fn open<T>(command: libc::c_int, attr: &mut T) -> io::Result<Object> {
    let fd = bpf(command, attr)?;
    // SAFETY: the kernel made this descriptor for this call alone.
    Ok(Object { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// A number of a record.
fn number(record: &[u8], offset: usize) -> u32 {
    u32::from_ne_bytes(array(record, offset).unwrap_or_default())
}

impl Object {
    /// What is pinned there.
    ///
    /// # Errors
    /// The kernel's words: nothing is there, or nothing of bpf(2).
    pub fn pinned(path: &Path) -> io::Result<Self> {
        let name = c_path(path)?;
        open(OBJ_GET, &mut PathAttr { pathname: name.as_ptr() as u64, ..PathAttr::default() })
    }

    /// Pins it there, where nothing is yet.
    ///
    /// # Errors
    /// The kernel's words.
    pub fn pin(&self, path: &Path) -> io::Result<()> {
        let name = c_path(path)?;
        let fd = self.fd.as_raw_fd().cast_unsigned();
        bpf(OBJ_PIN, &mut PathAttr { pathname: name.as_ptr() as u64, fd, flags: 0 }).map(drop)
    }

    /// What it is.
    ///
    /// # Errors
    /// The kernel's words.
    pub fn kind(&self) -> io::Result<Kind> {
        let name = std::fs::read_link(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))?;
        let name = name.to_string_lossy();
        if name.ends_with("bpf-map") {
            Ok(Kind::Map { id: number(&self.info([0; INFO])?, 4) })
        } else if name.ends_with("bpf-prog") {
            self.code().map(Kind::Program)
        } else {
            self.link().map(Kind::Link)
        }
    }

    /// The kernel's record of it, begun with `record`.
    fn info(&self, mut record: [u8; INFO]) -> io::Result<[u8; INFO]> {
        let place = record.as_mut_ptr();
        let fd = self.fd.as_raw_fd().cast_unsigned();
        bpf(OBJ_GET_INFO_BY_FD, &mut InfoAttr { fd, length: INFO as u32, info: place as u64 })?;
        // Written by the kernel behind the compiler's back.
        Ok(std::hint::black_box(record))
    }

    /// The code of a program.
    fn code(&self) -> io::Result<Code> {
        let mut maps = [0_u32; MAPS];
        let mut record = [0; INFO];
        // struct bpf_prog_info: nr_map_ids and map_ids.
        set(&mut record, 52, &(MAPS as u32).to_ne_bytes());
        set(&mut record, 56, &(maps.as_mut_ptr() as u64).to_ne_bytes());
        let record = self.info(record)?;
        let maps = std::hint::black_box(maps);
        let mut maps: Vec<u32> = maps.into_iter().take(number(&record, 52) as usize).collect();
        maps.sort_unstable();
        Ok(Code { tag: array(&record, 8).unwrap_or_default(), maps })
    }

    fn link(&self) -> io::Result<Link> {
        // struct bpf_link_info: what follows its first 16 bytes depends on the type. The kernel writes the path of a
        // probe where it is told to.
        let plain = self.info([0; INFO])?;
        let (kind, id, program) = (number(&plain, 0), number(&plain, 4), number(&plain, 8));
        let mut path = [0_u8; libc::PATH_MAX as usize];
        let (place, length) = ((path.as_mut_ptr() as u64).to_ne_bytes(), (path.len() as u32).to_ne_bytes());
        let mut record = [0; INFO];
        let on = match kind {
            LINK_TRACING => On::Tracing,
            LINK_XDP | LINK_TCX => On::Interface(number(&plain, 16)),
            LINK_UPROBE_MULTI => {
                set(&mut record, 16, &place);
                set(&mut record, 48, &length);
                self.info(record)?;
                On::User { path: path_of(&std::hint::black_box(path)) }
            }
            // BPF_PERF_EVENT_UPROBE and _URETPROBE.
            LINK_PERF_EVENT if matches!(number(&plain, 16), 1 | 2) => {
                set(&mut record, 24, &place);
                set(&mut record, 32, &length);
                self.info(record)?;
                On::User { path: path_of(&std::hint::black_box(path)) }
            }
            other => On::Other(other),
        };
        Ok(Link { id, program, on })
    }
}

/// The code of the program with that number.
///
/// # Errors
/// It is gone.
pub fn code_of(program: u32) -> io::Result<Code> {
    open(PROG_GET_FD_BY_ID, &mut IdAttr { id: program, ..IdAttr::default() })?.code()
}

/// The name of the program with that number, for people.
#[must_use]
pub fn name_of(program: u32) -> String {
    let opened = open(PROG_GET_FD_BY_ID, &mut IdAttr { id: program, ..IdAttr::default() });
    let name = opened.and_then(|object| object.info([0; INFO]));
    name.ok().and_then(|record| Some(crate::text::field(record.get(64..80)?))).unwrap_or_default()
}

/// Links of the whole machine that hang on code of files.
///
/// # Errors
/// The kernel does not list links.
pub fn user_links() -> io::Result<Vec<Link>> {
    let mut found = Vec::new();
    let mut attr = IdAttr::default();
    for _ in 0..LINKS {
        match bpf(LINK_GET_NEXT_ID, &mut attr) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => break,
            other => other?,
        };
        attr.id = std::hint::black_box(attr.next);
        // One that is gone meanwhile is none.
        let link = open(LINK_GET_FD_BY_ID, &mut IdAttr { id: attr.id, ..IdAttr::default() });
        found.extend(link.and_then(|link| link.link()).ok());
    }
    found.retain(|link| matches!(link.on, On::User { .. }));
    Ok(found)
}

/// The file whose code the perf event behind a descriptor of a process probes; none where it does not.
#[must_use]
pub fn probed_by(pid: u32, fd: u32) -> Option<PathBuf> {
    let mut path = [0_u8; libc::PATH_MAX as usize];
    let buffer = path.as_mut_ptr() as u64;
    let mut attr = QueryAttr { pid, fd, length: path.len() as u32, buffer, ..QueryAttr::default() };
    bpf(TASK_FD_QUERY, &mut attr).ok()?;
    // BPF_FD_TYPE_UPROBE and _URETPROBE.
    matches!(std::hint::black_box(attr.kind), 4 | 5).then(|| path_of(&std::hint::black_box(path)))
}

fn set(record: &mut [u8], offset: usize, bytes: &[u8]) {
    if let Some(place) = record.get_mut(offset..offset + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

fn path_of(bytes: &[u8]) -> PathBuf {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes.get(..end).unwrap_or_default()))
}
