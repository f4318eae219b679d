//! `portcullisd`: options → configuration → gate → engine and servers → signals → end.
//!
//! Invariants: one agent at a time (a lock file); a panic anywhere ends the process, since half an agent is worse than
//! one that is started again; stopping releases nothing.

use std::borrow::Cow;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use nix::fcntl::{Flock, FlockArg};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};

use crate::api::{self, Context, hub::Hub, peer::Peer};
use crate::callers;
use crate::config::{self, Config, ConfigError};
use crate::engine::command::{Command, Handle};
use crate::engine::{self, Engine, EngineError, Parts};
use crate::exit::{self, Exit};
use crate::filter;
use crate::kernel::{self, KernelError, Loaded};
use crate::logging;
use crate::metrics::Metrics;
use crate::notify::Notifier;
use crate::observer;
use crate::seats::{Api, Page};
use crate::store::Store;
use crate::tamper;

/// Folder of the socket and the lock file.
const RUN: &str = "/run/portcullis";
/// Held by the one agent.
const LOCK: &str = "/run/portcullis/portcullisd.lock";
/// How long answers under way may take at the end.
const FAREWELL: Duration = Duration::from_secs(2);

/// Locks accounts after too many failed logons: loads the gate, reads its events, acts.
#[derive(Debug, Parser)]
#[command(name = "portcullisd", version, after_help = exit::TABLE)]
pub struct Arguments {
    /// The configuration.
    #[arg(long, global = true, value_name = "FILE", default_value = config::PATH)]
    config: PathBuf,
    /// Load this eBPF object instead of the one built in (for developers).
    #[arg(long, global = true, value_name = "FILE")]
    object: Option<PathBuf>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Verb {
    /// Load the gate if need be, then work until stopped (the default).
    Run,
    /// Load and pin the gate, write the configuration into it, give back locks; then end. For portcullis-gate.service.
    Gate,
    /// Check the configuration; change nothing.
    Check,
}

/// Why the daemon ended.
#[derive(Debug, thiserror::Error)]
enum DaemonError {
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error("another portcullisd is running (it holds {LOCK}): stop it first, or use `portcullis reload`")]
    AlreadyRunning,
    #[error("cannot {what} {path}: {source}")]
    File { what: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot start: {0}")]
    Runtime(io::Error),
    #[error("{0} ended by itself, which it never should: portcullisd is to be started again")]
    Ended(&'static str),
}

impl DaemonError {
    fn exit(&self) -> Exit {
        match self {
            Self::Config(_) => Exit::Config,
            Self::AlreadyRunning => Exit::AlreadyRunning,
            Self::Kernel(KernelError::NotRoot) | Self::Engine(EngineError::Kernel(KernelError::NotRoot)) => {
                Exit::NotPermitted
            }
            _ => Exit::Failure,
        }
    }
}

fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DaemonError {
    let path = path.to_owned();
    move |source| DaemonError::File { what, path, source }
}

/// Runs the daemon.
#[must_use]
pub fn run(arguments: &Arguments) -> Exit {
    logging::start();
    end_on_panic();
    let result = match arguments.verb.unwrap_or(Verb::Run) {
        Verb::Check => check(arguments),
        Verb::Gate => gate(arguments),
        Verb::Run => serve(arguments),
    };
    match result {
        Ok(()) => Exit::Ok,
        Err(error) => {
            log::error!("{error}");
            error.exit()
        }
    }
}

/// A panic in any task ends the process: systemd starts it again, the gate goes on meanwhile.
fn end_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        log::error!("a bug: {panic}; portcullisd ends and is to be started again");
        std::process::exit(i32::from(Exit::Failure as u8));
    }));
}

fn load_config(arguments: &Arguments) -> Result<Config, DaemonError> {
    let loaded = config::load(&arguments.config)?;
    for warning in &loaded.warnings {
        log::warn!("{warning}");
    }
    Ok(loaded.config)
}

fn check(arguments: &Arguments) -> Result<(), DaemonError> {
    load_config(arguments)?;
    log::info!("{}: good", arguments.config.display());
    Ok(())
}

fn gate(arguments: &Arguments) -> Result<(), DaemonError> {
    need_root()?;
    let config = load_config(arguments)?;
    let object = object(arguments)?;
    let _lock = match one_agent() {
        Err(DaemonError::AlreadyRunning) if kernel::gate_pinned() => {
            announce(&config, false);
            let loaded = kernel::load(&object);
            announce(&config, true);
            loaded?;
            log::info!("gate replaced over the same tables; portcullisd is running and keeps them");
            return Ok(());
        }
        other => other?,
    };
    let store = Store::open(&config.agent.store);
    bring_up(&config, kernel::load(&object)?, &store)?;
    filter::task::bring_up(&config);
    observer::task::bring_up(&config.observer);
    Ok(())
}

