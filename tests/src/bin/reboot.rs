//! What `cargo xtask test vm` plays around a reboot of its machine, `/etc` and the store being on a disk that both boots
//! have: `before`, then in the second boot `first`, when the gate is loaded and nothing else runs, and `later`, when the
//! agent does.
//!
//! Invariant: exit status 0 only if every step was really seen.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portcullis_common::abi::verdict;
use portcullis_common::ledger::NEVER;
use portcullis_tests::stack::must;
use portcullis_tests::su::{self, JON, KON, Verdict};
use portcullis_tests::system::{password, read, shadow_locked, wait_for, write};
use portcullis_tests::{Error, Result, ledger};

/// What the two boots share.
const DISK: &str = "/mnt";
const CONFIG: &str = r#"
break_glass = "admin"
[default]
deny = 3
unlock_time = "1h"
shadow_lock = false
[[class]]
name = "strict"
users = ["jon"]
deny = 3
unlock_time = "1h"
shadow_lock = true
[[class]]
name = "growing"
users = ["zoe"]
deny = 2
unlock_time = "30s"
backoff_window = "1d"
max_unlock_time = "1h"
"#;
/// Users beside the sandbox's: locked for ever; locked for half an hour; with two failures; in a row of trips.
const MORE: [(&str, u32); 4] = [("eva", EVA), ("leo", LEO), ("mia", MIA), ("zoe", ZOE)];
const EVA: u32 = 2011;
const LEO: u32 = 2012;
const MIA: u32 = 2013;
const ZOE: u32 = 2014;
/// What is left of jon's lock when the second boot begins.
const LEFT: Duration = Duration::from_secs(90);
/// zoe's first lock.
const ZOES: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);

fn main() -> ExitCode {
    let result = match std::env::args().nth(1).as_deref() {
        Some("before") => before(),
        Some("first") => first(),
        Some("later") => later(),
        _ => Err(Error::Answer {
            program: "portcullis-reboot".into(),
            output: "say before, first or later".into(),
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("reboot: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Locks of every kind, and two failures; leaves on the disk when the second boot is to begin.
fn before() -> Result<()> {
    for (name, uid) in MORE {
        must("useradd", &["--uid", &uid.to_string(), "--no-create-home", "--home-dir", "/", name])?;
    }
    // The hash is what counts: theirs is jon's.
    let shadow = read("/etc/shadow".as_ref())?;
    let field = |line: &str, name: &str| line.strip_prefix(&format!("{name}:")).map(str::to_owned);
    let jons = shadow.lines().find_map(|line| field(line, "jon"));
    let jons = jons.ok_or_else(|| wrong("jon has a password", shadow.clone()))?;
    let lines = shadow.lines().map(|line| {
        let name = line.split(':').next().unwrap_or_default();
        if MORE.iter().any(|(more, _)| *more == name) {
            format!("{name}:{jons}\n")
        } else {
            format!("{line}\n")
        }
    });
    write("/etc/shadow".as_ref(), &lines.collect::<String>())?;
    write("/etc/portcullis/portcullis.toml".as_ref(), CONFIG)?;
    must("portcullis", &["reload"])?;
    let first = trip_of_zoe()?;
    see("zoe's first lock is as long as configured", first <= ZOES)?;
    must("portcullis", &["lock", "kon", "--for", "2h"])?;
    must("portcullis", &["lock", "eva"])?;
    must("portcullis", &["lock", "leo", "--for", "30m"])?;
    for _ in 0..2 {
        refused("mia", "wrong")?;
    }
    see("mia has two failures", ledger::of(MIA)?.failures == 2)?;
    wait_for("the end of zoe's first lock", 60, || Ok(!ledger::locked(ZOE)?))?;
    let second = trip_of_zoe()?;
    see("zoe's second lock is twice as long", second > ZOES && second <= 2 * ZOES)?;
    for _ in 0..3 {
        refused("jon", "wrong")?;
    }
    wait_for("jon's shadow lock", 60, || shadow_locked("jon"))?;
    let answer = ledger::of(JON)?;
    let end = now()? + Duration::from_nanos(answer.locked_until.saturating_sub(answer.now));
    write(format!("{DISK}/clock").as_ref(), &end.saturating_sub(LEFT).as_secs().to_string())
}

/// The first logons of the second boot.
fn first() -> Result<()> {
    let right = password("jon");
    let jon = ledger::of(JON)?;
    let left = Duration::from_nanos(jon.locked_until.saturating_sub(jon.now));
    see(
        "jon's lock has its time left, and no more",
        !left.is_zero() && left <= LEFT + Duration::from_secs(1),
    )?;
    see("jon's shadow lock is still there", shadow_locked("jon")?)?;
    for name in ["jon", "kon", "eva"] {
        let password = if name == "kon" { password("kon") } else { right.clone() };
        let verdict = refused(name, &password)?;
        see("the refused is told why", verdict.output.contains("locked"))?;
    }
    let kon = ledger::of(KON)?;
    let left = Duration::from_nanos(kon.locked_until.saturating_sub(kon.now));
    see("kon's lock has the time that is left", left > HOUR / 2 && left < HOUR + HOUR / 4)?;
    see("eva's lock has no end", ledger::of(EVA)?.locked_until == NEVER)?;
    see("leo's lock ran out meanwhile", ledger::of(LEO)?.verdict == verdict::NOTHING)?;
    see("leo gets in", su::attempt(KON, "leo", &right)?.let_in)?;
    see("mia's failures are gone", ledger::of(MIA)?.verdict == verdict::NOTHING)?;
    refused("mia", "wrong")?;
    see("mia has one failure", ledger::of(MIA)?.failures == 1)?;
    see("mia gets in", su::attempt(KON, "mia", &right)?.let_in)
}

/// The agent runs: what it locked it unlocks.
fn later() -> Result<()> {
    wait_for("the end of jon's shadow lock", 240, || Ok(!shadow_locked("jon")?))?;
    see("jon gets in", su::attempt(KON, "jon", &password("jon"))?.let_in)?;
    refused("kon", &password("kon"))?;
    refused("eva", &password("jon"))?;
    // Her second lock ran out meanwhile, her row of trips did not.
    let third = trip_of_zoe()?;
    see("zoe's third lock is twice as long again", third > 2 * ZOES && third <= 4 * ZOES)
}

/// Two wrong passwords for zoe, and what is left of the lock they lead to.
fn trip_of_zoe() -> Result<Duration> {
    see("zoe is not locked", !ledger::locked(ZOE)?)?;
    for _ in 0..2 {
        refused("zoe", "wrong")?;
    }
    let zoe = ledger::of(ZOE)?;
    see("zoe is locked", zoe.locked_until != 0)?;
    Ok(Duration::from_nanos(zoe.locked_until.saturating_sub(zoe.now)))
}

fn refused(name: &str, password: &str) -> Result<Verdict> {
    let verdict = su::attempt(KON, name, password)?;
    see(&format!("{name} is refused"), !verdict.let_in)?;
    Ok(verdict)
}

fn now() -> Result<Duration> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_err(|error| wrong("a clock", error.to_string()))
}

fn see(what: &str, seen: bool) -> Result<()> {
    println!("reboot: {what}: {}", if seen { "seen" } else { "NOT SEEN" });
    if seen { Ok(()) } else { Err(wrong(what, "it is not so".into())) }
}

fn wrong(what: &str, output: String) -> Error {
    Error::Answer { program: what.into(), output }
}
