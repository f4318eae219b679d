//! Throttles in the loaded filter on the running kernel, by BPF_PROG_TEST_RUN.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod bpffs;
#[path = "../../common/tests/filter_model/mod.rs"]
mod filter_model;

use aya::programs::{TestRun, TestRunOptions};
use bpffs::with_bpffs;
use jiff::{SignedDuration, Timestamp};
use portcullis_agent::clock;
use portcullis_agent::config::filter::{Filter, Interfaces};
use portcullis_agent::filter::Cause;
use portcullis_agent::filter::load::{self, Programs};
use portcullis_agent::filter::table::{DropTable as _, Table};
use portcullis_agent::filter::task;
use portcullis_agent::filter::throttle::table::ThrottleTable;
use portcullis_agent::filter::throttle::{Rate, Target, Throttle, Unit};
use portcullis_agent::store::Store;
use portcullis_agent::store::drops::DropStore;
use portcullis_agent::store::throttles::StoredThrottle;
use portcullis_policy::Boot;

const XDP_PASS: u32 = 2;
const HOUR: u64 = 3_600_000_000_000;

fn packet(source: &str, port: u16) -> Vec<u8> {
    filter_model::Spec::plain(source, 17, port).build().bytes
}

/// How many of 100 such packets pass.
fn passed(programs: &mut Programs, source: &str, port: u16) -> usize {
    let bytes = packet(source, port);
    let mut passes = || {
        let options = TestRunOptions { data_in: Some(&bytes), ..TestRunOptions::default() };
        programs.xdp().unwrap().test_run(options).unwrap().return_value == XDP_PASS
    };
    (0..100).filter(|_| passes()).count()
}

fn throttle(target: &str, rate: &str, burst: &str, until: Boot) -> Throttle {
    let (target, rate) = (target.parse().unwrap(), Rate::read(rate, Some(burst)).unwrap());
    Throttle { target, rate, until, cause: Cause::Administrator, reason: String::new() }
}

fn later() -> Boot {
    Boot(clock::boot().unwrap().0 + HOUR)
}

/// Makes these and no others hold.
fn hold(table: &mut ThrottleTable, throttles: &[Throttle]) {
    let mut led: Vec<(u16, Target, Unit)> = Vec::new();
    for (slot, throttle) in (1..).zip(throttles) {
        table.write(slot, throttle, clock::boot().unwrap()).unwrap();
        led.push((slot, throttle.target.clone(), throttle.rate.unit));
    }
    table.lead(&led, &[(1, "lo")]).unwrap();
}

#[test]
fn throttles_hold_back_what_they_are_for_and_nothing_else() {
    with_bpffs(|| {
        let mut programs = load::load(load::OBJECT).unwrap();
        let mut table = ThrottleTable::open().unwrap();
        for (target, rate) in [
            ("192.0.2.7", "1pps"),
            ("192.0.2.0/24", "1pps"),
            ("22", "1pps"),
            ("22", "1flows"),
            ("0.0.0.0/0", "1pps"),
        ] {
            hold(&mut table, &[throttle(target, rate, "7", later())]);
            let wanted = if rate == "1flows" { 100 } else { 7 };
            assert_eq!(passed(&mut programs, "192.0.2.7", 22), wanted, "{target} {rate}");
            let free = if target == "0.0.0.0/0" { 0 } else { 100 };
            assert_eq!(passed(&mut programs, "198.51.100.1", 23), free, "{target}");
            assert_eq!(passed(&mut programs, "2001:db8::1", 23), 100, "{target}");
            table.lead(&[], &[]).unwrap();
            table.empty(1).unwrap();
            assert_eq!(passed(&mut programs, "192.0.2.7", 22), 100, "no more: {target}");
        }
        hold(&mut table, &[throttle("192.0.2.0/24", "1pps", "7", later())]);
        let mut drops = Table::open().unwrap();
        drops.allow(&["192.0.2.7".parse().unwrap()]).unwrap();
        assert_eq!(passed(&mut programs, "192.0.2.7", 22), 100, "it is on the allow-list");
        assert_eq!(passed(&mut programs, "192.0.2.8", 22), 7, "and has taken nothing from the others");
        hold(&mut table, &[throttle("2001:db8::/48", "1pps", "7", later())]);
        assert_eq!(passed(&mut programs, "2001:db8::1", 22), 7);
        assert_eq!(passed(&mut programs, "2001:db8:1::1", 22), 100);
    });
}