/// Tells the agent that runs that its pins are replaced by us, so that it takes them for its own.
fn announce(config: &Config, done: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let told = runtime.map_err(|error| error.to_string()).and_then(|runtime| {
        let client = crate::cli::client::Client::new(&config.agent.socket);
        let request = api::alarms::PinsRequest { done };
        let post = client.post::<api::view::Done>("/v1/alarms/pins", &request);
        runtime
            .block_on(async { tokio::time::timeout(FAREWELL, post).await })
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())
    });
    if let Err(error) = told {
        log::warn!("portcullisd may raise an alarm about replaced pins: {error}");
    }
}

/// The eBPF object to load.
fn object(arguments: &Arguments) -> Result<Cow<'static, [u8]>, DaemonError> {
    match &arguments.object {
        Some(path) => Ok(Cow::Owned(std::fs::read(path).map_err(file("read the eBPF object", path))?)),
        None => Ok(Cow::Borrowed(kernel::OBJECT)),
    }
}

/// Fills the gate and says what was done.
fn bring_up(config: &Config, loaded: Loaded, store: &Store) -> Result<(), DaemonError> {
    let done = engine::bring_up(config, loaded, store)?;
    let gate = match done.loaded {
        Loaded::Fresh => "loaded",
        Loaded::Replaced => "replaced over the same tables",
        Loaded::TookOver => "of the version before has handed over its counts",
        Loaded::Kept => "is loaded and stays",
    };
    log::info!("gate {gate}, configuration {}, {} locks given back", done.generation, done.restored);
    Ok(())
}

fn need_root() -> Result<(), DaemonError> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err(KernelError::NotRoot.into()) }
}

/// Makes sure that this is the only agent, as long as the result lives.
fn one_agent() -> Result<Flock<File>, DaemonError> {
    folder(Path::new(RUN))?;
    let path = Path::new(LOCK);
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(file("open", path))?;
    Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::Error::EWOULDBLOCK => DaemonError::AlreadyRunning,
        other => file("lock", path)(other.into()),
    })
}

fn folder(path: &Path) -> Result<(), DaemonError> {
    DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(file("make the folder", path))
}

