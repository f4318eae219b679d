//! The fast table on the running kernel: a million sources, lines without room, changes under traffic, the sweep, two agents.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed step is a failed test")]

mod bpffs;

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aya::maps::{Array, Map, MapData};
use aya::programs::{TestRun, TestRunOptions};
use bpffs::with_bpffs;
use portcullis_agent::clock;
use portcullis_agent::filter::load::{self, Programs};
use portcullis_agent::filter::table::{DropTable, Table};
use portcullis_common::filter::fast::{Family, Four, MIN_LINES};
use portcullis_common::filter::{FILTER_DIR, Lease, Net, map, reason};

const XDP_DROP: u32 = 1;
const FOREVER: Lease =
    Lease { until: u64::MAX, packets: 0, ports: [0; 4], rule: 7, reason: reason::POLICY, length: 0 };

fn v4(address: u32) -> Net {
    Net::V4(address, 32)
}

fn v6(high: u64) -> Net {
    Net::V6(u128::from(high) << 64, 64)
}

fn frame(net: Net) -> Vec<u8> {
    let mut frame = vec![0_u8; 64];
    match net {
        Net::V4(address, _) => {
            frame[12..14].copy_from_slice(&[8, 0]);
            frame[14] = 0x45;
            frame[23] = 17;
            frame[26..30].copy_from_slice(&address.to_be_bytes());
        }
        Net::V6(address, _) => {
            frame[12..14].copy_from_slice(&[0x86, 0xdd]);
            frame[14] = 0x60;
            frame[20] = 17;
            frame[22..38].copy_from_slice(&address.to_be_bytes());
        }
    }
    frame
}

fn drops(programs: &mut Programs, net: Net) -> bool {
    let frame = frame(net);
    let options = TestRunOptions { data_in: Some(&frame), ..TestRunOptions::default() };
    programs.xdp().unwrap().test_run(options).unwrap().return_value == XDP_DROP
}

/// Numbers that are spread like those of a botnet, each once.
fn spread(number: u32) -> u32 {
    number.wrapping_mul(0x9e37_79b1) ^ 0x5bd1_e995
}

/// The keys of the table, as nobody outside this host can know them.
fn mix() -> [u64; 2] {
    let path = format!("{FILTER_DIR}/{}", map::FAST);
    let heads: Array<MapData, [u64; 16]> = Map::Array(MapData::from_pin(path).unwrap()).try_into().unwrap();
    let heads = heads.get(&0, 0).unwrap();
    [heads[0], heads[1]]
}

/// Sources that share one line of a table of every size up to the smallest.
fn crowd(count: usize) -> Vec<u32> {
    let mix = mix();
    (1..u32::MAX)
        .filter(|key| Four::line(Four::mixed(u64::from(*key), mix), MIN_LINES - 1) == 77)
        .take(count)
        .collect()
}

#[test]
fn a_line_without_room_sends_on_and_is_exact() {
    with_bpffs(|| {
        let mut programs = load::load(load::OBJECT).unwrap();
        let mut table = Table::open().unwrap();
        let crowd = crowd(60);
        let (listed, others) = crowd.split_at(40);
        for address in listed {
            table.insert(v4(*address), &FOREVER).unwrap();
            assert_eq!(table.get(v4(*address)).unwrap().unwrap().rule, 7);
        }
        assert_eq!(table.fast().unwrap().0, 24, "the lanes of one line");
        for address in listed {
            assert!(drops(&mut programs, v4(*address)), "{}", Ipv4Addr::from(*address));
        }
        for address in others {
            assert!(!drops(&mut programs, v4(*address)), "{}", Ipv4Addr::from(*address));
        }
        // A new look knows the same.
        drop(table);
        let mut table = Table::open().unwrap();
        let mut seen = HashSet::new();
        table.each(&mut |net, _| assert!(seen.insert(net), "{net} twice")).unwrap();
        assert_eq!(seen, listed.iter().map(|address| v4(*address)).collect());
        for (count, address) in listed.iter().enumerate() {
            assert!(table.remove(v4(*address)).unwrap());
            assert!(!drops(&mut programs, v4(*address)));
            assert_eq!(table.get(v4(*address)).unwrap(), None);
            for left in &listed[count + 1..] {
                assert!(drops(&mut programs, v4(*left)));
            }
        }
    });
}

