//! The kernel's table of throttles: slots, and the chains that lead to them.
//!
//! Invariants: a slot is written before a chain leads there, and emptied after none does any more; what the kernel skips
//! where there is nothing is counted up before and down after; everything that is written is read back.

use std::collections::{BTreeMap, BTreeSet};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData};
use portcullis_common::filter::throttle::{self, CHAIN, Chain, Counts, MAX_THROTTLES, map, target};
use portcullis_common::filter::{self, Net, Settings};
use portcullis_policy::Boot;

use super::{HeldThrottle, Rate, Target, Throttle, Unit};
use crate::filter::Cause;
use crate::filter::command::FilterError;
use crate::filter::table::{failed, key_4, open};

/// bpf(2): take the value's lock.
const LOCK: u64 = 4;

macro_rules! open_as {
    ($kind:ident, $name:expr) => {
        Map::$kind(open($name)?).try_into().map_err(failed("use", $name))?
    };
}

/// Open handles of the throttles' maps.
pub struct ThrottleTable {
    slots: Array<MapData, throttle::Throttle>,
    counts: Array<MapData, Counts>,
    nets_4: LpmTrie<MapData, [u8; 8], Chain>,
    nets_6: LpmTrie<MapData, [u8; 16], Chain>,
    ports: HashMap<MapData, u32, Chain>,
    links: HashMap<MapData, u32, Chain>,
    settings: Array<MapData, Settings>,
}

/// The chains that throttles make. Pure.
#[derive(Debug, Default, PartialEq, Eq)]
struct Chains {
    nets: BTreeMap<Net, Chain>,
    ports: BTreeMap<u32, Chain>,
    links: BTreeMap<u32, Chain>,
}

/// Slots as a chain: the first that fit.
fn chain(slots: impl IntoIterator<Item = u16>) -> Chain {
    let mut chain = Chain::default();
    for (place, slot) in chain.slots.iter_mut().zip(slots) {
        *place = slot;
    }
    chain
}

impl Chains {
    /// `links`: interfaces that are there, index and name.
    fn of(throttles: &[(u16, Target)], links: &[(u32, &str)]) -> Self {
        let mut chains = Self::default();
        let nets: Vec<(u16, Net)> = throttles
            .iter()
            .filter_map(|(slot, target)| match target {
                Target::Net(net) => Some((*slot, *net)),
                _ => None,
            })
            .collect();
        for (_, net) in &nets {
            let mut around: Vec<&(u16, Net)> = nets.iter().filter(|(_, other)| other.covers(*net)).collect();
            around.sort_by_key(|(slot, other)| (u8::MAX - other.length(), *slot));
            chains.nets.insert(*net, chain(around.iter().map(|(slot, _)| *slot)));
        }
        let slots_of = |wanted: &Target| {
            chain(throttles.iter().filter(|(_, other)| other == wanted).map(|(slot, _)| *slot))
        };
        for (_, target) in throttles {
            match target {
                Target::Net(_) => {}
                Target::Port(port) => {
                    chains.ports.insert(u32::from(*port), slots_of(target));
                }
                Target::Interface(name) => {
                    for (index, _) in links.iter().filter(|(_, other)| other == name) {
                        chains.links.insert(*index, slots_of(target));
                    }
                }
            }
        }
        chains
    }
}

/// Whether one more throttle for `wanted` would make a chain longer than the kernel looks at: the network of that chain.
#[must_use]
pub fn too_many(throttles: &[Target], wanted: &Target) -> Option<Net> {
    let Target::Net(wanted) = wanted else { return None };
    let nets: Vec<Net> = throttles
        .iter()
        .filter_map(|target| match target {
            Target::Net(net) => Some(*net),
            _ => None,
        })
        .chain([*wanted])
        .collect();
    nets.iter().copied().find(|net| nets.iter().filter(|other| other.covers(*net)).count() > CHAIN)
}

