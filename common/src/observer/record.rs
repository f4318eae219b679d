//! What lies in the observer's maps.
//!
//! Invariants: as in [`crate::abi`]: `repr(C)`, fixed-width integers, explicit padding, sizes asserted below. Path,
//! arguments, names and terminal are bytes from outside and are trusted as nothing else.

use super::{ANCESTORS, ARGUMENT_BYTES, PATH_BYTES};

/// A file as the kernel knows it: key of `WATCHED`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct File {
    /// Inode number.
    pub inode: u64,
    /// Device of the file system in the kernel's own form: major × 2^20 + minor, as in /proc/self/mountinfo.
    pub device: u32,
    /// Always zero.
    pub pad: u32,
}

/// Value of `WATCHED`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Watch {
    /// Number of the program in the agent's list, from 1.
    pub program: u32,
    /// 1: no program for who is locked out, see [`super::denial`].
    pub guarded: u32,
}

/// Whose programs are observed: value of `OBSERVER_SCOPE`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Scope {
    /// Device of nsfs, in the kernel's form.
    pub device: u64,
    /// Inode of the pid namespace.
    pub pids: u64,
    /// Inodes of the mount namespaces: process 1's and the agent's own. 0: none.
    pub mounts: [u32; 2],
    /// Bits of [`super::denial::scope`]; 0: nothing is observed.
    pub on: u32,
    /// A uid that is never kept from anything, as root is not: the break-glass account's. 0: root alone.
    pub spared: u32,
}

/// A process above a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Ancestor {
    /// Its pid in its own namespace; 0: none.
    pub pid: u32,
    /// Its real uid.
    pub uid: u32,
    /// Command name, ended by a zero.
    pub comm: [u8; 16],
}

/// A watched program, from its start to its end: value of `RUNNING` and record of the ring buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Process {
    /// When it was started, CLOCK_BOOTTIME nanoseconds.
    pub started: u64,
    /// When it ended; 0: it runs.
    pub ended: u64,
    /// When its process was made: tells two tasks at one address apart.
    pub born: u64,
    /// Nanoseconds on a processor, at its end.
    pub ran: u64,
    /// Nanoseconds of waiting for a processor, at its end.
    pub waited: u64,
    /// Id of its cgroup (v2).
    pub cgroup: u64,
    /// Its file.
    pub file: File,
    /// One of [`super::kind`].
    pub kind: u32,
    /// Bits of [`super::flag`].
    pub flags: u32,
    /// [`Watch::program`]; 0 where it is known by its name alone.
    pub program: u32,
    /// Process id, in the agent's namespace.
    pub pid: u32,
    /// Real uid of who started it.
    pub uid: u32,
    /// Login uid; [`super::NO_LOGIN`]: not set.
    pub login: u32,
    /// Session of the audit system; u32::MAX: none.
    pub session: u32,
    /// Wait status, at its end.
    pub status: u32,
    /// Whether it has waited for children: pages they faulted in.
    pub children: u64,
    /// Bytes used of `arguments`.
    pub argument_bytes: u32,
    /// Always zero.
    pub reserved: u32,
    /// Command name.
    pub comm: [u8; 16],
    /// Controlling terminal.
    pub tty: [u8; 32],
    /// Path as it was called.
    pub path: [u8; PATH_BYTES],
    /// Arguments, each ended by a zero; what is longer is cut.
    pub arguments: [u8; ARGUMENT_BYTES],
    /// Who started it, the parent first.
    pub ancestors: [Ancestor; ANCESTORS],
}

const _: () = {
    assert!(size_of::<File>() == 16);
    assert!(size_of::<Watch>() == 8);
    assert!(size_of::<Scope>() == 32);
    assert!(size_of::<Ancestor>() == 24);
    assert!(size_of::<Process>() == 48 + 16 + 32 + 16 + 48 + PATH_BYTES + ARGUMENT_BYTES + 24 * ANCESTORS);
};
