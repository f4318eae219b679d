//! The command `portcullis`.
//!
//! Invariants: every verb that answers has `--json`; each way to fail has an exit status (see [`crate::exit`]); where
//! the agent does not run, root still gets `status`, `accounts`, `lock` and `unlock` from the gate itself, and is told
//! so.

mod alarms;
pub mod client;
mod direct;
mod drops;
mod observed;
mod rungs;
mod session;
mod show;
mod sources;
mod table;
mod throttles;

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};
use jiff::Timestamp;
use nix::unistd::{Uid, User, geteuid, getuid};
use serde::Serialize;

use crate::api::view::{AccountRow, Done, Event, Explain, LockRequest, Status, UnlockRequest};
use crate::config::{self, ConfigError};
use crate::doctor;
use crate::exit::{self, Exit};
use crate::kernel::KernelError;
use client::{Client, ClientError};
use portcullis_common::abi::NOBODY;

/// Shows and steers the lockout of accounts.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, after_help = exit::TABLE)]
pub struct Arguments {
    /// Print JSON for programs.
    #[arg(long, global = true)]
    json: bool,
    /// The agent's socket.
    #[arg(long, global = true, value_name = "PATH", default_value = "/run/portcullis/agent.sock")]
    socket: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// How things are.
    Status,
    /// Accounts with failures, attempts under way or a lock.
    Accounts,
    /// Lock an account, until released or for a time.
    Lock {
        /// Name or uid.
        user: OsString,
        /// How long: 90s, 15m, 2h, 1d.
        #[arg(long = "for", value_name = "TIME", value_parser = duration)]
        length: Option<Duration>,
    },
    /// Take an account's lock off and forget its failures.
    Unlock {
        /// Name or uid.
        user: OsString,
    },
    /// Sources with failed logons, and what is done about them.
    Sources,
    /// Count a logon that another program saw fail or succeed.
    Report(sources::ReportArguments),
    /// Who tried, from where, when; what is locked, until when, why, how to release it.
    Explain {
        /// Name or uid, or an address; your own account without one.
        user: Option<OsString>,
    },
    /// Drop the packets of networks, until taken away or for a time.
    Drop(drops::DropArguments),
    /// Drop them no more.
    Undrop(drops::UndropArguments),
    /// What is dropped now; or dropped packets as they come.
    Drops {
        /// Show dropped packets as they come: samples, not all.
        #[arg(long)]
        follow: bool,
    },
    /// Hold a network, a port or an interface to a rate, until taken away or for a time.
    Throttle(throttles::ThrottleArguments),
    /// Hold it to no rate any more.
    Unthrottle {
        /// As `portcullis throttles` shows it.
        target: String,
    },
    /// What is held to a rate now.
    Throttles,
    /// Monitor or enforce, now and until the next reboot.
    Mode(rungs::ModeArguments),
    /// The breaker, which withholds the rungs above the lock when a directory is down or too many are locked.
    Breaker(rungs::BreakerArguments),
    /// Signs of tampering that are there still, and who did it; or take note of them.
    Alarms(alarms::AlarmArguments),
    /// The last events, or new ones as they come.
    Events {
        /// Wait for new events.
        #[arg(long)]
        follow: bool,
    },
    /// Logon programs that were started, by whom, and how they ended; or new ones as they come.
    Observe {
        /// Wait for new ones.
        #[arg(long)]
        follow: bool,
    },
    /// The configuration.
    Config {
        #[command(subcommand)]
        what: ConfigVerb,
    },
    /// Make the agent read its configuration again: all of it, or nothing of it.
    Reload,
    /// The metrics page.
    Metrics,
    /// Look for what is missing or open; status 1 if there is a warning or an error.
    Doctor {
        /// Look at the files of another root, not at this system: no gate, no agent, no sshd is asked.
        #[arg(long, value_name = "DIR", default_value = "/", hide_default_value = true)]
        root: PathBuf,
    },
    /// Print the completions for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigVerb {
    /// Check a file; the one in use without a name.
    Check {
        /// File to check.
        #[arg(default_value = config::PATH)]
        file: PathBuf,
    },
    /// The values in effect.
    Show,
}

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Clock(#[from] crate::clock::ClockError),
    #[error("no such account: {0}")]
    NoSuchAccount(String),
    #[error("{0} is no folder: name the root of a system after --root")]
    NoFolder(String),
    #[error("only root may do that: use sudo")]
    NotRoot,
    #[error("{0}")]
    Failed(String),
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

impl CliError {
    fn exit(&self) -> Exit {
        match self {
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
            Self::Client(ClientError::Unreachable { source, .. })
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Exit::NotPermitted
            }
            Self::Client(ClientError::Unreachable { .. }) => Exit::Unreachable,
            Self::Client(ClientError::Refused { status, .. }) => match status.as_u16() {
                403 => Exit::NotPermitted,
                404 => Exit::NoSuchAccount,
                422 => Exit::Config,
                _ => Exit::Failure,
            },
            Self::Config(_) => Exit::Config,
            Self::NoSuchAccount(_) => Exit::NoSuchAccount,
            Self::NotRoot | Self::Kernel(KernelError::NotRoot) => Exit::NotPermitted,
            Self::Client(ClientError::Broken { .. })
            | Self::Kernel(_)
            | Self::Clock(_)
            | Self::Failed(_)
            | Self::NoFolder(_)
            | Self::Output(_) => Exit::Failure,
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    config::parse_duration(text).map_err(|error| error.to_string())
}

/// Runs the command.
#[must_use]
pub fn run(arguments: &Arguments) -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("portcullis: cannot start: {error}");
            return Exit::Failure;
        }
    };
    let context = Context { client: Client::new(&arguments.socket), json: arguments.json };
    match runtime.block_on(context.verb(&arguments.verb)) {
        Ok(exit) => exit,
        Err(error) => {
            let exit = error.exit();
            if exit != Exit::Ok {
                eprintln!("portcullis: {error}");
            }
            exit
        }
    }
}

