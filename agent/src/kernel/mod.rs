//! Everything the agent does with `bpf(2)`: load and pin the programs, read and write the tables, read the events.
//!
//! Invariants: only this module touches pins and maps; pins are root's (0600 in a 0700 folder); there is never a moment
//! without a gate once there was one; maps that are pinned already are reused, never recreated.

mod courtesy;
pub mod gate;
mod hours;
mod load;
pub mod mapping;
pub mod objects;
mod pins;
mod ring;
mod shape;
mod sources;
mod tables;
mod tracepoint;
mod upgrade;

pub use courtesy::give_way;
pub use load::{Loaded, OBJECT, load, load_if_missing};
pub(crate) use load::{absent, raise_memlock};
pub use pins::{PinState, gate_pinned, other_versions, pin_states, prepare, switched_off};
pub use ring::Ring;
pub use shape::{Maps, Shape, bytes};
pub use sources::{SourceTables, USERS};
pub use tables::{Occupancy, Slice, Stats, TableRow, Tables};
pub use tracepoint::{attach, attach_lsm, load_lsm};
pub use upgrade::retire_predecessors;

use std::io;
use std::path::PathBuf;

/// What went wrong between the agent and the kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Not root.
    #[error("not root: loading the gate needs root, start it as a system service or with sudo")]
    NotRoot,
    /// The break-glass word is on the kernel command line.
    #[error(
        "`{}` is on the kernel command line: the gate is not loaded; reboot without that word to turn it on again",
        portcullis_common::abi::OFF_WORD
    )]
    SwitchedOff,
    /// /sys/fs/bpf is no BPF file system.
    #[error("no bpffs at /sys/fs/bpf: mount -t bpf bpf /sys/fs/bpf")]
    NoBpffs,
    /// Pins of another ABI version are there.
    #[error(
        "{path} holds the pins of another version of Portcullis; stop its agent and remove them (rm -r {path}), then start again"
    )]
    OtherVersion {
        /// Folder of the other version.
        path: PathBuf,
    },
    /// Nothing is pinned.
    #[error(
        "no gate is loaded ({path} is missing): `systemctl restart portcullis-gate portcullisd`, or `portcullisd gate` by hand"
    )]
    NoGate {
        /// The pin looked for.
        path: PathBuf,
    },
    /// A pin is not what this version would make.
    #[error(
        "the pin {path} is none of this version's ({what}): stop portcullisd, `rm -r {folder}` and start it again ({removed})"
    )]
    WrongPin {
        /// The pin.
        path: PathBuf,
        /// What differs.
        what: String,
        /// Its folder.
        folder: PathBuf,
        /// What becomes of the contents.
        removed: &'static str,
    },
    /// The kernel lacks what the gate is built on.
    #[error("this kernel lacks {feature}, which Portcullis needs (Linux 5.15 or later with BTF): {source}")]
    Unsupported {
        /// What is missing.
        feature: &'static str,
        /// The kernel's words.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file operation on a pin or its folder.
    #[error("cannot {what} {path}: {source}")]
    File {
        /// The operation.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// The object cannot be used.
    #[error(
        "the eBPF object lacks {what}: it is another version's, build it anew with `cargo xtask build-ebpf`"
    )]
    Object {
        /// Map or program that is missing.
        what: String,
    },
    /// The verifier refused a program.
    #[error(
        "the kernel refused the program {program}: {source}; the verifier's last word: {last} (PORTCULLIS_LOG=debug shows all of it)"
    )]
    Refused {
        /// Name of the program.
        program: &'static str,
        /// The kernel's words.
        source: io::Error,
        /// Last line of the verifier's log.
        last: String,
    },
    /// aya could not load, attach or pin.
    #[error("cannot {what}: {}", crate::text::chain(source.as_ref()))]
    Bpf {
        /// The operation.
        what: String,
        /// aya's words, the verifier's log among them.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The gate gave no answer, or none that can be used.
    #[error("the gate: {what}")]
    Gate {
        /// What happened and what to do.
        what: String,
    },
    /// A table could not be read or written.
    #[error("cannot {what} the table {table}: {}", crate::text::chain(source))]
    Table {
        /// The operation.
        what: &'static str,
        /// The map.
        table: &'static str,
        /// aya's words.
        source: aya::maps::MapError,
    },
    /// More classes or members than the tables hold.
    #[error("the configuration has {count} {what}, the gate holds {limit}: use fewer")]
    TooMany {
        /// Classes or members.
        what: &'static str,
        /// How many were asked for.
        count: usize,
        /// How many fit.
        limit: u32,
    },
    /// The kernel's source of random bytes failed.
    #[error("no random bytes for the key of unknown names: {source}")]
    Random {
        /// The system's words.
        source: getrandom::Error,
    },
}

/// An operation on a file that failed.
fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> KernelError {
    let path = path.into();
    move |source| KernelError::File { what, path, source }
}

/// A program that could not be loaded.
pub(crate) fn refused(program: &'static str) -> impl FnOnce(aya::programs::ProgramError) -> KernelError {
    use aya::programs::ProgramError;
    move |error| match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            log::debug!("verifier's log of {program}:\n{log}");
            let telling = |line: &&str| !line.trim().is_empty() && !line.contains(" insns (limit ");
            let last = log.lines().rev().find(telling).unwrap_or("none").trim();
            KernelError::Refused { program, source: io_error, last: crate::text::escape(last.as_bytes()) }
        }
        other => bpf(format!("load the program {program}"))(other),
    }
}

/// A failed operation of aya.
fn bpf<E: std::error::Error + Send + Sync + 'static>(
    what: impl Into<String>,
) -> impl FnOnce(E) -> KernelError {
    let what = what.into();
    move |source| KernelError::Bpf { what, source: Box::new(source) }
}
