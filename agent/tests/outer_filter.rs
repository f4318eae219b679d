//! The loaded filter on the running kernel, by BPF_PROG_TEST_RUN: every verdict against the plain model.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

mod bpffs;
#[path = "../../common/tests/filter_model/mod.rs"]
mod filter_model;

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use aya::programs::tc::{NlOptions, TcAttachOptions, TcHandle};
use aya::programs::{TcAttachType, TestRun, TestRunOptions};
use bpffs::with_bpffs;
use filter_model::{Entry, Model, Step, story};
use portcullis_agent::clock;
use portcullis_agent::config::filter::Filter;
use portcullis_agent::filter::attach::{self, Hook, Places};
use portcullis_agent::filter::load::{self, Programs};
use portcullis_agent::filter::table::{DropTable, Table};
use portcullis_agent::filter::{links, task};
use portcullis_agent::store::drops::{DropStore, StoredDrop};
use portcullis_common::filter::{FILTER_DIR, Lease, Net, reason, stat};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const XDP_DROP: u32 = 1;
const TC_ACT_SHOT: u32 = 2;
/// Of the verifier's million instructions; other kernels walk more.
const MOST_WALKED: u32 = 350_000;
/// The kernel's test run takes no packet shorter than an Ethernet header.
const SHORTEST: usize = 14;
/// Nor, for a classifier, one that ends in its IP header.
const SHORTEST_SKB: usize = 14 + 40;

/// What each entry says of a packet: dropped or not.
fn verdicts(programs: &mut Programs, bytes: &[u8], raw: bool) -> Vec<(&'static str, bool)> {
    let options = || TestRunOptions { data_in: Some(bytes), ..TestRunOptions::default() };
    if raw {
        let raw = programs.classifier(load::RAW).unwrap().test_run(options()).unwrap().return_value;
        return vec![("raw", raw == TC_ACT_SHOT)];
    }
    let tc = programs.classifier(load::TC).unwrap().test_run(options());
    let xdp = programs.xdp().unwrap().test_run(options()).unwrap().return_value;
    let mut all = vec![("xdp", xdp == XDP_DROP)];
    match tc {
        Ok(tc) => all.push(("tc", tc.return_value == TC_ACT_SHOT)),
        // The kernel makes no skb of a packet that ends in its IP header.
        Err(error) => assert!(bytes.len() < SHORTEST_SKB, "{error}"),
    }
    all
}

fn clear(table: &mut Table) {
    let mut nets = Vec::new();
    table.each(&mut |net, _| nets.push(net)).unwrap();
    for net in nets {
        assert!(table.remove(net).unwrap());
    }
    table.allow(&[]).unwrap();
    assert_eq!(table.settings().unwrap().nets, 0);
}

fn lease(until: u64, ports: [u16; 4]) -> Lease {
    Lease { until, ports, reason: reason::ADMINISTRATOR, rule: 1, ..Lease::default() }
}

fn packet_from(source: &str) -> Vec<u8> {
    filter_model::Spec::plain(source, 6, 22).build().bytes
}

