//! What is done about a source that tripped: a pure function of (state, time, input).
//!
//! The gate counts (see `portcullis_common::sources`) and says when a source trips; which of the two arms answers is
//! decided there: many failures from one source trip the source, many sources at one account trip the account. Here it is
//! decided what the answer to a source is, for how long, and that some are never answered.
//!
//! Invariants
//! * No I/O, no clock, no `unsafe`; the same inputs give the same actions.
//! * Exempt wins: no action ever names a network that has an address in common with an exempt one, with one of an
//!   administrator who is logged in, with one of this host's own, with loopback, link-local or multicast; root is never
//!   refused.
//! * Nothing is answered, and nothing stays answered, that the rules do not ask for; not over a restart either.
//! * An answer ends: never later than `max_drop_time` after the trip.
//! * At most [`MAX_HELD`] sources and networks are held; one that is answered is never forgotten for another.
//! * Time may go back: the newest time seen counts.

mod net;

use std::collections::{BTreeMap, BTreeSet};

use crate::Boot;

pub use net::{Net, Source};

/// Sources and networks held at once.
pub const MAX_HELD: usize = 16_384;
/// Doublings of the time at most.
const DOUBLINGS: u32 = 20;
/// Tries of an action that failed.
const TRIES: u32 = 5;
/// Pause before another try.
const PAUSE: u64 = 5_000_000_000;

/// Whether something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Told, nothing else.
    Monitor,
    /// A network is dropped, a local user refused.
    Act,
}

/// What a source did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Guessed at few accounts.
    Guess,
    /// Tried many accounts, or names nobody has.
    Spray,
    /// A local user, either of the two.
    Local,
    /// A network of which many members are dropped.
    Network,
}

/// `[sc5]`. Durations in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// About sources that guess.
    pub guess: Answer,
    /// About sources that spray.
    pub spray: Answer,
    /// About local users.
    pub local: Answer,
    /// Different accounts that make a spray.
    pub accounts: u32,
    /// Length of the first answer.
    pub drop_time: u64,
    /// Length of the longest.
    pub max_drop_time: u64,
    /// Quiet after which one repeat is forgotten.
    pub decay: u64,
    /// Dropped members that make their network dropped; 0: none do.
    pub escalate: u32,
    /// Never answered.
    pub exempt: Vec<Net>,
}

/// The gate's numbers of a trip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Counts {
    /// Failures.
    pub failures: u32,
    /// Different accounts among them.
    pub accounts: u32,
    /// Different names among those that nobody has.
    pub unknown: u32,
    /// The PAM service that the last of them came by, zero-filled; all zero: not known.
    pub service: [u8; 16],
}

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A source's network, or a wider one.
    Net(Net),
    /// A local user.
    Local(u32),
}

/// What is kept of a target, over restarts as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Memory {
    /// When it tripped last.
    pub at: Boot,
    /// End of the answer.
    pub until: Boot,
    /// Answers so far, less those forgotten; at least 1.
    pub repeats: u32,
    /// What for.
    pub class: Class,
    /// What it did.
    pub counts: Counts,
    /// Whether something was done, not only told.
    pub acted: bool,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A source tripped: told by an event, or found by a scan, more than once maybe.
    Tripped {
        /// Which.
        source: Source,
        /// When.
        at: Boot,
        /// What it did.
        counts: Counts,
        /// Networks of administrators who are logged in now.
        administrators: Vec<Net>,
    },
    /// An answer was carried out, or not.
    Done {
        /// Which.
        target: Target,
        /// Why not, and whether another try may help.
        failed: Option<(String, bool)>,
    },
    /// An administrator let it go.
    Released {
        /// Which.
        target: Target,
    },
    /// What the store knows, told once at start.
    Restored {
        /// Which.
        target: Target,
        /// What is kept of it.
        memory: Memory,
    },
    /// This host's own addresses, told before anything else is, and again where they may have changed.
    Own(Vec<Net>),
    /// A configuration.
    Configured(Rules),
    /// Time has passed: see [`Action::Wake`].
    Tick,
}

