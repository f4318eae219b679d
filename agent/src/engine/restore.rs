//! What the store gives back to a gate that lost it: the locks of accounts and their rows of trips.
//!
//! Invariants: only where the kernel has no row that knows better; a lock is never longer than it was meant to be, nor a
//! row of trips, however the wall clock was set meanwhile.

use std::collections::BTreeMap;

use super::EngineError;
use super::rungs::climb_end;
use super::setup::end_of;
use crate::kernel::gate::Known;
use crate::kernel::{Tables, gate};
use crate::rows::Now;
use crate::store::Store;

/// Gives back what the gate lost. Returns how many locks.
pub(super) fn accounts(tables: &Tables, store: &Store, now: &Now) -> Result<usize, EngineError> {
    let mut known: BTreeMap<u32, Known> = BTreeMap::new();
    for lock in store.locks() {
        let (until, soft) = (end_of(&lock, now), lock.is_soft());
        if until > now.boot && !cfg!(feature = "mutation-forget-locks") {
            known.insert(lock.uid, Known { until, soft, ..Known::default() });
        }
    }
    for climb in store.climbs() {
        let (_, rule) = tables.rule_of(u64::from(climb.uid))?;
        let lock = known.get(&climb.uid).map_or(now.boot, |known| known.until);
        let end = climb_end(&climb, now).0.min(lock.saturating_add(rule.backoff_window));
        if end > now.boot && rule.backoff_window != 0 && !cfg!(feature = "mutation-forget-climb") {
            let known = known.entry(climb.uid).or_default();
            (known.climb_until, known.level) = (end, climb.level);
        }
    }
    let mut restored = 0;
    for (uid, known) in known {
        if tables.row(u64::from(uid))?.is_some() {
            continue;
        }
        match gate::restore(u64::from(uid), known) {
            Ok(_) if known.until == 0 => log::info!("uid {uid} is in a row of trips still"),
            Ok(answer) if answer.locked_until == known.until => restored += 1,
            // Exempt by now: the policy lets go of it.
            Ok(_) => log::info!("the lock of uid {uid} is not given back: it is exempt"),
            Err(error) => log::error!("the lock of uid {uid} could not be given back: {error}"),
        }
    }
    Ok(restored)
}

/// What the store knows of one account, for a lock until `until` that the policy wants given back.
pub(super) fn of(store: &Store, uid: u32, until: u64, now: &Now) -> Known {
    let soft = store.locks().iter().any(|lock| lock.uid == uid && lock.is_soft());
    let climb = store.climbs().into_iter().find(|climb| climb.uid == uid);
    let (climb_until, level) = climb.map_or((0, 0), |climb| (climb_end(&climb, now).0, climb.level));
    Known { until, soft, climb_until, level }
}