#[test]
fn every_verdict_of_the_loaded_filter_is_the_models() {
    with_bpffs(|| {
        let programs = RefCell::new(load::load(load::OBJECT).unwrap());
        let table = RefCell::new(Table::open().unwrap());
        let (passed, dropped) = (RefCell::new(0), RefCell::new(0));
        let mut runner =
            TestRunner::new(Config { cases: 300, failure_persistence: None, ..Config::default() });
        let result = runner.run(&story(), |steps| {
            let (mut programs, mut table) = (programs.borrow_mut(), table.borrow_mut());
            clear(&mut table);
            let mut model = Model::default();
            for step in steps {
                match step {
                    Step::Insert(net, time, ports) => {
                        // Long gone, or not for a while: the kernel's clock goes on by itself.
                        let until = time.map_or(u64::MAX, |time| if time < 10 { 1 } else { u64::MAX / 2 });
                        model.insert(Entry { net, until, ports });
                        table.insert(net, &lease(until, ports)).unwrap();
                        let held = table.get(net).unwrap().unwrap();
                        prop_assert_eq!((held.until, held.ports), (until, ports));
                    }
                    Step::Remove(net) => {
                        let there = model.entries.iter().any(|entry| entry.net == net);
                        model.remove(net);
                        prop_assert_eq!(table.remove(net).unwrap(), there);
                        prop_assert_eq!(table.get(net).unwrap(), None);
                    }
                    Step::Allow(nets) => {
                        table.allow(&nets).unwrap();
                        model.allowed = nets;
                    }
                    Step::Pass(_) => {}
                    Step::Packet(spec) => {
                        let packet = spec.build();
                        if packet.bytes.len() <= SHORTEST {
                            continue;
                        }
                        let expected = model.drops(&packet, 1_000);
                        for (entry, drops) in verdicts(&mut programs, &packet.bytes, spec.raw) {
                            prop_assert_eq!(drops, expected, "{} {:?} {:?}", entry, spec, packet);
                            *(if drops { dropped.borrow_mut() } else { passed.borrow_mut() }) += 1;
                        }
                    }
                }
            }
            Ok(())
        });
        if let Err(error) = result {
            panic!("{error}");
        }
        let (passed, dropped) = (passed.into_inner(), dropped.into_inner());
        assert!(passed > 500 && dropped > 500, "{passed} passed, {dropped} dropped");
    });
}

#[test]
fn an_expired_lease_passes_without_anybody() {
    with_bpffs(|| {
        let mut programs = load::load(load::OBJECT).unwrap();
        let mut table = Table::open().unwrap();
        let net: Net = "192.0.2.7".parse().unwrap();
        let until = clock::boot().unwrap().0 + 300_000_000;
        table.insert(net, &lease(until, [0; 4])).unwrap();
        let packet = packet_from("192.0.2.7");
        let mut before = 0;
        loop {
            let drops = verdicts(&mut programs, &packet, false);
            let now = clock::boot().unwrap().0;
            if now < until {
                assert!(drops.iter().all(|(_, drops)| *drops), "{drops:?}");
                before += 1;
            } else if drops.iter().all(|(_, drops)| !*drops) {
                break;
            }
            assert!(now < until + 1_000_000_000, "it never ends: {drops:?}");
        }
        assert!(before > 0);
        assert!(table.get(net).unwrap().is_some(), "nobody took it out");
        assert!(table.get(net).unwrap().unwrap().packets >= 2 * before);
    });
}

#[test]
fn counters_tell_passed_allowed_and_dropped() {
    with_bpffs(|| {
        let mut programs = load::load(load::OBJECT).unwrap();
        let mut table = Table::open().unwrap();
        table.insert("192.0.2.0/24".parse().unwrap(), &lease(u64::MAX, [0; 4])).unwrap();
        table.allow(&["192.0.2.9/32".parse().unwrap()]).unwrap();
        for source in ["192.0.2.7", "192.0.2.9", "198.51.100.1"] {
            verdicts(&mut programs, &packet_from(source), false);
        }
        verdicts(&mut programs, &[0; 60], false);
        let stats = table.stats().unwrap();
        let dropped = stat::DROPPED + u32::from(reason::ADMINISTRATOR);
        for index in [dropped, stat::ALLOWED, stat::PASSED, stat::NOT_IP] {
            assert_eq!(stats.get(index), 2, "{index}");
        }
        assert_eq!(stats.get(stat::MALFORMED), 0);
        assert_eq!(table.allowed().unwrap().len(), 1);
    });
}

#[test]
fn samples_keep_their_pace_however_big_a_flood_is() {
    const FLOOD: u64 = 4_000;
    with_bpffs(|| {
        let mut programs = load::load(load::OBJECT).unwrap();
        let mut table = Table::open().unwrap();
        // A network: each packet of it is looked at.
        table.insert("192.0.2.0/24".parse().unwrap(), &lease(u64::MAX, [0; 4])).unwrap();
        let packet = packet_from("192.0.2.7");
        let processors = std::thread::available_parallelism().unwrap().get() as u64;
        for pace in [0, 10] {
            table.pace(pace).unwrap();
            let before = table.stats().unwrap();
            let begin = std::time::Instant::now();
            for _ in 0..FLOOD {
                let options = TestRunOptions { data_in: Some(&packet), ..TestRunOptions::default() };
                programs.classifier(load::TC).unwrap().test_run(options).unwrap();
            }
            let seconds = begin.elapsed().as_secs() + 2;
            let after = table.stats().unwrap();
            let [sampled, paced, lost] = [stat::SAMPLED, stat::PACED, stat::SAMPLES_LOST]
                .map(|index| after.get(index) - before.get(index));
            assert_eq!(sampled + paced + lost, FLOOD);
            assert!(sampled <= u64::from(pace) * processors * seconds, "{sampled} in {seconds} s");
            assert_eq!(sampled == 0, pace == 0);
        }
    });
}

