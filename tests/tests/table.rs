//! Every rung of the lock ladder, released in every way: climbed by real wrong logons, read back in the real system, undone
//! exactly.
//!
//! One row of the table is one account with a class of its own, so that their locks run side by side.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use portcullis_common::abi::{Request, op, outcome, verdict};
use portcullis_common::client::Gate;
use portcullis_common::ledger::NEVER;
use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::stack::{must, without_delays};
use portcullis_tests::su::{self, KON};
use portcullis_tests::system::{password, portcullis, read, run, wait_for, write};
use portcullis_tests::users::add_like_jon;
use portcullis_tests::{ledger, pamtester};

/// A rung, from the lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rung {
    Delay,
    Restrict,
    Lock,
    Shadow,
    Expire,
    Sessions,
}

/// What releases it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// Its time.
    Timer,
    /// An administrator; it has no end of its own.
    Admin,
    /// An administrator, before its time.
    Both,
}

/// What an administrator had set before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Had {
    Nothing,
    /// `passwd -l`.
    Lock,
    /// `chage -E 30000`.
    Date,
}

#[rustfmt::skip]
const TABLE: &[(&str, Rung, By, Had)] = &[
    ("u01", Rung::Delay,    By::Timer, Had::Nothing),
    ("u02", Rung::Delay,    By::Admin, Had::Nothing),
    ("u03", Rung::Delay,    By::Both,  Had::Nothing),
    ("u04", Rung::Restrict, By::Timer, Had::Nothing),
    ("u05", Rung::Restrict, By::Admin, Had::Nothing),
    ("u06", Rung::Restrict, By::Both,  Had::Nothing),
    ("u07", Rung::Lock,     By::Timer, Had::Nothing),
    ("u08", Rung::Lock,     By::Admin, Had::Nothing),
    ("u09", Rung::Lock,     By::Both,  Had::Nothing),
    ("u10", Rung::Shadow,   By::Timer, Had::Nothing),
    ("u11", Rung::Shadow,   By::Admin, Had::Nothing),
    ("u12", Rung::Shadow,   By::Both,  Had::Nothing),
    ("u13", Rung::Shadow,   By::Timer, Had::Lock),
    ("u14", Rung::Shadow,   By::Admin, Had::Lock),
    ("u15", Rung::Shadow,   By::Both,  Had::Date),
    ("u16", Rung::Expire,   By::Timer, Had::Nothing),
    ("u17", Rung::Expire,   By::Admin, Had::Nothing),
    ("u18", Rung::Expire,   By::Both,  Had::Nothing),
    ("u19", Rung::Expire,   By::Timer, Had::Date),
    ("u20", Rung::Expire,   By::Admin, Had::Date),
    ("u21", Rung::Expire,   By::Both,  Had::Lock),
    ("u22", Rung::Sessions, By::Timer, Had::Nothing),
    ("u23", Rung::Sessions, By::Admin, Had::Nothing),
    ("u24", Rung::Sessions, By::Both,  Had::Date),
];

/// Long enough to be read back on a busy machine.
const TIME: u64 = 60;
const FIRST_UID: u32 = 4001;

struct Account {
    name: &'static str,
    uid: u32,
    rung: Rung,
    by: By,
    had: Had,
    /// A process of his.
    process: Child,
}

fn class(name: &str, rung: Rung, by: By) -> String {
    let time = if by == By::Admin { "\"never\"".to_owned() } else { format!("\"{TIME}s\"") };
    let rest = match rung {
        // It ends with the failures it is for.
        Rung::Delay if by == By::Admin => "deny = 5\ndelay = \"2s\"\nfail_interval = \"1h\"".to_owned(),
        Rung::Delay => format!("deny = 5\ndelay = \"2s\"\nfail_interval = {time}"),
        Rung::Restrict => "restrict = { ttys = [\"tty7\"] }".to_owned(),
        Rung::Lock => String::new(),
        Rung::Shadow => "shadow_lock = true".to_owned(),
        Rung::Expire => {
            "expire_after_trips = 1\nbackoff_window = \"1m\"\nmax_unlock_time = \"1h\"".to_owned()
        }
        Rung::Sessions => {
            "end_sessions_after_trips = 1\nbackoff_window = \"1m\"\nmax_unlock_time = \"1h\"".to_owned()
        }
    };
    let deny = if rung == Rung::Delay { "" } else { "deny = 2\n" };
    format!("[[class]]\nname = \"{name}\"\nusers = [\"{name}\"]\nunlock_time = {time}\n{deny}{rest}\n")
}

fn fields(user: &str) -> Vec<String> {
    let shadow = read(Path::new("/etc/shadow")).unwrap();
    let line = shadow.lines().find(|line| line.starts_with(&format!("{user}:"))).unwrap();
    line.split(':').map(str::to_owned).collect()
}

/// Result of an action on an account.
fn acted(user: &str, action: &str, result: &str) {
    wait_for(&format!("{user}: {action} {result}"), 30, || {
        let explained = portcullis(&["explain", user])?;
        let actions = explained["actions"].as_array().cloned().unwrap_or_default();
        Ok(actions.iter().any(|kept| kept["action"] == action && kept["result"] == result))
    })
    .unwrap();
}

/// What the gate answers a guess, which is returned.
fn guess(uid: u32) -> (u32, u64) {
    let gate = Gate::open().unwrap();
    let answer = gate.call(&Request::new(op::ADMIT, uid.into())).unwrap();
    let mut back = Request::new(op::RESOLVE, uid.into());
    (back.entry.token, back.arg) = (answer.token, outcome::VOID);
    gate.call(&back).unwrap();
    (answer.verdict, answer.delay)
}