fn target_bytes(wanted: &Target) -> [u8; 24] {
    let mut bytes = [0; 24];
    let (kind, length, rest): (u8, u8, Vec<u8>) = match wanted {
        Target::Net(Net::V4(address, length)) => (target::V4, *length, address.to_be_bytes().to_vec()),
        Target::Net(Net::V6(address, length)) => (target::V6, *length, address.to_be_bytes().to_vec()),
        Target::Port(port) => (target::PORT, 0, port.to_le_bytes().to_vec()),
        Target::Interface(name) => (target::INTERFACE, 0, name.as_bytes().to_vec()),
    };
    for (place, byte) in bytes.iter_mut().zip([kind, length, 0, 0].into_iter().chain(rest)) {
        *place = byte;
    }
    bytes
}

fn target_of(bytes: &[u8; 24]) -> Option<Target> {
    let [kind, length, _, _, rest @ ..] = bytes;
    match *kind {
        target::V4 => {
            let address = u32::from_be_bytes(rest.first_chunk().copied()?);
            (*length <= 32).then_some(Target::Net(Net::V4(address, *length)))
        }
        target::V6 => {
            let address = u128::from_be_bytes(rest.first_chunk().copied()?);
            (*length <= 128).then_some(Target::Net(Net::V6(address, *length)))
        }
        target::PORT => Some(Target::Port(u16::from_le_bytes(rest.first_chunk().copied()?))),
        target::INTERFACE => crate::text::field(rest).parse().ok(),
        _ => None,
    }
}

/// A slot's throttle for people; none where the slot is free or says nothing that is known.
fn held(slot: u32, record: &throttle::Throttle) -> Option<HeldThrottle> {
    let meter = &record.meter;
    let unit = Unit::of_number(record.unit)?;
    let burst = meter.rate.burst / filter::limit::SECOND;
    let throttle = Throttle {
        target: target_of(&record.target)?,
        rate: Rate { unit, rate: meter.rate.rate, burst },
        until: Boot(record.until),
        cause: Cause::of_number(u16::try_from(record.reason).ok()?).unwrap_or(Cause::Administrator),
        reason: String::new(),
    };
    Some(HeldThrottle {
        throttle,
        slot: u16::try_from(slot).ok()?,
        since: jiff::Timestamp::now(),
        passed: (meter.passed, meter.passed_bytes),
        limited: (meter.limited, meter.limited_bytes),
    })
}

impl ThrottleTable {
    /// Opens the pinned maps.
    ///
    /// # Errors
    /// They are not there, or something else is.
    pub fn open() -> Result<Self, FilterError> {
        Ok(Self {
            slots: open_as!(Array, map::THROTTLES),
            counts: open_as!(Array, map::COUNTS),
            nets_4: open_as!(LpmTrie, map::NETS_4),
            nets_6: open_as!(LpmTrie, map::NETS_6),
            ports: open_as!(HashMap, map::PORTS),
            links: open_as!(HashMap, map::LINKS),
            settings: open_as!(Array, filter::map::SETTINGS),
        })
    }

    /// All throttles in the kernel.
    ///
    /// # Errors
    /// The kernel says no.
    pub fn all(&self) -> Result<Vec<HeldThrottle>, FilterError> {
        let mut found = Vec::new();
        for slot in 1..MAX_THROTTLES {
            let record = self.slots.get(&slot, LOCK).map_err(failed("read", map::THROTTLES))?;
            if record.until != 0 {
                found.extend(held(slot, &record));
            }
        }
        Ok(found)
    }

