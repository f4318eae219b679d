//! The developer verbs of Portcullis, as a library. `main.rs` only reads the command line.

pub mod apt;
pub mod bench;
pub mod bpf_check;
pub mod build;
pub mod checks;
pub mod count;
pub mod demo;
pub mod ebpf;
pub mod error;
pub mod install;
pub mod mutations;
pub mod run;
pub mod sandbox;
pub mod stages;
pub mod vm;
pub mod workspace;
