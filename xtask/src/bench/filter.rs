//! `cargo xtask bench filter`: what a packet costs that is dropped, and what the list costs one that is not on it. Runs
//! `portcullis-bench-filter` in a sandbox whose agent filters two of its interfaces, one in XDP and one on tcx.

use super::threads::Keeper;
use crate::error::{Error, Result};
use crate::workspace::Workspace;
use crate::{apt, build, ebpf, run};
use nix::sched::sched_getaffinity;
use nix::unistd::Pid;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const PROGRAM: &str = "portcullis-bench-filter";
const INSIDE: &str = "/opt/portcullis-bench-filter";
const OBJECT: &str = "/opt/portcullis-bench.o";
/// As in tests/src/traffic/port.rs.
const MACHINE: &str = "/opt/portcullis-machine";

/// How to measure it.
#[derive(Clone, Debug, clap::Args)]
pub struct Filter {
    /// Lengths of the list, from short to long; at most 1,048,576
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', default_value = "1,1000,10000,100000,1000000")]
    sizes: Vec<u32>,
    /// 4, or 6 for IPv6 /64
    #[arg(long, value_name = "4|6", default_value_t = 4, value_parser = clap::value_parser!(u8).range(4..=6))]
    family: u8,
    /// How often each row is measured
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long each time, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(50..=60_000))]
    time: u32,
    /// JSON instead of tables
    #[arg(long)]
    json: bool,
    /// Make tables of a result that was saved, and measure nothing
    #[arg(long, value_name = "FILE")]
    show: Option<PathBuf>,
}

/// Builds and measures; the status of the program inside.
pub fn bench(workspace: &Workspace, options: &Filter) -> Result<u8> {
    if let Some(file) = &options.show {
        let saved = std::fs::read(file).map_err(Error::file("read", file))?;
        return show(&super::program(workspace, PROGRAM)?, &saved);
    }
    let longest = options.sizes.iter().max().copied().unwrap_or(0);
    if longest > 1 << 20 || longest == 0 || !options.sizes.is_sorted() || options.sizes.contains(&0) {
        return Err(Error::Refused {
            what: "--sizes takes lengths from 1 to 1,048,576".into(),
            advice: "write them from short to long".into(),
        });
    }
    apt::ensure(&build::PACKAGES, "build tools")?;
    build::refresh(workspace)?;
    let object = ebpf::bench(workspace)?;
    let program = super::program(workspace, PROGRAM)?;
    let (flood, receiver) = processors()?;
    let token = format!("pb{}", std::process::id() % 1_000_000);
    let folder = workspace.target.join("bench");
    std::fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
    let config = folder.join("filter.toml");
    write(&config, configuration(&token).as_bytes())?;
    let exe = std::env::current_exe().map_err(Error::file("find", "/proc/self/exe".as_ref()))?;
    let mut command = Command::new(exe);
    command.args(["sandbox", "--quiet", "--config"]).arg(&config);
    for (from, to) in [(program.as_path(), INSIDE), (&object, OBJECT), (Path::new("/proc"), MACHINE)] {
        command.arg("--bind").arg(format!("{}:{to}", from.display()));
    }
    let sizes: Vec<String> = options.sizes.iter().map(u32::to_string).collect();
    command.args(["--", INSIDE, &token, OBJECT, &options.family.to_string(), &sizes.join(",")]);
    command.args([options.rounds.to_string(), options.time.to_string(), format!("{flood},{receiver}")]);
    let keeper = Keeper::start(&token, receiver);
    let (status, result) = collect(&mut command)?;
    drop(keeper);
    if status != 0 {
        return Ok(status);
    }
    let saved = folder.join(format!("filter-ipv{}.json", options.family));
    write(&saved, &result)?;
    eprintln!("xtask: saved as {}", saved.display());
    if options.json {
        std::io::stdout().write_all(&result).map_err(Error::file("write", Path::new("standard output")))?;
        return Ok(0);
    }
    show(&program, &result)
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

/// Both of the filter's hooks, on interfaces that the program inside makes.
fn configuration(token: &str) -> String {
    // Not on the closed end of the XDP row: there a program of the benchmark asks the filter.
    // With an allow-list, as every host has one.
    format!(
        "break_glass = \"admin\"\n[filter]\nenabled = true\ninterfaces = [\"{token}xo\", \"{token}to\", \"{token}tc\"]\n\
         xdp = [\"{token}xo\"]\nallow = [\"192.0.2.0/24\", \"198.51.100.7/32\", \"2001:db8::/48\", \"2001:db8:1::7/128\"]\n"
    )
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).map_err(Error::file("write", path))
}
