//! Sources in the real gate: each test in a mount namespace and a bpffs of its own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

mod bpffs;

use bpffs::with_bpffs;
use portcullis_agent::event;
use portcullis_agent::kernel::{self, Ring, SourceTables, Tables, gate};
use portcullis_common::abi::{self, Detail, Entry, UNKNOWN, ask, flag, outcome, source, verdict};
use portcullis_common::client::Gate;
use portcullis_common::ledger::{Rule, rule_flag};
use portcullis_common::sources::SourceRule;

/// A fresh gate, and a runtime for its ring.
fn with_gate(test: impl FnOnce() + Send + 'static) {
    with_bpffs(|| {
        kernel::load(kernel::OBJECT).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _entered = runtime.enter();
        test();
    });
}

fn remote(number: u32, account: u64) -> Entry {
    let mut address = [0; 16];
    address[..4].copy_from_slice(&number.to_be_bytes());
    Entry { account, token: 0, detail: Detail { source: source::IPV4, address, pid: 7, ..Detail::EMPTY } }
}

fn local(uid: u32, account: u64) -> Entry {
    Entry { account, token: 0, detail: Detail { source: source::LOCAL, uid, ..Detail::EMPTY } }
}

/// The last event.
fn last(ring: &mut Ring) -> abi::Event {
    event::decode(ring.drain(10_000).last().unwrap()).unwrap()
}

#[test]
fn failures_are_counted_for_their_source_and_told_with_the_event() {
    with_gate(|| {
        let mut ring = Ring::events().unwrap();
        // Two wrong guesses each at two accounts and at a name nobody has: none reaches its own limit of 3.
        for account in [1_000, 1_001, UNKNOWN | 1_002] {
            gate::attempt(remote(0xc000_0207, account), outcome::FAIL).unwrap();
        }
        let told = last(&mut ring);
        let counts = told.source;
        assert_eq!((counts.failures, counts.accounts, counts.unknown, counts.tripped), (3, 3, 1, 0));
        gate::attempt(remote(0xc000_0207, 1_003), outcome::FAIL).unwrap();
        let told = last(&mut ring);
        assert_eq!((told.source.accounts, told.source.trips), (4, 1), "four accounts are a spray");
        assert_ne!(told.flags & flag::SOURCE_TRIPPED, 0);
        let tables = Tables::open().unwrap();
        assert_eq!(tables.stats().unwrap().source_trips, 1);
        let found =
            SourceTables::open().unwrap().source(&tables, source::IPV4, 0xc000_0207).unwrap().unwrap();
        assert_eq!((found.trips, found.last), (1, 4 | 4 << 8 | 1 << 16), "the scan finds what an event said");
    });
}

#[test]
fn a_refused_guess_counts_and_a_logon_takes_its_own_failures_off() {
    with_gate(|| {
        let mut ring = Ring::events().unwrap();
        gate::attempt(remote(7, 1_000), outcome::FAIL).unwrap();
        gate::attempt(remote(7, 1_001), outcome::FAIL).unwrap();
        assert_eq!(gate::attempt(remote(7, 1_001), outcome::PASS).unwrap().verdict, verdict::DONE);
        let counts = last(&mut ring).source;
        assert_eq!((counts.failures, counts.accounts, counts.passes), (1, 1, 1));
        gate::lock(1_000, u64::MAX, abi::cause::ADMINISTRATOR).unwrap();
        let refused = gate::attempt(remote(7, 1_000), outcome::FAIL).unwrap();
        assert_eq!(refused.verdict, verdict::LOCKED);
        assert_eq!(last(&mut ring).source.failures, 2);
    });
}

#[test]
fn reports_count_for_the_source_alone() {
    with_gate(|| {
        let mut ring = Ring::events().unwrap();
        let mut tables = SourceTables::open().unwrap();
        tables.set_rule(SourceRule { deny: 2, ..SourceRule::DEFAULT }).unwrap();
        gate::report(remote(9, UNKNOWN), outcome::FAIL).unwrap();
        gate::report(remote(9, UNKNOWN), outcome::FAIL).unwrap();
        let told = last(&mut ring);
        assert_eq!((told.kind, told.source.failures, told.source.trips), (abi::event::REPORTED, 2, 1));
        assert!(Tables::open().unwrap().occupancy().unwrap().iter().all(|table| table.used == 0));
    });
}

