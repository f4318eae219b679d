//! Process 1 of the guest: inserts the modules, puts the shared root below a layer in memory, starts Portcullis as the
//! sandbox does, and runs the checks. Speaks over the second serial port and powers off.

use super::report::{CHECKS, Outcome, end, line};
use super::{calls, programs};
use crate::demo;
use crate::error::{Error, Result};
use crate::run;
use crate::sandbox::{self, init::Clock, net, root, services, syslog};
use nix::mount::{MsFlags, mount};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Name of the shared root.
pub const TAG: &str = "root";
/// Folder of the modules.
pub const MODULES: &str = "/modules";
/// `NAME=PASSWORD`, one a line.
pub const PASSWORDS: &str = "/passwords";
/// What the initramfs has beside files.
pub const FOLDERS: [&str; 6] = ["/proc", "/dev", "/lower", "/over", "/system", MODULES];

const SPEAKER: &str = "/dev/ttyS1";
const ADVICE: &str = "this verb is process 1 of a test machine only";

/// Does all of it; never comes back.
///
/// # Errors
/// Powering off is refused, as it is everywhere but in a guest.
pub fn run() -> Result<u8> {
    if std::process::id() != 1 {
        return Err(Error::Refused { what: "this is no guest".into(), advice: ADVICE.into() });
    }
    match prepare() {
        Ok(passwords) => checks(&passwords),
        Err(error) => say(&line("loads", Outcome::Failed, &error.to_string())),
    }
    say(&end());
    nix::unistd::sync();
    let reason = nix::sys::reboot::reboot(nix::sys::reboot::RebootMode::RB_POWER_OFF);
    Err(Error::Kernel {
        action: "power off".into(),
        source: reason.err().unwrap_or(nix::Error::UnknownErrno),
        advice: ADVICE,
    })
}

fn say(text: &str) {
    println!("{text}");
}

/// From the kernel's first moment to the whole system. Returns the passwords' variables.
fn prepare() -> Result<Vec<(String, String)>> {
    attach("devtmpfs", "/dev", "devtmpfs", MsFlags::empty(), None)?;
    speak()?;
    attach("proc", "/proc", "proc", MsFlags::empty(), None)?;
    let release = Path::new("/proc/sys/kernel/osrelease");
    let release = std::fs::read_to_string(release).map_err(Error::file("read", release))?;
    say(&format!("vm: kernel {}", release.trim()));
    modules()?;
    let passwords = Path::new(PASSWORDS);
    let passwords = std::fs::read_to_string(passwords).map_err(Error::file("read", passwords))?;
    let pairs = passwords.lines().filter_map(|line| line.split_once('='));
    let pairs = pairs.map(|(name, password)| (name.to_owned(), password.to_owned())).collect();
    attach(TAG, "/lower", "virtiofs", MsFlags::MS_RDONLY, None)?;
    root::tmpfs(Path::new("/over"), "mode=0755")?;
    for folder in ["/over/upper", "/over/work"].map(Path::new) {
        std::fs::create_dir(folder).map_err(Error::file("create", folder))?;
    }
    let system = Path::new("/system");
    let layers = "lowerdir=/lower,upperdir=/over/upper,workdir=/over/work";
    attach("overlay", "/system", "overlay", MsFlags::empty(), Some(layers))?;
    root::devices(system)?;
    attach("proc", "/system/proc", "proc", MsFlags::empty(), None)?;
    attach("sysfs", "/system/sys", "sysfs", MsFlags::empty(), None)?;
    attach("bpf", "/system/sys/fs/bpf", "bpf", MsFlags::empty(), Some("mode=0700"))?;
    root::tmpfs(&system.join("run"), "mode=0755")?;
    root::tmpfs(&system.join("tmp"), "mode=1777")?;
    std::env::set_current_dir(system).map_err(Error::file("enter", system))?;
    // The first root cannot be left by pivot_root; what is mounted over it hides it.
    let here = |source| Error::Kernel { action: "change the root".into(), source, advice: ADVICE };
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).map_err(here)?;
    nix::unistd::chroot(".").map_err(here)?;
    std::env::set_current_dir("/").map_err(Error::file("enter", "/".as_ref()))?;
    nix::unistd::sethostname("portcullis").map_err(here)?;
    net::loopback_up()?;
    syslog::start()?;
    Ok(pairs)
}

