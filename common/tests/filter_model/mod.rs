//! A plain model of the filter: every lease in one list, every packet built from what it is meant to be, so that what is
//! expected is never read back off the bytes.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "shared by tests, each uses a part"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portcullis_common::filter::Net;
use proptest::prelude::*;

/// A lease as the model keeps it.
#[derive(Clone, Debug)]
pub struct Entry {
    pub net: Net,
    pub until: u64,
    pub ports: [u16; 4],
}

#[derive(Clone, Debug, Default)]
pub struct Model {
    pub entries: Vec<Entry>,
    pub allowed: Vec<Net>,
}

/// What a packet's port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    Known(u16),
    None,
    Unknown,
}

/// A packet to be built.
#[derive(Clone, Debug)]
pub struct Spec {
    /// VLAN tags.
    pub tags: usize,
    /// Without an Ethernet header.
    pub raw: bool,
    pub source: IpAddr,
    /// An IPv4 source written as v4-mapped IPv6.
    pub mapped: bool,
    /// Words of IPv4 options.
    pub options: u8,
    /// Extension headers: kind and length field.
    pub extensions: Vec<(u8, u8)>,
    /// Offset of the fragment, in 8 bytes.
    pub fragment: Option<u16>,
    pub protocol: u8,
    pub port: u16,
    /// The packet ends here.
    pub cut: Option<usize>,
}

/// A packet, and what is expected to be read off it: none where it has no source.
#[derive(Clone, Debug)]
pub struct Built {
    pub bytes: Vec<u8>,
    pub expected: Option<(IpAddr, Port)>,
}

const HEADERS: usize = 256;

impl Model {
    pub fn insert(&mut self, entry: Entry) {
        self.remove(entry.net);
        self.entries.push(entry);
    }

    pub fn remove(&mut self, net: Net) {
        self.entries.retain(|entry| entry.net != net);
    }

    pub fn drops(&self, packet: &Built, now: u64) -> bool {
        let Some((source, port)) = packet.expected else { return false };
        let for_port = |ports: [u16; 4]| {
            ports == [0; 4]
                || match port {
                    Port::Known(port) => port != 0 && ports.contains(&port),
                    Port::None => false,
                    Port::Unknown => true,
                }
        };
        !self.allowed.iter().any(|net| net.contains(source))
            && self
                .entries
                .iter()
                .any(|entry| entry.net.contains(source) && entry.until > now && for_port(entry.ports))
    }
}

impl Spec {
    /// A plain packet of `source` to `port`.
    #[allow(dead_code, reason = "who draws packets at random has no use for it")]
    pub fn plain(source: &str, protocol: u8, port: u16) -> Self {
        Self {
            tags: 0,
            raw: false,
            source: source.parse().unwrap(),
            mapped: false,
            options: 0,
            extensions: Vec::new(),
            fragment: None,
            protocol,
            port,
            cut: None,
        }
    }

    pub fn build(&self) -> Built {
        let mut bytes = Vec::new();
        // What is read, and where it must have ended.
        let mut whole = Vec::new();
        let six = self.source.is_ipv6() || self.mapped;
        if !self.raw {
            bytes.extend([2; 12]);
            for tag in 0..self.tags {
                bytes.extend(if tag % 2 == 0 { [0x81, 0x00] } else { [0x88, 0xa8] });
                bytes.extend([0, 7]);
            }
            bytes.extend(if six { [0x86, 0xdd] } else { [0x08, 0x00] });
            whole.push(bytes.len());
        }
        let mut chain: Vec<u8> = self.extensions.iter().map(|(kind, _)| *kind).collect();
        if six && self.fragment.is_some() {
            chain.push(44);
        }
        chain.push(self.protocol);
        if six {
            let source = match self.source {
                IpAddr::V4(address) => address.to_ipv6_mapped(),
                IpAddr::V6(address) => address,
            };
            bytes.extend([0x60, 0, 0, 0, 0, 64, chain[0], 64]);
            bytes.extend(source.octets());
            bytes.extend([9; 16]);
            whole.push(bytes.len());
        } else {
            let IpAddr::V4(source) = self.source else { unreachable!() };
            let fragment = self.fragment.unwrap_or(0).to_be_bytes();
            bytes.extend([0x45 + self.options, 0, 0, 64, 0, 1, fragment[0], fragment[1], 64, chain[0], 0, 0]);
            bytes.extend(source.octets());
            whole.push(bytes.len());
            bytes.extend([9; 4]);
            bytes.extend(vec![0; usize::from(self.options) * 4]);
        }
        // Headers on the way to the port: where each ends that must be seen.
        let mut way = Vec::new();
        let mut unknown_from = None;
        for (index, (kind, length)) in self.extensions.iter().enumerate() {
            let at = bytes.len();
            way.push(at + 4);
            let size =
                if *kind == 51 { (usize::from(*length) + 2) * 4 } else { (usize::from(*length) + 1) * 8 };
            let next = chain[index + 1];
            bytes.extend([next, *length, 0, 0]);
            bytes.resize(at + size.max(4), 0);
            bytes.truncate(at + size);
            if bytes.len() >= HEADERS {
                unknown_from.get_or_insert(index);
            }
        }
        let later = self.fragment.is_some_and(|offset| offset != 0);
        if six && let Some(offset) = self.fragment {
            way.push(bytes.len() + 4);
            let field = (offset << 3 | 1).to_be_bytes();
            bytes.extend([self.protocol, 0, field[0], field[1], 0, 0, 0, 1]);
            if !later && bytes.len() >= HEADERS {
                unknown_from.get_or_insert(self.extensions.len());
            }
        }
        let has_port = [6, 17, 33, 132, 136].contains(&self.protocol);
        let port_end = bytes.len() + 4;
        bytes.extend([0xc0, 0x00]);
        bytes.extend(self.port.to_be_bytes());
        bytes.extend([0; 16]);
        let headers = self.extensions.len() + usize::from(six && self.fragment.is_some());
        if let Some(cut) = self.cut {
            bytes.truncate(cut);
        }
        // As long as a frame is.
        bytes.truncate(1514);
        let seen = bytes.len().min(HEADERS);
        if whole.iter().any(|end| *end > seen)
            || (!self.raw && self.tags > 2)
            || (self.raw && bytes.is_empty())
        {
            return Built { bytes, expected: None };
        }
        // IPv4 says itself that it is a later fragment; IPv6 in a header on the way.
        let port = if !six && later {
            Port::None
        } else if way.iter().any(|end| *end > seen) || unknown_from.is_some() || headers > 8 {
            Port::Unknown
        } else if later {
            Port::None
        } else if headers == 8 {
            Port::Unknown
        } else if !has_port {
            Port::None
        } else if port_end > seen {
            Port::Unknown
        } else {
            Port::Known(self.port)
        };
        Built { bytes, expected: Some((self.source.to_canonical(), port)) }
    }
}