/// What the engine is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Drop the network or refuse the local user; ends with [`Input::Done`].
    Answer {
        /// Whom.
        target: Target,
        /// End.
        until: Boot,
        /// What for.
        class: Class,
        /// What it did.
        counts: Counts,
    },
    /// Let it go before its time.
    Release {
        /// Whom.
        target: Target,
    },
    /// The answer has ended by itself.
    Ended {
        /// Whose.
        target: Target,
    },
    /// Store what is kept.
    Remember {
        /// Of whom.
        target: Target,
        /// What.
        memory: Memory,
    },
    /// Remove it from the store.
    Forget {
        /// Whom.
        target: Target,
    },
    /// Tell people.
    Tell {
        /// Whom it is about.
        target: Target,
        /// What.
        notice: Notice,
    },
    /// Step with [`Input::Tick`] at this time.
    Wake {
        /// When.
        at: Boot,
    },
}

/// What people are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It tripped. Told once a trip.
    Tripped {
        /// What for.
        class: Class,
        /// What it did.
        counts: Counts,
        /// The end of the answer, or what it would be.
        until: Boot,
        /// Whether it is answered.
        acted: bool,
    },
    /// It tripped and is exempt.
    Exempt {
        /// What it did.
        counts: Counts,
        /// Why.
        why: Why,
    },
    /// Too many are held.
    Full,
    /// It could not be answered.
    Failed {
        /// Why.
        reason: String,
        /// When it is tried again; [`Boot::NEVER`]: not.
        next: Boot,
    },
}

/// Why a source is exempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The configuration names it.
    Configured,
    /// An administrator is logged in from there.
    Administrator,
    /// This host's own, or one that all neighbours share.
    Own,
    /// root.
    Root,
}

/// One that is held.
#[derive(Clone, Copy, Debug)]
struct Held {
    memory: Memory,
    /// The end was told, or nothing was done.
    over: bool,
    tries: u32,
    /// Another try of the answer; NEVER: none.
    next: Boot,
}

/// The decisions about sources.
#[derive(Clone, Debug)]
pub struct Sources {
    rules: Rules,
    own: Vec<Net>,
    held: BTreeMap<Target, Held>,
    due: BTreeSet<(Boot, Target)>,
    room: usize,
    newest: Boot,
    wake: Boot,
}

impl Class {
    /// Its word in log, store and metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Guess => "guess",
            Self::Spray => "spray",
            Self::Local => "local",
            Self::Network => "network",
        }
    }
}

impl Rules {
    fn answer(&self, class: Class) -> Answer {
        match class {
            Class::Guess => self.guess,
            Class::Spray => self.spray,
            Class::Local => self.local,
            // It is made of members that were acted on.
            Class::Network if self.escalate != 0 && [self.guess, self.spray].contains(&Answer::Act) => {
                Answer::Act
            }
            Class::Network => Answer::Monitor,
        }
    }

    fn class(&self, source: Source, counts: Counts) -> Class {
        match source {
            Source::Local(_) => Class::Local,
            _ if counts.accounts >= self.accounts => Class::Spray,
            _ => Class::Guess,
        }
    }

    /// The length of the answer that follows so many.
    fn length(&self, repeats: u32) -> u64 {
        let doublings = repeats.min(DOUBLINGS);
        let longest = self.max_drop_time.max(self.drop_time);
        self.drop_time.saturating_mul(1 << doublings).min(longest)
    }
}

impl Held {
    fn new(memory: Memory) -> Self {
        Self { memory, over: !memory.acted, tries: 0, next: Boot::NEVER }
    }

    fn forget(&self, decay: u64) -> Boot {
        self.memory.until.after(decay.saturating_mul(u64::from(self.memory.repeats)))
    }

    fn due(&self, decay: u64) -> Boot {
        let end = if self.over { self.forget(decay) } else { self.memory.until };
        end.min(self.next)
    }

    /// Ends it before its time.
    fn end(&mut self, now: Boot) {
        self.over = true;
        self.next = Boot::NEVER;
        self.memory.until = self.memory.until.min(now);
    }

