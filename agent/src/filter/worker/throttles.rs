//! What the worker does about throttles.
//!
//! Invariants: as in [`super`]: the kernel first, then the store, and what is in the kernel alone is found there at the next
//! start; the kernel's table is what holds, the rest is what is known about it.

use jiff::Timestamp;
use portcullis_policy::Boot;

use super::super::command::{Asker, FilterError};
use super::super::throttle::table::{ThrottleTable, too_many};
use super::super::throttle::{HeldThrottle, Rate, Target, Throttle, Unit};
use super::super::{Cause, wall_time};
use super::{Worker, left_of, now};
use crate::store::throttles::StoredThrottle;

impl HeldThrottle {
    fn is_for(&self, target: &Target, unit: Unit) -> bool {
        self.throttle.target == *target && self.throttle.rate.unit == unit
    }
}

impl Worker {
    fn throttle_table(&mut self) -> Result<&mut ThrottleTable, FilterError> {
        self.loaded()?.throttles.as_mut().ok_or(FilterError::NoThrottles)
    }

    /// Brings what is known of throttles, kernel and store together.
    pub(super) fn restore_throttles(&mut self) -> Result<(), FilterError> {
        let (boot, wall) = now()?;
        self.throttled = Vec::new();
        let stored = self.store.throttles();
        if self.loaded()?.throttles.is_none() {
            if !stored.is_empty() {
                log::error!(
                    "{} throttles of the store hold nothing back: {}",
                    stored.len(),
                    FilterError::NoThrottles
                );
            }
            return Ok(());
        }
        let mut in_kernel = self.throttle_table()?.all()?;
        let mut lost = Vec::new();
        for stored in stored {
            let known = throttle_of(&stored, boot, wall);
            let there = known.as_ref().and_then(|throttle| {
                let at =
                    in_kernel.iter().position(|held| held.is_for(&throttle.target, throttle.rate.unit))?;
                Some(in_kernel.swap_remove(at))
            });
            match (known, there) {
                (Some(throttle), Some(mut held)) if held.throttle.until > boot => {
                    held.throttle.reason = throttle.reason;
                    held.since = stored.since;
                    self.throttled.push(held);
                }
                (known, there) => {
                    if let Some(held) = there {
                        in_kernel.push(held);
                    }
                    match known.filter(|throttle| throttle.until > boot) {
                        Some(throttle) if !cfg!(feature = "mutation-forget-throttles") => {
                            lost.push((throttle, stored.since));
                        }
                        _ => self.store.remove_throttle(&stored.target, &stored.unit),
                    }
                }
            }
        }
        let (mut over, mut found) = (Vec::new(), Vec::new());
        for mut held in in_kernel {
            if held.throttle.until > boot {
                held.throttle.reason = "found in the kernel when portcullisd started".to_owned();
                held.since = wall;
                found.push(held);
            } else {
                over.push(held.slot);
            }
        }
        for held in found {
            self.store.set_throttle(&stored_of(&held, boot, wall));
            self.throttled.push(held);
        }
        self.lead_throttles()?;
        for slot in over {
            self.throttle_table()?.empty(slot)?;
        }
        let back = lost.len();
        for (throttle, since) in lost {
            let target = crate::text::escape(throttle.target.to_string().as_bytes());
            if let Err(error) = self.put(throttle, since) {
                log::error!("{target} is not throttled any more: {error}");
            }
        }
        if !self.throttled.is_empty() {
            log::info!("{} throttles, {back} of them given back to the kernel", self.throttled.len());
        }
        Ok(())
    }

    /// Makes the kernel's chains lead to what is throttled, on the interfaces that are there.
    pub(super) fn lead_throttles(&mut self) -> Result<(), FilterError> {
        let led: Vec<(u16, Target, Unit)> = self
            .throttled
            .iter()
            .map(|held| (held.slot, held.throttle.target.clone(), held.throttle.rate.unit))
            .collect();
        let names = self.names.clone();
        let links: Vec<(u32, &str)> = names.iter().map(|link| (link.index, link.name.as_str())).collect();
        match self.throttle_table() {
            Err(FilterError::NoThrottles) => Ok(()),
            table => table?.lead(&led, &links),
        }
    }

    fn put(&mut self, throttle: Throttle, since: Timestamp) -> Result<HeldThrottle, FilterError> {
        let (boot, _) = now()?;
        let at = self.throttled.iter().position(|held| held.is_for(&throttle.target, throttle.rate.unit));
        let slot = match at.and_then(|at| self.throttled.get(at)) {
            Some(held) => held.slot,
            None => self.free_slot()?,
        };
        self.throttle_table()?.write(slot, &throttle, boot)?;
        let held = HeldThrottle { throttle, slot, since, passed: (0, 0), limited: (0, 0) };
        if let Some(place) = at.and_then(|at| self.throttled.get_mut(at)) {
            place.clone_from(&held);
            return Ok(held);
        }
        self.throttled.push(held.clone());
        if let Err(error) = self.lead_throttles() {
            self.throttled.pop();
            // As it was before.
            self.lead_throttles().and_then(|()| self.throttle_table()?.empty(slot)).unwrap_or_else(|error| {
                log::error!("{error}");
            });
            return Err(error);
        }
        Ok(held)
    }

