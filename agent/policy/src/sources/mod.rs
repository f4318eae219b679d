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
mod types;

use std::collections::{BTreeMap, BTreeSet};

use crate::Boot;

pub use net::{Net, Source};
use types::Held;
pub use types::{Action, Answer, Class, Counts, Input, Memory, Notice, Rules, Target, Why};

/// Sources and networks held at once.
pub const MAX_HELD: usize = 16_384;
/// Tries of an action that failed.
const TRIES: u32 = 5;
/// Pause before another try.
const PAUSE: u64 = 5_000_000_000;

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
            Some((memory, _)) if counts.service == [0; 16] && !cfg!(feature = "mutation-forget-service") => {
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