    /// Writes a throttle into a slot. One that holds there already, of the same rate, keeps its bucket and counters.
    ///
    /// # Errors
    /// The kernel says no, or does not show what was written.
    pub fn write(&mut self, slot: u16, wanted: &Throttle, now: Boot) -> Result<(), FilterError> {
        let index = u32::from(slot);
        let there = self.slots.get(&index, LOCK).map_err(failed("read", map::THROTTLES))?;
        let mut record = throttle::Throttle {
            lock: 0,
            unit: wanted.rate.unit.number(),
            until: wanted.until.0,
            rule: index,
            reason: u32::from(wanted.cause.number()),
            target: target_bytes(&wanted.target),
            meter: wanted.rate.meter(now.0),
        };
        let same = (there.unit, there.target) == (record.unit, record.target);
        if same && there.meter.rate == record.meter.rate {
            record.meter = there.meter;
        } else if same {
            record.meter.passed = there.meter.passed;
            record.meter.passed_bytes = there.meter.passed_bytes;
            record.meter.limited = there.meter.limited;
            record.meter.limited_bytes = there.meter.limited_bytes;
        }
        self.slots.set(index, record, LOCK).map_err(failed("write", map::THROTTLES))?;
        let found = self.slots.get(&index, LOCK).map_err(failed("read", map::THROTTLES))?;
        let same = (found.unit, found.until, found.target, found.meter.rate)
            == (record.unit, record.until, record.target, record.meter.rate);
        if same { Ok(()) } else { Err(unlike(&wanted.target)) }
    }

    /// Empties a slot, to which no chain leads any more.
    ///
    /// # Errors
    /// The kernel says no.
    pub fn empty(&mut self, slot: u16) -> Result<(), FilterError> {
        self.slots
            .set(u32::from(slot), throttle::Throttle::default(), LOCK)
            .map_err(failed("write", map::THROTTLES))
    }

    /// Makes the chains lead to these throttles and to no others. `links`: interfaces that are there, index and name.
    ///
    /// # Errors
    /// The kernel says no, or does not show what was written.
    pub fn lead(
        &mut self,
        throttles: &[(u16, Target, Unit)],
        links: &[(u32, &str)],
    ) -> Result<(), FilterError> {
        let targets: Vec<(u16, Target)> =
            throttles.iter().map(|(slot, target, _)| (*slot, target.clone())).collect();
        let chains = Chains::of(&targets, links);
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let four = chains.nets.keys().filter(|net| matches!(net, Net::V4(..))).count();
        let after = Counts {
            nets_4: number(four),
            nets_6: number(chains.nets.len() - four),
            ports: number(chains.ports.len()),
            links: number(chains.links.len()),
            flows: number(throttles.iter().filter(|(_, _, unit)| *unit == Unit::Flows).count()),
            reserved: [0; 3],
        };
        let before = self.counts.get(&0, 0).map_err(failed("read", map::COUNTS))?;
        self.count(
            Counts {
                nets_4: before.nets_4.max(after.nets_4),
                nets_6: before.nets_6.max(after.nets_6),
                ports: before.ports.max(after.ports),
                links: before.links.max(after.links),
                flows: before.flows.max(after.flows),
                reserved: [0; 3],
            },
            true,
        )?;
        self.lead_nets(&chains.nets)?;
        lead_numbers(&mut self.ports, &chains.ports, map::PORTS)?;
        lead_numbers(&mut self.links, &chains.links, map::LINKS)?;
        self.count(after, !throttles.is_empty())
    }

    fn count(&mut self, counts: Counts, any: bool) -> Result<(), FilterError> {
        self.counts.set(0, counts, 0).map_err(failed("write", map::COUNTS))?;
        let name = filter::map::SETTINGS;
        let settings = self.settings.get(&0, 0).map_err(failed("read", name))?;
        let settings = Settings { throttles: u32::from(any), ..settings };
        self.settings.set(0, settings, 0).map_err(failed("write", name))
    }

