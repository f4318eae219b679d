//! What can go wrong in a verb. Every message says what failed, where, and what to do next.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

/// Result of a step.
pub type Result<T> = std::result::Result<T, Error>;

/// Any failure of a verb.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be used.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried: "read", "write", …
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("cannot start {program}: {source}; is it installed?")]
    Start {
        /// The program.
        program: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A program ran and failed.
    #[error("{command} ended with {status}; {advice}")]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What to do.
        advice: String,
    },
    /// A system call of the sandbox was refused.
    #[error("cannot {action}: {source}; {advice}")]
    Kernel {
        /// What was tried.
        action: String,
        /// The error number.
        source: nix::Error,
        /// What to do.
        advice: &'static str,
    },
    /// Something that is needed is not there.
    #[error("{what} is missing; {advice}")]
    Missing {
        /// What.
        what: String,
        /// What to do.
        advice: String,
    },
    /// The eBPF object is no ELF file that can be checked.
    #[error("cannot check {}: {reason}; build it anew with `cargo xtask build-ebpf`", path.display())]
    Unreadable {
        /// The object.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The eBPF object breaks a rule that old kernels enforce at load time.
    #[error("{} breaks the rules of the gate:\n  {problems}\nsee bpf_check.rs for the rules", path.display())]
    Object {
        /// The object.
        path: PathBuf,
        /// One a line.
        problems: String,
    },
    /// The state of the system forbids the step.
    #[error("{what}; {advice}")]
    Refused {
        /// What was found.
        what: String,
        /// What to do.
        advice: String,
    },
}

impl Error {
    /// For `map_err` after a file operation.
    pub fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::File { action, path, source }
    }
}