    fn free_slot(&self) -> Result<u16, FilterError> {
        let limit = portcullis_common::filter::throttle::MAX_THROTTLES;
        let most = u16::try_from(limit).unwrap_or(u16::MAX);
        (1..most)
            .find(|slot| self.throttled.iter().all(|held| held.slot != *slot))
            .ok_or(FilterError::Full { table: "THROTTLES", limit: limit - 1 })
    }

    /// Throttles something, in the place of what holds for it.
    pub(in crate::filter) fn throttle(
        &mut self,
        throttle: Throttle,
        asker: &Asker,
    ) -> Result<HeldThrottle, FilterError> {
        self.throttle_table()?;
        let (boot, wall) = now()?;
        let refused = |why: String| FilterError::NotThrottled { target: throttle.target.clone(), why };
        if let Target::Net(net) = throttle.target {
            if let Some(allowed) = self.config.allow.iter().find(|allowed| allowed.covers(net)) {
                return Err(refused(format!(
                    "{allowed} is on the allow-list, which the kernel looks at first: take it off filter.allow"
                )));
            }
            if !asker.force
                && throttle.cause == Cause::Administrator
                && let Some(session) = asker.sessions.iter().find(|session| net.contains(**session))
            {
                return Err(refused(format!(
                    "your own session comes from {session}; use --force if that is meant"
                )));
            }
        }
        let other: Vec<Target> = self
            .throttled
            .iter()
            .filter(|held| !held.is_for(&throttle.target, throttle.rate.unit))
            .map(|held| held.throttle.target.clone())
            .collect();
        if let Some(net) = too_many(&other, &throttle.target) {
            return Err(refused(format!(
                "{net} would lie in more throttled networks than the kernel looks at ({}); take one away",
                portcullis_common::filter::throttle::CHAIN
            )));
        }
        let held = self.put(throttle, wall)?;
        self.store.set_throttle(&stored_of(&held, boot, wall));
        Ok(held)
    }

    /// Throttles something no more, in every unit.
    pub(in crate::filter) fn unthrottle(
        &mut self,
        target: &Target,
    ) -> Result<Vec<HeldThrottle>, FilterError> {
        let listed = self.throttles()?;
        let (gone, stay): (Vec<_>, Vec<_>) =
            listed.into_iter().partition(|held| held.throttle.target == *target);
        if gone.is_empty() {
            return Err(FilterError::NoThrottle(target.clone()));
        }
        self.release(&gone, stay)?;
        Ok(gone)
    }

    fn release(&mut self, gone: &[HeldThrottle], stay: Vec<HeldThrottle>) -> Result<(), FilterError> {
        self.throttled = stay;
        self.lead_throttles()?;
        for held in gone {
            self.throttle_table()?.empty(held.slot)?;
            self.store.remove_throttle(&held.throttle.target.to_string(), held.throttle.rate.unit.word());
        }
        Ok(())
    }

    /// All throttles, with what passed and what did not.
    pub(in crate::filter) fn throttles(&mut self) -> Result<Vec<HeldThrottle>, FilterError> {
        let in_kernel = self.throttle_table()?.all()?;
        for held in &mut self.throttled {
            if let Some(there) = in_kernel.iter().find(|there| there.slot == held.slot) {
                (held.passed, held.limited) = (there.passed, there.limited);
            }
        }
        Ok(self.throttled.clone())
    }

    /// Takes away what has ended.
    pub(in crate::filter) fn expire_throttles(&mut self) -> Result<Vec<HeldThrottle>, FilterError> {
        let (boot, _) = now()?;
        if self.throttled.iter().all(|held| held.throttle.until > boot) {
            return Ok(Vec::new());
        }
        let (stay, gone): (Vec<_>, Vec<_>) =
            self.throttles()?.into_iter().partition(|held| held.throttle.until > boot);
        self.release(&gone, stay)?;
        Ok(gone)
    }

    /// When the next one ends.
    pub(super) fn next_throttle_end(&self) -> Option<Boot> {
        self.throttled.iter().map(|held| held.throttle.until).filter(|until| *until != Boot::NEVER).min()
    }
}

fn stored_of(held: &HeldThrottle, boot: Boot, wall: Timestamp) -> StoredThrottle {
    let throttle = &held.throttle;
    StoredThrottle {
        target: throttle.target.to_string(),
        unit: throttle.rate.unit.word().to_owned(),
        rate: throttle.rate.rate,
        burst: throttle.rate.burst,
        since: held.since,
        until: wall_time(throttle.until, boot, wall),
        cause: throttle.cause.word().to_owned(),
        reason: throttle.reason.clone(),
    }
}

/// A stored throttle in this boot's time; none: it says nothing that is known.
fn throttle_of(stored: &StoredThrottle, boot: Boot, wall: Timestamp) -> Option<Throttle> {
    let unit = Unit::ALL.into_iter().find(|unit| unit.word() == stored.unit)?;
    Some(Throttle {
        target: stored.target.parse().ok()?,
        rate: Rate { unit, rate: stored.rate, burst: stored.burst },
        until: left_of(stored.since, stored.until, boot, wall),
        cause: Cause::of(&stored.cause)?,
        reason: stored.reason.clone(),
    })
}
