//! The leases the agent knows, and when they end. Pure: no kernel, no clock.
//!
//! Invariants: a network has one lease; a lease of the policy or of a report never shortens or narrows one that holds, and
//! neither takes away what another asked for; an administrator may do all of it; numbers are not used twice in one book.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use portcullis_policy::Boot;

use super::{Cause, Lease, Net, PORTS};

/// A lease and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The lease.
    pub lease: Lease,
    /// Its number.
    pub rule: u32,
    /// Since when.
    pub since: Timestamp,
}

/// All leases.
#[derive(Debug, Default)]
pub struct Book {
    kept: BTreeMap<Net, Kept>,
    ends: BTreeSet<(u64, Net)>,
    last: u32,
}

impl Book {
    /// What would hold if `lease` were given at `now`, and whether the network has one.
    #[must_use]
    pub fn joined(&self, lease: Lease, now: Boot, since: Timestamp) -> (Kept, bool) {
        let held = self.kept.get(&lease.net);
        let renewed = held.is_some_and(|held| held.lease.until > now);
        let number = held.map_or(self.last.wrapping_add(1), |held| held.rule);
        match held.filter(|_| renewed && lease.cause != Cause::Administrator) {
            None => (Kept { lease, rule: number, since }, renewed),
            Some(held) => {
                let mut joined = held.lease.clone();
                // The stronger word stays, so that a weaker one cannot take it away later.
                if lease.cause < joined.cause || (lease.cause == joined.cause && lease.until > joined.until) {
                    joined.reason.clone_from(&lease.reason);
                    joined.cause = lease.cause;
                }
                joined.until = joined.until.max(lease.until);
                joined.ports = both(&joined.ports, &lease.ports);
                (Kept { lease: joined, rule: number, since: held.since }, true)
            }
        }
    }

    /// Keeps a lease, in the place of the network's.
    pub fn keep(&mut self, kept: Kept) {
        self.forget(kept.lease.net);
        self.last = self.last.max(kept.rule);
        if kept.lease.until != Boot::NEVER {
            self.ends.insert((kept.lease.until.0, kept.lease.net));
        }
        self.kept.insert(kept.lease.net, kept);
    }

    /// Who else wants this network dropped, so that `by` may not let it go.
    #[must_use]
    pub fn held_by_another(&self, net: Net, by: Cause) -> Option<Cause> {
        if by == Cause::Administrator || cfg!(feature = "mutation-take-anothers-drop") {
            return None;
        }
        self.get(net).map(|kept| kept.lease.cause).filter(|cause| *cause != by)
    }

    /// Forgets a lease.
    pub fn forget(&mut self, net: Net) -> Option<Kept> {
        let kept = self.kept.remove(&net)?;
        self.ends.remove(&(kept.lease.until.0, net));
        Some(kept)
    }

    /// The lease of exactly this network.
    #[must_use]
    pub fn get(&self, net: Net) -> Option<&Kept> {
        self.kept.get(&net)
    }

    /// All leases, by network.
    pub fn all(&self) -> impl Iterator<Item = &Kept> {
        self.kept.values()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Leases that have ended at `now`.
    #[must_use]
    pub fn ended(&self, now: Boot) -> Vec<Net> {
        self.ends.range(..=(now.0, LAST)).map(|(_, net)| *net).collect()
    }

    /// When the next one ends.
    #[must_use]
    pub fn next_end(&self) -> Option<Boot> {
        self.ends.first().map(|(until, _)| Boot(*until))
    }
}

/// The highest of all networks, by their order.
const LAST: Net = Net::V6(u128::MAX, 128);

/// Ports of both; more than a lease can name are all.
fn both(one: &[u16], other: &[u16]) -> Vec<u16> {
    if one.is_empty() || other.is_empty() {
        return Vec::new();
    }
    let mut ports: Vec<u16> = one.iter().chain(other).copied().collect();
    ports.sort_unstable();
    ports.dedup();
    if ports.len() > PORTS { Vec::new() } else { ports }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(until: u64, ports: &[u16], cause: Cause) -> Lease {
        Lease {
            net: "192.0.2.7".parse().unwrap(),
            until: Boot(until),
            ports: ports.to_vec(),
            cause,
            reason: cause.word().to_owned(),
        }
    }

    fn give(book: &mut Book, lease: Lease, now: u64) -> Kept {
        let (kept, _) = book.joined(lease, Boot(now), Timestamp::UNIX_EPOCH);
        book.keep(kept.clone());
        kept
    }

    #[test]
    fn the_policy_never_shortens_or_narrows() {
        let mut book = Book::default();
        give(&mut book, lease(100, &[22], Cause::Administrator), 0);
        let kept = give(&mut book, lease(50, &[443], Cause::Policy), 10);
        assert_eq!((kept.lease.until, kept.lease.ports.as_slice()), (Boot(100), [22, 443].as_slice()));
        assert_eq!((kept.lease.cause, kept.rule), (Cause::Administrator, 1));
        let kept = give(&mut book, lease(200, &[], Cause::Policy), 10);
        assert_eq!((kept.lease.until, kept.lease.ports.len()), (Boot(200), 0));
        assert_eq!(kept.lease.cause, Cause::Administrator, "his word stays");
        let kept = give(&mut book, lease(40, &[22], Cause::Administrator), 10);
        assert_eq!((kept.lease.until, kept.lease.ports.as_slice()), (Boot(40), [22].as_slice()));
        assert_eq!(book.len(), 1);
    }

    #[test]
    fn nobody_but_an_administrator_takes_anothers_drop_away() {
        let net = "192.0.2.7".parse().unwrap();
        let causes = Cause::ALL;
        for (owner, other) in causes.into_iter().flat_map(|owner| causes.map(|other| (owner, other))) {
            let mut book = Book::default();
            give(&mut book, lease(100, &[], owner), 0);
            let taken = other == Cause::Administrator || owner == other;
            let held = book.held_by_another(net, other);
            assert_eq!(held, (!taken).then_some(owner), "{other} takes away what {owner} wants");
            // Nor after it was joined with one of its own, longer or shorter.
            for until in [50, 200] {
                give(&mut book, lease(until, &[], other), 10);
                let weaker = owner < other;
                assert_eq!(book.held_by_another(net, other), weaker.then_some(owner), "{owner}, {other}");
            }
        }
    }

    #[test]
    fn what_has_ended_holds_nobody_back() {
        let mut book = Book::default();
        give(&mut book, lease(100, &[], Cause::Administrator), 0);
        assert_eq!(book.ended(Boot(99)), []);
        assert_eq!(book.ended(Boot(100)), ["192.0.2.7".parse().unwrap()]);
        let kept = give(&mut book, lease(150, &[22], Cause::Policy), 100);
        assert_eq!((kept.lease.until, kept.lease.ports.as_slice()), (Boot(150), [22].as_slice()));
        assert_eq!(book.next_end(), Some(Boot(150)));
        assert!(book.forget(kept.lease.net).is_some() && book.is_empty() && book.next_end().is_none());
    }

    #[test]
    fn more_ports_than_fit_are_all() {
        assert_eq!(both(&[1, 2, 3], &[3, 4]), [1, 2, 3, 4]);
        assert_eq!(both(&[1, 2, 3], &[4, 5]), [0; 0]);
        assert_eq!(both(&[], &[4]), [0; 0]);
    }
}
