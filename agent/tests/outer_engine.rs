//! The engine over the real gate: each test in a mount namespace and a bpffs of its own. No class here locks
//! passwords, so nothing of the host is touched.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

mod bpffs;
mod running;

use std::fs;
use std::path::Path;

use portcullis_agent::api::view::{Actor, Until};
use portcullis_agent::engine;
use portcullis_agent::engine::command::{Command, CommandError};
use portcullis_agent::kernel::{self, Loaded, Ring, Tables};
use portcullis_common::abi::{cause, outcome, verdict};
use running::{CONFIG, DAEMON, NOBODY, alone, config, freeze, guess, start, store, trip};

#[test]
fn a_trip_is_explained_and_released() {
    alone(async |folder| {
        let mut agent = start(&folder);
        trip();
        let tripped = agent.event("tripped").await;
        let Some(Actor::Local { uid: DAEMON, .. }) = tripped.actor else { panic!("{tripped:?}") };
        assert_eq!(guess(Some(outcome::PASS)), verdict::LOCKED);
        agent.event("refused").await;
        let explained = agent.explain().await;
        let lock = explained.row.lock.unwrap();
        assert_eq!(lock.cause, "trip");
        assert!(matches!(lock.until, Until::At(end) if end > lock.since));
        let outcomes: Vec<&str> = explained.attempts.iter().map(|kept| kept.outcome.as_str()).collect();
        assert_eq!(outcomes, ["refused", "fail", "fail", "fail"]);
        assert_eq!(explained.attempts.first().unwrap().tty, "pts/\\x1b[2J");
        let done = agent.handle.ask(|reply| Command::Unlock { uid: NOBODY, reply }).await.unwrap();
        assert_eq!(done.problems, Vec::<String>::new());
        assert!(done.row.unwrap().lock.is_none());
        assert_eq!(guess(Some(outcome::PASS)), verdict::DONE);
        agent.event("pass").await;
        let page = agent.metrics.page().unwrap();
        for line in [
            "portcullis_attempts_total{outcome=\"fail\",service=\"su\"} 3",
            "portcullis_attempts_total{outcome=\"refused\",service=\"su\"} 1",
            "portcullis_trips_total 1",
            "portcullis_actions_total{action=\"gate_unlock\",result=\"verified\"} 1",
            "portcullis_locks{kind=\"gate\"} 0",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
        agent.stop().await;
    });
}

#[test]
fn what_happened_while_no_agent_ran_is_made_up_for() {
    alone(async |folder| {
        start(&folder).stop().await;
        trip();
        let mut agent = start(&folder);
        agent.event("tripped").await;
        assert_eq!(agent.explain().await.attempts.len(), 3);
        agent.stop().await;
    });
}

#[test]
fn a_trip_whose_event_was_lost_is_found_by_the_scan() {
    alone(async |folder| {
        start(&folder).stop().await;
        trip();
        assert_eq!(Ring::events().unwrap().drain(100).len(), 3);
        let mut agent = start(&folder);
        let tripped = agent.event("tripped").await;
        assert_eq!(tripped.actor, None);
        agent.stop().await;
        assert_eq!(store(&folder).locks().len(), 1);
    });
}

#[test]
fn locks_are_given_back_to_a_gate_that_lost_them_and_only_then() {
    alone(async |folder| {
        let mut agent = start(&folder);
        trip();
        let until = agent.event("tripped").await.locked_until.unwrap();
        agent.stop().await;
        // As after a reboot.
        fs::remove_dir_all("/sys/fs/bpf/portcullis").unwrap();
        let store = store(&folder);
        let loaded = kernel::load(kernel::OBJECT).unwrap();
        assert_eq!(engine::bring_up(&config(&folder), loaded, &store).unwrap().restored, 1);
        assert_eq!(engine::bring_up(&config(&folder), loaded, &store).unwrap().restored, 0);
        drop(store);
        assert_eq!(guess(Some(outcome::PASS)), verdict::LOCKED);
        let agent = start(&folder);
        let lock = agent.explain().await.row.lock.unwrap();
        assert_eq!(lock.cause, "restored");
        let (Until::At(before), Until::At(after)) = (until, lock.until) else { panic!("{lock:?}") };
        assert!(after.duration_since(before).abs() < jiff::SignedDuration::from_secs(1), "{before} {after}");
        agent.stop().await;
        // Released while no agent runs: not locked again.
        kernel::gate::unlock(u64::from(NOBODY)).unwrap();
        let agent = start(&folder);
        assert!(agent.explain().await.row.lock.is_none());
        agent.stop().await;
        assert!(store_is_empty(&folder));
    });
}

/// The next lock is twice as long as the last one before the gate was lost.
#[test]
fn a_row_of_trips_is_given_back_to_a_gate_that_lost_it() {
    alone(async |folder| {
        let text = CONFIG.replace("\"10m\"", "\"10m\"\nbackoff_window = \"1h\"");
        fs::write(folder.join("portcullis.toml"), text).unwrap();
        let mut agent = start(&folder);
        trip();
        agent.event("tripped").await;
        agent.stop().await;
        fs::remove_dir_all("/sys/fs/bpf/portcullis").unwrap();
        let mut agent = start(&folder);
        let row = || Tables::open().unwrap().row(u64::from(NOBODY)).unwrap().unwrap().ledger;
        assert_eq!((row().level, row().cause), (0, cause::RESTORED));
        let minutes = |time: u64| time.saturating_sub(row().newest) / 60_000_000_000;
        assert_eq!((minutes(row().locked_until), minutes(row().climb_until)), (9, 69));
        // Its lock is over, not the window: as time passes, but without waiting for it.
        kernel::gate::restore(
            u64::from(NOBODY),
            kernel::gate::Known { until: 0, climb_until: row().climb_until, level: row().level, soft: false },
        )
        .unwrap();
        trip();
        agent.event("tripped").await;
        assert_eq!((row().level, minutes(row().locked_until)), (1, 20));
        agent.stop().await;
    });
}

fn store_is_empty(folder: &Path) -> bool {
    store(folder).locks().is_empty()
}

#[test]
fn reservations_that_nobody_resolves_lapse_by_the_scan() {
    alone(async |folder| {
        let mut agent = start(&folder);
        assert_eq!(guess(None), verdict::ADMITTED);
        let due = agent.event("due").await;
        assert_eq!(due.failures, Some(1));
        let Some(Actor::Local { uid: DAEMON, .. }) = due.actor else { panic!("{due:?}") };
        assert_eq!(agent.explain().await.attempts.first().unwrap().outcome, "lapsed");
        agent.stop().await;
    });
}

#[test]
fn a_configuration_with_an_error_changes_nothing() {
    alone(async |folder| {
        let agent = start(&folder);
        let before = Tables::open().unwrap().settings().unwrap();
        let path = folder.join("portcullis.toml");
        fs::write(&path, CONFIG.replace("deny = 3", "deny = -1")).unwrap();
        let error = agent.handle.ask(Command::Reload).await.unwrap_err();
        assert!(matches!(&error, CommandError::Config(text) if text.contains("deny")), "{error}");
        assert_eq!(Tables::open().unwrap().settings().unwrap(), before);
        fs::write(&path, CONFIG.replace("deny = 3", "deny = 2")).unwrap();
        agent.handle.ask(Command::Reload).await.unwrap();
        assert_eq!(Tables::open().unwrap().settings().unwrap().generation, before.generation + 1);
        assert_eq!(agent.explain().await.rule.deny, 2);
        agent.stop().await;
    });
}

#[test]
fn exempt_accounts_are_never_locked() {
    alone(async |folder| {
        let agent = start(&folder);
        let error =
            agent.handle.ask(|reply| Command::Lock { uid: 0, seconds: None, reply }).await.unwrap_err();
        assert!(matches!(error, CommandError::Exempt(_)), "{error}");
        let error = agent
            .handle
            .ask(|reply| Command::Lock { uid: 4_000_000_000, seconds: None, reply })
            .await
            .unwrap_err();
        assert_eq!(error, CommandError::NoSuchAccount(4_000_000_000));
        agent.stop().await;
    });
}

#[test]
fn a_gate_that_is_taken_away_is_told() {
    alone(async |folder| {
        let mut agent = start(&folder);
        fs::remove_file("/sys/fs/bpf/portcullis/v1/gate").unwrap();
        let told = agent.event("gate_gone").await.detail.unwrap();
        assert!(told.contains("v1/gate is missing") && told.contains("portcullisd"), "{told}");
        agent.assert_gate_problem("v1/gate is missing").await;
        agent.stop().await;
        // Not loaded again by itself: that is the way out.
        assert!(!kernel::gate_pinned());
    });
}

#[test]
fn a_frozen_gate_is_told() {
    alone(async |folder| {
        let mut agent = start(&folder);
        assert_eq!(agent.handle.ask(Command::Health).await, Ok(()));
        freeze(1);
        agent.event("gate_gone").await;
        agent.assert_gate_problem("it is frozen").await;
        freeze(0);
        agent.event("gate_back").await;
        assert_eq!(agent.handle.ask(Command::Health).await, Ok(()));
        assert!(agent.metrics.page().unwrap().contains("portcullis_gate_loaded 1\n"));
        agent.stop().await;
    });
}

#[test]
fn a_reload_names_what_needs_a_restart_until_it_is_done() {
    alone(async |folder| {
        let agent = start(&folder);
        let path = folder.join("portcullis.toml");
        let keys = ["metrics.listen", "agent.socket", "agent.store"];
        let changed = CONFIG.replace("listen = false", "listen = \"127.0.0.1:9457\"")
            + "socket = \"/run/other.sock\"\nstore = \"/run/other.db\"\npasswd_timeout = \"7s\"\n";
        fs::write(&path, changed).unwrap();
        for _ in 0..2 {
            let problems = agent.handle.ask(Command::Reload).await.unwrap().problems;
            assert_eq!(problems.len(), keys.len(), "{problems:?}");
            for (problem, key) in problems.iter().zip(keys) {
                assert!(problem.starts_with(key) && problem.contains("restarted"), "{problem}");
            }
        }
        fs::write(&path, CONFIG).unwrap();
        assert_eq!(agent.handle.ask(Command::Reload).await.unwrap().problems, Vec::<String>::new());
        agent.stop().await;
    });
}

#[test]
fn a_gate_that_runs_is_kept() {
    alone(async |folder| {
        start(&folder).stop().await;
        assert_eq!(kernel::load_if_missing(kernel::OBJECT).unwrap(), Loaded::Kept);
        fs::remove_file("/sys/fs/bpf/portcullis/v1/gate").unwrap();
        assert_eq!(kernel::load_if_missing(kernel::OBJECT).unwrap(), Loaded::Fresh);
    });
}