    fn lead_nets(&mut self, wanted: &BTreeMap<Net, Chain>) -> Result<(), FilterError> {
        for (net, chain) in wanted {
            match net {
                Net::V4(address, length) => {
                    let key = Key::new(u32::from(*length), key_4(*address));
                    self.nets_4.insert(&key, *chain, 0).map_err(failed("write", map::NETS_4))?;
                }
                Net::V6(address, length) => {
                    let key = Key::new(u32::from(*length), address.to_be_bytes());
                    self.nets_6.insert(&key, *chain, 0).map_err(failed("write", map::NETS_6))?;
                }
            }
        }
        let mut found = BTreeSet::new();
        for key in self.nets_4.keys().take(MAX_THROTTLES as usize) {
            let key = key.map_err(failed("read", map::NETS_4))?;
            found.insert(Net::V4((u64::from_be_bytes(key.data()) >> 32) as u32, key.prefix_len() as u8));
        }
        for key in self.nets_6.keys().take(MAX_THROTTLES as usize) {
            let key = key.map_err(failed("read", map::NETS_6))?;
            found.insert(Net::V6(u128::from_be_bytes(key.data()), key.prefix_len() as u8));
        }
        for net in found.iter().filter(|net| !wanted.contains_key(net)) {
            match net {
                Net::V4(address, length) => {
                    let key = Key::new(u32::from(*length), key_4(*address));
                    self.nets_4.remove(&key).map_err(failed("remove from", map::NETS_4))?;
                }
                Net::V6(address, length) => {
                    let key = Key::new(u32::from(*length), address.to_be_bytes());
                    self.nets_6.remove(&key).map_err(failed("remove from", map::NETS_6))?;
                }
            }
        }
        match wanted.keys().find(|net| !found.contains(net)) {
            Some(net) => Err(unlike(&Target::Net(*net))),
            None => Ok(()),
        }
    }
}

fn lead_numbers(
    there: &mut HashMap<MapData, u32, Chain>,
    wanted: &BTreeMap<u32, Chain>,
    name: &'static str,
) -> Result<(), FilterError> {
    for (number, chain) in wanted {
        there.insert(number, chain, 0).map_err(failed("write", name))?;
    }
    let found: Result<Vec<u32>, _> = there.keys().take(MAX_THROTTLES as usize).collect();
    for number in found.map_err(failed("read", name))? {
        if !wanted.contains_key(&number) {
            there.remove(&number).map_err(failed("remove from", name))?;
        }
    }
    Ok(())
}

fn unlike(target: &Target) -> FilterError {
    let target = crate::text::escape(target.to_string().as_bytes());
    FilterError::Kernel(format!(
        "the kernel's table does not show the throttle of {target} that was written; see `portcullis doctor`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        text.parse().unwrap()
    }

    #[test]
    fn a_chain_names_what_lies_around_the_narrowest_first() {
        let throttles = [
            (1, target("192.0.2.0/24")),
            (2, target("192.0.2.7")),
            (3, target("0.0.0.0/0")),
            (4, target("192.0.2.7")),
            (5, target("198.51.100.0/24")),
            (6, target("22")),
            (7, target("eth0")),
            (8, target("22")),
        ];
        let chains = Chains::of(&throttles, &[(3, "eth0"), (4, "eth1")]);
        let of = |net: &str| chains.nets[&net.parse().unwrap()].slots;
        assert_eq!(of("192.0.2.7"), [2, 4, 1, 3]);
        assert_eq!(of("192.0.2.0/24"), [1, 3, 0, 0]);
        assert_eq!(of("198.51.100.0/24"), [5, 3, 0, 0]);
        assert_eq!(of("0.0.0.0/0"), [3, 0, 0, 0]);
        assert_eq!(chains.ports, [(22, chain([6, 8]))].into());
        assert_eq!(chains.links, [(3, chain([7]))].into());
    }

    #[test]
    fn one_more_than_are_looked_at_is_refused() {
        let all: Vec<Target> = ["10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24", "22"].map(target).into();
        assert_eq!(too_many(&all, &target("10.1.1.1")), None);
        assert_eq!(too_many(&all, &target("22")), None);
        let all: Vec<Target> = ["10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24", "10.1.1.1"].map(target).into();
        assert_eq!(too_many(&all, &target("10.2.0.0/16")), None);
        assert_eq!(too_many(&all, &target("0.0.0.0/0")), Some("10.1.1.1".parse().unwrap()));
    }

    #[test]
    fn a_slot_says_what_it_is_for() {
        for text in ["192.0.2.0/24", "2001:db8::/48", "22", "eth0", "2001:db8:1:2::/64"] {
            assert_eq!(target_of(&target_bytes(&target(text))), Some(target(text)));
        }
        assert_eq!(target_of(&[0; 24]), None);
        assert_eq!(target_of(&[9; 24]), None);
    }
}
