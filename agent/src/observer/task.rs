//! The observer's task: loads it, keeps the watched files up to date, reads what it tells, holds it against the gate's
//! records.
//!
//! Invariants: stopping lets the kernel's side go on; what it told meanwhile is read by the next agent.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use portcullis_common::abi::{Detail, Entry, outcome, source, via};
use portcullis_common::observer::{File, Process, denial::actor, flag, kind, map};
use portcullis_policy::Boot;
use portcullis_policy::observer::{Corroboration, Ended, Finding, GRACE, Program, Record};
use tokio::time::MissedTickBehavior;

use super::denial::{Denials, Means, Way};
use super::files::{self, Watched};
use super::load::{self, OBJECT};
use super::pace::Pace;
use super::running::running;
use super::tables::Tables;
use super::{ObserverError, Shared, WatchedView, process};
use crate::api::hub::Hub;
use crate::api::view::Event;
use crate::clock;
use crate::config::observer::Observer;
use crate::kernel::Ring;
use crate::names::Names;
use crate::rows::{self, Now};

/// Service under which a failure that the observer counted is told.
pub const SERVICE: &str = "observer";
/// Records read before others get their turn.
const BATCH: usize = 512;
/// How often the files are looked at, records are held against programs, and the configuration is taken up.
const TICK: Duration = Duration::from_secs(1);
/// Files of one second that are looked for among the watched ones.
const STRANGERS: usize = 64;
/// Records read in one look, at most: more than the ring buffer holds, and others get their turn.
const MOST: usize = 8 * BATCH;
/// Nanoseconds between two looks after which this agent was held up: what others have to tell may still be unread.
const HELD_UP: u64 = 2_500_000_000;
/// How often one tells that something was lost.
const TOLD: Duration = Duration::from_secs(60);

/// Loads the observer, says what it watches, then ends: before the network's services start.
///
/// What goes wrong is logged: the gate does not wait for the observer.
pub fn bring_up(config: &Observer) {
    if let Err(error) = start(config, true) {
        log::error!("{error}");
    }
}

/// The kernel's side at work.
struct Started {
    tables: Tables,
    means: Means,
    /// Whether it keeps who is locked out from su, login and sudo; an error: it is to, and why it does not.
    denies: Result<bool, String>,
}

/// Starts the kernel's side, in the place of one that runs; none: it is off. `first`: nobody watches over its pins yet.
fn start(config: &Observer, first: bool) -> Result<Option<Started>, ObserverError> {
    if !config.enabled {
        if load::attached() {
            Tables::open()?.observe(false, None)?;
        }
        return Ok(None);
    }
    let spared = spared(config);
    let means = load::load(OBJECT, matches!(spared, Ok(Some(_))), first)?;
    let denies = spared.and_then(|spared| match (spared, &means) {
        (Some(_), Means { way: Way::None, why }) => Err(why.clone().unwrap_or_default()),
        (spared, _) => Ok(spared),
    });
    let mut tables = Tables::open()?;
    tables.watch(&files::resolve(&config.watch))?;
    tables.observe(true, denies.clone().unwrap_or_default())?;
    Ok(Some(Started { tables, means, denies: denies.map(|spared| spared.is_some()) }))
}

/// The uid that is kept from nothing, besides root's (0: there is none); none: nobody is kept from anything.
fn spared(config: &Observer) -> Result<Option<u32>, String> {
    match (config.deny_exec, &config.break_glass) {
        (false, _) => Ok(None),
        (true, None) => Ok(Some(0)),
        (true, Some(name)) => uid_of(name)
            .map(Some)
            .ok_or_else(|| format!("the break_glass account {name} is not found, and might be meant")),
    }
}

