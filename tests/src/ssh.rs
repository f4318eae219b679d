//! ssh to the throw-away system's own sshd, or to one with another configuration.

use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::stack::must;
use crate::system::{run, wait_for, write};
use crate::terminal::Terminal;
use crate::{Error, Result};

/// A key that jon and kon accept.
const KEY: &str = "/root/key";
/// What every configuration here begins with.
const BASE: &str = "\
ListenAddress 127.0.0.1
HostKey /etc/ssh/ssh_host_ed25519_key
UsePAM yes
UseDNS no
PermitRootLogin no
PidFile none
";

/// An sshd that listens.
pub struct Sshd {
    port: u16,
}

impl Sshd {
    /// Starts one on `port` with these lines of configuration besides the usual.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(port: u16, lines: &str) -> Result<Self> {
        let config = format!("/etc/ssh/sshd-{port}.conf");
        let log = format!("/var/log/sshd-{port}.log");
        write(Path::new(&config), &format!("{BASE}Port {port}\n{lines}\n"))?;
        // It goes into the background when it listens.
        must("/usr/sbin/sshd", &["-f", &config, "-E", &log])?;
        Ok(Self { port })
    }

    /// The one that listens on `port`.
    #[must_use]
    pub const fn at(port: u16) -> Self {
        Self { port }
    }

    /// A session that lasts: the client of a logon whose `command` has printed a line.
    ///
    /// # Errors
    /// When ssh cannot be run, or the user is not let in.
    pub fn runs(&self, user: &str, password: &str, command: &str) -> Result<Child> {
        let mut words = self.arguments(user, "password");
        words.pop();
        let mut ssh = Command::new("sshpass");
        ssh.args(["-p", password, "ssh"]).args(words).arg(command);
        let mut child = ssh
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(trouble)?;
        let mut byte = [0_u8];
        while byte != *b"\n" {
            let read =
                child.stdout.as_mut().map_or(Ok(0), |stdout| stdout.read(&mut byte)).map_err(trouble)?;
            if read == 0 {
                return Err(Error::Answer { program: "ssh".into(), output: format!("no session of {user}") });
            }
        }
        Ok(child)
    }

    /// The options and the target of a client that tries `methods` only and answers one prompt each.
    #[must_use]
    pub fn arguments(&self, user: &str, methods: &str) -> Vec<String> {
        self.prompting(user, methods, 1)
    }

    /// The same, for a terminal, answering `prompts` prompts of each method.
    ///
    /// # Errors
    /// When ssh cannot be started.
    pub fn at_terminal(&self, user: &str, methods: &str, prompts: u32) -> Result<Terminal> {
        let words = self.prompting(user, methods, prompts);
        let words: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        Terminal::start(&format!("ssh {}", words.join(" ")))
    }

    /// A session of `user` at a terminal of its own, by his key: [`make_key`] first.
    ///
    /// # Errors
    /// When ssh cannot be started.
    pub fn session(&self, user: &str) -> Result<Terminal> {
        let mut words = self.arguments(user, "publickey");
        // The last one is a command; a session has none.
        words.pop();
        let words: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        Terminal::start(&format!("ssh -tt {}", words.join(" ")))
    }

    fn prompting(&self, user: &str, methods: &str, prompts: u32) -> Vec<String> {
        let options = [
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            &format!("NumberOfPasswordPrompts={prompts}"),
            "IdentitiesOnly=yes",
            &format!("PreferredAuthentications={methods}"),
        ];
        let mut list: Vec<String> =
            options.iter().flat_map(|option| ["-o".into(), (*option).into()]).collect();
        list.extend(["-p".into(), self.port.to_string(), "-i".into(), KEY.into()]);
        list.extend([format!("{user}@127.0.0.1"), "id -un".into()]);
        list
    }

    /// One whole logon; whether the command ran.
    ///
    /// # Errors
    /// When ssh cannot be run.
    pub fn logon(&self, user: &str, methods: &str, password: &str) -> Result<bool> {
        let child = self.client(user, methods, password)?;
        let output = child.wait_with_output().map_err(trouble)?;
        Ok(String::from_utf8_lossy(&output.stdout).trim() == user)
    }

    /// The client of a logon, running.
    ///
    /// # Errors
    /// When ssh cannot be run.
    pub fn client(&self, user: &str, methods: &str, password: &str) -> Result<Child> {
        let mut ssh = Command::new("sshpass");
        ssh.args(["-p", password, "ssh"]).args(self.arguments(user, methods));
        ssh.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        ssh.spawn().map_err(trouble)
    }
}

/// Makes the key and lets it into jon's and kon's accounts.
///
/// # Errors
/// When it cannot be made.
pub fn make_key() -> Result<()> {
    must("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", KEY])?;
    for user in ["jon", "kon"] {
        let folder = format!("/home/{user}/.ssh");
        must("install", &["-d", "-m", "700", "-o", user, "-g", user, &folder])?;
        let public = format!("{KEY}.pub");
        must(
            "install",
            &["-m", "600", "-o", user, "-g", user, &public, &format!("{folder}/authorized_keys")],
        )?;
    }
    Ok(())
}

/// Waits until no sshd serves a connection any more.
///
/// # Errors
/// When one still does after a while.
pub fn wait_idle() -> Result<()> {
    // A listener's title begins with its path.
    wait_for("the end of all ssh connections", 20, || Ok(!run("pgrep", &["-f", "^sshd: [^/]"])?.0))
}

fn trouble(source: std::io::Error) -> Error {
    Error::Program { program: "ssh".into(), source }
}
