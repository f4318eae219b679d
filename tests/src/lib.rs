//! What the whole-system tests and the demo share.
//!
//! * [`agent`]: kills and starts it.
//! * [`alarms`]: alarms of tampering.
//! * [`bench`]: what the module adds to one authentication.
//! * [`bpf`]: what is done to the pins behind everybody's back.
//! * [`books`]: what Portcullis has written down of a situation.
//! * [`crowd`]: many su at once.
//! * [`footprint`]: what a process holds, before and after.
//! * [`frames`]: frames as they are, by a packet socket.
//! * [`inside`]: runs a test in a throw-away system of its own.
//! * [`ledger`]: what the gate has counted.
//! * [`looks`]: the agent's looks for tampering.
//! * [`next`]: the ABI version to which tests upgrade.
//! * [`object`]: shared objects, loaded and unloaded.
//! * [`pam`]: a service of its own on libpam.
//! * [`pamtester`]: any stack, with any items.
//! * [`siege`]: a host that guesses by ssh, and one that logs on.
//! * [`ssh`]: ssh and sshd.
//! * [`stack`]: changes to PAM stacks.
//! * [`su`]: the real su, step by step: prompt, password, verdict.
//! * [`system`]: PAM stacks, counters, programs and the agent of the throw-away system.
//! * [`terminal`]: a program on a terminal of its own.
//! * [`tiny`]: a program that does nothing, to be started by the million.
//! * [`traffic`]: packets by the million, and what receiving one costs.
//! * [`watched`]: what the observer saw.
//! * [`users`]: users beside the sandbox's own.
//! * [`wire`]: other hosts, behind veth pairs.
//!
//! Invariant: nothing here touches anything outside a sandbox.

pub mod agent;
pub mod alarms;
pub mod bench;
pub mod books;
pub mod bpf;
pub mod crowd;
pub mod decisions;
pub mod drops;
pub mod footprint;
pub mod frames;
pub mod inside;
pub mod ledger;
pub mod looks;
pub mod next;
pub mod object;
pub mod pam;
pub mod pamtester;
pub mod probe;
pub mod siege;
pub mod ssh;
pub mod stack;
pub mod su;
pub mod system;
pub mod terminal;
pub mod tiny;
pub mod traffic;
pub mod users;
pub mod watched;
pub mod wire;

use std::path::PathBuf;

/// What can go wrong in a test's own machinery.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program could not be started or spoken to.
    #[error("{program}: {source}")]
    Program {
        /// Which.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something did not happen in time.
    #[error("waited {seconds} s in vain for {what}")]
    Late {
        /// For what.
        what: String,
        /// How long.
        seconds: u64,
    },
    /// An answer that is none.
    #[error("{program} printed something else than expected: {output}")]
    Answer {
        /// Which program.
        program: String,
        /// What it printed.
        output: String,
    },
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
