//! `scope = "pair"`: who guesses is shut out, whose account it is goes on. With the real su, sshd and sudo.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use std::path::Path;

use nix::sys::signal::Signal;
use portcullis_common::abi::{MAX_PAIRS, Request, ask, op, outcome, source, verdict};
use portcullis_common::client::Gate;
use portcullis_tests::agent;
use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::ssh::Sshd;
use portcullis_tests::stack::{must, without_delays};
use portcullis_tests::su::{self, KON, Su};
use portcullis_tests::system::{Counter, Hold, number, password, portcullis, run, wait_for, write};
use serde_json::Value;

const CONFIG: &str = r#"
break_glass = "admin"
[default]
scope = "pair"
deny = 3
account_deny = 6
fail_interval = "15m"
unlock_time = "10m"
"#;

const SETUP: Setup<'static> = Setup { config: Some(CONFIG), no_agent: false, bare: false };

/// Sources of `portcullis explain jon` with a lock, or all.
fn sources(locked: bool) -> Vec<Value> {
    let answer = portcullis(&["explain", "jon"]).unwrap();
    let pairs = answer["pairs"].as_array().cloned().unwrap_or_default();
    pairs.into_iter().filter(|pair| !locked || !pair["lock"].is_null()).collect()
}

fn wrong(count: usize) {
    for _ in 0..count {
        assert!(!su::attempt(KON, "jon", "wrong").unwrap().let_in);
    }
}

#[test]
fn who_guesses_is_shut_out_and_the_owner_goes_on() {
    if !enter("who_guesses_is_shut_out_and_the_owner_goes_on", &SETUP) {
        return;
    }
    without_delays().unwrap();
    let counter = Counter::install("").unwrap();
    let right = password("jon");
    wrong(3);
    assert_eq!(counter.guesses().unwrap(), 3);
    // Shut out, right password or wrong, and it costs jon nothing.
    for guess in [&right, "wrong", "wrong", "wrong", "wrong"] {
        let refused = su::attempt(KON, "jon", guess).unwrap();
        assert!(!refused.let_in);
        assert!(refused.output.contains("from here"), "{}", refused.output);
    }
    assert_eq!(counter.guesses().unwrap(), 3, "no guess of kon's is checked any more");
    assert_eq!(number("jon", "failures").unwrap(), 3);
    let locked = sources(true);
    assert_eq!(locked.len(), 1);
    assert_eq!(locked[0]["source"]["uid"], 2001);
    // The owner, by ssh and by su of his own.
    let sshd = Sshd::start(2222, "PasswordAuthentication yes").unwrap();
    assert!(sshd.logon("jon", "password", &right).unwrap(), "jon's own logon goes on");
    assert!(su::attempt(su::JON, "jon", &right).unwrap().let_in);
    // His login has cleared the account's failures, kon stays out.
    wait_for("the cleared failures", 5, || Ok(number("jon", "failures")? == 0)).unwrap();
    assert!(!su::attempt(KON, "jon", &right).unwrap().let_in);
    // The command line shows it, and undoes it.
    let (_, text) = run("portcullis", &["accounts"]).unwrap();
    assert!(text.contains("jon from kon (uid 2001)"), "{text}");
    let (_, text) = run("portcullis", &["unlock", "jon"]).unwrap();
    assert!(text.contains("sources let in again: 1"), "{text}");
    assert!(su::attempt(KON, "jon", &right).unwrap().let_in);
}

#[test]
fn many_sources_lock_the_account() {
    if !enter("many_sources_lock_the_account", &SETUP) {
        return;
    }
    without_delays().unwrap();
    let counter = Counter::install("").unwrap();
    // Six users, none of whom reaches his own limit.
    for uid in [3001, 3002, 3003] {
        for _ in 0..2 {
            assert!(!su::attempt(uid, "jon", "wrong").unwrap().let_in);
        }
    }
    assert_eq!(counter.guesses().unwrap(), 6);
    assert!(sources(true).is_empty());
    let account = portcullis(&["explain", "jon"]).unwrap();
    assert_eq!(account["row"]["lock"]["cause"], "trip");
    for uid in [3004, su::JON] {
        let refused = su::attempt(uid, "jon", &password("jon")).unwrap();
        assert!(!refused.let_in && refused.output.contains("The account is locked"), "{}", refused.output);
    }
    assert_eq!(counter.guesses().unwrap(), 6);
    // What the refused ones reserved for themselves was returned.
    assert!(sources(false).iter().all(|pair| pair["reservations"] == 0 && pair["failures"] == 2));
}

#[test]
fn a_guess_killed_in_the_check_counts_for_pair_and_account() {
    if !enter("a_guess_killed_in_the_check_counts_for_pair_and_account", &SETUP) {
        return;
    }
    let counter = Counter::install(Hold::WAIT).unwrap();
    let hold = Hold::begin().unwrap();
    let mut su = Su::start(KON, "jon").unwrap();
    su.wait_prompt().unwrap();
    su.submit("wrong").unwrap();
    wait_for("the guess in the check", 10, || Ok(counter.guesses()? == 1)).unwrap();
    su.signal(Signal::SIGKILL).unwrap();
    su.verdict().unwrap();
    assert_eq!(number("jon", "failures").unwrap(), 1);
    assert_eq!(number("jon", "reservations").unwrap(), 0);
    let pairs = sources(false);
    assert_eq!((&pairs[0]["failures"], &pairs[0]["reservations"]), (&1.into(), &0.into()));
    hold.end().unwrap();
}

