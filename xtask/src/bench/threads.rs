//! The kernel threads that receive for an interface (threaded NAPI). They belong to no sandbox's pid namespace, so a
//! program in one can neither see nor place them: that is done here, from outside.
//!
//! Invariant: only threads are touched that the kernel made for interfaces whose names begin with our own token.

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often new threads are looked for.
const PACE: Duration = Duration::from_millis(200);

/// Places threads until it is dropped.
pub struct Keeper {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Puts every receiving thread of interfaces that begin with `token` on `processor`, as they come.
    pub fn start(token: &str, processor: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, prefix) = (Arc::clone(&stop), format!("napi/{token}"));
        let thread = std::thread::spawn(move || {
            let mut done = BTreeSet::new();
            while !stopped.load(Ordering::Acquire) {
                place(&prefix, processor, &mut done);
                std::thread::sleep(PACE);
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn place(prefix: &str, processor: usize, done: &mut BTreeSet<i32>) {
    let Ok(entries) = std::fs::read_dir("/proc") else { return };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if done.contains(&pid) {
            continue;
        }
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if !name.starts_with(prefix) {
            continue;
        }
        let mut set = CpuSet::new();
        // Before other work of the machine, as all that measures.
        let _ = Command::new("renice").args(["-n", "-20", "-p", &pid.to_string()]).output();
        // One that is gone meanwhile needs no place; the program inside waits until the others have theirs, and says so.
        if set.set(processor).and_then(|()| sched_setaffinity(Pid::from_raw(pid), &set)).is_ok() {
            done.insert(pid);
        }
    }
}