#[test]
fn a_throttle_ends_in_the_kernel_itself() {
    with_bpffs(|| {
        let mut programs = load::load(load::OBJECT).unwrap();
        let mut table = ThrottleTable::open().unwrap();
        let soon = Boot(clock::boot().unwrap().0 + 500_000_000);
        hold(&mut table, &[throttle("192.0.2.7", "1pps", "7", soon)]);
        assert_eq!(passed(&mut programs, "192.0.2.7", 22), 7);
        while clock::boot().unwrap() <= soon {
            std::thread::yield_now();
        }
        assert_eq!(passed(&mut programs, "192.0.2.7", 22), 100);
    });
}

#[test]
fn a_renewed_throttle_keeps_what_is_left_and_its_counters() {
    with_bpffs(|| {
        let mut programs = load::load(load::OBJECT).unwrap();
        let mut table = ThrottleTable::open().unwrap();
        hold(&mut table, &[throttle("192.0.2.7", "1pps", "7", later())]);
        assert_eq!(passed(&mut programs, "192.0.2.7", 22), 7);
        hold(&mut table, &[throttle("192.0.2.7", "1pps", "7", Boot::NEVER)]);
        assert_eq!(passed(&mut programs, "192.0.2.7", 22), 0, "no new burst");
        hold(&mut table, &[throttle("192.0.2.7", "1pps", "9", Boot::NEVER)]);
        assert_eq!(passed(&mut programs, "192.0.2.7", 22), 9, "another rate begins full");
        let held = table.all().unwrap();
        assert_eq!((held.first().unwrap().passed.0, held.first().unwrap().limited.0), (16, 284));
    });
}

#[test]
fn the_store_gives_throttles_back_with_what_is_left_of_their_time() {
    with_bpffs(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("portcullis.db");
        drop(Store::open(&path));
        let now = Timestamp::now();
        let ago = |minutes: i64| now - SignedDuration::from_mins(minutes);
        let stored = |target: &str, until| StoredThrottle {
            target: target.to_owned(),
            unit: "packets".to_owned(),
            rate: 10,
            burst: 5,
            since: ago(30),
            until,
            cause: "administrator".to_owned(),
            reason: "kept".to_owned(),
        };
        let mut store = DropStore::open(&path);
        store.set_throttle(&stored("192.0.2.7", Some(ago(-30))));
        store.set_throttle(&stored("192.0.2.8", Some(ago(1))));
        store.set_throttle(&stored("22", None));
        store.set_throttle(&stored("nonsense/7", None));
        drop(store);
        let text = "break_glass = false\n";
        let host = portcullis_agent::config::Host::this();
        let mut config =
            portcullis_agent::config::parse_on(std::path::Path::new("p.toml"), text, &host).unwrap().config;
        config.filter =
            Filter { enabled: true, interfaces: Interfaces::Named(Vec::new()), ..Filter::default() };
        config.agent.store.clone_from(&path);
        task::bring_up(&config);
        let held = ThrottleTable::open().unwrap().all().unwrap();
        let mut targets: Vec<String> = held.iter().map(|held| held.throttle.target.to_string()).collect();
        targets.sort();
        assert_eq!(targets, ["192.0.2.7", "22"]);
        let one = held.iter().find(|held| held.throttle.target.to_string() == "192.0.2.7").unwrap();
        let left = one.throttle.until.0 - clock::boot().unwrap().0;
        assert!(left.abs_diff(HOUR / 2) < HOUR / 60, "{left}");
        assert_eq!(DropStore::open(&path).throttles().len(), 2);
    });
}
