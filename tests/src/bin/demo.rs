//! The story that `cargo xtask demo` plays inside a sandbox: three wrong passwords at `su jon` lock jon, for real; and the
//! opposite, in a class that counts pairs: they lock kon out of jon. With `--siege` another host guesses by ssh, too.
//!
//! Invariant: exit status 0 only if every step was really seen.

use std::path::Path;
use std::process::ExitCode;

use portcullis_tests::siege;
use portcullis_tests::ssh::Sshd;
use portcullis_tests::stack::must;
use portcullis_tests::su::{self, KON};
use portcullis_tests::system::{password, portcullis, read, run, shadow_locked, wait_for, write};
use portcullis_tests::{Error, Result};

fn main() -> ExitCode {
    match story() {
        Ok(()) => {
            println!("\nEvery step was seen.");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\nThe story ended early: {error}");
            ExitCode::FAILURE
        }
    }
}

fn story() -> Result<()> {
    let right = password("jon");
    say("kon mistypes jon's password once: one mistake is not an attack");
    su_jon("wrong", false)?;
    see("nothing is locked", !status_of_jon()?)?;
    say("a second and a third time");
    su_jon("wrong", false)?;
    su_jon("wrong", false)?;
    wait_for("the shadow lock", 10, || shadow_locked("jon"))?;
    see("passwd prints \"jon L\"", status_of_jon()?)?;
    say("the right password is refused now");
    su_jon(&right, false)?;
    say("who was it? (su was told that it was mallory)");
    let (_, text) = show("portcullis", &["explain", "jon"])?;
    see("explain names kon, and not mallory", text.contains("kon") && !text.contains("mallory"))?;
    say("the lock ends by itself after 12 s");
    wait_for("the end of the shadow lock", 40, || Ok(!shadow_locked("jon")?))?;
    see("passwd prints \"jon P\"", !status_of_jon()?)?;
    su_jon(&right, true)?;
    say("what a monitoring system sees");
    let (_, metrics) = run("curl", &["-s", "http://127.0.0.1:9456/metrics"])?;
    for line in metrics.lines().filter(|line| {
        line.starts_with("portcullis_attempts_total") || line.starts_with("portcullis_trips_total")
    }) {
        println!("  {line}");
    }
    see(
        "the metrics count three failures at su and one trip",
        metrics.lines().any(|line| {
            line.starts_with("portcullis_attempts_total") && line.contains("\"fail\"") && line.ends_with(" 3")
        }) && metrics.lines().any(|line| line.starts_with("portcullis_trips_total") && line.ends_with(" 1")),
    )?;
    opposite(&right)?;
    // Other kernels of `cargo xtask test vm` have no interfaces to make other hosts with.
    if std::env::args().any(|word| word == "--siege") {
        siege::story(&right)?;
    }
    portcullis(&["status"]).map(|_| ())
}

/// The same in a class that counts pairs.
fn opposite(right: &str) -> Result<()> {
    say("the opposite: jon's class counts failures per source (scope = \"pair\")");
    let config = Path::new("/etc/portcullis/portcullis.toml");
    let pair = read(config)?.replace("name = \"strict\"", "name = \"strict\"\nscope = \"pair\"");
    write(config, &pair.replace("unlock_time = \"12s\"", "unlock_time = \"10m\""))?;
    show("portcullis", &["reload"])?;
    say("kon mistypes jon's password three times again");
    for _ in 0..3 {
        su_jon("wrong", false)?;
    }
    say("kon is shut out of jon, right password or wrong");
    su_jon(right, false)?;
    say("jon logs on by ssh");
    must("install", &["-d", "-m", "755", "/run/sshd"])?;
    let sshd = Sshd::start(2222, "PasswordAuthentication yes")?;
    println!("jon$ ssh localhost id -un");
    see("jon is let in", sshd.logon("jon", "password", right)?)?;
    let (_, text) = show("portcullis", &["explain", "jon"])?;
    see("explain says that kon is shut out", text.contains("by source") && text.contains("kon"))?;
    see("passwd prints \"jon P\"", !status_of_jon()?)
}

fn say(text: &str) {
    println!("\n# {text}");
}

fn see(what: &str, seen: bool) -> Result<()> {
    println!("  seen: {what}: {}", if seen { "yes" } else { "NO" });
    if seen {
        Ok(())
    } else {
        Err(Error::Answer { program: "the demo".into(), output: format!("not seen: {what}") })
    }
}

fn show(program: &str, arguments: &[&str]) -> Result<(bool, String)> {
    println!("$ {program} {}", arguments.join(" "));
    let (ok, text) = run(program, arguments)?;
    for line in text.lines() {
        println!("  {line}");
    }
    Ok((ok, text))
}

fn su_jon(password: &str, expected: bool) -> Result<()> {
    println!("kon$ su jon -c 'id -un'");
    let verdict = su::attempt(KON, "jon", password)?;
    for line in verdict.output.lines() {
        println!("  {line}");
    }
    see(if expected { "jon is let in" } else { "refused" }, verdict.let_in == expected)
}

fn status_of_jon() -> Result<bool> {
    let (_, text) = show("passwd", &["--status", "jon"])?;
    Ok(text.split_whitespace().nth(1) == Some("L"))
}
