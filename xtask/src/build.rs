//! Release build of what is installed: the eBPF object when it is older than its sources, the agent, the PAM module. For tests, the same of the next
//! ABI version.

use crate::ebpf;
use crate::error::{Error, Result};
use crate::workspace::Workspace;
use crate::{apt, run};
use std::time::SystemTime;

const EBPF_SOURCES: [&str; 3] = ["ebpf", "common", "Cargo.toml"];
const SOURCES: [&str; 6] = ["agent", "common", "ebpf", "pam-module", "Cargo.toml", "Cargo.lock"];

/// Folder of what [`next`] builds.
const NEXT: &str = "abi-next";

/// Debian packages that the host build needs.
pub const PACKAGES: [&str; 3] = ["gcc", "libc6-dev", "libpam0g-dev"];

/// Builds everything that is installed.
pub fn build(workspace: &Workspace) -> Result<()> {
    let started = SystemTime::now();
    apt::ensure(&PACKAGES, "build tools")?;
    object(workspace)?;
    let mut cargo = run::cargo();
    cargo.args(["build", "--release", "--package", "portcullis-agent", "--package", "portcullis-pam"]);
    cargo.current_dir(&workspace.root);
    cargo.env("PORTCULLIS_BPF_OBJECT", workspace.bpf_object());
    run::run(&mut cargo, "see the compiler's messages above")?;
    let stamp = workspace.target.join("release/.portcullis-built");
    // As of the start: what was changed during the build counts as newer.
    std::fs::File::create(&stamp)
        .and_then(|file| file.set_modified(started))
        .map_err(Error::file("write", &stamp))
}

/// Builds agent, module and object of the next ABI version, which differs in its number alone, for the tests of an
/// upgrade. In the folder [`NEXT`] of the target folder; built only when a source is newer.
pub fn next(workspace: &Workspace) -> Result<()> {
    let folder = workspace.target.join(NEXT);
    let [agent, module, object] =
        ["portcullisd", "libpam_portcullis.so", "portcullis.bpf.o"].map(|name| folder.join(name));
    if agent.exists() && !workspace.outdated(&module, &SOURCES)? {
        return Ok(());
    }
    let started = SystemTime::now();
    std::fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
    let options = ebpf::Options { features: Some("abi-next".into()), out: Some(object.clone()), way: None };
    ebpf::build(workspace, &options)?;
    let mut cargo = run::cargo();
    cargo.args(["build", "--package", "portcullis-agent", "--package", "portcullis-pam", "--features"]);
    cargo.arg("portcullis-agent/abi-next,portcullis-pam/abi-next").current_dir(&workspace.root);
    cargo.env("PORTCULLIS_BPF_OBJECT", &object);
    run::run(&mut cargo, "see the compiler's messages above")?;
    for place in [&agent, &module] {
        let built = workspace.target.join("debug").join(place.file_name().unwrap_or_default());
        // The old one may be in use: it keeps its file.
        let fresh = place.with_extension("new");
        std::fs::copy(&built, &fresh).map_err(Error::file("copy", &built))?;
        std::fs::rename(&fresh, place).map_err(Error::file("write", place))?;
    }
    std::fs::File::options()
        .append(true)
        .open(&module)
        .and_then(|file| file.set_modified(started))
        .map_err(Error::file("write", &module))
}

/// Builds the eBPF object if it is missing or older than its sources.
pub fn object(workspace: &Workspace) -> Result<()> {
    if workspace.outdated(&workspace.bpf_object(), &EBPF_SOURCES)? {
        ebpf::build(workspace, &ebpf::Options::default())?;
    }
    Ok(())
}

/// Builds only when a source is newer than the last build: cheap enough for every sandbox.
pub fn refresh(workspace: &Workspace) -> Result<()> {
    let stamp = workspace.target.join("release/.portcullis-built");
    let products = [workspace.program("portcullisd"), workspace.program("portcullis"), workspace.module()];
    if products.iter().all(|product| product.exists()) && !workspace.outdated(&stamp, &SOURCES)? {
        return Ok(());
    }
    build(workspace)
}
