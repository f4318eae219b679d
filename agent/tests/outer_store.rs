//! What the engine keeps in the store and tells of it, over the real gate: each test in a mount namespace and a bpffs of
//! its own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

mod bpffs;
mod running;

use std::fs;

use portcullis_agent::engine;
use portcullis_agent::engine::command::Command;
use portcullis_agent::kernel::{self, Loaded, Tables, gate};
use portcullis_agent::store::Told;
use running::{Agent, CONFIG, NOBODY, alone, config, start, store, trip};

/// The configuration with a lock of one second.
fn brief() -> String {
    CONFIG.replace("unlock_time = \"10m\"", "unlock_time = \"1s\"")
}

/// The gate with the rules of the file, as before the agent starts.
fn gate_alone(folder: &std::path::Path) {
    let loaded = kernel::load_if_missing(kernel::OBJECT).unwrap();
    engine::bring_up(&config(folder), loaded, &store(folder)).unwrap();
}

/// Waits for the end of nobody's lock, which the gate tells of by an event at the call that finds it.
fn wait_for_the_end_of_the_lock() {
    while gate::check(u64::from(NOBODY)).unwrap().locked_until != 0 {
        std::thread::yield_now();
    }
}

/// How often a trip is told up to the end of the lock.
async fn told(agent: &mut Agent) -> usize {
    let mut told = 0;
    loop {
        let event = agent.events.recv().await.unwrap();
        told += usize::from(event.event == "tripped");
        if event.detail.as_ref().is_some_and(|detail| detail.contains("a lock had run out")) {
            break;
        }
    }
    // What the last record led to has been told when the engine answers.
    agent.handle.ask(Command::Status).await.unwrap();
    while let Ok(event) = agent.events.try_recv() {
        told += usize::from(event.event == "tripped");
    }
    told
}

#[test]
fn a_trip_that_was_told_before_is_not_told_again() {
    alone(async |folder| {
        fs::write(folder.join("portcullis.toml"), brief()).unwrap();
        for (known, expected) in [(None, 1), (Some(1), 0), (Some(0), 1)] {
            gate_alone(&folder);
            trip();
            let until = Tables::open().unwrap().row(u64::from(NOBODY)).unwrap().unwrap().ledger.locked_until;
            wait_for_the_end_of_the_lock();
            let mut store = store(&folder);
            match known {
                Some(trips) => store.set_told(NOBODY, Told { trips, until }),
                None => assert_eq!(store.told(NOBODY), None),
            }
            drop(store);
            let mut agent = start(&folder);
            assert_eq!(told(&mut agent).await, expected, "{known:?}");
            agent.stop().await;
            let mut store = running::store(&folder);
            assert_eq!(store.told(NOBODY), Some(Told { trips: 1, until }));
            assert!(store.locks().is_empty(), "a lock that is over is not kept");
            store.forget_told(NOBODY);
            drop(store);
            // A gate that counts anew.
            fs::remove_dir_all("/sys/fs/bpf/portcullis").unwrap();
        }
    });
}

#[test]
fn a_trip_of_a_gate_that_counts_anew_is_told() {
    alone(async |folder| {
        fs::write(folder.join("portcullis.toml"), brief()).unwrap();
        for _ in 0..2 {
            let mut agent = start(&folder);
            trip();
            agent.event("tripped").await;
            agent.event("released").await;
            agent.stop().await;
            fs::remove_dir_all("/sys/fs/bpf/portcullis").unwrap();
        }
    });
}

#[test]
fn a_second_trip_while_no_agent_ran_is_told() {
    alone(async |folder| {
        let path = folder.join("portcullis.toml");
        fs::write(&path, brief()).unwrap();
        let mut agent = start(&folder);
        trip();
        agent.event("tripped").await;
        agent.stop().await;
        wait_for_the_end_of_the_lock();
        // The lock of the second trip holds when the agent starts, and the store still holds the first.
        fs::write(&path, CONFIG).unwrap();
        engine::bring_up(&config(&folder), Loaded::Kept, &store(&folder)).unwrap();
        trip();
        let mut agent = start(&folder);
        agent.event("tripped").await;
        agent.stop().await;
        assert_eq!(store(&folder).told(NOBODY).unwrap().trips, 2);
    });
}

#[test]
fn a_damaged_store_is_an_alarm_until_it_is_taken_away() {
    alone(async |folder| {
        let place = folder.join("store");
        fs::create_dir(&place).unwrap();
        fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        fs::write(place.join("portcullis.db"), "this was a database once, it is not any more").unwrap();
        for _ in 0..2 {
            let mut agent = start(&folder);
            let told = agent.event("store_set_aside").await.detail.unwrap();
            assert!(told.contains("portcullis.db.damaged-"), "{told}");
            let status = agent.handle.ask(Command::Status).await.unwrap();
            assert_eq!((status.store_degraded, status.store_set_aside.len()), (None, 1));
            assert!(agent.metrics.page().unwrap().contains("portcullis_store_set_aside 1\n"));
            agent.stop().await;
        }
        let agent = start(&folder);
        for file in store(&folder).set_aside() {
            fs::remove_file(file).unwrap();
        }
        let status = agent.handle.ask(Command::Status).await.unwrap();
        assert!(status.store_set_aside.is_empty());
        agent.stop().await;
    });
}

#[test]
fn a_store_that_cannot_be_used_is_an_alarm() {
    alone(async |folder| {
        fs::write(folder.join("store"), "no folder").unwrap();
        let mut agent = start(&folder);
        assert!(agent.event("store_degraded").await.detail.unwrap().contains("memory stands in"));
        assert!(agent.handle.ask(Command::Status).await.unwrap().store_degraded.is_some());
        assert!(agent.metrics.page().unwrap().contains("portcullis_store_degraded 1\n"));
        agent.stop().await;
    });
}