    fn in_force(&self, now: Boot) -> bool {
        self.memory.acted && !self.over && self.memory.until > now
    }
}

impl Sources {
    /// Decisions by these rules.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self::with_room(rules, MAX_HELD)
    }

    /// The same, holding at most `room`.
    #[must_use]
    pub fn with_room(rules: Rules, room: usize) -> Self {
        let (held, due) = (BTreeMap::new(), BTreeSet::new());
        Self { rules, own: Vec::new(), held, due, room, newest: Boot(0), wake: Boot::NEVER }
    }

    /// What is held, with whether it is answered at `now`.
    pub fn held(&self, now: Boot) -> impl Iterator<Item = (Target, Memory, bool)> + '_ {
        let now = now.max(self.newest);
        self.held.iter().map(move |(target, held)| (*target, held.memory, held.in_force(now)))
    }

    /// What is kept of one.
    #[must_use]
    pub fn of(&self, target: Target) -> Option<Memory> {
        self.held.get(&target).map(|held| held.memory)
    }

    /// One step: what happened at `now`, and what is to be done about it, in this order.
    #[must_use]
    pub fn step(&mut self, now: Boot, input: Input) -> Vec<Action> {
        self.newest = self.newest.max(now);
        let now = self.newest;
        let mut actions = Vec::new();
        let out = &mut actions;
        match input {
            Input::Tripped { source, at, counts, administrators } => {
                self.tripped(now, source, at.min(now), counts, &administrators, out);
            }
            Input::Done { target, failed } => self.done(now, target, failed, out),
            Input::Released { target } => {
                // Its repeats stay: what it does next is no first time.
                self.change(target, |held| held.end(now));
                self.remember(target, out);
            }
            Input::Restored { target, memory } => self.restored(now, target, memory, out),
            Input::Own(own) => self.owned(now, own, out),
            Input::Configured(rules) => self.configured(now, rules, out),
            Input::Tick => {}
        }
        self.overdue(now, out);
        let next = self.due.first().map_or(Boot::NEVER, |(at, _)| *at);
        if next != self.wake {
            self.wake = next;
            actions.push(Action::Wake { at: next });
        }
        actions
    }

    /// Why a target is never answered, if so.
    fn exempt(&self, target: Target, administrators: &[Net]) -> Option<Why> {
        if cfg!(feature = "mutation-answer-exempt") {
            return None;
        }
        match target {
            Target::Local(uid) => (uid == 0).then_some(Why::Root),
            Target::Net(net) if net.is_never() => Some(Why::Own),
            Target::Net(net) if self.is_own(net) => Some(Why::Own),
            Target::Net(net) if self.rules.exempt.iter().any(|exempt| exempt.overlaps(net)) => {
                Some(Why::Configured)
            }
            Target::Net(net) => {
                administrators.iter().any(|own| own.overlaps(net)).then_some(Why::Administrator)
            }
        }
    }

    fn is_own(&self, net: Net) -> bool {
        !cfg!(feature = "mutation-answer-own") && self.own.iter().any(|own| own.overlaps(net))
    }

    fn tripped(
        &mut self,
        now: Boot,
        source: Source,
        at: Boot,
        counts: Counts,
        administrators: &[Net],
        out: &mut Vec<Action>,
    ) {
        let target = match (Net::of(source), source) {
            (Some(net), _) => Target::Net(net),
            (None, Source::Local(uid)) => Target::Local(uid),
            (None, _) => return,
        };
        if let Some(why) = self.exempt(target, administrators) {
            out.push(Action::Tell { target, notice: Notice::Exempt { counts, why } });
            return;
        }
        let class = self.rules.class(source, counts);
        if self.answer(now, target, at, class, counts, out) {
            self.escalate(now, target, at, counts, administrators, out);
        }
    }

    /// Answers a trip. Whether something is in force by it that was not before.
    fn answer(
        &mut self,
        now: Boot,
        target: Target,
        at: Boot,
        class: Class,
        counts: Counts,
        out: &mut Vec<Action>,
    ) -> bool {
        let before = self.held.get(&target).map(|held| (held.memory, held.in_force(now)));
        let counts = match before {
            // A scan does not know the service; without it everything would be dropped.
            Some((memory, _)) if counts.service == [0; 16] => {
                Counts { service: memory.counts.service, ..counts }
            }
            _ => counts,
        };
        let asked = self.rules.answer(class) == Answer::Act;
        if let Some((memory, in_force)) = before
            && at < memory.until
            // What was told in monitor is no answer to what comes after it.
            && (memory.acted || at <= memory.at || !asked)
        {
            // Told again; or what was done about it was undone, and it goes on: it is done again, to the same end.
            if in_force && at > memory.at {
                self.change(target, |held| held.memory.at = at);
                out.push(Action::Answer { target, until: memory.until, class: memory.class, counts });
            }
            return false;
        }
        if before.is_none() && !self.room_for(target, now, out) {
            return false;
        }
        let repeats = before.map_or(0, |(memory, _)| self.left(&memory, at));
        let until = at.after(self.rules.length(repeats));
        let memory = Memory { at, until, repeats: repeats.saturating_add(1), class, counts, acted: asked };
        self.put(target, Held::new(memory));
        out.push(Action::Tell { target, notice: Notice::Tripped { class, counts, until, acted: asked } });
        self.remember(target, out);
        let acts = asked && until > now;
        if acts {
            out.push(Action::Answer { target, until, class, counts });
        }
        acts
    }

    /// Repeats that are not forgotten yet.
    fn left(&self, memory: &Memory, at: Boot) -> u32 {
        let quiet = at.0.saturating_sub(memory.until.0);
        let forgotten = quiet.checked_div(self.rules.decay).unwrap_or(0);
        memory.repeats.saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX))
    }

    /// Drops the network around a target where many of its members are dropped.
    fn escalate(
        &mut self,
        now: Boot,
        target: Target,
        at: Boot,
        counts: Counts,
        administrators: &[Net],
        out: &mut Vec<Action>,
    ) {
        let mut target = target;
        while let Target::Net(net) = target
            && let Some(wider) = net.above()
        {
            let members = self
                .held
                .range(Target::Net(wider)..=Target::Net(wider.last()))
                .filter(|(_, held)| held.in_force(now))
                .filter(
                    |(member, _)| matches!(member, Target::Net(member) if member.length() == net.length()),
                )
                .count();
            let enough = self.rules.escalate != 0 && members >= self.rules.escalate as usize;
            target = Target::Net(wider);
            if !enough
                || self.exempt(target, administrators).is_some()
                || !self.answer(now, target, at, Class::Network, counts, out)
            {
                break;
            }
        }
    }

    fn done(&mut self, now: Boot, target: Target, failed: Option<(String, bool)>, out: &mut Vec<Action>) {
        self.change(target, |held| {
            let Some((reason, retry)) = failed else {
                held.tries = 0;
                held.next = Boot::NEVER;
                return;
            };
            held.tries = held.tries.saturating_add(1);
            let again = retry && held.tries < TRIES && held.in_force(now);
            held.next = if again { now.after(PAUSE) } else { Boot::NEVER };
            if !again {
                // Nothing was done, so nothing ends; the next trip is answered anew.
                held.over = true;
                held.memory.acted = false;
                held.memory.until = held.memory.until.min(now);
            }
            out.push(Action::Tell { target, notice: Notice::Failed { reason, next: held.next } });
        });
    }

    fn restored(&mut self, now: Boot, target: Target, memory: Memory, out: &mut Vec<Action>) {
        if self.held.contains_key(&target) || !self.room_for(target, now, out) {
            return;
        }
        let longest = now.after(self.rules.max_drop_time.max(self.rules.drop_time));
        let until = memory.until.min(longest);
        let memory = Memory { at: memory.at.min(now), until, ..memory };
        let mut held = Held::new(memory);
        let in_force = held.in_force(now);
        let unwanted = in_force && self.unwanted(target, memory.class);
        if unwanted {
            // It was answered under other rules, and the filter has its lease still.
            held.end(now);
        }
        self.put(target, held);
        if unwanted {
            out.push(Action::Release { target });
            self.remember(target, out);
        } else if in_force {
            let Memory { class, counts, .. } = memory;
            out.push(Action::Answer { target, until, class, counts });
        }
    }

    /// Lets go of what is this host's own from now on.
    fn owned(&mut self, now: Boot, own: Vec<Net>, out: &mut Vec<Action>) {
        if self.own == own {
            return;
        }
        self.own = own;
        let held = self.held.iter().filter(|(_, held)| held.in_force(now)).map(|(target, _)| *target);
        let ours: Vec<Target> =
            held.filter(|target| matches!(target, Target::Net(net) if self.is_own(*net))).collect();
        for target in ours {
            self.change(target, |held| held.end(now));
            out.push(Action::Release { target });
            self.remember(target, out);
        }
    }

    /// Whether the rules do not ask for an answer.
    fn unwanted(&self, target: Target, class: Class) -> bool {
        !cfg!(feature = "mutation-keep-unasked")
            && (self.exempt(target, &[]).is_some() || self.rules.answer(class) == Answer::Monitor)
    }

    /// Lets go of what the new rules do not ask for.
    fn configured(&mut self, now: Boot, rules: Rules, out: &mut Vec<Action>) {
        // Times of forgetting hang on the rules.
        let held: Vec<(Target, Held)> = std::mem::take(&mut self.held).into_iter().collect();
        self.due.clear();
        self.rules = rules;
        for (target, mut held) in held {
            let unwanted = self.unwanted(target, held.memory.class);
            let release = unwanted && held.in_force(now);
            if !unwanted && !held.memory.acted {
                // It was told only: what comes next is answered.
                held.end(now);
            }
            if release {
                held.end(now);
                out.push(Action::Release { target });
            }
            self.put(target, held);
            if release {
                self.remember(target, out);
            }
        }
    }

    /// Makes room for one more, if need be by forgetting the one that would be forgotten first.
    fn room_for(&mut self, target: Target, now: Boot, out: &mut Vec<Action>) -> bool {
        if self.held.len() < self.room {
            return true;
        }
        let decay = self.rules.decay;
        let idle = self.held.iter().filter(|(_, held)| !held.in_force(now));
        let first = idle.min_by_key(|(_, held)| held.forget(decay)).map(|(target, _)| *target);
        match first {
            Some(first) => {
                self.drop(first);
                out.push(Action::Forget { target: first });
                true
            }
            None => {
                out.push(Action::Tell { target, notice: Notice::Full });
                false
            }
        }
    }

    /// Does what is due: ends answers, tries again, forgets.
    fn overdue(&mut self, now: Boot, out: &mut Vec<Action>) {
        while let Some(&(at, target)) = self.due.first() {
            if at > now {
                break;
            }
            let decay = self.rules.decay;
            let mut forget = false;
            self.change(target, |held| {
                if held.over {
                    forget = held.forget(decay) <= now;
                } else if held.memory.until <= now {
                    held.over = true;
                    out.push(Action::Ended { target });
                } else {
                    let Memory { until, class, counts, .. } = held.memory;
                    out.push(Action::Answer { target, until, class, counts });
                }
                held.next = Boot::NEVER;
            });
            if forget {
                self.drop(target);
                out.push(Action::Forget { target });
            }
        }
    }

    fn remember(&self, target: Target, out: &mut Vec<Action>) {
        out.extend(self.of(target).map(|memory| Action::Remember { target, memory }));
    }

    fn put(&mut self, target: Target, held: Held) {
        self.drop(target);
        self.due.insert((held.due(self.rules.decay), target));
        self.held.insert(target, held);
    }

    fn change(&mut self, target: Target, change: impl FnOnce(&mut Held)) {
        let decay = self.rules.decay;
        if let Some(held) = self.held.get_mut(&target) {
            self.due.remove(&(held.due(decay), target));
            change(held);
            self.due.insert((held.due(decay), target));
        }
    }

    fn drop(&mut self, target: Target) {
        if let Some(held) = self.held.remove(&target) {
            self.due.remove(&(held.due(self.rules.decay), target));
        }
    }
}
