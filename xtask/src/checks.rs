//! `lint` and `test`: what every change must pass. Installs what is missing, says so, and runs each stage.

use crate::ebpf::Way;
use crate::error::Result;
use crate::stages::Stages;
use crate::workspace::Workspace;
use crate::{apt, build, run};
use std::process::Command;

/// Debian's clippy for the compiler that builds the eBPF object there.
const DEBIAN_CLIPPY: &str = "/usr/bin/clippy-driver";

/// `cargo xtask lint`.
pub fn lint(workspace: &Workspace) -> Result<u8> {
    let mut stages = Stages::default();
    tools(&mut stages);
    stages.step("eBPF object", || build::object(workspace));
    lints(workspace, &mut stages);
    Ok(stages.report())
}

/// `cargo xtask test [FILTER]`.
pub fn test(workspace: &Workspace, filter: Option<&str>) -> Result<u8> {
    let mut stages = Stages::default();
    tools(&mut stages);
    if !stages.step("eBPF object", || build::object(workspace))
        || !stages.step("build", || build::build(workspace))
    {
        return Ok(stages.report());
    }
    if filter.is_none() {
        lints(workspace, &mut stages);
    }
    let mut unit = runner(workspace, filter);
    unit.args(["--workspace", "--exclude", "portcullis-ebpf", "--exclude", "portcullis-tests"]);
    stages.runner("unit and property tests", &mut unit, filter.is_none());
    if !apt::root() {
        stages.skip("whole-system tests", "they need root: sudo -E cargo xtask test");
        return Ok(stages.report());
    }
    if !stages.step("build, next ABI", || build::next(workspace)) {
        return Ok(stages.report());
    }
    watcher();
    let mut system = runner(workspace, filter);
    system.args(["--package", "portcullis-tests"]);
    // The sandboxes of two tests share two cores well enough; more would only make them wait.
    system.env("RUST_TEST_THREADS", "2").env("NEXTEST_TEST_THREADS", "2");
    stages.runner("whole-system tests", &mut system, filter.is_none());
    let mut own = runner(workspace, filter);
    own.args(["--package", "xtask", "--test", "install", "--test", "leftovers"]);
    own.env("RUST_TEST_THREADS", "1").env("NEXTEST_TEST_THREADS", "1");
    stages.runner("sandbox and installation", &mut own, filter.is_none());
    Ok(stages.report())
}

/// `cargo xtask test leaks`: a million calls of the gate, 100,000 attempts.
pub fn leaks(workspace: &Workspace) -> Result<u8> {
    let mut stages = Stages::default();
    tools(&mut stages);
    if !stages.step("build", || build::refresh(workspace)) {
        return Ok(stages.report());
    }
    if !apt::root() {
        stages.skip("leaks", "they need root: sudo -E cargo xtask test leaks");
        return Ok(stages.report());
    }
    watcher();
    let mut leaks = runner(workspace, None);
    leaks.args(["--package", "portcullis-tests", "--test", "leaks"]).env(LONG, "1");
    stages.runner("leaks", &mut leaks, true);
    Ok(stages.report())
}

/// Makes tests take their long numbers.
const LONG: &str = "PORTCULLIS_TEST_LONG";

/// valgrind, which one test needs and says itself when it is not there.
fn watcher() {
    if let Err(error) = apt::ensure(&["valgrind"], "a tool of the tests") {
        eprintln!("xtask: no valgrind: {error}");
    }
}

/// cargo-nextest when there is one, else cargo test.
pub fn runner(workspace: &Workspace, filter: Option<&str>) -> Command {
    let mut cargo = run::cargo();
    cargo.current_dir(&workspace.root).env("PORTCULLIS_BPF_OBJECT", workspace.bpf_object());
    if run::works("cargo-nextest", "--version") {
        cargo.args(["nextest", "run", "--color=never", "--no-fail-fast", "--no-tests=pass"]);
        // What a passing test prints may say why it was skipped.
        cargo.args(["--success-output=immediate", "--failure-output=immediate"]);
    } else {
        cargo.args(["test", "--color=never", "--no-fail-fast"]);
    }
    cargo.args(filter);
    cargo
}

/// What the build and the checks need.
fn tools(stages: &mut Stages) {
    stages.step("tools", || {
        apt::ensure(&build::PACKAGES, "build tools")?;
        for (program, component) in [("cargo-clippy", "clippy"), ("rustfmt", "rustfmt")] {
            if !run::works(program, "--version") {
                eprintln!("xtask: rustup component add {component}");
                let mut add = Command::new("rustup");
                add.args(["component", "add", component]);
                run::run(&mut add, "install it by hand")?;
            }
        }
        Ok(())
    });
}

fn lints(workspace: &Workspace, stages: &mut Stages) {
    stages.step("format", || {
        let mut format = run::cargo();
        format.args(["fmt", "--all", "--check"]).current_dir(&workspace.root);
        run::run(&mut format, "run `cargo fmt --all`")
    });
    stages.step("clippy, host", || {
        let mut clippy = run::cargo();
        clippy.args(["clippy", "--quiet", "--workspace", "--exclude", "portcullis-ebpf", "--all-targets"]);
        clippy.args(["--", "-D", "warnings"]).current_dir(&workspace.root);
        clippy.env("PORTCULLIS_BPF_OBJECT", workspace.bpf_object());
        run::run(&mut clippy, "mend what clippy says above")?;
        // Tests that cargo leaves out of --all-targets.
        let mut own = run::cargo();
        own.args(["clippy", "--quiet", "--package", "xtask", "--test", "install", "--test", "leftovers"]);
        own.args(["--", "-D", "warnings"]).current_dir(&workspace.root);
        run::run(&mut own, "mend what clippy says above")
    });
    stages.step("clippy, eBPF", || ebpf(workspace));
}

/// The eBPF crate under the compiler that builds it: with its clippy if there is one, else its own warnings only.
fn ebpf(workspace: &Workspace) -> Result<()> {
    let way = Way::choose()?;
    if way == Way::Debian && apt::root() && apt::available(&["rust-web-clippy"]) {
        apt::ensure(&["rust-web-clippy"], "clippy for eBPF")?;
    }
    let clippy = match way {
        Way::Debian => run::works(DEBIAN_CLIPPY, "--version"),
        Way::Nightly => run::works("cargo-clippy", "--version"),
    };
    let mut check = way.cargo(workspace, if clippy && way == Way::Nightly { "clippy" } else { "check" });
    check.args(["--quiet", "--features", "bench"]);
    if !clippy {
        eprintln!(
            "xtask: no clippy for this compiler: its own warnings only (Debian: apt-get install rust-web-clippy)"
        );
        way.deny_warnings(&mut check);
    } else if way == Way::Debian {
        check.env("RUSTC_WORKSPACE_WRAPPER", DEBIAN_CLIPPY);
        check.env("CLIPPY_ARGS", "-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__");
    } else {
        check.args(["--", "-D", "warnings"]);
    }
    run::run(&mut check, "mend what is said above")
}
