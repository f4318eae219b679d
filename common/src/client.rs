//! Calls the pinned gate: `BPF_OBJ_GET`, then `BPF_PROG_TEST_RUN` (bpf(2)), by libc alone.
//!
//! Invariants: no allocation, no thread, no state; the descriptor is closed when the [`Gate`] is dropped; EINTR is
//! retried, as is a verdict of AGAIN. All `unsafe` of the client is in this file.

use core::{ffi::CStr, mem::zeroed};

use crate::abi::{ABI, Answer, Packet, Request, Settings, VERSIONS, Version, verdict};

const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_PROG_TEST_RUN: libc::c_int = 10;
/// Tries of a call whose row is deleted or reused under it every time.
const TRIES: u32 = 16;

/// `union bpf_attr`, the part of `BPF_OBJ_GET`.
#[repr(C)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// `union bpf_attr`, the part of `BPF_PROG_TEST_RUN`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct TestRun {
    /// Descriptor of the program.
    pub prog_fd: u32,
    /// What the program returned.
    pub retval: u32,
    /// Bytes of the packet.
    pub data_size_in: u32,
    /// Bytes of room for the packet afterwards.
    pub data_size_out: u32,
    /// Address of the packet.
    pub data_in: u64,
    /// Address of that room.
    pub data_out: u64,
    /// How often the program runs.
    pub repeat: u32,
    /// Nanoseconds a run.
    pub duration: u32,
    /// Bytes of the context.
    pub ctx_size_in: u32,
    /// Bytes of room for the context afterwards.
    pub ctx_size_out: u32,
    /// Address of the context.
    pub ctx_in: u64,
    /// Address of that room.
    pub ctx_out: u64,
    /// `BPF_F_TEST_…`.
    pub flags: u32,
    /// The processor, with `BPF_F_TEST_RUN_ON_CPU`.
    pub cpu: u32,
    /// Frames a batch, with `BPF_F_TEST_XDP_LIVE_FRAMES`.
    pub batch_size: u32,
    /// Zero.
    pub pad: u32,
}

/// `union bpf_attr`, the part of `BPF_MAP_LOOKUP_ELEM`.
#[repr(C)]
struct Lookup {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Why a call did not come to an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The gate's pin could not be opened: errno. ENOENT: not loaded. EACCES: not root.
    Open(i32),
    /// The gate could not be run: errno.
    Run(i32),
    /// The program answered something else than a gate of this ABI does.
    Foreign,
    /// The gate is closed to the caller, and the agent's socket gave no answer: errno (0: it hung up).
    Agent(i32),
}

impl Error {
    /// Whether the way to the gate is closed to this caller, or not there for him (a container): the agent may ask for
    /// him.
    #[must_use]
    pub(crate) fn is_closed(self) -> bool {
        matches!(
            self,
            Self::Open(libc::EACCES | libc::EPERM | libc::ENOENT | libc::ENOSYS)
                | Self::Run(libc::EACCES | libc::EPERM | libc::ENOSYS)
        )
    }

    /// Whether the caller could have caused it himself (EMFILE, ENFILE, ENOMEM, EINTR): such errors always refuse.
    #[must_use]
    pub fn is_callers(self) -> bool {
        matches!(
            self,
            Self::Open(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EINTR)
                | Self::Run(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EINTR)
                | Self::Agent(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EINTR)
        )
    }
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Open(libc::ENOENT) => {
                write!(
                    f,
                    "the gate is not loaded (no pin {}): start portcullis-gate.service",
                    crate::abi::PIN_GATE
                )
            }
            Self::Open(libc::EACCES | libc::EPERM) => {
                write!(f, "the gate's pin {} may be opened by root only", crate::abi::PIN_GATE)
            }
            Self::Open(errno) => write!(f, "opening the gate's pin {}: errno {errno}", crate::abi::PIN_GATE),
            Self::Run(errno) => write!(f, "running the gate: errno {errno}"),
            Self::Agent(errno) => write!(
                f,
                "the gate is open to root only, and the agent does not answer at {} (errno {errno}): start portcullisd.service",
                crate::abi::CALLERS
            ),
            Self::Foreign => write!(
                f,
                "the program at {} is not a gate of ABI {ABI}: restart portcullis-gate.service",
                crate::abi::PIN_GATE
            ),
        }
    }
}

impl core::error::Error for Error {}

/// An open gate.
#[derive(Debug)]
pub struct Gate {
    fd: Fd,
    abi: u32,
}

/// Asks the gate that runs, be it of this version or of the one before. A verdict of MOVED: neither answers just now, the
/// counts are on their way from one to the other.
///
/// # Errors
/// See [`Gate::open`] and [`Gate::call`].
pub fn ask(request: &Request) -> Result<Answer, Error> {
    let one = |version: &Version| Gate::open_version(version).and_then(|gate| gate.call(request));
    let [own, older @ ..] = &VERSIONS;
    let mut found = one(own);
    for version in older {
        match found {
            Err(Error::Open(libc::ENOENT)) => found = one(version),
            Ok(Answer { verdict: verdict::MOVED, .. }) => match one(version) {
                // Taken away when it had handed over.
                Err(Error::Open(libc::ENOENT)) => {}
                other => found = other,
            },
            _ => break,
        }
    }
    // Pinned between the first look and the last: an older one is taken away only after that.
    if !older.is_empty() && found == Err(Error::Open(libc::ENOENT)) {
        found = one(own);
    }
    found
}

