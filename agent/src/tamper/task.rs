//! The task that looks: at each touch of a watched folder, and twice a second in any case.
//!
//! Invariants: what is wrong must be so in two looks; mending waits longer, so that who takes everything away is not
//! hindered half-way; each mending is read back by the next look.

use std::collections::{BTreeMap, VecDeque};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use portcullis_common::abi::{PIN_DIR, PIN_ROOT};
use portcullis_common::filter::FILTER_DIR;
use portcullis_common::observer::OBSERVER_DIR;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::book::{Alarm, Key, News, Wrong};
use super::files::{Content, StoreFile, module_folders};
use super::pins::{Found, Heal, Pins, tighten};
use super::probes::Probes;
use super::stacks::Stacks;
use super::traffic::Traffic;
use super::watch::{Touch, Watch};
use super::{Handle, Kind, Order};
use crate::api::hub::Hub;
use crate::api::view::{Actor, Event};
use crate::clock;
use crate::config::{self, Config};
use crate::doctor::pam::load::FOLDERS;
use crate::doctor::root::Root;
use crate::filter;
use crate::metrics::Metrics;
use crate::names::Names;

/// Between two looks without a touch.
const PACE: Duration = Duration::from_millis(400);
/// How long something must be wrong before it is an alarm.
const SURE: Duration = Duration::from_millis(150);
/// How long before it is mended.
const PATIENCE: Duration = Duration::from_secs(1);
/// How far back a touch can be the cause of what is found.
const BACK: Duration = Duration::from_secs(3);
/// Touches kept.
const TOUCHES: usize = 256;
/// How long pins may be replaced by ours at most.
const REPLACING: Duration = Duration::from_secs(60);
/// How long the filter has to follow a new configuration.
const FOLLOWING: Duration = Duration::from_secs(2);

/// Who did it: in words, and the uid that answers for it.
type Doer = (String, Option<u32>);

/// What the task is made of.
pub struct Parts {
    /// Where the configuration was read.
    pub path: PathBuf,
    /// The configuration.
    pub config: Config,
    /// The way to the alarms.
    pub handle: Handle,
    /// The way to the filter.
    pub filter: filter::Handle,
    /// Onlookers.
    pub hub: Arc<Hub>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// The task.
pub struct Task {
    parts: Parts,
    stacks: Stacks,
    modules: Vec<Content>,
    file: Content,
    store: StoreFile,
    gate: Pins,
    drops: Pins,
    observed: Pins,
    traffic: Traffic,
    probes: Probes,
    touches: VecDeque<Touch>,
    /// Since when what is wrong now is, and who did it.
    suspects: BTreeMap<Key, (Instant, Option<Doer>)>,
    paused: Option<Instant>,
    watch: Option<Watch>,
}

impl Task {
    /// Everything is as it should be now. Blocks for as long as reading all of it takes.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let modules = module_folders().into_iter().map(|folder| folder.join("pam_portcullis.so"));
        let modules = modules.filter(|path| path.exists());
        let file = Content::new(parts.path.clone(), Kind::ConfigChanged, "the configuration in effect");
        Self {
            stacks: Stacks::new(Root::new(Path::new("/"))),
            modules: modules.map(|path| Content::new(path, Kind::ModuleReplaced, "the PAM module")).collect(),
            file,
            store: StoreFile::new(parts.config.agent.store.clone()),
            gate: Pins::gate(),
            drops: Pins::filter(),
            observed: Pins::observer(),
            traffic: Traffic::default(),
            probes: Probes::of_this_host(),
            touches: VecDeque::new(),
            suspects: BTreeMap::new(),
            paused: None,
            watch: None,
            parts,
        }
    }

    fn listen(&mut self) -> mpsc::Receiver<Touch> {
        let mut folders: Vec<PathBuf> = FOLDERS.iter().map(PathBuf::from).collect();
        folders.extend(module_folders());
        folders.extend(self.parts.path.parent().map(Path::to_owned));
        folders.extend(self.store.folder().map(Path::to_owned));
        folders.extend([PIN_ROOT, PIN_DIR, FILTER_DIR, OBSERVER_DIR].map(PathBuf::from));
        match Watch::start(folders) {
            Ok((watch, touches)) => {
                self.watch = Some(watch);
                touches
            }
            Err(error) => {
                log::error!("who touches what guards the logons is not seen: {error}");
                mpsc::channel(1).1
            }
        }
    }