/// Output goes where the host reads it.
fn speak() -> Result<()> {
    let speaker = Path::new(SPEAKER);
    let port = std::fs::File::options().write(true).open(speaker).map_err(Error::file("open", speaker))?;
    let failed = |source| Error::Kernel { action: "speak".into(), source, advice: ADVICE };
    nix::unistd::dup2_stdout(&port).map_err(failed)?;
    nix::unistd::dup2_stderr(&port).map_err(failed)
}

/// Inserts the modules in the order of their names.
fn modules() -> Result<()> {
    let folder = Path::new(MODULES);
    let entries = folder.read_dir().map_err(Error::file("read", folder))?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    for path in files {
        let file = std::fs::File::open(&path).map_err(Error::file("open", &path))?;
        let inserted = nix::kmod::finit_module(&file, c"", nix::kmod::ModuleInitFlags::empty());
        inserted.map_err(|source| Error::Kernel {
            action: format!("insert {}", path.display()),
            source,
            advice: "the list of modules fits another kernel",
        })?;
    }
    Ok(())
}

fn attach(source: &str, at: &str, kind: &str, flags: MsFlags, options: Option<&str>) -> Result<()> {
    mount(Some(source), at, Some(kind), flags, options).map_err(|source| Error::Kernel {
        action: format!("mount {kind} at {at}"),
        source,
        advice: ADVICE,
    })
}

/// Each check's result; what needs the gate is skipped without it.
fn checks(passwords: &[(String, String)]) {
    let [loads, others @ ..] = CHECKS;
    match load() {
        Ok(text) => say(&line(loads, Outcome::Passed, &text)),
        Err(error) => {
            say(&line(loads, Outcome::Failed, &error.to_string()));
            for check in others {
                say(&line(check, Outcome::Skipped, "the gate is not loaded"));
            }
            return;
        }
    }
    for check in others {
        let answer = match check {
            "calls" => calls::sequence(),
            "exit" => calls::death(),
            _ => story(passwords),
        };
        let (outcome, text) = match answer {
            Ok(text) => (Outcome::Passed, text),
            Err(text) => (Outcome::Failed, text),
        };
        say(&line(check, outcome, &text));
    }
}

/// Loads by the real portcullisd, then starts the rest. Tells what the verifier did.
fn load() -> Result<String> {
    let started = Instant::now();
    let mut gate = sandbox::inside("portcullisd");
    gate.arg("gate");
    let loaded = run::quietly(&mut gate, "portcullisd says above what the kernel refused");
    if loaded.is_err() {
        // Once more, for the verifier's whole log.
        let _ = gate.env("PORTCULLIS_LOG", "debug").status();
    }
    loaded?;
    let took = started.elapsed();
    let verified = programs::verified()?;
    services::start(&sandbox::Options::default(), &mut Clock::silent())?;
    Ok(format!("{verified}, {:.1} s", took.as_secs_f64()))
}

/// The demo, as `cargo xtask demo` plays it.
fn story(passwords: &[(String, String)]) -> std::result::Result<String, String> {
    let started = Instant::now();
    let mut story: Command = sandbox::inside(demo::STORY_INSIDE);
    story.envs(passwords.iter().map(|(name, password)| (name, password))).stdin(Stdio::null());
    story.current_dir("/root");
    match story.status() {
        Ok(status) if status.success() => Ok(format!("{:.1} s", started.elapsed().as_secs_f64())),
        Ok(status) => Err(format!("it ended with {status}")),
        Err(error) => Err(format!("it did not start: {error}")),
    }
}
