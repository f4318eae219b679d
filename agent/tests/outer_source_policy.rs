//! The engine and the policy for sources over the real gate: each test in a mount namespace and a bpffs of its own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

mod bpffs;
mod running;

use std::fs;
use std::path::Path;

use portcullis_agent::api::sources::ReportRequest;
use portcullis_agent::api::view::Actor;
use portcullis_agent::engine::command::Command;
use portcullis_agent::kernel::{Ring, gate};
use portcullis_common::abi::{Detail, Entry, outcome, source, verdict};
use running::{CONFIG, DAEMON, NOBODY, alone, start};

/// Two accounts are many here.
fn configure(folder: &Path, sc5: &str) {
    let text = format!("{CONFIG}[sc5]\naccounts = 2\n{sc5}\n");
    fs::write(folder.join("portcullis.toml"), text).unwrap();
}

/// A wrong guess of the user daemon at an account.
fn guess_at(account: u32) -> u32 {
    let detail = Detail { source: source::LOCAL, uid: DAEMON, ..Detail::EMPTY };
    gate::attempt(Entry { account: account.into(), token: 0, detail }, outcome::FAIL).unwrap().verdict
}

#[test]
fn a_local_user_who_tries_many_accounts_is_refused_until_his_time_is_over() {
    alone(async |folder| {
        configure(&folder, "local = \"refuse\"\ndrop_time = \"2s\"");
        let mut agent = start(&folder);
        assert_eq!(guess_at(NOBODY), verdict::DONE);
        assert_eq!(guess_at(NOBODY + 1), verdict::DONE);
        let told = agent.event("source_tripped").await;
        let Some(Actor::Local { uid: DAEMON, .. }) = told.actor else { panic!("{told:?}") };
        let done = agent.event("source_refused").await;
        assert_eq!(done.result.as_deref(), Some("verified"));
        assert_eq!(guess_at(NOBODY), verdict::LOCKED);
        let row = agent.handle.ask(Command::Sources).await.unwrap().pop().unwrap();
        assert!(row.answered && row.acted, "{row:?}");
        assert_eq!(row.class.as_deref(), Some("local"));
        agent.event("source_ended").await;
        assert_eq!(guess_at(NOBODY), verdict::DONE);
        let page = agent.metrics.page().unwrap();
        for line in [
            "portcullis_source_trips_total{class=\"local\",answer=\"answered\"} 1",
            "portcullis_sources{state=\"answered\"} 0",
            "portcullis_actions_total{action=\"source_refused\",result=\"verified\"} 1",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
        agent.stop().await;
    });
}

#[test]
fn a_trip_of_a_source_whose_event_was_lost_is_found_by_the_scan() {
    alone(async |folder| {
        configure(&folder, "local = \"refuse\"");
        start(&folder).stop().await;
        guess_at(NOBODY);
        guess_at(NOBODY + 1);
        assert_eq!(Ring::events().unwrap().drain(100).len(), 2);
        let mut agent = start(&folder);
        agent.event("source_refused").await;
        assert_eq!(guess_at(NOBODY), verdict::LOCKED);
        agent.stop().await;
    });
}

#[test]
fn what_is_known_of_sources_outlives_agent_and_gate() {
    alone(async |folder| {
        configure(&folder, "local = \"refuse\"");
        let mut agent = start(&folder);
        guess_at(NOBODY);
        guess_at(NOBODY + 1);
        agent.event("source_refused").await;
        agent.stop().await;
        // As after a reboot: the gate has lost all.
        fs::remove_dir_all("/sys/fs/bpf/portcullis").unwrap();
        let mut agent = start(&folder);
        agent.event("source_refused").await;
        assert_eq!(guess_at(NOBODY), verdict::LOCKED);
        let row = agent.handle.ask(Command::Sources).await.unwrap().pop().unwrap();
        assert_eq!(row.repeats, 1);
        // So does an administrator.
        let done = agent.handle.ask(|reply| Command::Unlock { uid: DAEMON, reply }).await.unwrap();
        assert!(done.message.contains("is let try other accounts again"), "{done:?}");
        agent.stop().await;
        // He stays free when it is started again.
        let mut agent = start(&folder);
        assert_eq!(guess_at(NOBODY), verdict::DONE);
        guess_at(NOBODY + 1);
        agent.event("source_refused").await;
        assert_eq!(guess_at(NOBODY), verdict::LOCKED);
        let row = agent.handle.ask(Command::Sources).await.unwrap().pop().unwrap();
        assert_eq!(row.repeats, 2);
        // A configuration that asks for less lets him go, at a start as at a reload.
        configure(&folder, "local = \"monitor\"");
        agent.stop().await;
        let agent = start(&folder);
        agent.handle.ask(Command::Sources).await.unwrap();
        assert_eq!(guess_at(NOBODY), verdict::DONE);
        agent.stop().await;
    });
}

#[test]
fn a_report_counts_for_source_and_account_and_a_drop_without_a_filter_is_told() {
    alone(async |folder| {
        configure(&folder, "spray = \"drop\"");
        let mut agent = start(&folder);
        for account in [None, Some(NOBODY)] {
            let report = ReportRequest {
                source: "::ffff:192.0.2.7".parse().unwrap(),
                account,
                service: "web".to_owned(),
                pass: false,
            };
            let done = agent.handle.ask(|reply| Command::Report(report, reply)).await.unwrap();
            assert_eq!(done.message, "192.0.2.7: counted");
        }
        assert_eq!(agent.explain().await.row.failures, 1);
        let told = agent.event("source_tripped").await;
        assert_eq!(told.actor, Some(Actor::Remote { address: "192.0.2.7".to_owned() }));
        assert!(told.detail.unwrap().starts_with("spray: 2 failed logons at 2 accounts"));
        let failed = agent.event("source_failed").await;
        assert_eq!(failed.actor, Some(Actor::Remote { address: "192.0.2.7".to_owned() }));
        agent.stop().await;
    });
}
