//! Builds the eBPF object. Two ways: Debian's rustc with its precompiled core for BPF (works beside a stable toolchain),
//! else rustup's nightly with rust-src. The object is checked (bpf_check.rs) before it is put in its place.

use crate::error::{Error, Result};
use crate::workspace::Workspace;
use crate::{apt, bpf_check, run};
use std::path::{Path, PathBuf};
use std::process::Command;

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_PACKAGES: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];
const TARGET: &str = "bpfel-unknown-none";
/// A nightly whose LLVM is one that [`LINKER_VERSION`] understands: from LLVM 23 on there is no optimisation for size.
const NIGHTLY: &str = "nightly-2026-02-15";
const LINKER_VERSION: &str = "0.10.4";

/// What to build, and where to.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Cargo features of the eBPF crate, separated by commas.
    pub features: Option<String>,
    /// Where the object goes; the agent's place by default.
    pub out: Option<PathBuf>,
    /// How; chosen by what is present by default.
    pub way: Option<Way>,
}

/// How the object is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Way {
    /// Debian's rustc-web with libstd-rust-web-dev-bpf.
    Debian,
    /// rustup's nightly with rust-src.
    Nightly,
}

impl Way {
    /// Chooses by what is present, installs what is missing where that is possible.
    pub fn choose() -> Result<Self> {
        if debian_core() {
            return Ok(Self::Debian);
        }
        if apt::root() && apt::available(&DEBIAN_PACKAGES) {
            apt::ensure(&DEBIAN_PACKAGES, "the compiler for eBPF")?;
            if debian_core() {
                return Ok(Self::Debian);
            }
        }
        if nightly_source() {
            return Ok(Self::Nightly);
        }
        if apt::here() && run::works("rustup", "--version") {
            eprintln!("xtask: rustup toolchain install {NIGHTLY} --component rust-src");
            let mut install = Command::new("rustup");
            install.args(["toolchain", "install", NIGHTLY, "--profile", "minimal"]);
            install.args(["--component", "rust-src"]);
            run::run(&mut install, "install rustup's nightly with rust-src by hand")?;
            return Ok(Self::Nightly);
        }
        Err(Error::Missing {
            what: "a compiler for eBPF".into(),
            advice: format!(
                "on Debian run `apt-get install {}`, elsewhere `rustup toolchain install {NIGHTLY} --component rust-src`",
                DEBIAN_PACKAGES.join(" ")
            ),
        })
    }

    /// One line: which way, and how to get the other.
    pub fn describe(self) -> String {
        match self {
            Self::Debian => format!(
                "eBPF by Debian's {DEBIAN_RUSTC} and its core for BPF (the other way, used when that is absent: \
                 rustup toolchain install {NIGHTLY} --component rust-src)"
            ),
            Self::Nightly => format!(
                "eBPF by rustup's {NIGHTLY} with -Zbuild-std=core (the other way, preferred on Debian: apt-get install {})",
                DEBIAN_PACKAGES.join(" ")
            ),
        }
    }

    /// `cargo VERB` for the eBPF crate, with its own target folder, so that the host build is left alone.
    pub fn cargo(self, workspace: &Workspace, verb: &str) -> Command {
        let mut cargo = match self {
            Self::Debian => run::cargo(),
            Self::Nightly => {
                let mut cargo = Command::new("cargo");
                cargo.arg(format!("+{NIGHTLY}")).env_remove("RUSTUP_TOOLCHAIN").env_remove("RUSTC");
                cargo
            }
        };
        cargo.arg(verb).args(["--release", "--package", "portcullis-ebpf", "--target", TARGET]);
        cargo.arg("--target-dir").arg(workspace.target.join("ebpf-build"));
        cargo.current_dir(&workspace.root);
        cargo.env_remove("RUSTFLAGS").env("CARGO_ENCODED_RUSTFLAGS", flags());
        cargo.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker(workspace));
        // The linker does its own link-time optimisation over LLVM bitcode.
        cargo.env("CARGO_PROFILE_RELEASE_LTO", "off");
        match self {
            Self::Debian => {
                cargo.env("RUSTC", DEBIAN_RUSTC).env(
                    "RUSTC_BOOTSTRAP",
                    "aya_ebpf,portcullis_ebpf,portcullis_filter,portcullis_bench,portcullis_observer",
                );
            }
            Self::Nightly => {
                cargo.arg("-Zbuild-std=core");
            }
        }
        cargo
    }

    /// Makes every warning of that cargo command an error.
    pub fn deny_warnings(self, command: &mut Command) {
        command.env("CARGO_ENCODED_RUSTFLAGS", format!("{}\u{1f}-Dwarnings", flags()));
    }
}

