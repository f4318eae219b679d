//! The rungs below the lock for all: `restrict`, and another factor (`factor_deny`). With the real su, sshd, login and
//! pam_oath.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use std::path::Path;
use std::process::Command;

use portcullis_tests::agent;
use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::ssh::{Sshd, make_key};
use portcullis_tests::stack::{must, without_delays};
use portcullis_tests::su::{self, JON, KON, Su};
use portcullis_tests::system::{
    Counter, number, password, portcullis, read, run, shadow_locked, wait_for, write,
};
use portcullis_tests::{Error, Result};

const RESTRICT: &str = r#"
break_glass = "admin"
[default]
deny = 3
unlock_time = "10m"
shadow_lock = true
restrict = { networks = ["127.0.0.0/8"], ttys = ["tty7"] }
"#;

fn wrong(count: usize) {
    for _ in 0..count {
        assert!(!su::attempt(KON, "jon", "wrong").unwrap().let_in);
    }
}

fn locked_in_part() -> bool {
    portcullis(&["explain", "jon"]).unwrap()["row"]["lock"]["soft"] == true
}

#[test]
fn a_locked_account_stays_usable_from_the_listed_network() {
    let setup = Setup { config: Some(RESTRICT), ..Setup::default() };
    if !enter("a_locked_account_stays_usable_from_the_listed_network", &setup) {
        return;
    }
    without_delays().unwrap();
    let counter = Counter::install("").unwrap();
    let right = password("jon");
    make_key().unwrap();
    let sshd = Sshd::start(2222, "PasswordAuthentication yes").unwrap();
    wrong(3);
    assert!(locked_in_part());
    assert!(!su::attempt(KON, "jon", &right).unwrap().let_in, "locked for everybody else");
    assert!(!su::attempt(JON, "jon", &right).unwrap().let_in, "a local user is no listed place");
    assert_eq!(counter.guesses().unwrap(), 3);
    assert!(sshd.logon("jon", "password", &right).unwrap(), "open from 127.0.0.0/8");
    assert!(sshd.logon("jon", "publickey", "").unwrap(), "with a key, too");
    assert_eq!(counter.guesses().unwrap(), 4);
    assert!(!shadow_locked("jon").unwrap(), "what the lock is open to is not shut out");
    // It is the same lock after the gate was lost.
    agent::kill_9().unwrap();
    must("rm", &["-r", "/sys/fs/bpf/portcullis"]).unwrap();
    #[allow(clippy::zombie_processes, reason = "it ends with the sandbox")]
    let _agent = agent::start().unwrap();
    assert!(locked_in_part());
    assert!(!su::attempt(JON, "jon", &right).unwrap().let_in);
    assert!(sshd.logon("jon", "password", &right).unwrap());
    // Guesses from there count: the next trip locks for all, and the rungs above it follow.
    for _ in 0..3 {
        assert!(!sshd.logon("jon", "password", "wrong").unwrap());
    }
    assert!(!locked_in_part());
    let before = counter.guesses().unwrap();
    assert!(!sshd.logon("jon", "password", &right).unwrap());
    assert!(!sshd.logon("jon", "publickey", "").unwrap());
    assert_eq!(counter.guesses().unwrap(), before);
    wait_for("the shadow lock", 10, || shadow_locked("jon")).unwrap();
    must("portcullis", &["unlock", "jon"]).unwrap();
    wait_for("its end", 10, || Ok(!shadow_locked("jon")?)).unwrap();
    assert!(su::attempt(KON, "jon", &right).unwrap().let_in);
}

#[test]
fn a_listed_terminal_counts_for_programs_that_no_user_started() {
    let setup = Setup { config: Some(RESTRICT), ..Setup::default() };
    if !enter("a_listed_terminal_counts_for_programs_that_no_user_started", &setup) {
        return;
    }
    without_delays().unwrap();
    wrong(3);
    let right = password("jon");
    let logon = |user: &str, tty: &str| {
        let mut command = Command::new("runuser");
        command.args([
            "-u",
            user,
            "--",
            "pamtester",
            "-I",
            &format!("tty={tty}"),
            "login",
            "jon",
            "authenticate",
        ]);
        let mut program = Su::spawn(command).unwrap();
        program.wait_prompt().unwrap();
        program.submit(&right).unwrap();
        program.verdict().unwrap().let_in
    };
    assert!(logon("root", "tty7"));
    assert!(logon("root", "/dev/tty7"));
    assert!(!logon("root", "tty8"));
    // Set-user-id: root's program, started by kon.
    must("chmod", &["u+s", "/usr/bin/pamtester"]).unwrap();
    assert!(!logon("kon", "tty7"), "kon is not let say where he is");
}

