//! A program on a terminal of its own: it prompts there, and Ctrl-C and Ctrl-D reach it as they do at a console.

use rexpect::process::signal::Signal;
use rexpect::session::{PtySession, spawn};

use crate::{Error, Result};

/// How long a prompt or an end may take.
const PATIENCE_MS: u64 = 20_000;

/// The prompt of pam_unix and of our line.
const PROMPT: &str = "assword:";

/// A program that runs on a terminal.
pub struct Terminal {
    session: PtySession,
    program: String,
}

/// A key that is not a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Interrupt.
    CtrlC,
    /// End of file.
    CtrlD,
}

impl Terminal {
    /// Starts a command line; no shell reads it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &str) -> Result<Self> {
        let session = spawn(command, Some(PATIENCE_MS)).map_err(|error| trouble(command, &error))?;
        Ok(Self { session, program: command.into() })
    }

    /// Waits until `text` is printed.
    ///
    /// # Errors
    /// When it is not.
    pub fn wait(&mut self, text: &str) -> Result<()> {
        self.session.exp_string(text).map(drop).map_err(|error| trouble(&self.program, &error))
    }

    /// Waits for the password prompt, then types the password and Enter.
    ///
    /// # Errors
    /// When there is no prompt.
    pub fn answer(&mut self, password: &str) -> Result<()> {
        self.answer_to(PROMPT, password)
    }

    /// The same with a prompt of the program's own.
    ///
    /// # Errors
    /// When there is no prompt.
    pub fn answer_to(&mut self, prompt: &str, password: &str) -> Result<()> {
        self.wait(prompt)?;
        self.session.send_line(password).map(drop).map_err(|error| trouble(&self.program, &error))
    }

    /// Types a line.
    ///
    /// # Errors
    /// When the program is gone.
    pub fn line(&mut self, text: &str) -> Result<()> {
        self.session.send_line(text).map(drop).map_err(|error| trouble(&self.program, &error))
    }

    /// Waits for the password prompt, then presses `key`.
    ///
    /// # Errors
    /// When there is no prompt.
    pub fn press(&mut self, key: Key) -> Result<()> {
        self.press_at(PROMPT, key)
    }

    /// The same with a prompt of the program's own.
    ///
    /// # Errors
    /// When there is no prompt.
    pub fn press_at(&mut self, prompt: &str, key: Key) -> Result<()> {
        self.wait(prompt)?;
        let key = match key {
            Key::CtrlC => 'c',
            Key::CtrlD => 'd',
        };
        self.session.send_control(key).map_err(|error| trouble(&self.program, &error))
    }

    /// Kills it at once, as a lost connection or a closed window would.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill(mut self) -> Result<()> {
        self.session.process.kill(Signal::SIGKILL).map(drop).map_err(|error| trouble(&self.program, &error))
    }

    /// Waits for its end; what it printed since the last wait.
    ///
    /// # Errors
    /// When it does not end.
    pub fn rest(mut self) -> Result<String> {
        self.session.exp_eof().map_err(|error| trouble(&self.program, &error))
    }
}

fn trouble(program: &str, error: &rexpect::error::Error) -> Error {
    Error::Answer { program: program.into(), output: error.to_string() }
}