pub fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0_u8..4, 0_u8..4).prop_map(|(c, d)| IpAddr::V4(Ipv4Addr::new(10, 0, c, d))),
        (0_u16..4, 0_u16..4).prop_map(|(d, h)| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, d, 0, 0, 0, h))),
    ]
}

pub fn net() -> impl Strategy<Value = Net> {
    let four = prop::sample::select(vec![0_u8, 8, 22, 23, 24, 30, 31, 32, 32, 32]);
    let six = prop::sample::select(vec![0_u8, 32, 48, 56, 62, 63, 64, 64, 64, 65, 96, 127, 128]);
    (address(), four, six)
        .prop_map(|(address, four, six)| Net::around(address, if address.is_ipv4() { four } else { six }))
}

pub fn ports() -> impl Strategy<Value = [u16; 4]> {
    prop_oneof![Just([0; 4]), Just([22, 0, 0, 0]), Just([443, 80, 8080, 22])]
}

pub fn spec() -> impl Strategy<Value = Spec> {
    let tags = prop::sample::select(vec![0_usize, 0, 0, 1, 2, 3]);
    let extension = (
        prop::sample::select(vec![0_u8, 43, 51, 60, 135, 139, 140]),
        prop::sample::select(vec![0_u8, 0, 0, 1, 2, 9, 31, 255]),
    );
    let count = prop_oneof![4 => 0_usize..3, 1 => 7_usize..10];
    let extensions = count.prop_flat_map(move |count| prop::collection::vec(extension.clone(), count));
    let fragment = prop_oneof![4 => Just(None), 1 => Just(Some(0_u16)), 1 => (1_u16..0x1fff).prop_map(Some)];
    let protocol = prop::sample::select(vec![6_u8, 6, 17, 33, 132, 136, 1, 58, 47, 4, 50, 59, 255]);
    let port = prop::sample::select(vec![22_u16, 22, 443, 80, 0, 65535]);
    let cut = prop_oneof![3 => Just(None), 1 => (0_usize..100).prop_map(Some), 1 => (100_usize..400).prop_map(Some)];
    let odd = (any::<bool>(), prop::bool::weighted(0.2), prop::sample::select(vec![0_u8, 0, 1, 10]));
    (address(), tags, extensions, fragment, protocol, port, cut, odd).prop_map(
        |(source, tags, mut extensions, fragment, protocol, port, cut, (mapped, raw, options))| {
            let mapped = source.is_ipv4() && mapped;
            if source.is_ipv4() && !mapped {
                // The one that IPv4 has too.
                extensions.retain(|(kind, _)| *kind == 51);
            }
            Spec { tags, raw, source, mapped, options, extensions, fragment, protocol, port, cut }
        },
    )
}

/// One step of a story.
#[derive(Clone, Debug)]
pub enum Step {
    /// Drop, for so long; none: for ever.
    Insert(Net, Option<u8>, [u16; 4]),
    Remove(Net),
    Allow(Vec<Net>),
    /// Time goes on.
    Pass(u8),
    Packet(Box<Spec>),
}

pub fn story() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (net(), proptest::option::of(0_u8..20), ports()).prop_map(|(net, time, ports)| Step::Insert(net, time, ports)),
        1 => net().prop_map(Step::Remove),
        1 => prop::collection::vec(net().prop_filter("not all", |net| net.length() > 8), 0..2).prop_map(Step::Allow),
        1 => (1_u8..10).prop_map(Step::Pass),
        8 => spec().prop_map(|spec| Step::Packet(Box::new(spec))),
    ];
    prop::collection::vec(step, 1..60)
}
