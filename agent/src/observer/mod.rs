//! The observer: which logon programs are started, by whom, how they end, and what never reached the PAM line.
//!
//! The kernel's side (`ebpf/src/observer`) tells of watched programs alone; [`task`] reads it and holds it against what
//! the gate tells (`portcullis_policy::observer`). [`Shared`] is what the rest of the agent sees of it.
//!
//! Invariants: where it does not load, gate and filter go on, and status, doctor and a metric say so; its ring buffer is
//! its own, so no storm of programs crowds out a PAM record; it changes nothing but, when told to, an account's count, and
//! keeps nobody from anything but, when told to, who is locked out from su, login and sudo.

pub mod denial;
pub mod files;
pub mod load;
pub mod process;
mod running;
pub mod tables;
pub mod task;
pub mod types;

mod pace;
mod shared;

pub use process::ProcessView;
pub use shared::{ObserverView, Shared, WatchedView};

use crate::kernel::KernelError;

/// What went wrong with the observer.
#[derive(Debug, thiserror::Error)]
pub enum ObserverError {
    /// The kernel's side.
    #[error("the observer: {0}")]
    Kernel(String),
}

impl From<KernelError> for ObserverError {
    fn from(error: KernelError) -> Self {
        Self::Kernel(error.to_string())
    }
}