fn flags() -> String {
    let architecture = format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH);
    [architecture.as_str(), "-Cdebuginfo=2", "-Ctarget-cpu=v3", "-Clink-arg=--btf"].join("\u{1f}")
}

/// Builds and checks the object. Returns where it is.
pub fn build(workspace: &Workspace, options: &Options) -> Result<PathBuf> {
    let way = options.way.map_or_else(Way::choose, Ok)?;
    eprintln!("xtask: {}", way.describe());
    ensure_linker(workspace)?;
    let mut cargo = way.cargo(workspace, "build");
    if let Some(features) = &options.features {
        cargo.args(["--features", features]);
    }
    run::run(&mut cargo, "see the compiler's messages above")?;
    let folder = workspace.target.join("ebpf-build").join(TARGET).join("release");
    let out = options.out.clone().unwrap_or_else(|| workspace.bpf_object());
    let objects = [
        ("portcullis-ebpf", out.clone()),
        ("portcullis-filter", beside(&out, "filter")),
        ("portcullis-observer", beside(&out, "observer")),
    ];
    for (built, out) in objects {
        let built = folder.join(built);
        let report = bpf_check::check(&built)?;
        for function in &report.functions {
            eprintln!("xtask: {}: {} instructions", function.name, function.instructions);
        }
        for remark in &report.remarks {
            eprintln!("xtask: {remark}");
        }
        place(&built, &out)?;
        eprintln!("xtask: {} checked: no call under the lock", out.display());
    }
    Ok(out)
}

/// Builds the programs of the benchmarks. Returns where their object is.
pub fn bench(workspace: &Workspace) -> Result<PathBuf> {
    ensure_linker(workspace)?;
    let mut cargo = Way::choose()?.cargo(workspace, "build");
    cargo.args(["--quiet", "--features", "bench", "--bin", "portcullis-bench"]);
    run::run(&mut cargo, "see the compiler's messages above")?;
    let object = workspace.target.join("ebpf-build").join(TARGET).join("release/portcullis-bench");
    bpf_check::check(&object)?;
    Ok(object)
}

/// Where another object lies: beside the gate's, `NAME.bpf.o` and `NAME.filter.o`.
fn beside(gate: &Path, what: &str) -> PathBuf {
    let name = gate.file_name().unwrap_or_default().to_string_lossy();
    gate.with_file_name(format!("{}.{what}.o", name.trim_end_matches(".bpf.o")))
}

/// Copies in one step, so that a build that reads the object at the same time sees the old or the new one.
fn place(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(Error::file("create", folder))?;
    }
    let fresh = to.with_extension("new");
    std::fs::copy(from, &fresh).map_err(Error::file("write", &fresh))?;
    std::fs::rename(&fresh, to).map_err(Error::file("write", to))
}

fn linker(workspace: &Workspace) -> PathBuf {
    workspace.target.join("tools/bin/bpf-linker")
}

fn ensure_linker(workspace: &Workspace) -> Result<()> {
    if linker(workspace).exists() {
        return Ok(());
    }
    eprintln!("xtask: installing bpf-linker {LINKER_VERSION} into the target folder (about 75 s, once)");
    let mut install = run::cargo();
    install.args(["install", "--quiet", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--root"]);
    install.arg(workspace.target.join("tools"));
    // A target folder of its own: CARGO_TARGET_DIR would mix it with ours.
    install.env("CARGO_TARGET_DIR", workspace.target.join("tools/build"));
    install.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    run::run(&mut install, "it needs crates.io and a C compiler; see the messages above")
}

fn debian_core() -> bool {
    let mut ask = Command::new(DEBIAN_RUSTC);
    ask.args(["--print", "target-libdir", "--target", TARGET]);
    let Ok(answer) = run::output(&mut ask) else { return false };
    let folder = PathBuf::from(String::from_utf8_lossy(&answer.stdout).trim());
    holds(&folder, "libcore-")
}

fn nightly_source() -> bool {
    let mut ask = Command::new("rustc");
    ask.args([&format!("+{NIGHTLY}"), "--print", "sysroot"]).env_remove("RUSTUP_TOOLCHAIN");
    let Ok(answer) = run::output(&mut ask) else { return false };
    let sysroot = PathBuf::from(String::from_utf8_lossy(&answer.stdout).trim());
    answer.status.success() && sysroot.join("lib/rustlib/src/rust/library/core").is_dir()
}

fn holds(folder: &Path, prefix: &str) -> bool {
    folder.read_dir().is_ok_and(|mut entries| {
        entries.any(|entry| entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with(prefix)))
    })
}
