//! The filter's own state: kernel tables, attached interfaces, the book, the store. No waiting in here.
//!
//! Invariants: each change of the kernel's table is read back; the kernel first, then the store: what a crash leaves in
//! the kernel alone is found there at the next start; a lease is never longer than it was given for.

mod around;
#[cfg(test)]
mod tests;
mod throttles;

use jiff::{SignedDuration, Timestamp};
use portcullis_common::filter::{self, record, stat};
use portcullis_policy::Boot;

use super::attach::{self, Places};
use super::book::{Book, Kept};
use super::command::{Asker, FilterError};
use super::guard::{self, Surroundings};
use super::load::{self, Programs};
use super::nft::Nft;
use super::table::{DropTable, Table};
use super::throttle::HeldThrottle;
use super::throttle::table::ThrottleTable;
use super::{Cause, Given, Held, Lease, Net, PORTS, links, sockets};
use crate::api::drops::FilterView;
use crate::clock;
use crate::config::filter::{Backend, Filter as Config};
use crate::store::drops::{DropStore, StoredDrop};

/// What is loaded.
struct Loaded {
    /// None: nftables drops.
    programs: Option<Programs>,
    table: Box<dyn DropTable>,
    /// None: nftables drops.
    throttles: Option<ThrottleTable>,
}

/// All state of the filter.
pub(super) struct Worker {
    config: Config,
    store: DropStore,
    loaded: Option<Loaded>,
    problem: Option<String>,
    places: Places,
    book: Book,
    throttled: Vec<HeldThrottle>,
    names: Vec<links::Interface>,
    around: around::Around,
}

/// One moment by both clocks.
fn now() -> Result<(Boot, Timestamp), FilterError> {
    let boot = clock::boot().map_err(|error| FilterError::Kernel(error.to_string()))?;
    Ok((boot, Timestamp::now()))
}

impl Cause {
    /// Its number in the kernel.
    pub(super) const fn number(self) -> u16 {
        match self {
            Self::Administrator => filter::reason::ADMINISTRATOR,
            Self::Policy => filter::reason::POLICY,
            Self::Reported => filter::reason::REPORTED,
        }
    }

    /// The cause of a number.
    pub(super) fn of_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.number() == number)
    }
}

impl Worker {
    pub(super) fn new(config: Config, store: DropStore) -> Self {
        Self {
            config,
            store,
            loaded: None,
            problem: None,
            places: Places::default(),
            book: Book::default(),
            throttled: Vec::new(),
            names: Vec::new(),
            around: around::Around::default(),
        }
    }

    /// Loads, gives back what the store has, attaches; or lets go where the filter is off. What fails is kept as the
    /// problem.
    pub(super) fn start(&mut self) {
        let started = if self.config.enabled { self.load() } else { self.unload() };
        self.problem = started.err().map(|error| error.to_string());
        if let Some(problem) = &self.problem {
            log::error!("the filter does not work: {problem}");
        }
    }

    /// Whether samples can be read.
    pub(super) fn works(&self) -> bool {
        self.loaded.as_ref().is_some_and(|loaded| loaded.programs.is_some())
    }

    /// A new configuration.
    pub(super) fn adopt(&mut self, config: Config) -> Result<(), FilterError> {
        let was = std::mem::replace(&mut self.config, config);
        let other = (&was.backend, &was.interfaces) != (&self.config.backend, &self.config.interfaces);
        if other && (was.backend == Backend::Nft || self.config.backend == Backend::Nft) {
            // Anew: what was dropped comes back from the store.
            self.unload()?;
        }
        if !was.enabled || !self.config.enabled || self.loaded.is_none() {
            self.start();
        } else if was != self.config {
            self.configure()?;
            self.loaded()?.table.commit()?;
            self.follow(false)?;
        }
        match &self.problem {
            Some(problem) => Err(FilterError::Kernel(problem.clone())),
            None => Ok(()),
        }
    }

    fn load(&mut self) -> Result<(), FilterError> {
        self.loaded = Some(self.backend()?);
        // The allow-list before anything is dropped, the leases before anything is attached.
        self.configure()?;
        self.restore()?;
        self.restore_throttles()?;
        self.around = around::Around::default();
        self.loaded()?.table.commit()?;
        self.follow(true)
    }