#[test]
fn pins_of_the_filter_are_roots_alone_and_outlive_a_second_load() {
    with_bpffs(|| {
        drop(load::load(load::OBJECT).unwrap());
        let mut table = Table::open().unwrap();
        let net: Net = "2001:db8::1".parse().unwrap();
        table.insert(net, &lease(u64::MAX, [22, 0, 0, 0])).unwrap();
        assert_eq!(fs::metadata(FILTER_DIR).unwrap().permissions().mode() & 0o7777, 0o700);
        for pin in fs::read_dir(FILTER_DIR).unwrap() {
            let pin = pin.unwrap();
            assert_eq!(pin.metadata().unwrap().permissions().mode() & 0o7777, 0o600, "{:?}", pin.path());
        }
        drop(load::load(load::OBJECT).unwrap());
        assert_eq!(Table::open().unwrap().get(net).unwrap().unwrap().ports, [22, 0, 0, 0]);
        fs::rename(format!("{FILTER_DIR}/FILTER_STATS"), format!("{FILTER_DIR}/other")).unwrap();
        fs::rename(format!("{FILTER_DIR}/FILTER_PACE"), format!("{FILTER_DIR}/FILTER_STATS")).unwrap();
        let error = load::load(load::OBJECT).err().unwrap().to_string();
        assert!(error.contains("FILTER_STATS is none of this version's"), "{error}");
    });
}

/// A file system and a network of one's own.
fn with_network(test: impl FnOnce() + Send + 'static) {
    with_bpffs(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        test();
    });
}