#[test]
fn local_users_are_sources_but_not_at_their_own_account() {
    with_gate(|| {
        let mut ring = Ring::events().unwrap();
        gate::attempt(local(1_000, 1_000), outcome::FAIL).unwrap();
        assert_eq!(last(&mut ring).source.failures, 0, "mistyping one's own password attacks nobody");
        gate::attempt(local(1_000, 1_001), outcome::FAIL).unwrap();
        assert_eq!(last(&mut ring).source.failures, 1);
    });
}

#[test]
fn a_refused_local_user_is_refused_everywhere_but_at_his_own_account() {
    with_gate(|| {
        let mut ring = Ring::events().unwrap();
        let mut tables = SourceTables::open().unwrap();
        tables.refuse(1_000, u64::MAX).unwrap();
        // root is never refused, whatever the table says.
        tables.refuse(0, u64::MAX).unwrap();
        assert_eq!(gate::attempt(local(1_000, 1_001), outcome::PASS).unwrap().verdict, verdict::LOCKED);
        let told = last(&mut ring);
        assert_ne!(told.flags & flag::ACTOR, 0);
        assert_eq!(gate::attempt(local(1_000, 1_000), outcome::PASS).unwrap().verdict, verdict::NOTHING);
        assert_eq!(gate::attempt(local(0, 1_001), outcome::FAIL).unwrap().verdict, verdict::DONE);
        assert_eq!(gate::attempt(local(1_002, 1_001), outcome::FAIL).unwrap().verdict, verdict::DONE);
        assert_eq!(gate::check(1_001).unwrap().failures, 2, "his guess touched nothing");
        // A lease that has run out is none.
        tables.refuse(1_000, 1).unwrap();
        assert_eq!(gate::attempt(local(1_000, 1_003), outcome::FAIL).unwrap().verdict, verdict::DONE);
        tables.allow(1_000).unwrap();
        assert_eq!(tables.refused(1_000).unwrap(), None);
    });
}

#[test]
fn a_flood_of_invented_sources_evicts_no_tripped_one_in_the_kernel() {
    with_gate(|| {
        let gate = Gate::open().unwrap();
        let report = |number: u32| {
            let mut request = abi::Request::new(abi::op::REPORT, 0);
            request.entry = remote(number, 1_000);
            request.arg = outcome::FAIL;
            assert_eq!(gate.call(&request).unwrap().verdict, verdict::DONE);
        };
        let tripped = 0xc000_0200..0xc000_0240;
        for number in tripped.clone() {
            (0..5).for_each(|_| report(number));
        }
        (0..1_000_000).for_each(report);
        let (tables, sources) = (Tables::open().unwrap(), SourceTables::open().unwrap());
        for number in tripped {
            let found = sources.source(&tables, source::IPV4, number.into()).unwrap();
            assert_eq!(found.map(|found| found.trips), Some(1), "{number:x} was evicted");
        }
        assert_eq!(tables.stats().unwrap().no_source, 0);
    });
}

/// Failures on the books of an IPv4 source, and its trips.
fn on_books(number: u32) -> (u32, u32) {
    let (tables, sources) = (Tables::open().unwrap(), SourceTables::open().unwrap());
    let found = sources.source(&tables, source::IPV4, u64::from(number)).unwrap();
    found.map_or((0, 0), |found| (found.held, found.trips))
}

/// Reserves a guess of that source, by this thread.
fn admit(gate: &Gate, number: u32, account: u64) -> u64 {
    let mut request = abi::Request::new(abi::op::ADMIT, account);
    request.entry = remote(number, account);
    let answer = gate.call(&request).unwrap();
    assert_eq!(answer.verdict, verdict::ADMITTED);
    answer.token
}

fn resolve(gate: &Gate, number: u32, account: u64, token: u64, result: u32) -> abi::Answer {
    let mut request = abi::Request::new(abi::op::RESOLVE, account);
    request.entry = remote(number, account);
    (request.entry.token, request.arg) = (token, result);
    gate.call(&request).unwrap()
}

