//! Process 1 of the guest: inserts the modules, puts the shared root below a layer in memory and /etc and the store on
//! what both boots share, starts Portcullis as the sandbox does, and runs the checks. Speaks over the second serial port
//! and powers off.

use super::report::{CHECKS, FILTER, OBSERVER, Outcome, REBOOT, TAMPER, VLAN, end, line};
use super::{REBOOT_INSIDE, calls, programs};
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
/// Name of what both boots write.
pub const DISK: &str = "disk";
/// The word for the second boot.
pub const AGAIN: &str = "--again";
/// Folder of the modules.
pub const MODULES: &str = "/modules";
/// `NAME=PASSWORD`, one a line.
pub const PASSWORDS: &str = "/passwords";
/// What the initramfs has beside files.
pub const FOLDERS: [&str; 6] = ["/proc", "/dev", "/lower", "/over", "/system", MODULES];

/// Where the disk is seen.
const MOUNTED: &str = "/mnt";
/// On it: when the second boot begins, in seconds since 1970.
const CLOCK: &str = "/mnt/clock";
/// What is kept on it: where it belongs, and the folder there.
const KEPT: [(&str, &str); 2] = [("/etc", "/mnt/etc"), ("/var/lib/portcullis", "/mnt/store")];
const SPEAKER: &str = "/dev/ttyS1";
const ADVICE: &str = "this verb is process 1 of a test machine only";

/// The hidden verb.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Guest {
    /// The second boot
    #[arg(long)]
    again: bool,
}

type Passwords = Vec<(String, String)>;

