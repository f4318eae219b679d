//! Our units under the real systemd, as process 1 of a sandbox.

#![allow(clippy::unwrap_used, reason = "this is how a test fails, in its helpers too")]

use std::path::Path;

use portcullis_common::abi::PIN_GATE;
use portcullis_tests::inside::{Kind, SHORT, Setup, enter_a};
use portcullis_tests::next::{NEW, OLD, new_agent, new_module};
use portcullis_tests::stack::{must, without_delays};
use portcullis_tests::su::{self, JON, KON};
use portcullis_tests::system::{password, portcullis, run, shadow_locked, wait_for};
use portcullis_tests::{agent, ledger};

const GATE: &str = "portcullis-gate.service";
const AGENT: &str = "portcullisd.service";

/// One property of a unit.
fn property(unit: &str, name: &str) -> String {
    let text = must("systemctl", &["show", "--value", "--property", name, unit]).unwrap();
    text.trim().to_owned()
}

/// A moment of a unit, in microseconds since the boot; it has to have come.
fn moment(unit: &str, name: &str) -> u64 {
    let text = property(unit, &format!("{name}TimestampMonotonic"));
    let moment = text.parse().unwrap_or_default();
    assert!(moment > 0, "{unit} has no {name}: {text}");
    moment
}

fn active(unit: &str) -> bool {
    run("systemctl", &["is-active", "--quiet", unit]).unwrap().0
}

fn fail(user: &str) {
    assert!(!su::attempt(KON, user, "wrong").unwrap().let_in);
}

#[test]
fn the_gate_is_loaded_before_anybody_can_log_on() {
    if !enter_a(Kind::Systemd, "the_gate_is_loaded_before_anybody_can_log_on", &Setup::short()) {
        return;
    }
    let (_, said) = run("systemd-analyze", &["verify", GATE, AGENT]).unwrap();
    assert_eq!(said, "", "systemd has nothing to say about the units");
    let loaded = moment(GATE, "ExecMainExit");
    assert_eq!(property(GATE, "ExecMainStatus"), "0");
    // They really started, and later.
    for unit in ["ssh.service", "console-getty.service", "systemd-user-sessions.service", AGENT] {
        let started = moment(unit, "ExecMainStart");
        assert!(loaded < started, "{unit} started {} µs before the gate was loaded", loaded - started);
    }
    // By a rule, not by luck; so are those that are not here.
    let before = property(GATE, "Before");
    for unit in [
        "getty-pre.target",
        "systemd-user-sessions.service",
        "display-manager.service",
        "ssh.service",
        "ssh.socket",
    ] {
        assert!(before.split_whitespace().any(|word| word == unit), "{GATE} is not before {unit}: {before}");
    }
    for (unit, rule) in [
        ("user@2001.service", "systemd-user-sessions.service"),
        ("console-getty.service", "getty-pre.target"),
    ] {
        let after = property(unit, "After");
        assert!(after.split_whitespace().any(|word| word == rule), "{unit} is not after {rule}: {after}");
    }
    // The agent says itself when it is ready: whoever waits for the unit can ask at once.
    assert_eq!(property(AGENT, "Type"), "notify");
    must("systemctl", &["restart", AGENT]).unwrap();
    assert_eq!(portcullis(&["status"]).unwrap()["gate"], true);
    // A lock is no obstacle to a user's own units.
    must("portcullis", &["lock", "kon"]).unwrap();
    must("systemctl", &["start", "user@2001.service"]).unwrap();
    assert!(active("user@2001.service"));
    assert!(!su::attempt(KON, "kon", &password("kon")).unwrap().let_in);
}

