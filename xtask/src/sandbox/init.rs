//! Process 1 of the sandbox: lays out the root, starts the services, runs the command, reaps, and returns its status.
//! When it ends the kernel kills everything else in there; when its parent ends, it is killed.

use super::{ENVIRONMENT, Options, net, root, services, signals, syslog, systemd};
use crate::error::{Error, Result};
use crate::install;
use crate::workspace::Workspace;
use nix::sys::signal::Signal;
use std::io::Read as _;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// The users of the sandbox: name, uid, variable that tells the password.
pub const USERS: [(&str, u32, &str); 3] =
    [("kon", 2001, "KON_PASSWORD"), ("jon", 2002, "JON_PASSWORD"), ("admin", 2003, "ADMIN_PASSWORD")];
/// Variables of the caller that programs inside see too.
const PASSED_ON: [&str; 6] = ["TERM", "COLORTERM", "NO_COLOR", "RUST_BACKTRACE", "RUST_LOG", "COLUMNS"];

/// Status when the command cannot be started, as shells have it.
const NOT_FOUND: u8 = 127;

/// The hidden verb.
#[derive(clap::Args)]
pub struct Init {
    /// Pipe that closes when the parent ends
    #[arg(long)]
    pub alive: i32,
    /// The package layer
    #[arg(long)]
    pub layer: PathBuf,
    /// The rest
    #[command(flatten)]
    pub options: Options,
}

/// Tells with `--verbose` where the time goes.
pub struct Clock {
    last: Instant,
    shown: bool,
}

impl Clock {
    /// Tells nothing.
    pub(crate) fn silent() -> Self {
        Self { last: Instant::now(), shown: false }
    }

    /// `step` ends here.
    pub fn lap(&mut self, step: &str) {
        if self.shown {
            eprintln!("xtask: {step}: {:.1?}", self.last.elapsed());
        }
        self.last = Instant::now();
    }
}

/// Does all of it.
pub fn run(workspace: &Workspace, init: &Init) -> Result<u8> {
    die_with_parent(init.alive)?;
    let options = &init.options;
    let mut clock = Clock { last: Instant::now(), shown: options.verbose };
    let scratch = root::scratch(workspace)?;
    let system = root::assemble(workspace, &scratch, &init.layer, &options.bind)?;
    clock.lap("mounts");
    install_into(workspace, &system, options)?;
    clock.lap("install");
    root::enter(&system)?;
    nix::unistd::sethostname("portcullis").map_err(|source| Error::Kernel {
        action: "set the host name".into(),
        source,
        advice: "try again",
    })?;
    net::loopback_up()?;
    write("/etc/hostname", "portcullis\n")?;
    write("/etc/hosts", "127.0.0.1 localhost portcullis\n::1 localhost\n")?;
    homes()?;
    // Blocked before the first thread is made, so that every thread has them blocked.
    let signals = signals::Signals::watch()?;
    if !options.systemd {
        syslog::start()?;
    }
    clock.lap("files");
    let passwords = services::set_passwords()?;
    clock.lap("passwords");
    if options.systemd {
        systemd::boot(options.quiet)?;
        clock.lap("systemd");
    } else if !options.bare {
        services::start(options, &mut clock)?;
    }
    if !options.quiet {
        for (name, variable, password) in &passwords {
            eprintln!("xtask: user {name}, password {password} (${variable})");
        }
    }
    let mut command = command(options);
    command.env_clear().envs(ENVIRONMENT).current_dir("/root");
    command.envs(PASSED_ON.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.envs(passwords.iter().map(|(_, variable, password)| (*variable, password)));
    match signals.spawn(&mut command) {
        Ok(mut child) => signals.follow(&mut child),
        Err(error) => {
            eprintln!("xtask: {error}");
            Ok(NOT_FOUND)
        }
    }
}

/// The command, or a shell on a terminal of the sandbox's own (`script` makes one, so that su and login find it).
fn command(options: &Options) -> Command {
    if let Some((program, arguments)) = options.command.split_first() {
        let mut command = Command::new(program);
        command.args(arguments);
        return command;
    }
    if !options.quiet {
        eprintln!(
            "xtask: a throw-away system: leave with `exit`, nothing of it stays.\n\
             xtask: try `su kon`, then `su jon` with a wrong password, and `portcullis status`."
        );
    }
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", "exec bash --login", "/dev/null"]);
    command
}

/// SIGKILL when the parent ends; at once if it has ended already.
fn die_with_parent(alive: i32) -> Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(|source| Error::Kernel {
        action: "tie the sandbox to its parent".into(),
        source,
        advice: "try again",
    })?;
    // SAFETY: the number was passed on by the parent for this alone; nothing else in this process owns it.
    let pipe = std::fs::File::from(unsafe { OwnedFd::from_raw_fd(alive) });
    let closed = {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|source| Error::Kernel {
            action: "read the parent's pipe".into(),
            source,
            advice: "this verb is started by `cargo xtask sandbox` only",
        })?;
        // Nothing is ever written: an end of file means that the parent is gone, EAGAIN that it lives.
        (&pipe).read(&mut [0]).is_ok()
    };
    if closed {
        return Err(Error::Refused {
            what: "the process that opened the sandbox is gone".into(),
            advice: "start it again".into(),
        });
    }
    Ok(())
}

/// Portcullis itself, by the code of `cargo xtask install`, with the sandbox's configuration.
fn install_into(workspace: &Workspace, system: &Path, options: &Options) -> Result<()> {
    install::install(workspace, system)?;
    if install::lines(system)?.is_empty() {
        return Err(Error::Missing {
            what: "the PAM line in the sandbox's common-auth".into(),
            advice: "remove the sandbox folder in the target folder, so that its layer is made anew".into(),
        });
    }
    let sample = workspace.root.join("packaging/sandbox.toml");
    let config = options.config.as_deref().unwrap_or(&sample);
    let text = std::fs::read(config).map_err(Error::file("read", config))?;
    let place = system.join("etc/portcullis/portcullis.toml");
    std::fs::write(&place, text).map_err(Error::file("write", &place))?;
    if let Some(object) = &options.gate_object {
        let place = system.join(services::GATE_OBJECT.trim_start_matches('/'));
        if let Some(folder) = place.parent() {
            std::fs::create_dir_all(folder).map_err(Error::file("create", folder))?;
        }
        std::fs::copy(object, &place).map_err(Error::file("copy", object))?;
    }
    Ok(())
}

fn homes() -> Result<()> {
    for (name, uid, _) in USERS {
        let home = Path::new("/home").join(name);
        std::fs::create_dir(&home).map_err(Error::file("create", &home))?;
        std::fs::set_permissions(&home, PermissionsExt::from_mode(0o700))
            .map_err(Error::file("set the mode of", &home))?;
        chown(&home, Some(uid), Some(uid)).map_err(Error::file("give away", &home))?;
    }
    Ok(())
}

/// Writes a file of the sandbox, whose root this process is in.
pub fn write(path: &str, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(Error::file("write", Path::new(path)))
}
