//! Sources in the IPv6 networks that this host is in, address by address. The gate counts a /64 as one source, and one
//! that this host is in is never dropped as a whole: here the same rule counts each of its addresses, from the gate's
//! events, so that one who guesses is dropped alone.
//!
//! Invariants: bounded, whatever addresses a neighbour takes; the rule is the gate's own (`portcullis_common::sources`);
//! link-local addresses are no source, since each link has the same. Counts are this process's: a restart begins anew.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use portcullis_common::abi::{self, Detail, source};
use portcullis_common::sources::{Bucket, Happened, Source as Counted, SourceCounts, SourceRule, bucket_of};
use portcullis_policy::sources::Net;

use crate::event::Source;

/// Buckets of a network: 256 addresses.
const BUCKETS: usize = 32;
/// Networks that are counted in.
const NETWORKS: usize = 64;

/// The upper half of an address names its network.
const fn upper(address: u128) -> u64 {
    (address >> 64) as u64
}

/// What is known of neighbours.
pub(super) struct Neighbours {
    own: Vec<u64>,
    networks: BTreeMap<u64, Box<[Bucket]>>,
    keys: [u64; 2],
}

impl Neighbours {
    pub(super) fn new() -> Self {
        let random = RandomState::new();
        let keys = [random.hash_one(0), random.hash_one(1)];
        Self { own: Vec::new(), networks: BTreeMap::new(), keys }
    }

    /// Takes over this host's addresses and gateways.
    pub(super) fn adopt(&mut self, own: &[Net]) {
        self.own = own
            .iter()
            .filter_map(|net| match net {
                Net::V6(address, _) if !net.is_never() => Some(upper(*address)),
                _ => None,
            })
            .collect();
        self.networks.retain(|network, _| self.own.contains(network));
    }

    /// Whether an address is in a network of this host.
    pub(super) fn is_near(&self, address: u128) -> bool {
        !cfg!(feature = "mutation-no-neighbours") && self.own.contains(&upper(address))
    }

    /// The neighbour that the gate counted this event for.
    pub(super) fn of_event(&self, event: &abi::Event) -> Option<u128> {
        let address = address_of(&event.entry.detail)?;
        // The ledger knows the network alone of who held a guess that outlived its age.
        let known = event.kind != abi::event::DUE && event.source.failures | event.source.passes != 0;
        (known && self.is_near(address)).then_some(address)
    }

    /// Counts an event for a neighbour.
    pub(super) fn count(&mut self, event: &abi::Event, address: u128, rule: &SourceRule) -> SourceCounts {
        if !self.networks.contains_key(&upper(address)) && self.networks.len() >= NETWORKS {
            return SourceCounts::default();
        }
        let pass = matches!(event.kind, abi::event::CLEARED | abi::event::REPORTED_PASS);
        let what = Happened {
            kind: source::IPV6,
            id: lower(address),
            account: event.entry.account,
            pass: u32::from(pass),
        };
        let place = self.place(address);
        let network =
            self.networks.entry(upper(address)).or_insert_with(|| vec![Bucket::EMPTY; BUCKETS].into());
        let counted = network.get_mut(place).map(|bucket| bucket.count(event.time, rule, &what));
        counted.unwrap_or_default()
    }

    fn place(&self, address: u128) -> usize {
        bucket_of(self.keys, source::IPV6, lower(address)) as usize % BUCKETS
    }

    /// What is counted of an address.
    pub(super) fn find(&self, address: u128) -> Option<Counted> {
        let bucket = self.networks.get(&upper(address))?.get(self.place(address))?;
        bucket.ways.into_iter().find(|way| way.kind == source::IPV6 && way.id == lower(address))
    }

    /// All that are known, by address.
    pub(super) fn all(&self) -> impl Iterator<Item = (u128, Counted)> + '_ {
        self.networks.iter().flat_map(|(network, buckets)| {
            let ways = buckets.iter().flat_map(|bucket| bucket.ways).filter(|way| way.kind != 0);
            ways.map(move |way| (u128::from(*network) << 64 | u128::from(way.id), way))
        })
    }
}

const fn lower(address: u128) -> u64 {
    address as u64
}

fn address_of(detail: &Detail) -> Option<u128> {
    match Source::of(detail) {
        Source::V6(address) => Some(address.to_bits()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use portcullis_common::abi::Entry;

    use super::*;

    const RULE: SourceRule = SourceRule { find_time: 600_000_000_000, deny: 4, accounts: 3 };

    fn address(text: &str) -> u128 {
        text.parse::<std::net::Ipv6Addr>().unwrap().to_bits()
    }

    fn failure(from: u128, account: u64, time: u64) -> abi::Event {
        let mut detail = Detail::EMPTY;
        detail.locate(std::net::Ipv6Addr::from_bits(from).into());
        let source = SourceCounts { failures: 1, ..SourceCounts::default() };
        let entry = Entry { account, token: 0, detail };
        abi::Event {
            kind: abi::event::FAIL,
            flags: 0,
            seq: 1,
            time,
            locked_until: 0,
            failures: 1,
            deny: 3,
            trips: 0,
            lapsed: 0,
            lapsed_actor: 0,
            lapsed_source: 0,
            cause: 0,
            source,
            entry,
        }
    }

    fn here() -> Neighbours {
        let mut neighbours = Neighbours::new();
        neighbours.adopt(&[Net::V6(address("2001:db8:77::1"), 128), Net::V6(address("fe80::1"), 128)]);
        neighbours
    }

    fn fails(neighbours: &mut Neighbours, from: u128, account: u64, time: u64) -> u32 {
        let event = failure(from, account, time);
        let found = neighbours.of_event(&event).unwrap();
        neighbours.count(&event, found, &RULE).tripped
    }

    #[test]
    fn each_neighbour_is_counted_by_itself() {
        let mut here = here();
        let (guesser, neighbour) = (address("2001:db8:77::2"), address("2001:db8:77::3"));
        let tripped: Vec<u32> = (1..=3).map(|time| fails(&mut here, guesser, 7, time)).collect();
        assert_eq!(tripped, [0, 0, 0]);
        assert_eq!(fails(&mut here, neighbour, 7, 4), 0, "the fourth, but not his");
        assert_eq!(fails(&mut here, guesser, 7, 5), 1);
        assert_eq!(here.find(neighbour).unwrap().held, 1);
        assert_eq!(here.all().count(), 2);
    }

    #[test]
    fn others_are_no_neighbours() {
        let here = here();
        for other in ["2001:db8:78::2", "fe80::2", "::2"] {
            assert_eq!(here.of_event(&failure(address(other), 7, 1)), None, "{other}");
        }
    }

    #[test]
    fn a_flood_of_invented_neighbours_is_bounded_and_evicts_none_that_tripped() {
        let mut here = here();
        let guesser = address("2001:db8:77::2");
        let tripped: u32 = (1..=4).map(|time| fails(&mut here, guesser, 7, time)).sum();
        assert_eq!(tripped, 1);
        for number in 0..100_000 {
            fails(&mut here, address("2001:db8:77:0:1::") + number, 7, 5 + number as u64);
        }
        assert_eq!(here.find(guesser).unwrap().trips, 1);
        assert_eq!(here.all().count(), BUCKETS * 8);
    }

    #[test]
    fn a_network_that_is_left_is_forgotten() {
        let mut here = here();
        fails(&mut here, address("2001:db8:77::2"), 7, 1);
        here.adopt(&[]);
        assert_eq!(here.all().count(), 0);
        assert!(!here.is_near(address("2001:db8:77::2")));
    }
}