/// A descriptor that is closed when it is dropped.
#[derive(Debug)]
struct Fd(libc::c_int);

impl Gate {
    /// Opens the pinned gate.
    ///
    /// # Errors
    /// [`Error::Open`] with the errno of `BPF_OBJ_GET`.
    pub fn open() -> Result<Self, Error> {
        let [own, ..] = &VERSIONS;
        Self::open_version(own)
    }

    /// Opens the pinned gate of a version.
    ///
    /// # Errors
    /// [`Error::Open`] with the errno of `BPF_OBJ_GET`.
    pub fn open_version(version: &Version) -> Result<Self, Error> {
        open_pin(version.gate_c).map(|fd| Self { fd: Fd(fd), abi: version.abi })
    }

    /// The settings of the running gate; of the gate before, where this version's has none yet (they are handed over).
    ///
    /// # Errors
    /// [`Error::Open`] and [`Error::Run`] with the errno of `BPF_OBJ_GET` and `BPF_MAP_LOOKUP_ELEM`.
    pub fn settings() -> Result<Settings, Error> {
        let mut found = Err(Error::Open(libc::ENOENT));
        for version in &VERSIONS {
            found = Self::settings_of(version);
            match found {
                Ok(Settings { generation: 0, .. }) | Err(Error::Open(libc::ENOENT)) => {}
                _ => break,
            }
        }
        found
    }

    fn settings_of(version: &Version) -> Result<Settings, Error> {
        let map = Fd(open_pin(version.settings_c)?);
        let key = 0u32;
        let mut value = Settings::default();
        let place = &raw mut value;
        let mut attr = Lookup {
            map_fd: map.0.cast_unsigned(),
            pad: 0,
            key: &raw const key as u64,
            value: place as u64,
            flags: 0,
        };
        bpf(BPF_MAP_LOOKUP_ELEM, &mut attr).map_err(Error::Run)?;
        // SAFETY: integers only, written by the kernel at this very address.
        Ok(unsafe { place.read_volatile() })
    }

    /// One call.
    ///
    /// # Errors
    /// [`Error::Run`] with the errno of `BPF_PROG_TEST_RUN`, [`Error::Foreign`] when what answered is no gate.
    pub fn call(&self, request: &Request) -> Result<Answer, Error> {
        let mut answer = Answer::default();
        for _ in 0..TRIES {
            answer = self.run(request)?;
            if answer.verdict != verdict::AGAIN {
                break;
            }
        }
        Ok(answer)
    }

    fn run(&self, request: &Request) -> Result<Answer, Error> {
        // SAFETY: Packet is integers only; all zero is a valid one.
        let mut packet: Packet = unsafe { zeroed() };
        packet.request = *request;
        // Older versions lay out a request as this one does: one number is the whole difference.
        if VERSIONS.iter().any(|version| version.abi == request.abi) {
            packet.request.abi = self.abi;
        }
        let place = &raw mut packet;
        let mut attr = TestRun {
            prog_fd: self.fd.0.cast_unsigned(),
            data_size_in: size_of::<Packet>() as u32,
            data_size_out: size_of::<Packet>() as u32,
            data_in: place as u64,
            data_out: place as u64,
            repeat: 1,
            ..TestRun::default()
        };
        bpf(BPF_PROG_TEST_RUN, &mut attr).map_err(Error::Run)?;
        // SAFETY: integers only, written by the kernel at this very address.
        let answer = unsafe { place.read_volatile() }.answer;
        // XDP_PASS and a clock: anything else was not our gate.
        if attr.retval == 2 && answer.now != 0 { Ok(answer) } else { Err(Error::Foreign) }
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: the descriptor is ours and open.
        unsafe { libc::close(self.0) };
    }
}

fn open_pin(path: &CStr) -> Result<libc::c_int, Error> {
    let mut attr = ObjGet { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    bpf(BPF_OBJ_GET, &mut attr).map_err(Error::Open)
}

/// bpf(2), again when a signal came between.
fn bpf<T>(command: libc::c_int, attr: &mut T) -> Result<libc::c_int, i32> {
    loop {
        // SAFETY: `attr` is a prefix of `union bpf_attr` of the size given, and what it points to outlives the call.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, command, core::ptr::from_mut(attr), size_of::<T>()) };
        if result >= 0 {
            return Ok(result as libc::c_int);
        }
        // SAFETY: no arguments, never null.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: errno of this thread.
        let errno = unsafe { *errno };
        if errno != libc::EINTR {
            return Err(errno);
        }
    }
}
