//! Calls the pinned gate: `BPF_OBJ_GET`, then `BPF_PROG_TEST_RUN` (bpf(2)), by libc alone.
//!
//! Invariants: no allocation, no thread, no state; each file descriptor is closed again; EINTR is retried.