#[test]
fn a_source_moves_between_all_ports_and_some() {
    with_bpffs(|| {
        let mut programs = load::load(load::OBJECT).unwrap();
        let mut table = Table::open().unwrap();
        for net in [v4(0xc000_0207), v6(0x2001_0db8_0000_0001), v6(0)] {
            // The port of the frame is 0, which is in no lease for some.
            table.insert(net, &FOREVER).unwrap();
            assert!(drops(&mut programs, net), "{net}");
            table.insert(net, &Lease { ports: [22, 0, 0, 0], ..FOREVER }).unwrap();
            assert!(!drops(&mut programs, net), "{net}");
            assert_eq!(table.get(net).unwrap().unwrap().ports, [22, 0, 0, 0]);
            table.insert(net, &FOREVER).unwrap();
            assert!(drops(&mut programs, net), "{net}");
            let mut seen = Vec::new();
            table.each(&mut |net, lease| seen.push((net, lease.ports))).unwrap();
            assert_eq!(seen, [(net, [0; 4])]);
            assert!(table.remove(net).unwrap() && !table.remove(net).unwrap());
            assert!(!drops(&mut programs, net), "{net}");
        }
    });
}

#[test]
fn packets_of_a_lease_are_counted_with_its_rule() {
    with_bpffs(|| {
        let mut programs = load::load(load::OBJECT).unwrap();
        let mut table = Table::open().unwrap();
        for net in [v4(0xc000_0207), v6(0x2001_0db8_0000_0001)] {
            table.insert(net, &FOREVER).unwrap();
            for _ in 0..5 {
                drops(&mut programs, net);
            }
            let held = table.get(net).unwrap().unwrap();
            assert_eq!((held.packets, held.rule, held.reason), (5, 7, reason::POLICY), "{net}");
            table.insert(net, &Lease { rule: 9, packets: held.packets, ..FOREVER }).unwrap();
            let held = table.get(net).unwrap().unwrap();
            assert_eq!((held.packets, held.rule), (5, 9), "{net}");
        }
        // A flood is counted whole, though not each packet is looked at.
        let frame = frame(v4(0xc000_0207));
        let options = TestRunOptions { data_in: Some(&frame), repeat: 100_000, ..TestRunOptions::default() };
        programs.xdp().unwrap().test_run(options).unwrap();
        let packets = table.get(v4(0xc000_0207)).unwrap().unwrap().packets;
        assert!((99_700..=100_005).contains(&packets), "{packets}");
    });
}

#[test]
fn a_million_sources_and_nobody_else() {
    with_bpffs(|| {
        let mut programs = load::load(load::OBJECT).unwrap();
        let mut table = Table::open().unwrap();
        let count = 1_000_000;
        let begin = Instant::now();
        for number in 0..count {
            table.insert(v4(spread(number)), &FOREVER).unwrap();
        }
        let took = begin.elapsed();
        let fast = table.fast().unwrap().0;
        println!("{count} inserted in {took:?}, {fast} of them in the fast table");
        assert!(fast > 990_000, "{fast}");
        for number in 0..count {
            assert!(table.get(v4(spread(number))).unwrap().is_some());
        }
        for number in (0..count).step_by(97) {
            assert!(drops(&mut programs, v4(spread(number))), "{number}");
        }
        for number in (count..3 * count).step_by(97) {
            assert!(!drops(&mut programs, v4(spread(number))), "{number}");
        }
        for high in 0..200_000_u64 {
            table.insert(v6(0x2001_0db8_0000_0000 + high * 3), &FOREVER).unwrap();
        }
        for high in (0..600_000_u64).step_by(31) {
            assert_eq!(drops(&mut programs, v6(0x2001_0db8_0000_0000 + high)), high % 3 == 0, "{high}");
        }
        println!("leases end at most {:?} late among them", lateness(&mut programs, &mut table));
        let begin = Instant::now();
        for number in (0..count).filter(|number| number % 2 == 0) {
            assert!(table.remove(v4(spread(number))).unwrap());
        }
        table.commit().unwrap();
        println!("{} removed in {:?}", count / 2, begin.elapsed());
        for number in (0..count).step_by(97) {
            assert_eq!(drops(&mut programs, v4(spread(number))), number % 2 == 1, "{number}");
        }
    });
}

