//! The throw-away system: its passwords, PAM stacks, programs, the agent's answers.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use serde_json::Value;

use crate::{Error, Result};

/// Debian's stack, as pam-auth-update writes it.
const COMMON_AUTH: &str = "/etc/pam.d/common-auth";
const COMMON_ACCOUNT: &str = "/etc/pam.d/common-account";
/// pam_faillock(8), its example with preauth, with the counter in it.
const FAILLOCK: &str = "\
auth requisite pam_faillock.so preauth deny=3 unlock_time=600
auth optional pam_exec.so expose_authtok quiet seteuid /usr/local/sbin/count-guess
auth [success=1 default=bad] pam_unix.so try_first_pass
auth [default=die] pam_faillock.so authfail deny=3 unlock_time=600
auth sufficient pam_faillock.so authsucc deny=3 unlock_time=600
auth requisite pam_deny.so
";
/// The line that the stack must hold.
const LINE: &str = "pam_portcullis.so";

/// A user's password, as the sandbox made it; empty where there is none.
#[must_use]
pub fn password(user: &str) -> String {
    std::env::var(format!("{}_PASSWORD", user.to_uppercase())).unwrap_or_default()
}

/// Runs a program to its end: status 0 or not, and all it printed.
///
/// # Errors
/// When it cannot be started.
pub fn run(program: &str, arguments: &[&str]) -> Result<(bool, String)> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Program { program: program.into(), source })?;
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Ok((output.status.success(), text))
}

/// What `portcullis ARGUMENTS --json` answers.
///
/// # Errors
/// When it fails or prints no JSON.
pub fn portcullis(arguments: &[&str]) -> Result<Value> {
    let mut command = Command::new("portcullis");
    command.args(arguments).arg("--json").stdin(Stdio::null());
    let output =
        command.output().map_err(|source| Error::Program { program: "portcullis".into(), source })?;
    // Not what it says beside its answer.
    serde_json::from_slice(&output.stdout).map_err(|_| Error::Answer {
        program: format!("portcullis {arguments:?}"),
        output: String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr),
    })
}

/// A number of a user's row, as `portcullis explain` has it: `failures`, `trips`, …
///
/// # Errors
/// When the agent does not answer, or has no such number.
pub fn number(user: &str, name: &str) -> Result<u64> {
    let account = portcullis(&["explain", user])?;
    let number = account.pointer(&format!("/row/{name}")).and_then(Value::as_u64);
    number.ok_or_else(|| Error::Answer {
        program: format!("portcullis explain {user}"),
        output: account.to_string(),
    })
}

/// Whether the password field of `user` says locked, by the real `passwd --status`.
///
/// # Errors
/// When passwd cannot be run.
pub fn shadow_locked(user: &str) -> Result<bool> {
    let (_, text) = run("passwd", &["--status", user])?;
    Ok(text.split_whitespace().nth(1) == Some("L"))
}

/// Waits until `ready` says so; looks again every 20 ms, since what other programs leave in files and answer on the
/// command line sends no event.
///
/// # Errors
/// [`Error::Late`] after `seconds`.
pub fn wait_for(what: &str, seconds: u64, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !ready()? {
        if Instant::now() > end {
            return Err(Error::Late { what: what.into(), seconds });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A program behind our line in the stack that leaves one line in a file for every guess that reaches it.
pub struct Counter {
    file: PathBuf,
}

impl Counter {
    /// Puts the counter behind pam_portcullis.so in common-auth. `then`: shell text run after the count.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn install(then: &str) -> Result<Self> {
        let counter = Self::program(then)?;
        let stack = read(Path::new(COMMON_AUTH))?;
        let mut lines: Vec<&str> = stack.lines().collect();
        let place = lines.iter().position(|line| line.contains(LINE));
        let place =
            place.ok_or_else(|| Error::Answer { program: COMMON_AUTH.into(), output: stack.clone() })?;
        lines.insert(place + 1, "auth optional pam_exec.so quiet seteuid /usr/local/sbin/count-guess");
        write(Path::new(COMMON_AUTH), &(lines.join("\n") + "\n"))?;
        Ok(counter)
    }

    /// Puts pam_faillock with `deny` = 3 in the place of our lines, as its manual page has it, and the counter where a
    /// guess is about to be checked, behind a prompt like ours.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn behind_faillock() -> Result<Self> {
        // pam_exec writes the password to the program.
        let counter = Self::program("cat > /dev/null")?;
        write(Path::new(COMMON_AUTH), FAILLOCK)?;
        let account = read(Path::new(COMMON_ACCOUNT))?;
        let lines: Vec<&str> = account.lines().filter(|line| !line.contains(LINE)).collect();
        write(Path::new(COMMON_ACCOUNT), &(lines.join("\n") + "\n"))?;
        Ok(counter)
    }

    /// The program, with nothing counted yet.
    fn program(then: &str) -> Result<Self> {
        let file = PathBuf::from("/run/guesses");
        write(&file, "")?;
        let script = Path::new("/usr/local/sbin/count-guess");
        write(script, &format!("#!/bin/sh\necho guess >> {}\n{then}\n", file.display()))?;
        run("chmod", &["755", "/usr/local/sbin/count-guess"])?;
        Ok(Self { file })
    }

    /// How many guesses came by.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn guesses(&self) -> Result<usize> {
        Ok(read(&self.file)?.lines().count())
    }
}

/// Keeps guesses in the check: a counter installed with [`Hold::WAIT`] does not end before the hold is over.
pub struct Hold {
    file: Flock<std::fs::File>,
}

impl Hold {
    /// For [`Counter::install`].
    pub const WAIT: &str = "flock --shared /run/hold true";

    /// Begins.
    ///
    /// # Errors
    /// When the file cannot be made or locked.
    pub fn begin() -> Result<Self> {
        let path = Path::new("/run/hold");
        let trouble = |source| Error::File { path: path.into(), source };
        let file = std::fs::File::create(path).map_err(trouble)?;
        let file = Flock::lock(file, FlockArg::LockExclusiveNonblock);
        file.map(|file| Self { file }).map_err(|(_, errno)| trouble(errno.into()))
    }

    /// Ends: every guess goes on.
    ///
    /// # Errors
    /// When the lock cannot be given back.
    pub fn end(self) -> Result<()> {
        let unlocked = self.file.unlock();
        let trouble =
            |(_, errno): (_, nix::Error)| Error::File { path: "/run/hold".into(), source: errno.into() };
        unlocked.map(drop).map_err(trouble)
    }
}

/// Reads a file.
///
/// # Errors
/// With its path.
pub fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|source| Error::File { path: path.into(), source })
}

/// Writes a file.
///
/// # Errors
/// With its path.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let file = std::fs::File::create(path).and_then(|mut file| file.write_all(text.as_bytes()));
    file.map_err(|source| Error::File { path: path.into(), source })
}