/// Does all of it; never comes back.
///
/// # Errors
/// Powering off is refused, as it is everywhere but in a guest.
pub fn run(options: &Guest) -> Result<u8> {
    if std::process::id() != 1 {
        return Err(Error::Refused { what: "this is no guest".into(), advice: ADVICE.into() });
    }
    match prepare() {
        Ok(passwords) if options.again => second_boot(&passwords),
        Ok(passwords) => checks(&passwords),
        Err(error) => {
            say(&line(if options.again { REBOOT } else { "loads" }, Outcome::Failed, &error.to_string()))
        }
    }
    if options.again {
        say(&end());
    }
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
fn prepare() -> Result<Passwords> {
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
    attach("securityfs", "/system/sys/kernel/security", "securityfs", MsFlags::empty(), None)?;
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
    disk()?;
    syslog::start()?;
    Ok(pairs)
}

/// Puts what outlives a boot in its place: in the first one, a copy of what is there.
fn disk() -> Result<()> {
    attach(DISK, MOUNTED, "virtiofs", MsFlags::empty(), None)?;
    for (place, kept) in KEPT {
        let (place, kept) = (Path::new(place), Path::new(kept));
        std::fs::create_dir_all(place).map_err(Error::file("create", place))?;
        if !kept.exists() {
            let mut copy = sandbox::inside("cp");
            copy.arg("--archive").arg(place).arg(kept);
            run::quietly(&mut copy, "is there room below the sandbox's /run?")?;
        }
        attach(&kept.to_string_lossy(), &place.to_string_lossy(), "none", MsFlags::MS_BIND, None)?;
    }
    Ok(())
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

/// Turns the filter on, drops and undrops with it, says where it hangs, and turns it off. Two wires where the kernel has
/// veth at hand.
const FILTER_SCRIPT: &str = r#"
config=/etc/portcullis/portcullis.toml
cp $config /root/before.toml
ip link add v0 type veth peer name v1 2>/dev/null
printf '\n[filter]\nenabled = true\n' >> $config
portcullis reload >/dev/null || exit 1
turn=0
until portcullis status | grep -q '^drops '; do
    turn=$((turn + 1))
    [ $turn -lt 300 ] || { portcullis status; exit 1; }
    sleep 0.1
done
portcullis status | grep '^FILTER ' && exit 1
portcullis status | sed -n 's/^filter  *//p'
{ portcullis drop 192.0.2.7 && portcullis drop 198.51.100.0/24 --port 22 && portcullis undrop 192.0.2.7; } >&2 || exit 1
cp /root/before.toml $config
portcullis reload >/dev/null
"#;

const VLAN_SCRIPT: &str = include_str!("vlan.sh");

/// kon guesses at three accounts and is locked out: a su of his is seen, the next ones never start, by the LSM where it is
/// active, else by signal; after his lease they do. Says by which.
const OBSERVER_SCRIPT: &str = r#"
config=/etc/portcullis/portcullis.toml
cp $config /root/before.toml
kon() { setpriv --reuid kon --regid kon --clear-groups su "$1" -c true; }
wait_for() {
    turn=0
    until "$@"; do
        turn=$((turn + 1))
        [ $turn -lt 300 ] || { echo "in vain: $*"; portcullis status; portcullis observe; exit 1; }
        sleep 0.1
    done
}
status() { portcullis status | grep -q "^observer .*$1"; }
saw() { portcullis observe | grep -q "$1"; }
refused() { portcullis sources | grep -q refused; }
starts() { kon jon </dev/null 2>&1 | grep -q assword; }
printf '\n[observer]\ndeny_exec = true\n[sc5]\nlocal = "refuse"\naccounts = 3\ndrop_time = "30s"\n' >> $config
portcullis reload >/dev/null || exit 1
wait_for status 'denied by'
for account in jon admin root; do echo wrong | kon $account 2>/dev/null; done
wait_for saw 'exit 1.*su$'
wait_for refused
said=$(kon jon </dev/null 2>&1)
code=$?
if grep -q bpf /sys/kernel/security/lsm; then
    status 'by LSM' || { portcullis status; portcullis doctor; exit 1; }
    [ $code = 126 ] || { echo "su ended with $code: $said"; exit 1; }
    echo "$said" | grep -q 'Operation not permitted' || { echo "su: $said"; exit 1; }
else
    status 'by signal' && [ $code = 137 ] || { echo "su ended with $code: $said"; portcullis status; exit 1; }
fi
wait_for saw ' denied '
echo "$(portcullis status | sed -n 's/^observer  *//p'); su ended with $code"
wait_for starts
for account in jon admin root; do portcullis unlock $account >/dev/null; done
cp /root/before.toml $config
portcullis reload >/dev/null
"#;

/// Tampers with what guards the logons.
const TAMPER_SCRIPT: &str = include_str!("tamper.sh");

fn script(text: &str) -> std::result::Result<String, String> {
    let mut shell = sandbox::inside("sh");
    shell.args(["-c", text]);
    let output = shell.output().map_err(|error| format!("sh did not start: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() {
        return Ok(said);
    }
    Err(format!("{said} {}", String::from_utf8_lossy(&output.stderr).trim()).replace('\n', "; "))
}

/// Each check's result; what needs the gate is skipped without it.
fn checks(passwords: &Passwords) {
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
            FILTER => script(FILTER_SCRIPT),
            VLAN => script(VLAN_SCRIPT),
            OBSERVER => script(OBSERVER_SCRIPT),
            TAMPER => script(TAMPER_SCRIPT),
            // The second boot tells what came of it.
            REBOOT => match play(REBOOT_INSIDE, &["before"], passwords) {
                Ok(_) => continue,
                failed => failed,
            },
            _ => play(demo::STORY_INSIDE, &[], passwords),
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

/// The second boot: the gate is loaded as its unit does it, and the first logons come before anything else runs.
fn second_boot(passwords: &Passwords) {
    let answer = restored(passwords);
    let (outcome, text) = match answer {
        Ok(text) => (Outcome::Passed, text),
        Err(text) => (Outcome::Failed, text),
    };
    say(&line(REBOOT, outcome, &text));
}

fn restored(passwords: &Passwords) -> std::result::Result<String, String> {
    let started = Instant::now();
    let text = |error: Error| error.to_string();
    set_clock().map_err(text)?;
    let mut gate = sandbox::inside("portcullisd");
    run::quietly(gate.arg("gate"), "portcullisd says above what is wrong").map_err(text)?;
    play(REBOOT_INSIDE, &["first"], passwords)?;
    services::start(&sandbox::Options::default(), &mut Clock::silent()).map_err(text)?;
    play(REBOOT_INSIDE, &["later"], passwords)?;
    Ok(format!("{:.1} s", started.elapsed().as_secs_f64()))
}

/// The machine was off for as long as the first boot wished.
fn set_clock() -> Result<()> {
    let path = Path::new(CLOCK);
    let text = std::fs::read_to_string(path).map_err(Error::file("read", path))?;
    let seconds = text.trim().parse().map_err(|_| Error::Refused {
        what: format!("{CLOCK} holds no time: {text}"),
        advice: "the first boot did not come to its end".into(),
    })?;
    let time = nix::sys::time::TimeSpec::new(seconds, 0);
    nix::time::clock_settime(nix::time::ClockId::CLOCK_REALTIME, time).map_err(|source| Error::Kernel {
        action: "set the clock".into(),
        source,
        advice: ADVICE,
    })
}

/// Runs a program that says by its status whether all was as it must be.
fn play(program: &str, arguments: &[&str], passwords: &Passwords) -> std::result::Result<String, String> {
    let started = Instant::now();
    let mut command: Command = sandbox::inside(program);
    command.args(arguments).stdin(Stdio::null()).current_dir("/root");
    command.envs(passwords.iter().map(|(name, password)| (name, password)));
    match command.status() {
        Ok(status) if status.success() => Ok(format!("{:.1} s", started.elapsed().as_secs_f64())),
        Ok(status) => Err(format!("{program} {} ended with {status}", arguments.join(" "))),
        Err(error) => Err(format!("{program} did not start: {error}")),
    }
}