/// How long after its end a lease still drops, at the most, of some that end one after the other.
fn lateness(programs: &mut Programs, table: &mut Table) -> Duration {
    let begin = clock::boot().unwrap().0;
    let mut running: Vec<(Net, u64)> = (0..200)
        .map(|number| {
            (v4(spread(0x7000_0000 + number)), begin + 200_000_000 + u64::from(number) * 10_000_000)
        })
        .collect();
    for (net, until) in &running {
        table.insert(*net, &Lease { until: *until, ..FOREVER }).unwrap();
    }
    let mut worst = 0;
    while !running.is_empty() {
        std::thread::sleep(Duration::from_millis(2));
        running.retain(|(net, until)| {
            let drops = drops(programs, *net);
            let now = clock::boot().unwrap().0;
            assert!(drops || now >= *until, "{net} ended too early");
            assert!(now < until + 1_500_000_000, "{net} does not end");
            if !drops {
                worst = worst.max(now - until);
            }
            drops
        });
    }
    Duration::from_nanos(worst)
}

#[test]
fn bits_in_front_are_those_of_who_is_left() {
    with_bpffs(|| {
        drop(load::load(load::OBJECT).unwrap());
        let mut table = Table::open().unwrap();
        let count = 50_000;
        for number in 0..count {
            table.insert(v4(spread(number)), &FOREVER).unwrap();
        }
        for number in (0..count).filter(|number| number % 3 != 0) {
            assert!(table.remove(v4(spread(number))).unwrap());
        }
        table.commit().unwrap();
        let pinned = |name| MapData::from_pin(format!("{FILTER_DIR}/{name}")).unwrap();
        let heads: Array<MapData, [u32; 32]> = Map::Array(pinned(map::FAST)).try_into().unwrap();
        let mask = heads.get(&0, 0).unwrap()[4];
        let bits: Array<MapData, u64> = Map::Array(pinned(map::FAST_BITS_4)).try_into().unwrap();
        let mut expected = vec![0; mask as usize + 1];
        for number in (0..count).filter(|number| number % 3 == 0) {
            let mixed = Four::mixed(u64::from(spread(number)), mix());
            expected[Four::line(mixed, mask) as usize] |= Four::bit(mixed);
        }
        let mut sent_on = 0;
        for (line, expected) in (0..).zip(expected) {
            match bits.get(&line, 0).unwrap() {
                u64::MAX if expected != u64::MAX => sent_on += 1,
                found => assert_eq!(found, expected, "line {line}"),
            }
        }
        assert!(sent_on < 100, "{sent_on} lines send on");
    });
}

#[test]
fn sources_come_and_go_under_traffic_and_the_others_stay() {
    with_bpffs(|| {
        let mut programs = load::load(load::OBJECT).unwrap();
        let mut table = Table::open().unwrap();
        // All in lines that are changed all the time, through three sizes of the table.
        let stay: Vec<u32> = (0..2_000).map(|number| spread(number * 100)).collect();
        for address in &stay {
            table.insert(v4(*address), &FOREVER).unwrap();
        }
        let go = AtomicBool::new(true);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..3 {
                    for number in (0..150_000).filter(|number| number % 100 != 0) {
                        table.insert(v4(spread(number)), &FOREVER).unwrap();
                    }
                    for number in (0..150_000).filter(|number| number % 100 != 0) {
                        assert!(table.remove(v4(spread(number))).unwrap(), "{round}");
                    }
                }
                go.store(false, Ordering::Release);
            });
            let mut asked = 0;
            while go.load(Ordering::Acquire) {
                let address = stay[asked % stay.len()];
                assert!(drops(&mut programs, v4(address)), "{} is off", Ipv4Addr::from(address));
                let other = spread(1_000_000 + asked as u32);
                assert!(!drops(&mut programs, v4(other)), "{} is dropped", Ipv4Addr::from(other));
                asked += 1;
            }
            println!("{asked} asked meanwhile");
            assert!(asked > 1_000);
        });
        assert_eq!(table.fast().unwrap().0, stay.len());
    });
}

