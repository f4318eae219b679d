//! `cargo xtask demo`: three wrong passwords, and a host that guesses by ssh, seen from a fresh clone. Installs what is missing, builds, opens a sandbox
//! and plays the story (program `portcullis-demo` of the tests) in it. Its status is the story's.

use crate::error::Result;
use crate::sandbox::{self, Bind, Options};
use crate::workspace::Workspace;
use crate::{apt, build, run};
use std::path::PathBuf;
use std::time::Instant;

/// The story's program.
pub const STORY: &str = "portcullis-demo";
/// Where the sandbox shows the story.
pub const STORY_INSIDE: &str = "/opt/portcullis-demo";

/// Builds and plays.
pub fn demo(workspace: &Workspace) -> Result<u8> {
    let started = Instant::now();
    apt::ensure(&build::PACKAGES, "build tools")?;
    build::refresh(workspace)?;
    let story = program(workspace, STORY)?;
    let built = started.elapsed();
    let options = Options {
        config: Some(workspace.root.join("tests/demo.toml")),
        bind: vec![Bind { from: story, to: STORY_INSIDE.into() }],
        quiet: true,
        command: vec![STORY_INSIDE.into(), "--siege".into()],
        ..Options::default()
    };
    let status = sandbox::run(workspace, &options)?;
    eprintln!(
        "xtask: the demo took {:.1} s, {:.1} s of it for the build; exit status {status}",
        started.elapsed().as_secs_f64(),
        built.as_secs_f64()
    );
    Ok(status)
}

/// A program of the tests; built.
///
/// # Errors
/// It does not compile.
pub fn program(workspace: &Workspace, name: &str) -> Result<PathBuf> {
    let mut cargo = run::cargo();
    cargo.args(["build", "--quiet", "--package", "portcullis-tests", "--bin", name]);
    cargo.current_dir(&workspace.root).env("PORTCULLIS_BPF_OBJECT", workspace.bpf_object());
    run::run(&mut cargo, "see the compiler's messages above")?;
    Ok(workspace.target.join("debug").join(name))
}