    /// What the configuration wants to drop, or what is left where the kernel does not take it.
    fn backend(&self) -> Result<Loaded, FilterError> {
        let nft = |config| {
            let table = Box::new(Nft::new(config)?);
            Ok::<_, FilterError>(Loaded { programs: None, table, throttles: None })
        };
        if self.config.backend == Backend::Nft {
            attach::let_go()?;
            return nft(&self.config);
        }
        let loaded = load::load(load::OBJECT).and_then(|programs| {
            Ok(Loaded {
                programs: Some(programs),
                table: Box::new(Table::open()?),
                throttles: Some(ThrottleTable::open()?),
            })
        });
        match loaded {
            Ok(loaded) => {
                Nft::take_away()?;
                Ok(loaded)
            }
            Err(error) => match nft(&self.config) {
                Ok(other) => {
                    log::warn!("nftables drops, since the kernel does not take the filter: {error}");
                    Ok(other)
                }
                Err(_) => Err(error),
            },
        }
    }

    fn unload(&mut self) -> Result<(), FilterError> {
        attach::let_go()?;
        Nft::take_away()?;
        self.loaded = None;
        self.places = Places::default();
        self.book = Book::default();
        self.throttled = Vec::new();
        match std::fs::remove_dir_all(filter::FILTER_DIR) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(FilterError::Kernel(format!("cannot remove {}: {error}", filter::FILTER_DIR)))
            }
            _ => Ok(()),
        }
    }

    fn loaded(&mut self) -> Result<&mut Loaded, FilterError> {
        if !self.config.enabled {
            return Err(FilterError::Off);
        }
        let problem = self.problem.clone();
        self.loaded
            .as_mut()
            .ok_or_else(|| FilterError::Kernel(problem.unwrap_or_else(|| "it is not loaded".to_owned())))
    }

    fn configure(&mut self) -> Result<(), FilterError> {
        let (allow, samples) = (self.config.allow.clone(), self.config.samples);
        let table = &mut self.loaded()?.table;
        table.allow(&allow)?;
        let held = table.allowed()?;
        if let Some(net) = allow.iter().find(|net| !held.contains(net)) {
            return Err(FilterError::ReadBack { net: *net, what: "it is not on the allow-list".to_owned() });
        }
        table.pace(samples)
    }

    /// Attaches to what is there now. `fresh`: also where it hangs already, by programs of before.
    pub(super) fn follow(&mut self, fresh: bool) -> Result<(), FilterError> {
        if self.loaded.is_none() {
            return Ok(());
        }
        self.names =
            links::list().map_err(|error| FilterError::Kernel(format!("cannot list interfaces: {error}")))?;
        // An interface may have come for which there is a throttle.
        self.lead_throttles()?;
        match self.loaded.as_mut().map(|loaded| loaded.programs.as_mut()) {
            None => Ok(()),
            Some(None) => {
                self.places.follow_nft(&self.config, &self.names);
                Ok(())
            }
            Some(Some(programs)) => self.places.follow(programs, &self.config, &self.names, fresh),
        }
    }

    /// Brings book, kernel and store together.
    fn restore(&mut self) -> Result<(), FilterError> {
        let (boot, wall) = now()?;
        let mut in_kernel = std::collections::BTreeMap::new();
        self.loaded()?.table.each(&mut |net, lease| {
            in_kernel.insert(net, lease);
        })?;
        self.book = Book::default();
        let (mut gone, mut lost) = (Vec::new(), Vec::new());
        for stored in self.store.all() {
            let known = stored.net.parse::<Net>().ok().zip(Cause::of(&stored.cause));
            let Some((net, cause)) = known else {
                gone.push(stored.net);
                continue;
            };
            let held = in_kernel.remove(&net);
            let until = held.map_or_else(|| end_of(&stored, boot, wall), |held| Boot(held.until));
            if until <= boot {
                gone.push(stored.net);
                if held.is_some() {
                    self.loaded()?.table.remove(net)?;
                }
                continue;
            }
            let forget = cfg!(feature = "mutation-forget-ports");
            let ports = held.map_or(if forget { Vec::new() } else { stored.ports }, |held| ports_of(&held));
            let lease = Lease { net, until, ports, cause, reason: stored.reason };
            let kept = Kept { lease, rule: stored.rule, since: stored.since };
            if held.is_none() && !cfg!(feature = "mutation-forget-drops") {
                lost.push(kept.clone());
            }
            self.book.keep(kept);
        }
        self.store.remove(&gone);
        for kept in &lost {
            self.write(kept, 0)?;
        }
        // What an agent put in and did not live to store.
        let mut found = Vec::new();
        for (net, held) in in_kernel {
            if Boot(held.until) <= boot {
                self.loaded()?.table.remove(net)?;
                continue;
            }
            let cause = Cause::of_number(held.reason).unwrap_or(Cause::Administrator);
            let reason = "found in the kernel when portcullisd started".to_owned();
            let lease = Lease { net, until: Boot(held.until), ports: ports_of(&held), cause, reason };
            found.push(Kept { lease, rule: held.rule, since: wall });
        }
        self.keep(found, boot, wall);
        if !self.book.is_empty() {
            log::info!("{} drops, {} of them given back to the kernel", self.book.len(), lost.len());
        }
        Ok(())
    }

    /// Writes a lease into the kernel and reads it back.
    fn write(&mut self, kept: &Kept, packets: u64) -> Result<(), FilterError> {
        let lease = record_of(kept, packets);
        let net = kept.lease.net;
        let table = &mut self.loaded()?.table;
        table.insert(net, &lease)?;
        let same = table.get(net)?.is_some_and(|held| {
            (held.until, held.ports, held.rule) == (lease.until, lease.ports, lease.rule)
        });
        if same || cfg!(feature = "mutation-no-read-back") {
            Ok(())
        } else {
            Err(FilterError::ReadBack { net, what: "another lease is there, or none".to_owned() })
        }
    }

    /// Puts leases on the books and in the store.
    fn keep(&mut self, kept: Vec<Kept>, boot: Boot, wall: Timestamp) {
        if kept.is_empty() {
            return;
        }
        let stored: Vec<StoredDrop> = kept.iter().map(|kept| stored_of(kept, boot, wall)).collect();
        self.store.set(&stored);
        for kept in kept {
            self.book.keep(kept);
        }
    }

    /// Gives leases.
    pub(super) fn give(
        &mut self,
        leases: Vec<Lease>,
        all_or_none: bool,
        asker: &Asker,
    ) -> Vec<Result<Given, FilterError>> {
        let count = leases.len();
        match self.try_give(leases, all_or_none, asker) {
            Ok(answers) => answers,
            Err(error) => (0..count).map(|_| Err(error.clone())).collect(),
        }
    }

    fn try_give(
        &mut self,
        leases: Vec<Lease>,
        all_or_none: bool,
        asker: &Asker,
    ) -> Result<Vec<Result<Given, FilterError>>, FilterError> {
        self.loaded()?;
        let (boot, wall) = now()?;
        let surroundings = Surroundings {
            allow: self.config.allow.clone(),
            gateways: guard::gateways(),
            own: guard::addresses().map_err(|error| {
                FilterError::Kernel(format!("cannot read this host's addresses: {error}"))
            })?,
            sessions: asker.sessions.clone(),
        };
        let refused = |lease: &Lease| {
            let ports = lease.ports.len() > PORTS || lease.ports.contains(&0);
            let why = if ports {
                Some(format!("a drop is for at most {PORTS} ports, from 1 to 65535"))
            } else {
                surroundings.against(lease.net, lease.cause, asker.force)
            };
            why.map(|why| FilterError::Refused { net: lease.net, why })
        };
        if all_or_none && leases.iter().any(|lease| refused(lease).is_some()) {
            let answer = |lease: &Lease| Err(refused(lease).unwrap_or(FilterError::Spared(lease.net)));
            return Ok(leases.iter().map(answer).collect());
        }
        let mut answers = Vec::with_capacity(leases.len());
        let mut done = Vec::new();
        for lease in leases {
            if let Some(error) = refused(&lease) {
                answers.push(Err(error));
                continue;
            }
            let before = self.book.get(lease.net).cloned();
            let (kept, renewed) = self.book.joined(lease, boot, wall);
            let packets = self.loaded()?.table.get(kept.lease.net)?.map_or(0, |held| held.packets);
            match self.write(&kept, packets) {
                Ok(()) => {
                    let held =
                        Held { lease: kept.lease.clone(), rule: kept.rule, since: kept.since, packets };
                    self.book.keep(kept.clone());
                    done.push((kept, before));
                    answers.push(Ok(Given { held, renewed, connections: None }));
                }
                Err(error) if all_or_none => {
                    self.undo(done);
                    return Err(error);
                }
                Err(error) => answers.push(Err(error)),
            }
        }
        if let Err(error) = self.loaded()?.table.commit() {
            self.undo(done);
            return Err(error);
        }
        let kept: Vec<Kept> = done.into_iter().map(|(kept, _)| kept).collect();
        let ended = {
            let leases: Vec<&Lease> = kept.iter().map(|kept| &kept.lease).collect();
            sockets::end(&leases, &self.config.allow).unwrap_or_else(|error| {
                log::warn!("connections of dropped sources stay until they end by themselves: {error}");
                None
            })
        };
        self.keep(kept, boot, wall);
        for given in answers.iter_mut().flatten() {
            given.connections = ended;
        }
        Ok(answers)
    }

    /// Brings back what was before, newest first.
    fn undo(&mut self, done: Vec<(Kept, Option<Kept>)>) {
        for (kept, before) in done.into_iter().rev() {
            let undone = match before {
                Some(before) => {
                    let undone = self.write(&before, 0);
                    self.book.keep(before);
                    undone
                }
                None => {
                    self.book.forget(kept.lease.net);
                    self.let_go(kept.lease.net)
                }
            };
            if let Err(error) = undone {
                log::error!("{error}");
            }
        }
        if let Err(error) = self.loaded().and_then(|loaded| loaded.table.commit()) {
            log::error!("{error}");
        }
    }

    /// Takes a lease out of the kernel and looks whether it is gone.
    fn let_go(&mut self, net: Net) -> Result<(), FilterError> {
        let table = &mut self.loaded()?.table;
        table.remove(net)?;
        match table.get(net)? {
            None => Ok(()),
            Some(_) if cfg!(feature = "mutation-no-read-back") => Ok(()),
            Some(_) => Err(FilterError::ReadBack { net, what: "it is still dropped".to_owned() }),
        }
    }

    /// Takes leases away, but those that another wants.
    pub(super) fn take(&mut self, nets: &[Net], by: Cause) -> Vec<Result<Held, FilterError>> {
        let mut gone = Vec::new();
        let answers: Vec<Result<Held, FilterError>> = nets
            .iter()
            .map(|net| {
                let held = self.held(*net)?.ok_or(FilterError::NotDropped(*net))?;
                if let Some(cause) = self.book.held_by_another(*net, by) {
                    return Err(FilterError::Anothers { net: *net, cause });
                }
                self.let_go(*net)?;
                gone.extend(self.book.forget(*net));
                Ok(held)
            })
            .collect();
        if gone.is_empty() {
            return answers;
        }
        if let Err(error) = self.loaded().and_then(|loaded| loaded.table.commit()) {
            gone.into_iter().for_each(|kept| self.book.keep(kept));
            return answers.into_iter().map(|answer| answer.and(Err(error.clone()))).collect();
        }
        let gone: Vec<String> = gone.iter().map(|kept| kept.lease.net.to_string()).collect();
        self.store.remove(&gone);
        answers
    }

    fn held(&mut self, net: Net) -> Result<Option<Held>, FilterError> {
        let packets = self.loaded()?.table.get(net)?.map_or(0, |held| held.packets);
        Ok(self.book.get(net).map(|kept| held_of(kept, packets)))
    }

    /// All leases, with what they have dropped.
    pub(super) fn list(&mut self) -> Result<Vec<Held>, FilterError> {
        let mut packets = std::collections::BTreeMap::new();
        self.loaded()?.table.each(&mut |net, lease| {
            packets.insert(net, lease.packets);
        })?;
        Ok(self
            .book
            .all()
            .map(|kept| held_of(kept, packets.get(&kept.lease.net).copied().unwrap_or(0)))
            .collect())
    }

    /// Takes away what has ended. Returns those leases.
    pub(super) fn expire(&mut self) -> Result<Vec<Held>, FilterError> {
        if self.loaded.is_none() {
            return Ok(Vec::new());
        }
        let (boot, _) = now()?;
        let nets = self.book.ended(boot);
        let mut ended = Vec::new();
        for (net, taken) in nets.iter().zip(self.take(&nets, Cause::Administrator)) {
            match taken {
                Ok(held) => ended.push(held),
                Err(error) => {
                    // It drops nothing any more, and is looked at again at the next start.
                    log::error!("{error}");
                    self.book.forget(*net);
                }
            }
        }
        Ok(ended)
    }

    /// How long until the next lease ends.
    pub(super) fn until_next(&self) -> std::time::Duration {
        // Timers do not see the machine sleep.
        let most = std::time::Duration::from_secs(60);
        let ends = [self.book.next_end(), self.next_throttle_end()];
        let Some(next) = ends.into_iter().flatten().min() else { return most };
        let left = clock::boot().map_or(0, |now| next.0.saturating_sub(now.0));
        std::time::Duration::from_nanos(left).min(most)
    }

    /// Says when the pins were taken away: that is a way to stop it, so it is not loaded again.
    fn gone(&self) -> Option<String> {
        let gone = self.works() && std::fs::symlink_metadata(filter::FILTER_DIR).is_err();
        gone.then(|| {
            "its pins were taken away, nothing is dropped: restart portcullisd to load it again".to_owned()
        })
    }

    /// Name of an interface.
    pub(super) fn name_of(&self, index: u32) -> Option<&str> {
        self.names.iter().find(|other| other.index == index).map(|other| other.name.as_str())
    }

    /// How things are.
    pub(super) fn show(&mut self) -> FilterView {
        let stats = self.loaded.as_ref().and_then(|loaded| loaded.table.stats().ok()).unwrap_or_default();
        let by_cause = |first: u32| {
            let count =
                |cause: Cause| (cause.word().to_owned(), stats.get(first + u32::from(cause.number())));
            Cause::ALL.into_iter().map(count).collect()
        };
        let named = |(name, index): (&str, u32)| (name.to_owned(), stats.get(index));
        let there = |name: &str| self.names.iter().any(|other| other.name == name);
        let mut absent: Vec<String> =
            self.config.named().filter(|name| !there(name)).map(str::to_owned).collect();
        absent.sort();
        absent.dedup();
        let programs = self.loaded.as_ref().and_then(|loaded| loaded.programs.as_ref());
        let ours = programs.map(Programs::classifiers).unwrap_or_default();
        FilterView {
            enabled: self.config.enabled,
            problem: self.problem.clone().or_else(|| self.gone()),
            interfaces: self.places.views(&ours),
            absent: if self.config.enabled { absent } else { Vec::new() },
            drops: self.book.len() as u64,
            throttles: self.throttled.len() as u64,
            throttled: stats.get(stat::DROPPED + u32::from(filter::reason::THROTTLE)),
            throttled_bytes: stats.get(stat::BYTES + u32::from(filter::reason::THROTTLE)),
            allowed: self.config.allow.len() as u64,
            dropped: by_cause(stat::DROPPED),
            dropped_bytes: by_cause(stat::BYTES),
            packets: [
                ("passed", stat::PASSED),
                ("allowed", stat::ALLOWED),
                ("not_ip", stat::NOT_IP),
                ("malformed", stat::MALFORMED),
            ]
            .into_iter()
            .map(named)
            .collect(),
            samples: [stat::SAMPLED, stat::PACED, stat::SAMPLES_LOST].map(|index| stats.get(index)),
            store_problem: self.store.problem().map(str::to_owned),
        }
    }
}