#[test]
fn restarts_lose_no_count_and_no_lock_and_a_stop_lets_nobody_in() {
    if !enter_a(
        Kind::Systemd,
        "restarts_lose_no_count_and_no_lock_and_a_stop_lets_nobody_in",
        &Setup::short(),
    ) {
        return;
    }
    without_delays().unwrap();
    must("portcullis", &["lock", "kon", "--for", "1h"]).unwrap();
    fail("jon");
    fail("jon");
    let kon = ledger::of(KON).unwrap().locked_until;
    let kept = |what: &str| {
        let (jon, now) = (ledger::of(JON).unwrap(), ledger::of(KON).unwrap().locked_until);
        assert_eq!((jon.failures, jon.locked_until, now), (2, 0, kon), "after {what}");
    };
    must("systemctl", &["restart", AGENT]).unwrap();
    kept("a restart of the agent");
    let process = property(AGENT, "MainPID");
    agent::kill_9_and(|| {
        wait_for("another agent", 30, || Ok(active(AGENT) && property(AGENT, "MainPID") != process))
    })
    .unwrap();
    assert_eq!(property(AGENT, "NRestarts"), "1");
    kept("a kill of the agent");
    must("systemctl", &["restart", GATE]).unwrap();
    wait_for("the agent, which is started again with the gate", 30, || Ok(active(AGENT))).unwrap();
    kept("a restart of the gate");
    must("systemctl", &["stop", GATE]).unwrap();
    assert!(!active(AGENT), "it needs the gate's unit");
    assert!(Path::new(PIN_GATE).exists());
    kept("a stop of both");
    assert!(!su::attempt(KON, "kon", &password("kon")).unwrap().let_in, "with nothing running");
    fail("jon");
    assert!(ledger::locked(JON).unwrap(), "the third failure, with nothing running");
    must("systemctl", &["start", AGENT]).unwrap();
    assert!(active(GATE));
    assert!(ledger::locked(JON).unwrap());
    let (_, events) = run("portcullis", &["events"]).unwrap();
    assert!(events.contains("trip"), "what happened meanwhile is told: {events}");
}

#[test]
fn the_documented_upgrade_keeps_counts_and_locks() {
    if !enter_a(Kind::Systemd, "the_documented_upgrade_keeps_counts_and_locks", &Setup::short()) {
        return;
    }
    without_delays().unwrap();
    must("portcullis", &["lock", "kon"]).unwrap();
    fail("jon");
    fail("jon");
    new_module().unwrap();
    // The new module and the old gate.
    let jon = ledger::in_version(&OLD, JON).unwrap();
    assert!(!su::attempt(KON, "kon", &password("kon")).unwrap().let_in);
    new_agent().unwrap();
    must("systemctl", &["restart", GATE, AGENT]).unwrap();
    let carried = ledger::in_version(&NEW, JON).unwrap();
    assert_eq!((carried.failures, carried.locked_until), (jon.failures, 0), "{carried:?}");
    assert_eq!(jon.failures, 2);
    wait_for("the end of the old pins", 20, || Ok(!Path::new(OLD.folder).exists())).unwrap();
    assert!(!su::attempt(KON, "kon", &password("kon")).unwrap().let_in);
    fail("jon");
    assert_ne!(ledger::in_version(&NEW, JON).unwrap().locked_until, 0);
    // The command is the old one: it speaks to the agent, not to the gate.
    assert_eq!(portcullis(&["status"]).unwrap()["gate"], true);
}

#[test]
fn the_hardened_unit_can_lock_a_password_and_unlock_it() {
    let config = SHORT.replace("shadow_lock = false", "shadow_lock = true").replace("\"10m\"", "\"8s\"");
    let setup = Setup { config: Some(&config), ..Setup::default() };
    if !enter_a(Kind::Systemd, "the_hardened_unit_can_lock_a_password_and_unlock_it", &setup) {
        return;
    }
    assert_eq!(property(AGENT, "ProtectSystem"), "strict");
    assert_eq!(property(AGENT, "NoNewPrivileges"), "yes");
    without_delays().unwrap();
    (0..3).for_each(|_| fail("jon"));
    wait_for("the shadow lock", 20, || shadow_locked("jon")).unwrap();
    wait_for("its end", 40, || Ok(!shadow_locked("jon")?)).unwrap();
    assert!(su::attempt(KON, "jon", &password("jon")).unwrap().let_in);
    let (_, journal) = run("journalctl", &["--unit", AGENT, "--priority", "err", "--quiet"]).unwrap();
    assert_eq!(journal, "", "nothing was forbidden to it");
}
