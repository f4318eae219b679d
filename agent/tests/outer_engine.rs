//! The engine over the real gate: each test in a mount namespace and a bpffs of its own. No class here locks
//! passwords, so nothing of the host is touched.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

mod bpffs;

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bpffs::with_bpffs;
use portcullis_agent::api::hub::Hub;
use portcullis_agent::api::view::{Actor, Event, Explain, Until};
use portcullis_agent::config::{self, Config};
use portcullis_agent::engine::command::{Command, CommandError, Handle};
use portcullis_agent::engine::{self, Engine, EngineError, Parts};
use portcullis_agent::kernel::{self, EventRing, Loaded, Tables};
use portcullis_agent::metrics::Metrics;
use portcullis_agent::store::Store;
use portcullis_common::abi::{Request, Settings, op, outcome, source, verdict};
use portcullis_common::client::Gate;
use tokio::sync::broadcast::Receiver;
use tokio::task::JoinHandle;

/// A user every host has and nobody logs in as.
const NOBODY: u32 = 65_534;
/// Who guesses.
const DAEMON: u32 = 1;

const CONFIG: &str = "break_glass = false\n\
    reservation_max_age = \"1s\"\n\
    [default]\ndeny = 3\nfail_interval = \"15m\"\nunlock_time = \"10m\"\nshadow_lock = false\n\
    [metrics]\nlisten = false\n\
    [agent]\nreconcile = \"1s\"\n";