#[test]
fn a_confirmed_login_clears_its_own_pair() {
    if !enter("a_confirmed_login_clears_its_own_pair", &SETUP) {
        return;
    }
    without_delays().unwrap();
    wrong(2);
    assert_eq!(sources(false)[0]["failures"], 2);
    assert!(su::attempt(KON, "jon", &password("jon")).unwrap().let_in);
    wait_for("the cleared pair", 5, || Ok(sources(false).is_empty())).unwrap();
    // sudo sets its real uid aside before it confirms.
    let sudo = |password: &str| {
        let mut command = std::process::Command::new("runuser");
        command.args(["-u", "kon", "--", "sudo", "-S", "-k", "-p", "Password:", "id"]);
        let mut sudo = Su::spawn(command).unwrap();
        sudo.wait_prompt().unwrap();
        sudo.submit(password).unwrap();
        sudo.verdict().unwrap().let_in
    };
    write(Path::new("/etc/sudoers.d/kon"), "kon ALL=(ALL) ALL\n").unwrap();
    let kons = || {
        let answer = portcullis(&["explain", "kon"]).unwrap();
        answer["pairs"].as_array().map_or(0, Vec::len)
    };
    assert!(!sudo("wrong"));
    assert_eq!(kons(), 1);
    assert!(sudo(&password("kon")));
    wait_for("the cleared pair", 5, || Ok(kons() == 0)).unwrap();
}

#[test]
fn who_is_shut_out_stays_so_over_a_new_gate() {
    if !enter("who_is_shut_out_stays_so_over_a_new_gate", &SETUP) {
        return;
    }
    without_delays().unwrap();
    wrong(3);
    wait_for("the lock in the store", 10, || {
        let (_, page) = run("curl", &["-s", "http://127.0.0.1:9456/metrics"])?;
        Ok(page.lines().any(|line| line == "portcullis_locks{kind=\"pair\"} 1"))
    })
    .unwrap();
    // As a reboot does it: the kernel has lost all.
    agent::kill_9().unwrap();
    must("rm", &["-r", "/sys/fs/bpf/portcullis"]).unwrap();
    #[allow(clippy::zombie_processes, reason = "it ends with the sandbox")]
    let _agent = agent::start().unwrap();
    let locked = sources(true);
    assert_eq!(locked.len(), 1);
    assert_eq!(locked[0]["lock"]["cause"], "restored");
    assert!(!su::attempt(KON, "jon", &password("jon")).unwrap().let_in);
    assert!(su::attempt(su::JON, "jon", &password("jon")).unwrap().let_in);
    // A class that counts no pairs any more lets everybody in.
    let file = Path::new("/etc/portcullis/portcullis.toml");
    write(file, &CONFIG.replace("scope = \"pair\"", "scope = \"account\"")).unwrap();
    must("portcullis", &["reload"]).unwrap();
    assert!(su::attempt(KON, "jon", &password("jon")).unwrap().let_in);
    wait_for("the end of the pair's row", 20, || Ok(sources(false).is_empty())).unwrap();
}

#[test]
fn a_full_table_of_pairs_leaves_the_accounts_limit() {
    let setup = Setup { config: Some(CONFIG), no_agent: true, bare: false };
    if !enter("a_full_table_of_pairs_leaves_the_accounts_limit", &setup) {
        return;
    }
    let gate = Gate::open().unwrap();
    let call = |op, account: u64, address: u32, flags| {
        let mut request = Request::new(op, account);
        request.flags = flags;
        request.entry.detail.source = source::IPV4;
        request.entry.detail.address[..4].copy_from_slice(&address.to_be_bytes());
        request
    };
    let ask = |op, account, address, flags| gate.call(&call(op, account, address, flags)).unwrap();
    // One source is shut out, one account is locked.
    for _ in 0..3 {
        let admitted = ask(op::ADMIT, 4001, 1, ask::PAIR);
        let mut fail = call(op::RESOLVE, 4001, 1, ask::PAIR);
        (fail.arg, fail.entry.token) = (outcome::FAIL, admitted.token);
        gate.call(&fail).unwrap();
    }
    let mut lock = call(op::LOCK, 4002, 0, 0);
    lock.until = u64::MAX;
    gate.call(&lock).unwrap();
    let flood = (2..MAX_PAIRS + 1_000)
        .filter(|address| ask(op::ADMIT, 4001, *address, ask::PAIR).verdict == verdict::ADMITTED);
    assert_eq!(flood.count() as u32, MAX_PAIRS - 1, "the table is bounded");
    assert_eq!(ask(op::ADMIT, 4001, 1, ask::PAIR).verdict, verdict::LOCKED, "still shut out");
    assert_eq!(ask(op::ADMIT, 4002, 0, ask::PAIRED).verdict, verdict::LOCKED, "still locked");
    // A source for which there is no room goes by the account's limit.
    assert_eq!(ask(op::ADMIT, 4003, u32::MAX, 0).verdict, verdict::PAIR);
    assert_eq!(ask(op::ADMIT, 4003, u32::MAX, ask::PAIR).verdict, verdict::UNCOUNTED);
    let let_in = (0..10)
        .filter(|address| ask(op::ADMIT, 4003, u32::MAX - address, ask::PAIRED).verdict == verdict::ADMITTED);
    assert_eq!(let_in.count(), 6, "account_deny");
}
