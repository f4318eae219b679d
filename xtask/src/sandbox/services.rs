//! What runs in the sandbox: passwords for the users, the gate, the agent, sshd. Runs as process 1, inside.

use super::init::{Clock, USERS, write};
use super::{Options, inside};
use crate::error::{Error, Result};
use crate::run;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Where the object of `--gate-object` lies inside.
pub const GATE_OBJECT: &str = "/usr/lib/portcullis/gate.bpf.o";
const SOCKET: &str = "/run/portcullis/agent.sock";
const AGENT_LOG: &str = "/var/log/portcullisd.log";
const AGENT_PATIENCE: Duration = Duration::from_secs(20);
const SSHD_CONFIG: &str = "\
ListenAddress 127.0.0.1
PasswordAuthentication yes
KbdInteractiveAuthentication yes
UsePAM yes
UseDNS no
MaxStartups 400
";

/// Gives each user a fresh password. Returns name, variable and password.
pub fn set_passwords() -> Result<Vec<(&'static str, &'static str, String)>> {
    let mut list = Vec::new();
    for (name, _, variable) in USERS {
        list.push((name, variable, password()?));
    }
    let lines: String = list.iter().map(|(name, _, password)| format!("{name}:{password}\n")).collect();
    let mut change = inside("chpasswd");
    // Without PAM: quick, and no password module of the host has a say. The hash is the system's own kind.
    change.args(["--crypt-method", "YESCRYPT"]).stdin(Stdio::piped());
    let start = |source| Error::Start { program: "chpasswd".into(), source };
    let mut child = change.spawn().map_err(start)?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(lines.as_bytes()).map_err(Error::file("write to", Path::new("chpasswd")))?;
    }
    let status = child.wait().map_err(start)?;
    if status.success() {
        return Ok(list);
    }
    Err(Error::Failed {
        command: run::line(&change),
        status,
        advice: "the sandbox's users could not get their passwords".into(),
    })
}

/// 16 letters and digits from the kernel, without those that look alike.
fn password() -> Result<String> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; 16];
    std::fs::File::open(path)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(Error::file("read", path))?;
    Ok(bytes.iter().filter_map(|byte| LETTERS.get(usize::from(byte % 32)).copied()).map(char::from).collect())
}

/// Starts what `options` asks for and waits until it serves.
pub fn start(options: &Options, clock: &mut Clock) -> Result<()> {
    let mut gate = inside("portcullisd");
    gate.arg("gate");
    if options.gate_object.is_some() {
        gate.args(["--object", GATE_OBJECT]);
    }
    run::quietly(&mut gate, "the gate did not load; see its messages above")?;
    clock.lap("gate");
    if !options.no_agent {
        agent()?;
        clock.lap("agent");
    }
    configure_sshd()?;
    let folder = Path::new("/run/sshd");
    std::fs::create_dir_all(folder).map_err(Error::file("create", folder))?;
    // It goes into the background when it listens.
    let mut sshd = inside("/usr/sbin/sshd");
    sshd.args(["-E", "/var/log/sshd.log"]);
    run::quietly(&mut sshd, "sshd did not start; see its messages above")?;
    clock.lap("sshd");
    Ok(())
}

/// sshd's configuration.
pub fn configure_sshd() -> Result<()> {
    write("/etc/ssh/sshd_config.d/portcullis-sandbox.conf", SSHD_CONFIG)
}

fn agent() -> Result<()> {
    let path = Path::new(AGENT_LOG);
    let log = std::fs::File::create(path).map_err(Error::file("create", path))?;
    let copy = log.try_clone().map_err(Error::file("open", path))?;
    let mut agent = inside("portcullisd");
    agent.arg("run").stdout(log).stderr(copy);
    let mut child = agent.spawn().map_err(|source| Error::Start { program: "portcullisd".into(), source })?;
    let deadline = Instant::now() + AGENT_PATIENCE;
    while UnixStream::connect(SOCKET).is_err() {
        if let Some(reason) = ended(&mut child, deadline) {
            eprint!("{}", std::fs::read_to_string(path).unwrap_or_default());
            return Err(Error::Refused {
                what: format!("portcullisd {reason}"),
                advice: "see its log above".into(),
            });
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Why it is no use to wait any longer.
fn ended(child: &mut Child, deadline: Instant) -> Option<String> {
    if let Ok(Some(status)) = child.try_wait() {
        return Some(format!("ended with {status} before it served {SOCKET}"));
    }
    (Instant::now() > deadline).then(|| format!("did not serve {SOCKET} within {AGENT_PATIENCE:?}"))
}
