//! The developer verbs of Portcullis, as a library. `main.rs` only reads the command line.

pub mod apt;
pub mod bpf_check;
pub mod ebpf;
pub mod error;
pub mod run;
pub mod workspace;
