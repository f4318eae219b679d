//! One flood: a thread on one processor that runs the flood's program by BPF_PROG_TEST_RUN with live frames, in one call.
//! (Short calls, one after the other, sleep about 20 ms each: the kernel waits for their frames to come back.)

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use aya::programs::ProgramFd;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::Pid;
use portcullis_common::client::TestRun;

use super::port::in_network;
use super::refused;
use crate::{Error, Result};

const BPF_PROG_TEST_RUN: libc::c_int = 10;
const BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 2;
/// The niceness of what measures: other work of the machine takes little part then.
const FIRST: libc::c_int = -20;
/// Frames a batch, the kernel's own default.
const BATCH: u32 = 64;

/// A flood that runs. It ends when this is dropped.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    thread: Arc<AtomicI32>,
    handle: Option<JoinHandle<Result<()>>>,
}

impl Flood {
    /// Begins, in the network `network`, on processor `processor`. The scene must be set.
    ///
    /// # Errors
    /// The signal that ends it cannot be set up.
    pub fn start(program: ProgramFd, frame: Vec<u8>, network: &str, processor: usize) -> Result<Self> {
        let quiet = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler does nothing.
        unsafe { sigaction(Signal::SIGUSR1, &quiet) }.map_err(refused("sigaction"))?;
        let (stop, thread) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI32::new(0)));
        let (stopped, own, network) = (Arc::clone(&stop), Arc::clone(&thread), network.to_owned());
        let handle = std::thread::spawn(move || {
            on(processor)?;
            in_network(Some(&network), || {
                // In a network of its own is a thread of its own: this one is to be told.
                own.store(nix::unistd::gettid().as_raw(), Ordering::Release);
                while !stopped.load(Ordering::Acquire) {
                    run(&program, &frame, u32::MAX, true)?;
                }
                Ok(())
            })
        });
        Ok(Self { stop, thread, handle: Some(handle) })
    }

    /// Ends it.
    ///
    /// # Errors
    /// What the kernel said to it.
    pub fn end(mut self) -> Result<()> {
        self.join()
    }

    fn join(&mut self) -> Result<()> {
        let Some(handle) = self.handle.take() else { return Ok(()) };
        self.stop.store(true, Ordering::Release);
        // A signal that comes before the call ends nothing: again, until the thread is gone.
        while !handle.is_finished() {
            let thread = self.thread.load(Ordering::Acquire);
            if thread != 0 {
                let own = nix::unistd::getpid().as_raw();
                // SAFETY: integers; a thread of this process, which is joined below: its number is nobody else's.
                unsafe { libc::syscall(libc::SYS_tgkill, own, thread, libc::SIGUSR1) };
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        handle.join().unwrap_or_else(|_| {
            Err(Error::Answer { program: "the flood".into(), output: "its thread panicked".into() })
        })
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        // Whoever wants to know calls `end`.
        let _ = self.join();
    }
}

extern "C" fn nothing(_signal: libc::c_int) {}

/// Puts the calling thread on one processor.
///
/// # Errors
/// The kernel's words.
pub fn on(processor: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(processor).map_err(refused("a processor"))?;
    sched_setaffinity(Pid::from_raw(0), &set).map_err(refused("sched_setaffinity"))
}

/// Puts the calling thread, and all that it starts, before other work of the machine.
///
/// # Errors
/// The kernel's words.
pub fn before_others() -> Result<()> {
    // SAFETY: integers only; 0 is the calling thread.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, FIRST) } == 0 {
        // Where sessions share the processors out evenly (sched(7), autogroup), niceness is one within a session. Without
        // them there is no such file.
        let _ = std::fs::write("/proc/self/autogroup", FIRST.to_string());
        return Ok(());
    }
    Err(Error::Program { program: "setpriority".into(), source: std::io::Error::last_os_error() })
}

/// Nanoseconds a run of `program` over a packet, by the kernel's own clock.
///
/// # Errors
/// The kernel's words.
pub fn test_run(program: &ProgramFd, packet: &[u8], repeat: u32) -> Result<u32> {
    run(program, packet, repeat, false)
}

fn run(program: &ProgramFd, packet: &[u8], repeat: u32, live: bool) -> Result<u32> {
    let mut attr = TestRun {
        prog_fd: program.as_fd().as_raw_fd().cast_unsigned(),
        data_size_in: u32::try_from(packet.len()).unwrap_or(0),
        data_in: packet.as_ptr() as u64,
        repeat,
        flags: if live { BPF_F_TEST_XDP_LIVE_FRAMES } else { 0 },
        batch_size: if live { BATCH } else { 0 },
        ..TestRun::default()
    };
    // SAFETY: `attr` is a prefix of `union bpf_attr` of the size given; the packet outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_TEST_RUN,
            std::ptr::from_mut(&mut attr),
            std::mem::size_of::<TestRun>(),
        )
    };
    let error = std::io::Error::last_os_error();
    if result == 0 || (live && error.raw_os_error() == Some(libc::EINTR)) {
        return Ok(attr.duration);
    }
    Err(Error::Program { program: "BPF_PROG_TEST_RUN".into(), source: error })
}
