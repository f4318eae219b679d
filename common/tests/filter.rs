//! The verdict against a plain model, and packets by hand.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod filter_model;

use std::net::IpAddr;

use filter_model::{Entry, Model, Step, story};
use portcullis_common::filter::fast;
use portcullis_common::filter::packet::{self, PORT_NONE, PORT_UNKNOWN};
use portcullis_common::filter::{Kind, Lease, Net, Packet, Source, Table, Verdict, judge};
use proptest::prelude::*;

/// Tables as the kernel has them: hosts by exact key, networks by longest prefix of at most so many bits.
#[derive(Default)]
struct Maps {
    leases: Vec<(Net, Lease)>,
    allowed: Vec<Net>,
}

fn address(source: Source) -> IpAddr {
    source.address()
}

impl Table for &Maps {
    type Found = Box<Lease>;

    fn allowed(&self, source: Source) -> bool {
        self.allowed.iter().any(|net| net.contains(address(source)))
    }

    fn host(&self, source: Source) -> Option<Box<Lease>> {
        let wanted = Net::source(address(source));
        self.leases.iter().find(|(net, _)| *net == wanted).map(|(_, lease)| Box::new(*lease))
    }

    fn any_nets(&self) -> bool {
        self.leases.iter().any(|(net, _)| !net.is_host())
    }

    fn net(&self, source: Source, longest: u32) -> Option<Box<Lease>> {
        let fits =
            |net: &Net| !net.is_host() && u32::from(net.length()) <= longest && net.contains(address(source));
        let best = self.leases.iter().filter(|(net, _)| fits(net)).max_by_key(|(net, _)| net.length());
        best.map(|(_, lease)| Box::new(*lease))
    }
}

fn drops(maps: &Maps, bytes: &[u8], raw: bool, now: u64) -> bool {
    let kind = if raw { packet::raw(&bytes) } else { packet::ethernet(&bytes) };
    let Kind::Ip(packet) = kind else { return false };
    matches!(judge(&maps, packet, now), Verdict::Drop(_))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_verdict_is_the_models(steps in story()) {
        let mut model = Model::default();
        let mut maps = Maps::default();
        let mut now = 1_000;
        for step in steps {
            match step {
                Step::Insert(net, time, ports) => {
                    let until = time.map_or(u64::MAX, |time| now + u64::from(time));
                    model.insert(Entry { net, until, ports });
                    maps.leases.retain(|(other, _)| *other != net);
                    let lease = Lease { until, ports, length: net.length().into(), ..Lease::default() };
                    maps.leases.push((net, lease));
                }
                Step::Remove(net) => {
                    model.remove(net);
                    maps.leases.retain(|(other, _)| *other != net);
                }
                Step::Allow(nets) => {
                    model.allowed.clone_from(&nets);
                    maps.allowed = nets;
                }
                Step::Pass(time) => now += u64::from(time),
                Step::Packet(spec) => {
                    let packet = spec.build();
                    prop_assert_eq!(
                        drops(&maps, &packet.bytes, spec.raw, now),
                        model.drops(&packet, now),
                        "{:?} {:?}", spec, packet
                    );
                }
            }
        }
    }

    #[test]
    fn whom_the_allow_list_holds_is_in_its_summary(address in any::<u128>(), four in any::<bool>(), length in 0_u8..=128, noise in any::<u128>()) {
        let full = if four { 32 } else { 128 };
        let length = length.min(full);
        // Another address of the same network.
        let kept = if length == 0 { 0 } else { u128::MAX << (full - length) };
        let whole = if four { u128::from(u32::MAX) } else { u128::MAX };
        let other = (address & kept | noise & !kept) & whole;
        let ip = |number: u128| {
            if four { IpAddr::V4((number as u32).into()) } else { IpAddr::V6(number.into()) }
        };
        let net = Net::around(ip(address & whole), length);
        let (words, six) = fast::spared([&net]);
        // What is IPv4 in IPv6 is looked up as IPv4.
        match net {
            Net::V4(..) if four => {
                prop_assert!(words[(other >> 30) as usize] >> (other >> 24 & 63) & 1 == 1, "{net}");
            }
            Net::V6(..) => prop_assert!(six >> fast::group((other >> 64) as u64) & 1 == 1, "{net}"),
            Net::V4(..) => {}
        }
    }

    #[test]
    fn any_bytes_end_and_read_no_further(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let slice = bytes.as_slice();
        let short = bytes.get(..256).unwrap_or(slice);
        prop_assert_eq!(packet::ethernet(&slice), packet::ethernet(&short));
        prop_assert_eq!(packet::raw(&slice), packet::raw(&short));
    }
}

fn lease(text: &str, until: u64, ports: [u16; 4]) -> (Net, Lease) {
    let net: Net = text.parse().unwrap();
    (net, Lease { until, ports, length: net.length().into(), ..Lease::default() })
}

fn from(text: &str, port: u32) -> Packet {
    let source = match text.parse().unwrap() {
        IpAddr::V4(address) => Source::v4(address.into()),
        IpAddr::V6(address) => {
            let number = u128::from(address);
            Source::v6((number >> 64) as u64, number as u64)
        }
    };
    Packet { source, port, protocol: 6, offset: 0 }
}

#[test]
fn an_allowed_source_is_never_dropped() {
    let maps = Maps {
        leases: vec![lease("192.0.2.7", u64::MAX, [0; 4]), lease("0.0.0.0/0", u64::MAX, [0; 4])],
        allowed: vec!["192.0.2.0/24".parse().unwrap()],
    };
    assert!(matches!(judge(&&maps, from("192.0.2.7", 22), 0), Verdict::Allow));
    assert!(matches!(judge(&&maps, from("198.51.100.1", 22), 0), Verdict::Drop(_)));
}

#[test]
fn a_lease_ends_at_its_time() {
    let maps = Maps { leases: vec![lease("192.0.2.7", 100, [0; 4])], allowed: Vec::new() };
    assert!(matches!(judge(&&maps, from("192.0.2.7", 22), 99), Verdict::Drop(_)));
    assert!(matches!(judge(&&maps, from("192.0.2.7", 22), 100), Verdict::Pass));
}

#[test]
fn an_ended_lease_hides_none_behind_it() {
    let maps = Maps {
        leases: vec![
            lease("192.0.2.0/25", 100, [0; 4]),
            lease("192.0.2.0/24", u64::MAX, [0; 4]),
            lease("198.51.100.0/25", u64::MAX, [22, 0, 0, 0]),
            lease("198.51.100.0/24", u64::MAX, [443, 0, 0, 0]),
        ],
        allowed: Vec::new(),
    };
    assert!(matches!(judge(&&maps, from("192.0.2.7", 22), 200), Verdict::Drop(lease) if lease.length == 24));
    assert!(
        matches!(judge(&&maps, from("198.51.100.7", 443), 0), Verdict::Drop(lease) if lease.length == 24)
    );
    assert!(matches!(judge(&&maps, from("198.51.100.7", 80), 0), Verdict::Pass));
    assert!(matches!(judge(&&maps, from("198.51.100.7", PORT_NONE), 0), Verdict::Pass));
    assert!(matches!(judge(&&maps, from("198.51.100.7", PORT_UNKNOWN), 0), Verdict::Drop(_)));
}