/// The next records; for ever none where there is no ring, or none that can be waited for. Cancel-safe.
async fn next(ring: Option<&mut Ring>) -> Vec<Bytes> {
    match ring {
        Some(ring) => match ring.read(BATCH).await {
            Ok(records) => records,
            Err(_) => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

/// The task.
pub struct Task {
    config: Observer,
    shared: Arc<Shared>,
    hub: Arc<Hub>,
    tables: Option<Tables>,
    ring: Option<Ring>,
    watched: Vec<Watched>,
    names: Names,
    judge: Corroboration,
    denials: Denials,
    pace: Pace,
    /// Files with the name of a watched program that were none of ours in this second.
    strangers: BTreeSet<File>,
    looked: Boot,
    lost: u64,
    told: Option<std::time::Instant>,
}

impl Task {
    /// A task that has loaded nothing yet.
    #[must_use]
    pub fn new(config: &Observer, shared: Arc<Shared>, hub: Arc<Hub>) -> Self {
        shared.adopt(config);
        Self {
            config: config.clone(),
            shared,
            hub,
            tables: None,
            ring: None,
            watched: Vec::new(),
            names: Names::default(),
            judge: Corroboration::default(),
            denials: Denials::default(),
            pace: Pace::default(),
            strangers: BTreeSet::new(),
            looked: Boot(0),
            lost: 0,
            told: None,
        }
    }

    /// Works for ever, after [`Self::begin`].
    pub async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                records = next(self.ring.as_mut()) => tokio::task::block_in_place(|| self.told(&records)),
                _ = tick.tick() => tokio::task::block_in_place(|| self.look()),
            }
        }
    }

    /// Puts this version's programs in the place of those that run, each in one step: an upgrade reaches them. Before
    /// anybody watches over the pins.
    pub fn begin(&mut self) {
        self.start(true);
    }

    /// Starts as the configuration says.
    fn start(&mut self, first: bool) {
        self.ring = None;
        let begun = start(&self.config, first).and_then(|started| {
            if started.is_some() {
                self.ring = Some(Ring::open(&load::pin(map::OBSERVED), map::OBSERVED)?);
            }
            Ok(started)
        });
        let problem = begun.as_ref().err().map(ToString::to_string);
        if let Some(problem) = &problem {
            log::error!("{problem}");
        }
        let (tables, means, denies) = match begun.unwrap_or_default() {
            Some(Started { tables, means, denies }) => (Some(tables), means, denies),
            None => (None, Means::default(), Ok(false)),
        };
        if let Err(why) = &denies {
            log::error!("the observer keeps nobody from su, login and sudo: {why}");
        }
        self.tables = tables;
        self.lost =
            self.tables.as_ref().and_then(|tables| tables.counts().ok()).map_or(0, |counts| counts.lost);
        self.watched = files::resolve(&self.config.watch);
        let (enabled, loaded) = (self.config.enabled, self.tables.is_some());
        self.shared.set(|view| {
            view.enabled = enabled;
            view.loaded = loaded;
            view.problem = problem;
            view.means = means;
            view.denies = denies == Ok(true);
            view.denies_not = denies.err();
        });
        self.show_watched();
        // From now on records are kept. Whoever was started before may have told his to nobody.
        if loaded && let Ok(now) = clock::boot() {
            self.judge.begin(now, running(&self.watched));
        }
    }

    fn show_watched(&self) {
        let list = self.watched.iter().map(|one| WatchedView {
            path: crate::text::escape(one.path.as_os_str().as_encoded_bytes()),
            present: one.file.is_some(),
        });
        self.shared.set(|view| view.watched = list.collect());
    }

    /// Takes up what has changed, and says what is certain by now.
    fn look(&mut self) {
        let config = self.shared.config();
        if config != self.config {
            self.config = config;
            self.start(false);
        }
        self.strangers.clear();
        self.refresh();
        let Ok(now) = clock::boot() else { return };
        let held_up = now.0.saturating_sub(self.looked.0) > HELD_UP;
        self.looked = now;
        self.count_lost(now);
        // Both halves are here up to this moment, however busy the machine is.
        let now = self.shared.is_read_until().min(now);
        let knows_all = self.catch_up();
        let (records, forgot) = self.shared.records();
        if forgot {
            self.judge.unsure(now);
        }
        let claims = self.shared.claims();
        if self.tables.is_none() {
            // Nothing is observed that they could be held against.
            return;
        }
        for mut record in records {
            // A program that nobody watches leaves records alone.
            record.program = record.program.filter(|program| self.watches(*program));
            self.judge.recorded(record);
        }
        for (uid, time) in claims {
            self.judge.claimed(uid, Boot(time));
        }
        if held_up || !knows_all {
            return;
        }
        let alive = |pid: u32| std::path::Path::new(&format!("/proc/{pid}")).exists();
        for finding in self.judge.findings(now, alive) {
            self.found(finding);
        }
        for (uid, more) in self.pace.next() {
            log::warn!("observer: {more} more findings about uid {uid} are in the metrics alone");
        }
        // Whoever waits for it reads what was found before.
        if let Ok(clocks) = Now::read() {
            self.shared.set(|view| view.judged = Some(clocks.wall_of(now.0.saturating_sub(GRACE))));
        }
    }

    /// Reads what was told up to now; whether that is all. Who is behind would take a record for one without a process.
    fn catch_up(&mut self) -> bool {
        for _ in 0..MOST / BATCH {
            let Some(ring) = &mut self.ring else { return true };
            let records = ring.drain(BATCH);
            self.told(&records);
            if records.len() < BATCH {
                return true;
            }
        }
        false
    }

    fn watches(&self, program: Program) -> bool {
        let there = self.watched.iter().filter(|one| one.file.is_some());
        there.map(Watched::name).any(|name| process::program_of(&name) == program)
    }

    /// Watches the files that are there now: a package upgrade puts new ones in their places.
    fn refresh(&mut self) {
        let Some(tables) = &mut self.tables else { return };
        let now = files::resolve(&self.config.watch);
        if now == self.watched {
            return;
        }
        match tables.watch(&now) {
            Ok(()) => {
                self.watched = now;
                self.show_watched();
            }
            Err(error) => log::error!("{error}"),
        }
    }

    fn count_lost(&mut self, now: Boot) {
        let Some(Ok(counts)) = self.tables.as_ref().map(Tables::counts) else { return };
        self.shared.counted(counts);
        if counts.lost == self.lost {
            return;
        }
        self.judge.unsure(now);
        if self.told.is_none_or(|told| told.elapsed() >= TOLD) {
            self.told = Some(std::time::Instant::now());
            let mut event = Event::new(Timestamp::now(), "observer_lost");
            event.detail =
                Some(format!("{} starts and ends of programs were not told", counts.lost - self.lost));
            self.publish(log::Level::Warn, event);
            self.lost = counts.lost;
        }
    }

    /// Programs that were started or ended.
    fn told(&mut self, records: &[Bytes]) {
        let Ok(now) = Now::read() else { return };
        for record in records {
            let Some(seen) = process::decode(record) else {
                log::error!("the observer told something that is none of this version's");
                continue;
            };
            if seen.flags & flag::BY_NAME != 0 && !self.is_ours(&seen) {
                continue;
            }
            self.saw(&seen, &now);
        }
    }

    /// A program that has only the name of a watched one: whether its file has come into its place since.
    fn is_ours(&mut self, seen: &Process) -> bool {
        // Anybody can run copies of su in a loop.
        if self.strangers.len() >= STRANGERS || self.strangers.contains(&seen.file) {
            return false;
        }
        self.refresh();
        let ours = self.watched.iter().any(|one| one.file == Some(seen.file));
        if !ours {
            self.strangers.insert(seen.file);
        }
        ours
    }

    fn saw(&mut self, seen: &Process, now: &Now) {
        let known = self.watched.iter().find(|one| one.file == Some(seen.file));
        let name = known.map_or_else(|| crate::text::field(&seen.comm), Watched::name);
        if seen.kind == kind::DENIED || (seen.kind == kind::START && seen.flags & flag::DENIED != 0) {
            self.denied(seen, &name, now);
        }
        if seen.kind == kind::DENIED {
            // It never was one.
        } else if seen.kind == kind::START {
            self.judge.started(seen.pid, Boot(seen.started));
        } else {
            self.judge.ended(process::end_of(seen, &name));
        }
        let view = process::view(seen, &name, now, &mut self.names);
        self.shared.remember(view);
    }

    /// Somebody who is locked out was kept from a program.
    fn denied(&mut self, seen: &Process, name: &str, now: &Now) {
        let who = actor(seen.uid, seen.login);
        let Some(more) = self.denials.tell(who, Boot(seen.started)) else { return };
        let view = process::view(seen, name, now, &mut self.names);
        let mut event = Event::new(view.started, "exec_denied");
        event.actor = Some(rows::actor(crate::event::Source::Local(who), &mut self.names));
        event.service = Some(view.program);
        event.tty = view.tty;
        let before = if more == 0 { String::new() } else { format!("; {more} more since he was told of") };
        event.detail = Some(format!("locked out: {}{before}", view.chain));
        self.publish(log::Level::Warn, event);
    }

    fn found(&mut self, finding: Finding) {
        let (Finding::Unrecorded(Ended { uid, .. })
        | Finding::OwnGuess(Ended { uid, .. })
        | Finding::NoProcess(Record { uid, .. })) = finding;
        self.shared.set(|view| match finding {
            Finding::Unrecorded(_) => view.unrecorded += 1,
            Finding::OwnGuess(_) => view.own_guesses += 1,
            Finding::NoProcess(_) => view.no_process += 1,
        });
        if !self.pace.allows(uid) {
            return;
        }
        match finding {
            Finding::Unrecorded(end) => {
                let seen = self.view_of(&end);
                let account = asked_for(&end, seen.as_ref().and_then(|seen| seen.target.as_deref()));
                self.tell_of(
                    "unrecorded_attempt",
                    &end,
                    "a logon failed and the PAM line never heard of it: see `portcullis doctor`",
                );
                if self.config.count_unrecorded
                    && let Some(account) = account
                {
                    self.count(&end, account);
                }
            }
            Finding::OwnGuess(end) => {
                self.tell_of("own_guess", &end, "a wrong password for unix_chkpwd, outside the PAM line");
                self.count(&end, end.uid);
            }
            Finding::NoProcess(record) => {
                self.tell_of_record(&record);
            }
        }
    }

    fn view_of(&self, end: &Ended) -> Option<process::ProcessView> {
        self.shared.recent().into_iter().rev().find(|seen| seen.pid == end.pid && seen.result.is_some())
    }

    fn tell_of(&mut self, what: &str, end: &Ended, why: &str) {
        let seen = self.view_of(end);
        let mut event = Event::new(Timestamp::now(), what);
        let who = answers_for(end, seen.as_ref());
        event.actor = Some(rows::actor(crate::event::Source::Local(who), &mut self.names));
        if let Some(seen) = seen {
            event.service = Some(seen.program);
            event.tty = seen.tty;
            event.result = seen.result;
            event.detail = Some(format!("{why}; {}", seen.chain));
        } else {
            event.detail = Some(why.to_owned());
        }
        self.publish(log::Level::Warn, event);
    }

    fn tell_of_record(&mut self, record: &Record) {
        let mut event = Event::new(Timestamp::now(), "record_without_process");
        event.actor = Some(rows::actor(crate::event::Source::Local(record.uid), &mut self.names));
        event.detail = Some(format!(
            "process {} reported an attempt by a service whose program did not run there",
            record.pid
        ));
        self.publish(log::Level::Warn, event);
    }

    /// Counts a failure that no module reported.
    fn count(&self, end: &Ended, account: u32) {
        let uid = answers_for(end, self.view_of(end).as_ref());
        let mut detail = Detail { source: source::LOCAL, uid, pid: end.pid, via: via::ROOT, ..Detail::EMPTY };
        for (to, from) in detail.service.iter_mut().zip(SERVICE.bytes()) {
            *to = from;
        }
        let entry = Entry { account: u64::from(account), token: 0, detail };
        if let Err(error) = crate::kernel::gate::attempt(entry, outcome::FAIL) {
            log::error!("a failure at uid {account} is not counted: {error}");
        }
    }

    fn publish(&self, level: log::Level, event: Event) {
        self.hub.publish(level, event);
    }
}

/// Who answers for it: who logged in, or who started it.
fn answers_for(end: &Ended, seen: Option<&process::ProcessView>) -> u32 {
    seen.and_then(|seen| seen.login_uid).unwrap_or(end.uid)
}

/// Whose password it asked for.
fn asked_for(end: &Ended, target: Option<&str>) -> Option<u32> {
    match (end.program, target) {
        // The password of who calls it.
        (Program::Sudo, _) => Some(end.uid),
        (Program::Su, None) => Some(0),
        (_, target) => target.and_then(uid_of),
    }
}

fn uid_of(name: &str) -> Option<u32> {
    nix::unistd::User::from_name(name).ok().flatten().map(|user| user.uid.as_raw())
}
