//! Sources in the real gate: each test in a mount namespace and a bpffs of its own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

mod bpffs;

use bpffs::with_bpffs;
use portcullis_agent::event;
use portcullis_agent::kernel::{self, EventRing, SourceTables, Tables, gate};
use portcullis_common::abi::{self, Detail, Entry, UNKNOWN, flag, outcome, source, verdict};
use portcullis_common::client::Gate;
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
fn last(ring: &mut EventRing) -> abi::Event {
    event::decode(ring.drain(10_000).last().unwrap()).unwrap()
}

#[test]
fn failures_are_counted_for_their_source_and_told_with_the_event() {
    with_gate(|| {
        let mut ring = EventRing::open().unwrap();
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
        let mut ring = EventRing::open().unwrap();
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
        let mut ring = EventRing::open().unwrap();
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
        let mut ring = EventRing::open().unwrap();
        gate::attempt(local(1_000, 1_000), outcome::FAIL).unwrap();
        assert_eq!(last(&mut ring).source.failures, 0, "mistyping one's own password attacks nobody");
        gate::attempt(local(1_000, 1_001), outcome::FAIL).unwrap();
        assert_eq!(last(&mut ring).source.failures, 1);
    });
}

#[test]
fn a_refused_local_user_is_refused_everywhere_but_at_his_own_account() {
    with_gate(|| {
        let mut ring = EventRing::open().unwrap();
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
