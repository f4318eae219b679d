//! The real su, without a terminal: the prompt is waited for, the password written, the verdict taken. Other programs that
//! ask like su (sudo -S, pamtester) go the same way.

use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Error, Result};

/// kon's uid in the sandbox.
pub const KON: u32 = 2001;
/// jon's uid in the sandbox.
pub const JON: u32 = 2002;

/// A su that is running.
pub struct Su {
    child: Child,
    prompt: String,
}

/// How a su ended.
#[derive(Debug)]
pub struct Verdict {
    /// Whether the command ran.
    pub let_in: bool,
    /// Killed by this signal.
    pub signal: Option<i32>,
    /// What it printed.
    pub output: String,
}

fn trouble(source: std::io::Error) -> Error {
    Error::Program { program: "su".into(), source }
}

impl Su {
    /// Starts `su TARGET -c 'id -un'` as user `uid`.
    ///
    /// # Errors
    /// When su cannot be started.
    pub fn start(uid: u32, target: &str) -> Result<Self> {
        let mut su = Command::new("su");
        su.args([target, "-c", "id -un"]).uid(uid).gid(uid).current_dir("/");
        // A claim that must not matter.
        su.env("PAM_RUSER", "mallory").env("LOGNAME", "mallory").env("USER", "mallory");
        Self::spawn(su)
    }

    /// Starts a program that prompts on its stderr and reads its stdin, as su does.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(mut program: Command) -> Result<Self> {
        program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = program.spawn().map_err(trouble)?;
        Ok(Self { child, prompt: String::new() })
    }

    /// Waits for the prompt.
    ///
    /// # Errors
    /// When su ends before it prompts.
    pub fn wait_prompt(&mut self) -> Result<()> {
        let Some(stderr) = self.child.stderr.as_mut() else {
            return Ok(());
        };
        let mut byte = [0u8];
        while !self.prompt.contains("assword:") {
            if stderr.read(&mut byte).map_err(trouble)? == 0 {
                return Err(Error::Answer { program: "su".into(), output: self.prompt.clone() });
            }
            self.prompt.push(char::from(byte[0]));
        }
        Ok(())
    }

    /// Answers the prompt.
    ///
    /// # Errors
    /// When su does not read.
    pub fn submit(&mut self, password: &str) -> Result<()> {
        match self.child.stdin.take() {
            Some(mut stdin) => writeln!(stdin, "{password}").map_err(trouble),
            None => Ok(()),
        }
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When there is no such process any more.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal).map_err(|errno| trouble(errno.into()))
    }

    /// Whether it has not ended yet.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait().map_err(trouble)?.is_none())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn verdict(self) -> Result<Verdict> {
        let output = self.child.wait_with_output().map_err(trouble)?;
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        Ok(Verdict { let_in: output.status.success(), signal: output.status.signal(), output: text })
    }
}

/// One whole attempt.
///
/// # Errors
/// When su cannot be run or does not prompt.
pub fn attempt(uid: u32, target: &str, password: &str) -> Result<Verdict> {
    let mut su = Su::start(uid, target)?;
    su.wait_prompt()?;
    su.submit(password)?;
    su.verdict()
}