/// A gate whose guesses lapse after a moment. `flags`: of the class.
fn with_short(flags: u32, test: impl FnOnce(Gate) + Send + 'static) {
    with_gate(move || {
        let rule = Rule { deny: 8, max_age: 50_000_000, flags, ..Rule::DEFAULT };
        Tables::open().unwrap().write_all(&[rule], &[], &[]).unwrap();
        test(Gate::open().unwrap());
    });
}

/// Until the guesses of before are too old: the kernel's clock is all there is to wait for.
fn grow_old() {
    std::thread::sleep(std::time::Duration::from_millis(60));
}

#[test]
fn each_guess_that_outlives_its_age_counts_for_its_own_source() {
    with_short(0, |gate| {
        let mut ring = Ring::events().unwrap();
        for number in [21, 22, 21, 23, 21] {
            admit(&gate, number, 1_000);
        }
        grow_old();
        assert_eq!(gate::check(1_000).unwrap().failures, 5);
        assert_eq!(last(&mut ring).lapsed, 5, "all in one call");
        assert_eq!([21, 22, 23].map(on_books), [(3, 0), (1, 0), (1, 0)]);
        // Beside a failure of another source, and with a trip of the account by it.
        for number in [21, 21, 22] {
            admit(&gate, number, 1_000);
        }
        grow_old();
        gate::attempt(remote(24, 1_000), outcome::FAIL).unwrap();
        let told = last(&mut ring);
        assert_eq!((told.kind, told.lapsed), (abi::event::REFUSED, 3), "the eighth failure has locked");
        assert_eq!([22, 23, 24].map(on_books), [(2, 0), (1, 0), (1, 0)]);
        assert_eq!(on_books(21), (0, 1), "five failures trip");
        assert_eq!(Tables::open().unwrap().stats().unwrap().source_trips, 1);
    });
}

#[test]
fn a_result_that_comes_late_counts_once() {
    with_short(0, |gate| {
        for (result, verdict) in [(outcome::FAIL, verdict::NOTHING), (outcome::PASS, verdict::NOTHING)] {
            let token = admit(&gate, 31, 1_000);
            grow_old();
            assert_eq!(resolve(&gate, 31, 1_000, token, result).verdict, verdict);
        }
        // The right one was too late: its account has it withdrawn, its source is not believed.
        assert_eq!(gate::check(1_000).unwrap().failures, 1);
        assert_eq!(on_books(31), (2, 0));
        // Found by somebody else first: still once.
        let token = admit(&gate, 31, 1_000);
        grow_old();
        gate::check(1_000).unwrap();
        resolve(&gate, 31, 1_000, token, outcome::FAIL);
        assert_eq!(on_books(31), (3, 0));
    });
}

#[test]
fn a_pairs_guess_that_outlives_its_age_counts_once() {
    with_short(rule_flag::PAIR, |gate| {
        let rule =
            Rule { deny: 8, pair_deny: 3, max_age: 50_000_000, flags: rule_flag::PAIR, ..Rule::DEFAULT };
        Tables::open().unwrap().write_all(&[rule], &[], &[]).unwrap();
        for (flags, number) in [(ask::PAIR, 41), (ask::PAIRED, 41), (ask::PAIR, 42), (ask::PAIRED, 42)] {
            let mut request = abi::Request::new(abi::op::ADMIT, 1_000);
            (request.entry, request.flags) = (remote(number, 1_000), flags);
            assert_eq!(gate.call(&request).unwrap().verdict, verdict::ADMITTED);
        }
        grow_old();
        for flags in [ask::PAIR, 0] {
            let mut request = abi::Request::new(abi::op::CHECK, 1_000);
            (request.entry, request.flags) = (remote(41, 1_000), flags);
            gate.call(&request).unwrap();
        }
        assert_eq!([41, 42].map(on_books), [(1, 0), (1, 0)]);
    });
}

#[test]
fn a_killed_guess_counts_for_its_source_in_monitor_mode_too() {
    with_short(rule_flag::MONITOR, |_gate| {
        let thread = std::thread::spawn(|| admit(&Gate::open().unwrap(), 51, 1_000));
        thread.join().unwrap();
        assert_eq!(on_books(51), (1, 0), "the thread has ended with its guess out");
        assert_eq!(gate::check(1_000).unwrap().failures, 1);
    });
}
