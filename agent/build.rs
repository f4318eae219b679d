//! Puts the eBPF objects, the gate's, the filter's and the observer's, where the agent embeds them.
//!
//! Looks at `PORTCULLIS_BPF_OBJECT`, else at `ebpf/portcullis.bpf.o` in the target folder; without one the build ends
//! with the one command that makes it.

use std::env;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-env-changed=PORTCULLIS_BPF_OBJECT");
    println!("cargo::rerun-if-env-changed=CARGO_TARGET_DIR");
    let object = object();
    let Some(out) = env::var_os("OUT_DIR").map(PathBuf::from) else {
        println!("cargo::error=cargo gave no OUT_DIR to the build script of portcullis-agent");
        return;
    };
    let objects = [
        (beside(&object, "filter"), "portcullis.filter.o"),
        (beside(&object, "observer"), "portcullis.observer.o"),
        (object, "portcullis.bpf.o"),
    ];
    for (object, name) in objects {
        println!("cargo::rerun-if-changed={}", object.display());
        if let Err(error) = std::fs::copy(&object, out.join(name)) {
            println!(
                "cargo::error=no eBPF object at {} ({error}): make it with `cargo xtask build-ebpf`, or name the gate's in PORTCULLIS_BPF_OBJECT",
                object.display()
            );
        }
    }
}

/// Another object, beside the gate's: `NAME.bpf.o` and `NAME.filter.o`.
fn beside(gate: &Path, what: &str) -> PathBuf {
    let name = gate.file_name().unwrap_or_default().to_string_lossy();
    gate.with_file_name(format!("{}.{what}.o", name.trim_end_matches(".bpf.o")))
}

/// Where the object is expected.
fn object() -> PathBuf {
    if let Some(path) = env::var_os("PORTCULLIS_BPF_OBJECT") {
        return PathBuf::from(path);
    }
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(
        || PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("../target"),
        PathBuf::from,
    );
    target.join("ebpf/portcullis.bpf.o")
}