fn run(line: &str) -> String {
    let mut words = line.split(' ');
    let output = std::process::Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn before_tcx_the_filter_hangs_on_clsact_and_leaves_others_alone() {
    with_network(|| {
        run("ip link add v0 type veth peer name v1");
        run("tc qdisc add dev v0 clsact");
        let mut others = load::load(load::OBJECT).unwrap();
        let mut foreign = |priority| {
            let options = NlOptions { priority, handle: TcHandle::new(0, 0x706f), classid: None };
            let program = others.classifier(load::RAW).unwrap();
            let options = TcAttachOptions::Netlink(options);
            program.attach_with_options("v0", TcAttachType::Ingress, options).unwrap();
        };
        foreign(7);
        let config = Filter { enabled: true, ..Filter::default() };
        let hooks = |places: &Places| places.all().map(|(_, place)| place.hook).collect::<Vec<_>>();
        let ours = || run("tc filter show dev v0 ingress").matches("name filter_tc").count();
        for _ in 0..2 {
            // The second time as an agent that starts again does it.
            let mut programs = load::load(load::OBJECT).unwrap();
            let mut places = Places::by(false);
            places.follow(&mut programs, &config, &links::list().unwrap(), true).unwrap();
            assert_eq!(hooks(&places), [Some(Hook::Clsact); 2], "{places:?}");
            drop(programs);
            assert_eq!(ours(), 1, "{}", run("tc filter show dev v0 ingress"));
        }
        attach::let_go().unwrap();
        assert_eq!(ours(), 0);
        assert!(run("tc filter show dev v0 ingress").contains(load::RAW), "somebody else's is gone");
        foreign(1);
        let mut programs = load::load(load::OBJECT).unwrap();
        let mut places = Places::by(false);
        places.follow(&mut programs, &config, &links::list().unwrap(), true).unwrap();
        let place = places.all().find(|(_, place)| place.name == "v0").unwrap().1.clone();
        assert!(place.hook.is_none() && place.problem.is_some(), "{place:?}");
    });
}

#[test]
fn the_store_gives_drops_back_with_what_is_left_of_their_time() {
    with_network(|| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("portcullis.toml");
        let store = folder.path().join("portcullis.db");
        let text = format!(
            "break_glass = false\n[filter]\nenabled = true\nallow = [\"192.0.2.9/32\"]\n[agent]\nstore = \"{}\"\n",
            store.display()
        );
        fs::write(&file, text).unwrap();
        let config = portcullis_agent::config::load(&file).unwrap().config;
        drop(portcullis_agent::store::Store::open(&store));
        let now = jiff::Timestamp::now();
        let hours = |hours| now + jiff::SignedDuration::from_hours(hours);
        let stored = |net: &str, since, until| StoredDrop {
            net: net.to_owned(),
            since,
            until,
            ports: vec![22],
            cause: "policy".to_owned(),
            reason: "kept".to_owned(),
            rule: 7,
        };
        DropStore::open(&store).set(&[
            stored("192.0.2.1", hours(-1), Some(hours(1))),
            stored("192.0.2.2", hours(-2), Some(hours(-1))),
            stored("192.0.2.0/24", hours(-1), None),
            // The clock was set back meanwhile.
            stored("2001:db8::/64", hours(5), Some(hours(6))),
        ]);
        task::bring_up(&config);
        let table = Table::open().unwrap();
        let held = |net: &str| table.get(net.parse().unwrap()).unwrap();
        let boot = clock::boot().unwrap().0;
        let left = |net: &str| (held(net).unwrap().until - boot) / 1_000_000_000;
        assert!((3_590..=3_600).contains(&left("192.0.2.1")), "{}", left("192.0.2.1"));
        assert!((3_590..=3_600).contains(&left("2001:db8::/64")), "never longer than it was given for");
        assert_eq!(held("192.0.2.2"), None, "its time is over");
        assert_eq!(held("192.0.2.0/24").unwrap().until, u64::MAX);
        let lease = held("192.0.2.1").unwrap();
        assert_eq!((lease.ports, lease.rule, lease.reason), ([22, 0, 0, 0], 7, reason::POLICY));
        assert!(table.allowed().unwrap().contains(&"192.0.2.9".parse().unwrap()));
        let nets: Vec<String> = DropStore::open(&store).all().into_iter().map(|drop| drop.net).collect();
        assert_eq!(nets.len(), 3, "{nets:?}");
    });
}

#[test]
fn the_verifier_has_room_left() {
    with_bpffs(|| {
        let mut programs = load::load(load::OBJECT).unwrap();
        let mut walked = Vec::new();
        for name in [load::TC, load::RAW] {
            let info = programs.classifier(name).unwrap().info().unwrap();
            walked.push((name, info.verified_instruction_count().unwrap()));
        }
        let info = programs.xdp().unwrap().info().unwrap();
        walked.push((load::XDP, info.verified_instruction_count().unwrap()));
        println!("walked by the verifier: {walked:?}");
        assert!(walked.iter().all(|(_, count)| *count < MOST_WALKED), "{walked:?}");
    });
}

#[test]
fn networks_of_more_lengths_than_are_looked_at_are_refused() {
    with_bpffs(|| {
        drop(load::load(load::OBJECT).unwrap());
        let mut table = Table::open().unwrap();
        let net = |length| Net::around("2001:db8::".parse().unwrap(), length);
        for length in 1..=32 {
            table.insert(net(length), &lease(u64::MAX, [0; 4])).unwrap();
        }
        let error = table.insert(net(40), &lease(u64::MAX, [0; 4])).unwrap_err().to_string();
        assert!(error.contains("32 different lengths"), "{error}");
        assert_eq!(table.settings().unwrap().nets, 32);
        // A new look at the same maps knows it too; one less makes room.
        let mut table = Table::open().unwrap();
        assert!(table.insert(net(40), &lease(u64::MAX, [0; 4])).is_err());
        assert!(table.remove(net(7)).unwrap());
        table.insert(net(40), &lease(u64::MAX, [0; 4])).unwrap();
    });
}