/// Runs a test on a thread of its own with an empty bpffs and an empty folder.
fn alone<F: Future<Output = ()>>(test: impl FnOnce(PathBuf) -> F + Send + 'static) {
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

struct Agent {
    handle: Handle,
    events: Receiver<Arc<Event>>,
    metrics: Arc<Metrics>,
    task: JoinHandle<Result<(), EngineError>>,
}

fn config(folder: &Path) -> Config {
    config::load(&folder.join("portcullis.toml")).unwrap().config
}

fn store(folder: &Path) -> Store {
    Store::open(&folder.join("store/portcullis.db"))
}

/// Loads what is missing and starts an engine.
fn start(folder: &Path) -> Agent {
    let (config, store) = (config(folder), store(folder));
    let loaded = kernel::load_if_missing(kernel::OBJECT).unwrap();
    engine::bring_up(&config, loaded, &store).unwrap();
    let (handle, commands) = Handle::new();
    let (hub, metrics) = (Arc::new(Hub::default()), Arc::new(Metrics::default()));
    let events = hub.subscribe();
    let path = folder.join("portcullis.toml");
    let parts = Parts { path, config, store, metrics: Arc::clone(&metrics), hub };
    let task = tokio::spawn(Engine::new(parts).unwrap().run(commands));
    Agent { handle, events, metrics, task }
}

impl Agent {
    /// Waits for an event of that name.
    async fn event(&mut self, name: &str) -> Event {
        loop {
            let event = self.events.recv().await.unwrap();
            if event.event == name {
                return Event::clone(&event);
            }
        }
    }

    async fn explain(&self) -> Explain {
        *self.handle.ask(|reply| Command::Explain(NOBODY, reply)).await.unwrap()
    }

    /// Status, health and metrics all say that the gate does not answer, and why.
    async fn assert_gate_problem(&self, why: &str) {
        let status = self.handle.ask(Command::Status).await.unwrap();
        assert!(!status.gate && status.gate_problem.as_ref().unwrap().contains(why), "{status:?}");
        let error = self.handle.ask(Command::Health).await.unwrap_err().to_string();
        assert!(error.starts_with("nothing is counted or refused: ") && error.contains(why), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        let page = self.metrics.page().unwrap();
        assert!(page.contains("portcullis_gate_loaded 0\n"), "{page}");
    }

    async fn stop(self) {
        self.handle.stop().await;
        self.task.await.unwrap().unwrap();
    }
}

/// A guess at nobody's password by the user daemon; not resolved without a result.
fn guess(result: Option<u32>) -> u32 {
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

fn trip() {
    for _ in 0..3 {
        assert_eq!(guess(Some(outcome::FAIL)), verdict::DONE);
    }
}

#[test]
fn a_trip_is_explained_and_released() {
    alone(async |folder| {
        let mut agent = start(&folder);
        trip();
        let tripped = agent.event("tripped").await;
        let Some(Actor::Local { uid: DAEMON, .. }) = tripped.actor else { panic!("{tripped:?}") };
        assert_eq!(guess(Some(outcome::PASS)), verdict::LOCKED);
        agent.event("refused").await;
        let explained = agent.explain().await;
        let lock = explained.row.lock.unwrap();
        assert_eq!(lock.cause, "trip");
        assert!(matches!(lock.until, Until::At(end) if end > lock.since));
        let outcomes: Vec<&str> = explained.attempts.iter().map(|kept| kept.outcome.as_str()).collect();
        assert_eq!(outcomes, ["refused", "fail", "fail", "fail"]);
        assert_eq!(explained.attempts.first().unwrap().tty, "pts/\\x1b[2J");
        let done = agent.handle.ask(|reply| Command::Unlock { uid: NOBODY, reply }).await.unwrap();
        assert_eq!(done.problems, Vec::<String>::new());
        assert!(done.row.unwrap().lock.is_none());
        assert_eq!(guess(Some(outcome::PASS)), verdict::DONE);
        agent.event("pass").await;
        let page = agent.metrics.page().unwrap();
        for line in [
            "portcullis_attempts_total{outcome=\"fail\",service=\"su\"} 3",
            "portcullis_attempts_total{outcome=\"refused\",service=\"su\"} 1",
            "portcullis_trips_total 1",
            "portcullis_actions_total{action=\"gate_unlock\",result=\"verified\"} 1",
            "portcullis_locks{kind=\"gate\"} 0",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
        agent.stop().await;
    });
}

#[test]
fn what_happened_while_no_agent_ran_is_made_up_for() {
    alone(async |folder| {
        start(&folder).stop().await;
        trip();
        let mut agent = start(&folder);
        agent.event("tripped").await;
        assert_eq!(agent.explain().await.attempts.len(), 3);
        agent.stop().await;
    });
}

#[test]
fn a_trip_whose_event_was_lost_is_found_by_the_scan() {
    alone(async |folder| {
        start(&folder).stop().await;
        trip();
        assert_eq!(EventRing::open().unwrap().drain(100).len(), 3);
        let mut agent = start(&folder);
        let tripped = agent.event("tripped").await;
        assert_eq!(tripped.actor, None);
        agent.stop().await;
        assert_eq!(store(&folder).locks().len(), 1);
    });
}

#[test]
fn locks_are_given_back_to_a_gate_that_lost_them_and_only_then() {
    alone(async |folder| {
        let mut agent = start(&folder);
        trip();
        let until = agent.event("tripped").await.locked_until.unwrap();
        agent.stop().await;
        // As after a reboot.
        fs::remove_dir_all("/sys/fs/bpf/portcullis").unwrap();
        let store = store(&folder);
        let loaded = kernel::load(kernel::OBJECT).unwrap();
        assert_eq!(engine::bring_up(&config(&folder), loaded, &store).unwrap().restored, 1);
        assert_eq!(engine::bring_up(&config(&folder), loaded, &store).unwrap().restored, 0);
        drop(store);
        assert_eq!(guess(Some(outcome::PASS)), verdict::LOCKED);
        let agent = start(&folder);
        let lock = agent.explain().await.row.lock.unwrap();
        assert_eq!(lock.cause, "restored");
        let (Until::At(before), Until::At(after)) = (until, lock.until) else { panic!("{lock:?}") };
        assert!(after.duration_since(before).abs() < jiff::SignedDuration::from_secs(1), "{before} {after}");
        agent.stop().await;
        // Released while no agent runs: not locked again.
        kernel::gate::unlock(u64::from(NOBODY)).unwrap();
        let agent = start(&folder);
        assert!(agent.explain().await.row.lock.is_none());
        agent.stop().await;
        assert!(store_is_empty(&folder));
    });
}

fn store_is_empty(folder: &Path) -> bool {
    store(folder).locks().is_empty()
}

#[test]
fn reservations_that_nobody_resolves_lapse_by_the_scan() {
    alone(async |folder| {
        let mut agent = start(&folder);
        assert_eq!(guess(None), verdict::ADMITTED);
        let due = agent.event("due").await;
        assert_eq!(due.failures, Some(1));
        let Some(Actor::Local { uid: DAEMON, .. }) = due.actor else { panic!("{due:?}") };
        assert_eq!(agent.explain().await.attempts.first().unwrap().outcome, "lapsed");
        agent.stop().await;
    });
}

#[test]
fn a_configuration_with_an_error_changes_nothing() {
    alone(async |folder| {
        let agent = start(&folder);
        let before = Tables::open().unwrap().settings().unwrap();
        let path = folder.join("portcullis.toml");
        fs::write(&path, CONFIG.replace("deny = 3", "deny = -1")).unwrap();
        let error = agent.handle.ask(Command::Reload).await.unwrap_err();
        assert!(matches!(&error, CommandError::Config(text) if text.contains("deny")), "{error}");
        assert_eq!(Tables::open().unwrap().settings().unwrap(), before);
        fs::write(&path, CONFIG.replace("deny = 3", "deny = 2")).unwrap();
        agent.handle.ask(Command::Reload).await.unwrap();
        assert_eq!(Tables::open().unwrap().settings().unwrap().generation, before.generation + 1);
        assert_eq!(agent.explain().await.rule.deny, 2);
        agent.stop().await;
    });
}

#[test]
fn exempt_accounts_are_never_locked() {
    alone(async |folder| {
        let agent = start(&folder);
        let error =
            agent.handle.ask(|reply| Command::Lock { uid: 0, seconds: None, reply }).await.unwrap_err();
        assert!(matches!(error, CommandError::Exempt(_)), "{error}");
        let error = agent
            .handle
            .ask(|reply| Command::Lock { uid: 4_000_000_000, seconds: None, reply })
            .await
            .unwrap_err();
        assert_eq!(error, CommandError::NoSuchAccount(4_000_000_000));
        agent.stop().await;
    });
}

#[test]
fn a_gate_that_is_taken_away_is_told() {
    alone(async |folder| {
        let mut agent = start(&folder);
        fs::remove_file("/sys/fs/bpf/portcullis/v1/gate").unwrap();
        let told = agent.event("gate_gone").await.detail.unwrap();
        assert!(told.contains("v1/gate is missing") && told.contains("portcullisd"), "{told}");
        agent.assert_gate_problem("v1/gate is missing").await;
        agent.stop().await;
        // Not loaded again by itself: that is the way out.
        assert!(!kernel::gate_pinned());
    });
}

#[test]
fn a_frozen_gate_is_told() {
    alone(async |folder| {
        let mut agent = start(&folder);
        assert_eq!(agent.handle.ask(Command::Health).await, Ok(()));
        freeze(1);
        agent.event("gate_gone").await;
        agent.assert_gate_problem("it is frozen").await;
        freeze(0);
        agent.event("gate_back").await;
        assert_eq!(agent.handle.ask(Command::Health).await, Ok(()));
        assert!(agent.metrics.page().unwrap().contains("portcullis_gate_loaded 1\n"));
        agent.stop().await;
    });
}

fn freeze(frozen: u32) {
    use aya::maps::{Array, Map, MapData};
    let pin = MapData::from_pin("/sys/fs/bpf/portcullis/v1/SETTINGS").unwrap();
    let mut settings: Array<_, Settings> = Map::Array(pin).try_into().unwrap();
    let now = settings.get(&0, 0).unwrap();
    settings.set(0, Settings { frozen, ..now }, 0).unwrap();
}

#[test]
fn a_reload_names_what_needs_a_restart_until_it_is_done() {
    alone(async |folder| {
        let agent = start(&folder);
        let path = folder.join("portcullis.toml");
        let keys = ["metrics.listen", "agent.socket", "agent.store"];
        let changed = CONFIG.replace("listen = false", "listen = \"127.0.0.1:9457\"")
            + "socket = \"/run/other.sock\"\nstore = \"/run/other.db\"\npasswd_timeout = \"7s\"\n";
        fs::write(&path, changed).unwrap();
        for _ in 0..2 {
            let problems = agent.handle.ask(Command::Reload).await.unwrap().problems;
            assert_eq!(problems.len(), keys.len(), "{problems:?}");
            for (problem, key) in problems.iter().zip(keys) {
                assert!(problem.starts_with(key) && problem.contains("restarted"), "{problem}");
            }
        }
        fs::write(&path, CONFIG).unwrap();
        assert_eq!(agent.handle.ask(Command::Reload).await.unwrap().problems, Vec::<String>::new());
        agent.stop().await;
    });
}

#[test]
fn a_gate_that_runs_is_kept() {
    alone(async |folder| {
        start(&folder).stop().await;
        assert_eq!(kernel::load_if_missing(kernel::OBJECT).unwrap(), Loaded::Kept);
        fs::remove_file("/sys/fs/bpf/portcullis/v1/gate").unwrap();
        assert_eq!(kernel::load_if_missing(kernel::OBJECT).unwrap(), Loaded::Fresh);
    });
}
