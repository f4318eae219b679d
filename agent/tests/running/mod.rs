//! A running engine over a real gate of its own, and guesses at it.
#![allow(dead_code, reason = "no test program uses all of it")]

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use portcullis_agent::api::hub::Hub;
use portcullis_agent::api::view::{Event, Explain};
use portcullis_agent::config::{self, Config};
use portcullis_agent::engine::command::{Command, Handle};
use portcullis_agent::engine::{self, Engine, EngineError, Parts};
use portcullis_agent::kernel;
use portcullis_agent::metrics::Metrics;
use portcullis_agent::store::Store;
use portcullis_common::abi::{Request, Settings, op, outcome, source, verdict};
use portcullis_common::client::Gate;
use tokio::sync::broadcast::Receiver;
use tokio::task::JoinHandle;

use crate::bpffs::with_bpffs;

/// A user every host has and nobody logs in as.
pub const NOBODY: u32 = 65_534;
/// Who guesses.
pub const DAEMON: u32 = 1;

pub const CONFIG: &str = "break_glass = false\n\
    reservation_max_age = \"1s\"\n\
    [default]\ndeny = 3\nfail_interval = \"15m\"\nunlock_time = \"10m\"\nshadow_lock = false\n\
    [metrics]\nlisten = false\n\
    [agent]\nreconcile = \"1s\"\n";

/// Runs a test on a thread of its own with an empty bpffs and an empty folder.
pub fn alone<F: Future<Output = ()>>(test: impl FnOnce(PathBuf) -> F + Send + 'static) {
    with_bpffs(move || {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("portcullis.toml"), CONFIG).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let test = test(folder.path().to_owned());
            tokio::time::timeout(Duration::from_secs(60), test).await.unwrap();
        });
    });
}

pub struct Agent {
    pub handle: Handle,
    pub events: Receiver<Arc<Event>>,
    pub metrics: Arc<Metrics>,
    pub task: JoinHandle<Result<(), EngineError>>,
}

pub fn config(folder: &Path) -> Config {
    config::load(&folder.join("portcullis.toml")).unwrap().config
}

pub fn store(folder: &Path) -> Store {
    Store::open(&folder.join("store/portcullis.db"))
}

/// Loads what is missing and starts an engine.
pub fn start(folder: &Path) -> Agent {
    let (config, store) = (config(folder), store(folder));
    let loaded = kernel::load_if_missing(kernel::OBJECT).unwrap();
    engine::bring_up(&config, loaded, &store).unwrap();
    let (handle, commands) = Handle::new();
    let (hub, metrics) = (Arc::new(Hub::default()), Arc::new(Metrics::default()));
    let events = hub.subscribe();
    let path = folder.join("portcullis.toml");
    let filter = portcullis_agent::filter::Handle::new().0;
    let notify = portcullis_agent::notify::Notifier::new(&config.notify, &hub, Arc::clone(&metrics)).0;
    let parts = Parts { path, config, store, metrics: Arc::clone(&metrics), hub, filter, notify };
    let task = tokio::spawn(Engine::new(parts).unwrap().run(commands));
    Agent { handle, events, metrics, task }
}

impl Agent {
    /// Waits for an event of that name.
    pub async fn event(&mut self, name: &str) -> Event {
        loop {
            let event = self.events.recv().await.unwrap();
            if event.event == name {
                return Event::clone(&event);
            }
        }
    }

    pub async fn explain(&self) -> Explain {
        *self.handle.ask(|reply| Command::Explain(NOBODY, reply)).await.unwrap()
    }

    /// Status, health and metrics all say that the gate does not answer, and why.
    pub async fn assert_gate_problem(&self, why: &str) {
        let status = self.handle.ask(Command::Status).await.unwrap();
        assert!(!status.gate && status.gate_problem.as_ref().unwrap().contains(why), "{status:?}");
        let error = self.handle.ask(Command::Health).await.unwrap_err().to_string();
        assert!(error.starts_with("nothing is counted or refused: ") && error.contains(why), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        let page = self.metrics.page().unwrap();
        assert!(page.contains("portcullis_gate_loaded 0\n"), "{page}");
    }

    pub async fn stop(self) {
        self.handle.stop().await;
        self.task.await.unwrap().unwrap();
    }
}

/// A guess at nobody's password by the user daemon; not resolved without a result.
pub fn guess(result: Option<u32>) -> u32 {
    let gate = Gate::open().unwrap();
    let mut request = Request::new(op::ADMIT, u64::from(NOBODY));
    request.entry.detail.source = source::LOCAL;
    request.entry.detail.uid = DAEMON;
    request.entry.detail.service = *b"su\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    request.entry.detail.tty = *b"pts/\x1b[2J\0\0\0\0\0\0\0\0";
    let admitted = gate.call(&request).unwrap();
    if let (verdict::ADMITTED, Some(result)) = (admitted.verdict, result) {
        request.op = op::RESOLVE;
        request.arg = result;
        request.entry.token = admitted.token;
        return gate.call(&request).unwrap().verdict;
    }
    admitted.verdict
}

pub fn trip() {
    for _ in 0..3 {
        assert_eq!(guess(Some(outcome::FAIL)), verdict::DONE);
    }
}

pub fn freeze(frozen: u32) {
    use aya::maps::{Array, Map, MapData};
    let pin = MapData::from_pin("/sys/fs/bpf/portcullis/v1/SETTINGS").unwrap();
    let mut settings: Array<_, Settings> = Map::Array(pin).try_into().unwrap();
    let now = settings.get(&0, 0).unwrap();
    settings.set(0, Settings { frozen, ..now }, 0).unwrap();
}