#[test]
fn the_hours_of_restrict_are_the_hosts() {
    let setup = Setup { config: Some(RESTRICT), ..Setup::default() };
    if !enter("the_hours_of_restrict_are_the_hosts", &setup) {
        return;
    }
    without_delays().unwrap();
    let (_, hour) = run("date", &["+%H"]).unwrap();
    let hour: u32 = hour.trim().parse().unwrap();
    // Two hours from the last one on, and the rest of the day.
    let (from, to) = ((hour + 23) % 24, (hour + 2) % 24);
    let sshd = Sshd::start(2222, "PasswordAuthentication yes").unwrap();
    wrong(3);
    let file = Path::new("/etc/portcullis/portcullis.toml");
    let right = password("jon");
    for (hours, open) in
        [(format!("{to:02}:00-{from:02}:00"), false), (format!("{from:02}:00-{to:02}:00"), true)]
    {
        write(file, &RESTRICT.replace("ttys = [\"tty7\"]", &format!("hours = \"{hours}\""))).unwrap();
        must("portcullis", &["reload"]).unwrap();
        assert_eq!(sshd.logon("jon", "password", &right).unwrap(), open, "{hours}");
    }
}

const FACTOR: &str = r#"
break_glass = "admin"
[default]
deny = 3
unlock_time = "10m"
factor_deny = 2
"#;

/// The secret of jon's codes, as oathtool and pam_oath have it.
const SECRET: &str = "3132333435363738393031323334353637383930";

/// The stack of docs/pam.md.
fn install_factor() -> Result<()> {
    let path = Path::new("/etc/pam.d/common-auth");
    let stack = read(path)?;
    let mut lines = Vec::new();
    for line in stack.lines() {
        if line.contains("pam_portcullis.so") {
            lines.push(format!("{line} offers_factor"));
        } else if line.contains("pam_permit.so") {
            lines.push("auth [cred_unavail=1 ignore=ignore default=die] pam_portcullis.so factor".to_owned());
            lines.push("auth requisite pam_oath.so usersfile=/etc/users.oath window=5 digits=6".to_owned());
            lines.push(line.to_owned());
        } else {
            lines.push(line.to_owned());
        }
    }
    write(path, &(lines.join("\n") + "\n"))?;
    write(Path::new("/etc/users.oath"), &format!("HOTP/T30/6 jon - {SECRET}\n"))?;
    must("chmod", &["600", "/etc/users.oath"]).map(drop)
}

fn code() -> Result<String> {
    must("oathtool", &["--totp", "--digits=6", SECRET]).map(|code| code.trim().to_owned())
}

/// su of kon to jon: the password, and the code if one is asked for. Whether he was let in, and whether it was.
fn su_with(password: &str, code: &str) -> Result<(bool, bool)> {
    let mut child = Command::new("runuser")
        .args(["-u", "kon", "--", "su", "jon", "-c", "id -un"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .map_err(|source| Error::Program { program: "su".into(), source })?;
    if let Some(mut stdin) = child.stdin.take() {
        // Where su refuses after the first there is nobody to read the second.
        let _ = std::io::Write::write_all(&mut stdin, format!("{password}\n{code}\n").as_bytes());
    }
    let output =
        child.wait_with_output().map_err(|source| Error::Program { program: "su".into(), source })?;
    let asked = String::from_utf8_lossy(&output.stderr).contains("One-time password");
    Ok((output.status.success(), asked))
}

#[test]
fn after_the_limit_another_factor_is_asked_for_and_has_its_own() {
    let setup = Setup { config: Some(FACTOR), ..Setup::default() };
    if !enter("after_the_limit_another_factor_is_asked_for_and_has_its_own", &setup) {
        return;
    }
    install_factor().unwrap();
    without_delays().unwrap();
    let right = password("jon");
    assert_eq!(su_with(&right, "").unwrap(), (true, false), "no code is asked for before");
    for _ in 0..3 {
        assert_eq!(su_with("wrong", "").unwrap(), (false, false));
    }
    assert!(locked_in_part());
    assert_eq!(su_with(&right, "000000").unwrap(), (false, true), "the password alone does not do any more");
    assert_eq!(su_with(&right, &code().unwrap()).unwrap(), (true, true));
    assert_eq!(number("jon", "failures").unwrap(), 0, "that login cleared the wrong code");
    assert!(locked_in_part(), "and the lock stays until its end");
    // The second limit: wrong codes and wrong passwords alike.
    assert_eq!(su_with(&right, "000000").unwrap(), (false, true));
    assert!(!su_with("wrong", "").unwrap().0);
    assert!(!locked_in_part());
    assert_eq!(su_with(&right, &code().unwrap()).unwrap(), (false, false), "locked for all");
    must("portcullis", &["unlock", "jon"]).unwrap();
    assert_eq!(su_with(&right, "").unwrap(), (true, false));
}

#[test]
fn a_stack_that_offers_no_factor_is_locked() {
    let setup = Setup { config: Some(FACTOR), ..Setup::default() };
    if !enter("a_stack_that_offers_no_factor_is_locked", &setup) {
        return;
    }
    without_delays().unwrap();
    let counter = Counter::install("").unwrap();
    wrong(3);
    assert!(locked_in_part());
    assert!(!su::attempt(KON, "jon", &password("jon")).unwrap().let_in);
    assert_eq!(counter.guesses().unwrap(), 3);
}
