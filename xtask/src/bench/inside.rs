//! A benchmark of packets: a program of the tests runs in a sandbox, prints JSON, and makes tables of it.

use super::threads::Keeper;
use crate::error::{Error, Result};
use crate::workspace::Workspace;
use crate::{apt, build, ebpf, run};
use nix::sched::sched_getaffinity;
use nix::unistd::Pid;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

const INSIDE: &str = "/opt/portcullis-bench";
const OBJECT: &str = "/opt/portcullis-bench.o";
/// As in tests/src/traffic/port.rs.
const MACHINE: &str = "/opt/portcullis-machine";

/// One benchmark.
pub struct Inside<'a> {
    /// The program of the tests.
    pub program: &'a str,
    /// Name of the saved result, without its end.
    pub saved: &'a str,
    /// The agent's configuration; interfaces' names begin with what it is given.
    pub configuration: fn(&str) -> String,
    /// Arguments of the program between the object and the processors.
    pub arguments: Vec<String>,
    /// JSON instead of tables.
    pub json: bool,
}

impl Inside<'_> {
    /// Makes the tables of a result that was saved.
    pub fn show(&self, workspace: &Workspace, file: &Path) -> Result<u8> {
        let saved = std::fs::read(file).map_err(Error::file("read", file))?;
        show(&super::program(workspace, self.program)?, &saved)
    }

    /// Builds and measures; the status of the program inside.
    pub fn measure(&self, workspace: &Workspace) -> Result<u8> {
        apt::ensure(&build::PACKAGES, "build tools")?;
        build::refresh(workspace)?;
        let object = ebpf::bench(workspace)?;
        let program = super::program(workspace, self.program)?;
        let (flood, receiver) = processors()?;
        let token = format!("pb{}", std::process::id() % 1_000_000);
        let folder = workspace.target.join("bench");
        std::fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
        let config = folder.join(format!("{}.toml", self.program));
        write(&config, (self.configuration)(&token).as_bytes())?;
        let exe = std::env::current_exe().map_err(Error::file("find", "/proc/self/exe".as_ref()))?;
        let mut command = Command::new(exe);
        command.args(["sandbox", "--quiet", "--config"]).arg(&config);
        for (from, to) in [(program.as_path(), INSIDE), (&object, OBJECT), (Path::new("/proc"), MACHINE)] {
            command.arg("--bind").arg(format!("{}:{to}", from.display()));
        }
        command.args(["--", INSIDE, &token, OBJECT]).args(&self.arguments);
        command.arg(format!("{flood},{receiver}"));
        let keeper = Keeper::start(&token, receiver);
        let (status, result) = collect(&mut command)?;
        drop(keeper);
        if status != 0 {
            return Ok(status);
        }
        let saved = folder.join(format!("{}.json", self.saved));
        write(&saved, &result)?;
        eprintln!("xtask: saved as {}", saved.display());
        if self.json {
            let failed = Error::file("write", Path::new("standard output"));
            std::io::stdout().write_all(&result).map_err(failed)?;
            return Ok(0);
        }
        show(&program, &result)
    }
}

/// Runs `command` to its end, its standard output kept. It ends with this program.
fn collect(command: &mut Command) -> Result<(u8, Vec<u8>)> {
    let line = run::line(command);
    let started = |source| Error::Start { program: line.clone(), source };
    let mut child = run::tied(command).stdout(Stdio::piped()).spawn().map_err(started)?;
    let mut output = Vec::new();
    if let Some(pipe) = &mut child.stdout {
        pipe.read_to_end(&mut output).map_err(started)?;
    }
    let status = child.wait().map_err(started)?;
    Ok((u8::try_from(status.code().unwrap_or(1)).unwrap_or(1), output))
}

/// Hands a result to the program that makes tables of it.
fn show(program: &Path, result: &[u8]) -> Result<u8> {
    let started = |source| Error::Start { program: program.display().to_string(), source };
    let mut child = Command::new(program).arg("--show").stdin(Stdio::piped()).spawn().map_err(started)?;
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(result).map_err(started)?;
    }
    let status = child.wait().map_err(started)?;
    Ok(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1))
}

/// The first two processors that this program may use: one for the flood, one for who receives it.
fn processors() -> Result<(usize, usize)> {
    let set = sched_getaffinity(Pid::from_raw(0)).map_err(|source| Error::Kernel {
        action: "ask which processors there are".into(),
        source,
        advice: "try again",
    })?;
    let mut usable = (0..nix::sched::CpuSet::count()).filter(|place| set.is_set(*place).unwrap_or(false));
    match (usable.next(), usable.next()) {
        (Some(flood), Some(receiver)) => Ok((flood, receiver)),
        _ => Err(Error::Refused {
            what: "there is one processor only".into(),
            advice: "the flood and who receives it need one each: give the machine a second".into(),
        }),
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).map_err(Error::file("write", path))
}