struct Context {
    client: Client,
    json: bool,
}

impl Context {
    async fn verb(&self, verb: &Verb) -> Result<Exit, CliError> {
        match verb {
            Verb::Status => self.status().await?,
            Verb::Accounts => self.accounts().await?,
            Verb::Lock { user, length } => return self.lock(user, *length).await,
            Verb::Unlock { user } => return self.unlock(user).await,
            Verb::Sources => self.sources().await?,
            Verb::Report(arguments) => return self.report(arguments).await,
            Verb::Explain { user: Some(user) } if address_of(user).is_some() => {
                if let Some(address) = address_of(user) {
                    self.explain_source(address).await?;
                }
            }
            Verb::Explain { user } => {
                let uid = match user {
                    Some(user) => match uid_of(user) {
                        // What holds for names no user has is root's to know.
                        Err(error @ CliError::NoSuchAccount(_)) if getuid().is_root() => {
                            eprintln!("portcullis: {error}; this holds for all such names:");
                            NOBODY
                        }
                        found => found?,
                    },
                    None => getuid().as_raw(),
                };
                let answer: Explain = self.client.get(&format!("/v1/accounts/{uid}/explain")).await?;
                self.print(&answer, |answer| show::explain(answer, Timestamp::now()))?;
            }
            Verb::Drop(arguments) => return self.drop_nets(arguments).await,
            Verb::Undrop(arguments) => return self.undrop(arguments).await,
            Verb::Drops { follow } => self.drops(*follow).await?,
            Verb::Throttle(arguments) => self.throttle(arguments).await?,
            Verb::Unthrottle { target } => self.unthrottle(target).await?,
            Verb::Throttles => self.throttles().await?,
            Verb::Mode(arguments) => return self.mode(arguments).await,
            Verb::Breaker(arguments) => self.breaker(arguments).await?,
            Verb::Alarms(arguments) => return self.alarms(arguments).await,
            Verb::Events { follow } => self.events(*follow).await?,
            Verb::Observe { follow } => self.observe(*follow).await?,
            Verb::Config { what: ConfigVerb::Check { file } } => return self.check(file),
            Verb::Config { what: ConfigVerb::Show } => self.config().await?,
            Verb::Reload => {
                let done: Done = self.client.post("/v1/reload", &serde_json::json!({})).await?;
                self.done(&done)?;
            }
            Verb::Metrics => {
                let page = self.client.text("/v1/metrics").await?;
                if self.json {
                    let page = String::from_utf8_lossy(&page);
                    write(&format!("{}\n", serde_json::json!({ "openmetrics": page })))?;
                } else {
                    io::stdout().write_all(&page)?;
                }
            }
            Verb::Doctor { root } => return self.doctor(root).await,
            Verb::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(*shell, &mut Arguments::command(), "portcullis", &mut script);
                io::stdout().write_all(&script)?;
            }
        }
        Ok(Exit::Ok)
    }

    async fn status(&self) -> Result<(), CliError> {
        let status: Status = match self.client.get("/v1/status").await {
            Err(error @ ClientError::Unreachable { .. }) => self.fall_back(error, direct::status)?,
            other => other?,
        };
        self.print(&status, |status| show::status(status, Timestamp::now()))
    }

    async fn accounts(&self) -> Result<(), CliError> {
        let rows: Vec<AccountRow> = match self.client.get("/v1/accounts").await {
            Err(error @ ClientError::Unreachable { .. }) => self.fall_back(error, direct::accounts)?,
            other => other?,
        };
        self.print(&rows, |rows| show::accounts(rows, Timestamp::now()))
    }

    async fn lock(&self, user: &OsString, length: Option<Duration>) -> Result<Exit, CliError> {
        need_root()?;
        let uid = uid_of(user)?;
        let seconds = length.map(|length| length.as_secs());
        let done: Done = match self.client.post("/v1/lock", &LockRequest { uid, seconds }).await {
            Err(error @ ClientError::Unreachable { .. }) => {
                self.fall_back(error, || direct::lock(uid, seconds))?
            }
            other => other?,
        };
        self.done(&done)
    }

    async fn unlock(&self, user: &OsString) -> Result<Exit, CliError> {
        need_root()?;
        let uid = uid_of(user)?;
        let done: Done = match self.client.post("/v1/unlock", &UnlockRequest { uid }).await {
            Err(error @ ClientError::Unreachable { .. }) => self.fall_back(error, || direct::unlock(uid))?,
            other => other?,
        };
        self.done(&done)
    }

    async fn events(&self, follow: bool) -> Result<(), CliError> {
        let page = if follow { "/v1/events?follow=true" } else { "/v1/events" };
        let mut result = Ok(());
        self.client
            .lines(page, |line| {
                result = self.event(line);
                result.is_ok()
            })
            .await?;
        result
    }

    fn event(&self, line: &[u8]) -> Result<(), CliError> {
        let event: Event =
            serde_json::from_slice(line).map_err(|error| ClientError::Broken { what: error.to_string() })?;
        if self.json {
            return write(&format!("{}\n", json(&event)?));
        }
        write(&format!("{}\n", show::event(&event)))
    }

    fn check(&self, file: &Path) -> Result<Exit, CliError> {
        let loaded = config::load(file);
        match (loaded, self.json) {
            (Ok(loaded), true) => {
                let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
                write(&format!("{}\n", serde_json::json!({ "ok": true, "warnings": warnings })))?;
            }
            (Ok(loaded), false) => {
                for warning in &loaded.warnings {
                    eprintln!("portcullis: warning: {warning}");
                }
                write(&format!("{}: good\n", file.display()))?;
            }
            (Err(error), true) => {
                write(&format!("{}\n", serde_json::json!({ "ok": false, "error": error.to_string() })))?;
                return Ok(Exit::Config);
            }
            (Err(error), false) => return Err(error.into()),
        }
        Ok(Exit::Ok)
    }

    async fn config(&self) -> Result<(), CliError> {
        let value: serde_json::Value = self.client.get("/v1/config").await?;
        self.print(&value, |value| {
            serde_json::to_string_pretty(value).map_or_else(|error| error.to_string(), |text| text + "\n")
        })
    }

    async fn doctor(&self, root: &Path) -> Result<Exit, CliError> {
        if !root.is_dir() {
            return Err(CliError::NoFolder(crate::text::escape(root.as_os_str().as_bytes())));
        }
        // A folder of one's own is nobody else's business.
        if root == Path::new("/") {
            need_root()?;
        }
        let findings = doctor::examine(&self.client, root).await;
        self.print(&findings, |findings| doctor::render(findings))?;
        Ok(if doctor::needs_work(&findings) { Exit::Failure } else { Exit::Ok })
    }

    /// Prints what was done; problems make it a failure.
    fn done(&self, done: &Done) -> Result<Exit, CliError> {
        self.print(done, |done| show::done(done, Timestamp::now()))?;
        for problem in &done.problems {
            eprintln!("portcullis: {problem}");
        }
        Ok(if done.problems.is_empty() { Exit::Ok } else { Exit::Failure })
    }

    /// Asks the gate itself when the agent does not answer and we are root.
    fn fall_back<T>(
        &self,
        error: ClientError,
        ask: impl FnOnce() -> Result<T, CliError>,
    ) -> Result<T, CliError> {
        if !geteuid().is_root() {
            return Err(error.into());
        }
        eprintln!(
            "portcullis: {error}; this comes from the gate itself, shadow locks and history are not touched"
        );
        ask()
    }

    fn print<T: Serialize>(&self, value: &T, human: impl FnOnce(&T) -> String) -> Result<(), CliError> {
        if self.json { write(&format!("{}\n", json(value)?)) } else { write(&human(value)) }
    }
}

fn json(value: &impl Serialize) -> Result<String, CliError> {
    serde_json::to_string(value).map_err(|error| CliError::Failed(format!("cannot write JSON: {error}")))
}

/// Writes to standard output at once, so that followers see each event.
fn write(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

fn need_root() -> Result<(), CliError> {
    if geteuid().is_root() { Ok(()) } else { Err(CliError::NotRoot) }
}

/// An address, where the word is one: users are not named so.
fn address_of(word: &OsString) -> Option<std::net::IpAddr> {
    word.to_str()?.parse().ok()
}

/// The uid of a user given by name or number; a name wins.
fn uid_of(user: &OsString) -> Result<u32, CliError> {
    let unknown = || CliError::NoSuchAccount(crate::text::escape(user.as_bytes()));
    let name = user.to_str().ok_or_else(unknown)?;
    let found =
        User::from_name(name).map_err(|error| CliError::Failed(format!("cannot look up users: {error}")))?;
    if let Some(found) = found {
        return Ok(found.uid.as_raw());
    }
    let uid: u32 = name.parse().map_err(|_| unknown())?;
    // A uid without a user may still have a row in the gate.
    Ok(Uid::from_raw(uid).as_raw())
}