fn held_of(kept: &Kept, packets: u64) -> Held {
    Held { lease: kept.lease.clone(), rule: kept.rule, since: kept.since, packets }
}

fn record_of(kept: &Kept, packets: u64) -> record::Lease {
    let mut ports = [0; PORTS];
    for (slot, port) in ports.iter_mut().zip(&kept.lease.ports) {
        *slot = *port;
    }
    record::Lease {
        until: kept.lease.until.0,
        packets,
        ports,
        rule: kept.rule,
        reason: kept.lease.cause.number(),
        length: 0,
    }
}

fn ports_of(lease: &record::Lease) -> Vec<u16> {
    lease.ports.into_iter().filter(|port| *port != 0).collect()
}

fn stored_of(kept: &Kept, boot: Boot, wall: Timestamp) -> StoredDrop {
    StoredDrop {
        net: kept.lease.net.to_string(),
        since: kept.since,
        until: super::wall_time(kept.lease.until, boot, wall),
        ports: kept.lease.ports.clone(),
        cause: kept.lease.cause.word().to_owned(),
        reason: kept.lease.reason.clone(),
        rule: kept.rule,
    }
}

/// The end of a stored lease in this boot's time: what is left of it, and never more than its whole length.
fn end_of(stored: &StoredDrop, boot: Boot, wall: Timestamp) -> Boot {
    left_of(stored.since, stored.until, boot, wall)
}

/// The same for any stored lease.
fn left_of(since: Timestamp, until: Option<Timestamp>, boot: Boot, wall: Timestamp) -> Boot {
    let Some(until) = until else { return Boot::NEVER };
    let whole = until.duration_since(since);
    let left = until.duration_since(wall);
    let left = if cfg!(feature = "mutation-lengthen-lease") { left } else { left.min(whole) };
    let left = left.max(SignedDuration::ZERO).as_nanos();
    Boot(boot.0.saturating_add(u64::try_from(left).unwrap_or(0)))
}