    /// Looks until the handles are gone.
    pub async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut touches = self.listen();
        let mut pace = tokio::time::interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut again: Option<tokio::time::Instant> = None;
        loop {
            let soon = again.unwrap_or_else(|| tokio::time::Instant::now() + PACE);
            tokio::select! {
                order = orders.recv() => match order {
                    None => return,
                    Some(order) => {
                        tokio::task::block_in_place(|| self.order(order));
                        touches = self.listen();
                        continue;
                    }
                },
                Some(touch) = touches.recv() => {
                    self.note(touch);
                    while let Ok(touch) = touches.try_recv() {
                        self.note(touch);
                    }
                }
                () = tokio::time::sleep_until(soon) => {}
                _ = pace.tick() => {}
            }
            again = None;
            if self.paused.is_some_and(|since| since.elapsed() < REPLACING) {
                continue;
            }
            self.paused = None;
            let (found, took) = tokio::task::block_in_place(|| {
                let begun = clock::of_thread();
                let found = self.look();
                (found, clock::of_thread().saturating_sub(begun))
            });
            if self.settle(found).await {
                again = Some(tokio::time::Instant::now() + SURE);
            }
            self.parts.metrics.looked(took);
        }
    }

    fn order(&mut self, order: Order) {
        match order {
            Order::Reloaded => {
                if let Ok(loaded) = config::load(&self.parts.path) {
                    self.parts.config = loaded.config;
                }
                self.file.expect();
                // The filter follows in its own time.
                self.paused = Instant::now().checked_sub(REPLACING.saturating_sub(FOLLOWING));
                self.drops.expect_later();
            }
            Order::Pins { done, reply } => {
                self.paused = (!done).then(Instant::now);
                if done {
                    self.gate.expect();
                    self.drops.expect();
                    self.observed.expect();
                }
                // Whoever asked may be gone.
                let _ = reply.send(());
            }
        }
    }

    /// Keeps a touch; one of the store is an alarm by itself.
    fn note(&mut self, touch: Touch) {
        let its = touch.name.as_ref().is_some_and(|name| self.store.is_its(name));
        if its
            && touch.written
            && self.store.folder() == Some(&touch.folder)
            && let Some(who) = &touch.who
        {
            let name = self.store.name();
            let wrong = Wrong {
                detail: format!("{name} was written by another process than portcullisd"),
                who: Some(who.to_string()),
                uid: who.uid(),
            };
            let key = (Kind::StoreChanged, format!("{name} was written"));
            let news = self.parts.handle.book().raise(Timestamp::now(), &key, &wrong);
            news.into_iter().for_each(|news| self.tell(&news));
        }
        if self.touches.len() >= TOUCHES {
            self.touches.pop_front();
        }
        self.touches.push_back(touch);
    }

    fn look(&mut self) -> BTreeMap<Key, Found> {
        let mut wrong = BTreeMap::new();
        self.stacks.look(&mut wrong);
        for module in &mut self.modules {
            module.look(&mut wrong);
        }
        self.file.look(&mut wrong);
        let filtered = self.parts.config.filter.enabled;
        self.gate.look(true, &mut wrong);
        self.drops.look(filtered, &mut wrong);
        self.observed.look(self.parts.config.observer.enabled, &mut wrong);
        self.traffic.look(&self.parts.config, &mut wrong);
        self.probes.look(&mut wrong);
        wrong.extend(self.store.replaced());
        wrong
    }

    /// Raises and ends alarms, and mends. Whether another look is due soon.
    async fn settle(&mut self, found: BTreeMap<Key, Found>) -> bool {
        let now = Instant::now();
        self.suspects.retain(|key, _| found.contains_key(key));
        for (key, found) in &found {
            if !self.suspects.contains_key(key) {
                let who = found.who.clone().map(|who| (who, None)).or_else(|| self.who(&found.path));
                self.suspects.insert(key.clone(), (now, who));
            }
        }
        let ages: BTreeMap<Key, Duration> =
            self.suspects.iter().map(|(key, (since, _))| (key.clone(), now.duration_since(*since))).collect();
        let age = |key: &Key| ages.get(key).copied().unwrap_or_default();
        let mut sure = BTreeMap::new();
        for (key, found) in &found {
            // An alarm that is open, noted or not, stays; what is new must be seen twice. What is seen once only is told at
            // once.
            let open = self.parts.handle.book().has(key);
            if open || key.0.stays() || age(key) >= SURE {
                let who = self.suspects.get(key).and_then(|(_, who)| who.clone());
                let (who, uid) = who.map_or((None, None), |(who, uid)| (Some(who), uid));
                sure.insert(key.clone(), Wrong { detail: found.detail.clone(), who, uid });
            }
        }
        let news = self.parts.handle.book().look(Timestamp::now(), &sure);
        news.iter().for_each(|news| self.tell(news));
        let mend: Vec<(Key, Heal)> = found
            .iter()
            .filter(|(key, _)| age(key) >= PATIENCE)
            .filter_map(|(key, found)| Some((key.clone(), found.heal.clone()?)))
            .collect();
        for (key, heal) in mend {
            self.mend(&key, &heal).await;
        }
        self.gauges();
        found.keys().any(|key| age(key) < PATIENCE)
    }

    /// Mends once; what it came to is seen by the next look.
    async fn mend(&mut self, key: &Key, heal: &Heal) {
        if !self.parts.handle.book().may_heal(key.0, Timestamp::now()) {
            return;
        }
        // As new: it has its time again to show that it holds.
        self.suspects.remove(key);
        let said = |error: std::io::Error| error.to_string();
        let done = match heal {
            Heal::Pin(path) if path.starts_with(OBSERVER_DIR) => self.observed.put_back(path).map_err(said),
            Heal::Pin(path) => self.gate.put_back(path).map_err(said),
            Heal::Mode(path) => tighten(path).map_err(said),
            Heal::Filter => match self.parts.filter.ask(filter::Command::Heal).await {
                Ok(done) => done.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            },
        };
        if *heal == Heal::Filter && done.is_ok() {
            tokio::task::block_in_place(|| self.drops.expect());
        }
        let (result, words) = match &done {
            Ok(()) => ("verified", String::new()),
            Err(error) => ("failed", format!(": {error}")),
        };
        // Read back.
        let again = tokio::task::block_in_place(|| self.look());
        let still = again.contains_key(key);
        // What is seen once only is not lost by it.
        for (key, found) in again.into_iter().filter(|(key, _)| key.0.stays()) {
            let wrong = Wrong { detail: found.detail, who: None, uid: None };
            let news = self.parts.handle.book().raise(Timestamp::now(), &key, &wrong);
            news.into_iter().for_each(|news| self.tell(&news));
        }
        let result = if still { "failed" } else { result };
        self.parts.metrics.healed(key.0.word(), result);
        let mut event = Event::new(Timestamp::now(), "healed");
        event.result = Some(result.to_owned());
        event.detail = Some(format!("{}: {}{words}", key.0.word(), key.1));
        let level = if result == "verified" { log::Level::Warn } else { log::Level::Error };
        self.publish(level, event);
    }

    /// Who last touched a file, or what is in the same folder.
    fn who(&self, path: &str) -> Option<Doer> {
        let path = Path::new(path);
        let name = path.file_name().map(OsStrExt::as_bytes);
        let near = |touch: &&Touch| {
            touch.at.elapsed() < BACK
                && (Some(touch.folder.as_path()) == path.parent() || touch.folder == path)
        };
        let of_file = |touch: &&Touch| touch.name.as_deref() == name;
        let touches = || self.touches.iter().rev().filter(near);
        let touch = touches().find(of_file).or_else(|| touches().next())?;
        let who = touch.who.as_ref()?;
        Some((who.to_string(), who.uid()))
    }

    fn tell(&self, news: &News) {
        let (level, event) = match news {
            News::Raised((kind, _), alarm) => {
                self.parts.metrics.alarm(kind.word());
                (log::Level::Error, raised(*kind, alarm))
            }
            News::Ended((kind, about), _) => {
                let mut event = Event::new(Timestamp::now(), "alarm_ended");
                event.detail = Some(format!("{}: {about}: as it was", kind.word()));
                (log::Level::Warn, event)
            }
        };
        self.publish(level, event);
        self.gauges();
    }

    fn gauges(&self) {
        let book = self.parts.handle.book();
        for kind in Kind::ALL {
            self.parts.metrics.open_alarms(kind.word(), book.count(kind));
        }
    }

    fn publish(&self, level: log::Level, event: Event) {
        self.parts.hub.publish(level, event);
    }
}

/// The event of an alarm.
fn raised(kind: Kind, alarm: &Alarm) -> Event {
    let mut event = Event::new(Timestamp::now(), kind.word());
    let who = alarm.wrong.who.as_deref().unwrap_or("not known");
    event.detail = Some(format!("{}; by: {who}", alarm.wrong.detail));
    event.actor = alarm.wrong.uid.map(|uid| Actor::Local { uid, name: Names::default().of(uid) });
    event
}