fn serve(arguments: &Arguments) -> Result<(), DaemonError> {
    need_root()?;
    let config = load_config(arguments)?;
    let _lock = one_agent()?;
    let store = Store::open(&config.agent.store);
    // A gate that runs stays: to replace it, as at an upgrade, is the verb gate's.
    let loaded = match &arguments.object {
        Some(_) => kernel::load(&object(arguments)?)?,
        None => kernel::load_if_missing(kernel::OBJECT)?,
    };
    bring_up(&config, loaded, &store)?;
    if let Err(error) = kernel::give_way() {
        log::warn!("failed logons may wait for this agent on a busy machine: SCHED_BATCH: {error}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(DaemonError::Runtime)?;
    let result = runtime.block_on(work(arguments.config.clone(), config, store));
    runtime.shutdown_timeout(FAREWELL);
    result
}

async fn work(path: PathBuf, config: Config, store: Store) -> Result<(), DaemonError> {
    let metrics = Arc::new(Metrics::default());
    let hub = Arc::new(Hub::default());
    let (handle, commands) = Handle::new();
    let (filter, filter_commands) = filter::Handle::new();
    let (alarms, alarm_orders) = tamper::Handle::new();
    let context = Context::new(handle.clone(), filter.clone(), Arc::clone(&hub), Arc::clone(&metrics))
        .with_alarms(alarms.clone());
    // Before the sockets are there: whoever waits for them is to find tamper evidence at work soon after.
    let mut observed =
        observer::task::Task::new(&config.observer, Arc::clone(metrics.observer()), Arc::clone(&hub));
    tokio::task::block_in_place(|| observed.begin());
    let requests = socket(&config.agent.socket)?;
    let others = socket(callers::path())?;
    let listen = config.metrics.listen;
    let mut callers = tokio::spawn(callers::serve(others, Arc::clone(&metrics)));
    let task = filter::task::Task::new(&config, filter.clone(), Arc::clone(&hub));
    let mut filtering = tokio::spawn(task.run(filter_commands));
    let looking = tamper::task::Parts {
        path: path.clone(),
        config: config.clone(),
        handle: alarms.clone(),
        filter: filter.clone(),
        hub: Arc::clone(&hub),
        metrics: Arc::clone(&metrics),
    };
    let mut observing = tokio::spawn(observed.run());
    let (told, notifier) = Notifier::new(&config.notify, &hub, Arc::clone(&metrics));
    let mut notifying = tokio::spawn(notifier.run());
    let engine =
        Engine::new(Parts { path, config, store, metrics, hub, filter: filter.clone(), notify: told })?;
    let mut engine = tokio::spawn(engine.run(commands));
    // When the filter hangs where it should: that is how it is to stay.
    let works = filter.ask(filter::Command::Show).await;
    log::debug!("the filter before tamper evidence begins: {works:?}");
    let looking = tokio::task::block_in_place(|| tamper::task::Task::new(looking));
    let mut looking = tokio::spawn(looking.run(alarm_orders));

    if let Some(address) = listen {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                let routes = api::http(context.clone());
                tokio::spawn(async move { axum::serve(Page::new(listener), routes).await });
            }
            // Metrics are no reason not to act.
            Err(error) => log::error!("no metrics: cannot listen on {address}: {error}; see metrics.listen"),
        }
    }
    let routes = api::socket(context).into_make_service_with_connect_info::<Peer>();
    let mut api = tokio::spawn(async move { axum::serve(Api::new(requests), routes).await });

    let mut hangup = signal(SignalKind::hangup()).map_err(DaemonError::Runtime)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(DaemonError::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(DaemonError::Runtime)?;
    notify(&[sd_notify::NotifyState::Ready]);
    log::info!("portcullisd {} is ready", env!("CARGO_PKG_VERSION"));
    // Programs with the older module in them are served from here on: its gate need not say any more that it has moved.
    match kernel::retire_predecessors() {
        Ok(0) => {}
        Ok(_) => log::info!("the pins of the version before are gone"),
        Err(error) => log::warn!("{error}"),
    }
    loop {
        tokio::select! {
            _ = hangup.recv() => {
                let handle = handle.clone();
                // The engine logs what came of it.
                let alarms = alarms.clone();
                tokio::spawn(async move {
                    if handle.ask(Command::Reload).await.is_ok() {
                        alarms.reloaded().await;
                    }
                });
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            result = &mut engine => {
                result.map_err(EngineError::from)??;
                return Err(DaemonError::Ended("the engine"));
            }
            _ = &mut notifying => return Err(DaemonError::Ended("the notifier")),
            _ = &mut observing => return Err(DaemonError::Ended("the observer")),
            _ = &mut filtering => return Err(DaemonError::Ended("the filter")),
            _ = &mut looking => return Err(DaemonError::Ended("tamper evidence")),
            _ = &mut api => return Err(DaemonError::Ended("the API")),
            _ = &mut callers => return Err(DaemonError::Ended("the callers' socket")),
        }
    }
    notify(&[sd_notify::NotifyState::Stopping]);
    log::info!("stopping: locks and drops stay, gate and filter go on");
    // To its end: a look that came back into a runtime that is gone would be taken for a bug.
    looking.abort();
    let _ = looking.await;
    filter.stop().await;
    handle.stop().await;
    engine.await.map_err(EngineError::from)??;
    Ok(())
}

/// Tells systemd, where it asked to be told.
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::debug!("systemd could not be told: {error}");
    }
}

/// The API's socket: everybody may connect, SO_PEERCRED decides.
fn socket(path: &Path) -> Result<UnixListener, DaemonError> {
    if let Some(parent) = path.parent() {
        folder(parent)?;
    }
    // Left by an agent that was killed: we hold the lock, so nobody listens on it.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(file("remove the old socket", path)(error));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(file("listen on", path))?;
    std::fs::set_permissions(path, Permissions::from_mode(0o666)).map_err(file("set the mode of", path))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const INSIDE: &str = "PORTCULLIS_TEST_PANIC";

    #[test]
    fn a_panic_in_a_task_ends_the_process() {
        if std::env::var_os(INSIDE).is_some() {
            end_on_panic();
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
            runtime.block_on(async {
                let _ = tokio::spawn(async { panic!("half an agent") }).await;
            });
            // Not reached: the task took the process with it.
            std::process::exit(0);
        }
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "daemon::tests::a_panic_in_a_task_ends_the_process", "--nocapture"])
            .env(INSIDE, "1")
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(i32::from(Exit::Failure as u8)));
    }
}