#[test]
fn leases_end_in_the_kernel_with_nobody_there() {
    with_bpffs(|| {
        let mut programs = load::load(load::OBJECT).unwrap();
        let mut table = Table::open().unwrap();
        let until = clock::boot().unwrap().0 + 700_000_000;
        let count = 20_000;
        for number in 0..count {
            let lease = if number % 2 == 0 { Lease { until, ..FOREVER } } else { FOREVER };
            table.insert(v4(spread(number)), &lease).unwrap();
        }
        table.insert(v6(0x2001_0db8_0000_0001), &Lease { until, ..FOREVER }).unwrap();
        // No agent, no table: the timer alone.
        drop(table);
        let latest = until + 1_500_000_000;
        let mut ended = false;
        while !ended && clock::boot().unwrap().0 < latest {
            std::thread::sleep(Duration::from_millis(20));
            ended = !drops(&mut programs, v4(spread(count - 2)))
                && !drops(&mut programs, v6(0x2001_0db8_0000_0001));
        }
        println!("ended {} ms after their time", (clock::boot().unwrap().0 - until) / 1_000_000);
        assert!(clock::boot().unwrap().0 >= until, "too early");
        assert!(ended, "the leases did not end");
        std::thread::sleep(Duration::from_millis(600));
        for number in 0..count {
            assert_eq!(drops(&mut programs, v4(spread(number))), number % 2 == 1, "{number}");
        }
        // The agent's next start finds them, ended, takes them out and can give them anew.
        let mut table = Table::open().unwrap();
        assert_eq!(table.get(v4(spread(0))).unwrap().unwrap().until, until);
        table.insert(v4(spread(0)), &FOREVER).unwrap();
        assert!(drops(&mut programs, v4(spread(0))));
        for number in (2..count).step_by(2) {
            assert!(table.remove(v4(spread(number))).unwrap());
        }
        assert_eq!(table.fast().unwrap(), ((count / 2 + 1) as usize, 1));
    });
}

#[test]
fn a_lease_that_is_renewed_when_it_ends_holds() {
    with_bpffs(|| {
        let mut programs = load::load(load::OBJECT).unwrap();
        let mut table = Table::open().unwrap();
        let net = v4(0xc000_0207);
        let begin = Instant::now();
        let mut turns = 0;
        while begin.elapsed() < Duration::from_secs(3) {
            let now = clock::boot().unwrap().0;
            table.insert(net, &Lease { until: now + 3_000_000 * (turns % 4), ..FOREVER }).unwrap();
            std::thread::sleep(Duration::from_millis(turns % 7));
            table.insert(net, &FOREVER).unwrap();
            assert!(drops(&mut programs, net), "{turns}");
            assert_eq!(table.get(net).unwrap().unwrap().until, u64::MAX);
            turns += 1;
        }
        assert!(turns > 100);
    });
}

#[test]
fn two_agents_see_what_the_other_did() {
    with_bpffs(|| {
        let mut programs = load::load(load::OBJECT).unwrap();
        let mut one = Table::open().unwrap();
        let mut other = Table::open().unwrap();
        std::thread::scope(|scope| {
            for (table, first) in [(&mut one, 0), (&mut other, 30)] {
                scope.spawn(move || {
                    for number in first..first + 30 {
                        table.insert(v4(spread(number)), &FOREVER).unwrap();
                    }
                });
            }
        });
        for number in 0..60 {
            for table in [&one, &other] {
                assert!(table.get(v4(spread(number))).unwrap().is_some(), "{number}");
            }
            assert!(drops(&mut programs, v4(spread(number))), "{number}");
        }
        for number in 0..60 {
            let (table, looker) = if number % 2 == 0 { (&mut one, &other) } else { (&mut other, &one) };
            assert!(table.remove(v4(spread(number))).unwrap());
            assert_eq!(looker.get(v4(spread(number))).unwrap(), None);
            assert!(!drops(&mut programs, v4(spread(number))), "{number}");
        }
    });
}