fn let_in(account: &Account) -> bool {
    su::attempt(KON, account.name, &password("jon")).unwrap().let_in
}

/// Whether a right password gets in from the listed terminal.
fn let_in_on_tty7(account: &Account) -> bool {
    let items: &pamtester::Items<'_> = &[("tty", b"tty7")];
    pamtester::login("login", account.name, items, &["authenticate"], &password("jon")).unwrap().0
}

fn begin(account: &mut Account) {
    let (name, uid) = (account.name, account.uid);
    let wrongs = 2;
    for _ in 0..wrongs {
        assert!(!su::attempt(KON, name, "wrong").unwrap().let_in);
    }
    let locked = ledger::of(uid).unwrap();
    if account.rung == Rung::Delay {
        assert_eq!(guess(uid), (verdict::ADMITTED, 4_000_000_000), "{name}: two failures, two seconds each");
        return;
    }
    assert_eq!(locked.locked_until == NEVER, account.by == By::Admin, "{name}: {locked:?}");
    assert_eq!(guess(uid).0, verdict::LOCKED, "{name}");
    assert!(!let_in(account), "{name} is let in while locked");
    match account.rung {
        Rung::Restrict => assert!(let_in_on_tty7(account), "{name}"),
        _ => assert!(!let_in_on_tty7(account), "{name}"),
    }
    match (account.rung, account.had) {
        (Rung::Shadow, Had::Lock) => acted(name, "shadow_lock", "already_locked"),
        (Rung::Shadow, _) => {
            acted(name, "shadow_lock", "verified");
            let (_, status) = run("passwd", &["--status", name]).unwrap();
            assert_eq!(status.split_whitespace().nth(1), Some("L"), "{status}");
        }
        (Rung::Expire, _) => {
            acted(name, "expire", "verified");
            let (_, list) = must("chage", &["-l", name]).map(|text| (true, text)).unwrap();
            let line = list.lines().find(|line| line.starts_with("Account expires")).unwrap();
            assert!(line.contains("Jan 02, 1970"), "{name}: {line}");
        }
        (Rung::Sessions, _) => {
            acted(name, "end_sessions", "verified");
            assert!(account.process.try_wait().unwrap().is_some(), "{name}: his process is there still");
        }
        _ => assert!(account.process.try_wait().unwrap().is_none(), "{name}: no rung ends it"),
    }
}

fn released(account: &Account) {
    let (name, uid) = (account.name, account.uid);
    wait_for(&format!("{name}: the release"), 2 * TIME, || {
        let answer = ledger::of(uid)?;
        Ok(answer.locked_until == 0 && answer.failures == 0)
    })
    .unwrap();
    assert_eq!(guess(uid), (verdict::ADMITTED, 0), "{name}");
    match (account.rung, account.had) {
        (Rung::Shadow, Had::Nothing | Had::Date) => acted(name, "shadow_unlock", "verified"),
        (Rung::Expire, _) => acted(name, "unexpire", "verified"),
        _ => {}
    }
}

#[test]
fn every_rung_is_climbed_read_back_and_undone_exactly() {
    let setup = Setup { config: Some("break_glass = \"admin\"\n"), ..Setup::default() };
    if !enter("every_rung_is_climbed_read_back_and_undone_exactly", &setup) {
        return;
    }
    without_delays().unwrap();
    // So many locks at once are no attack here.
    let mut config = "break_glass = \"admin\"\n[breaker]\nfailing_accounts = false\n".to_owned();
    let mut accounts = Vec::new();
    for ((name, rung, by, had), uid) in TABLE.iter().zip(FIRST_UID..) {
        add_like_jon(name, uid).unwrap();
        config += &class(name, *rung, *by);
        match had {
            Had::Nothing => {}
            Had::Lock => drop(must("passwd", &["--lock", name]).unwrap()),
            Had::Date => drop(must("chage", &["-E", "30000", name]).unwrap()),
        }
        let mut process = Command::new("sleep");
        process.arg("100000").uid(uid).gid(uid).current_dir("/").stdin(Stdio::null());
        let process = process.spawn().unwrap();
        accounts.push(Account { name, uid, rung: *rung, by: *by, had: *had, process });
    }
    let before = read(Path::new("/etc/shadow")).unwrap();
    let fields_before: BTreeMap<&str, Vec<String>> =
        accounts.iter().map(|account| (account.name, fields(account.name))).collect();
    write(Path::new("/etc/portcullis/portcullis.toml"), &config).unwrap();
    must("portcullis", &["reload"]).unwrap();
    let started = Instant::now();
    for account in &mut accounts {
        begin(account);
        if account.by != By::Timer {
            must("portcullis", &["unlock", account.name]).unwrap();
            released(account);
        }
    }
    println!("climbed in {:?}", started.elapsed());
    for account in &accounts {
        released(account);
        assert_eq!(fields(account.name), fields_before[account.name], "{}", account.name);
        assert_eq!(
            let_in(account),
            account.had != Had::Lock,
            "{}: an administrator's own lock stays",
            account.name
        );
    }
    assert_eq!(read(Path::new("/etc/shadow")).unwrap(), before, "/etc/shadow is as it was");
    for mut account in accounts {
        let ended = account.process.try_wait().unwrap().is_some();
        assert_eq!(ended, account.rung == Rung::Sessions, "{}", account.name);
        account.process.kill().unwrap();
        account.process.wait().unwrap();
    }
}
