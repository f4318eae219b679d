//! Failed logons against records of the PAM line, with real programs: what never came by the line is told, what did is
//! not, and neither is what is no failed logon.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is how a test fails, in its helpers too"
)]

use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::pam::{AUTH_ERR, Handle};
use portcullis_tests::ssh::Sshd;
use portcullis_tests::stack::{edit, must, service, without_delays};
use portcullis_tests::su::{self, JON, KON, Su};
use portcullis_tests::system::{number, password, portcullis, run, wait_for, write};
use portcullis_tests::terminal::{Key, Terminal};
use portcullis_tests::watched::{counted, events, held_against_anybody, wait_end, wait_loaded, wait_program};
use portcullis_tests::{agent, pamtester};
use serde_json::Value;

/// admin's uid in the sandbox.
const ADMIN: u32 = 2003;
/// A stack that asks and delays as Debian's does, without our line.
const BARE: &str = "auth sufficient pam_unix.so\nauth requisite pam_deny.so\naccount required pam_permit.so\n\
                    session required pam_permit.so\n";

/// `count_unrecorded`, besides the usual.
const COUNTED: Setup<'static> = Setup {
    config: Some(
        "break_glass = \"admin\"\n[default]\ndeny = 3\nshadow_lock = false\n[observer]\ncount_unrecorded = true\n",
    ),
    no_agent: false,
    bare: false,
};

/// A wrong su by kon to jon; its process.
fn wrong_su() -> i32 {
    su_by(Su::start(KON, "jon").unwrap())
}

/// A su by kon to jon, in a session in which admin logged in.
fn logged_in_as_admin() -> Su {
    let mut su = Command::new("sh");
    let script = format!(
        "echo {ADMIN} > /proc/self/loginuid && exec setpriv --reuid {KON} --regid {KON} --clear-groups su jon -c id"
    );
    su.args(["-c", &script]).current_dir("/");
    Su::spawn(su).unwrap()
}

fn su_by(mut su: Su) -> i32 {
    let pid = su.pid().as_raw();
    su.wait_prompt().unwrap();
    su.submit("wrong").unwrap();
    assert!(!su.verdict().unwrap().let_in);
    pid
}

/// The event that a failed logon of that program had no record.
fn wait_unrecorded(before: u64, program: &str, actor: u32) -> Value {
    wait_for("an attempt without a record", 20, || Ok(counted("unrecorded")? > before)).unwrap();
    let event = events("unrecorded_attempt").unwrap().pop().unwrap();
    assert_eq!((&event["service"], &event["actor"]["uid"]), (&program.into(), &actor.into()), "{event}");
    event
}

#[test]
fn a_logon_without_our_line_is_told_and_counts_when_told_to() {
    if !enter("a_logon_without_our_line_is_told_and_counts_when_told_to", &COUNTED) {
        return;
    }
    wait_loaded().unwrap();
    // With its line: counted once, and nothing is held against kon.
    wrong_su();
    wait_for("the failure", 10, || Ok(number("jon", "failures")? == 1)).unwrap();
    // The line is taken out of common-auth.
    let before = fs::read("/etc/pam.d/common-auth").unwrap();
    let out = |line: &str| if line.contains("pam_portcullis.so") { String::new() } else { line.to_owned() };
    edit("common-auth", out).unwrap();
    let pid = su_by(logged_in_as_admin());
    let event = wait_unrecorded(0, "su", ADMIN);
    assert!(event["detail"].as_str().unwrap().contains("→ su"), "{event}");
    assert_eq!(wait_end("su", pid).unwrap()["target"], "jon");
    wait_for("its failure", 10, || Ok(number("jon", "failures")? == 2)).unwrap();
    let failures = || -> Vec<Value> {
        let found = portcullis(&["explain", "jon"]).unwrap();
        let all = found["attempts"].as_array().unwrap().iter();
        all.filter(|attempt| attempt["outcome"] == "fail")
            .map(|attempt| attempt["actor"]["uid"].clone())
            .collect()
    };
    assert_eq!(failures(), [ADMIN, KON], "who logged in, newest first");
    // The service has a file of its own, and so has sudo.
    fs::write("/etc/pam.d/common-auth", before).unwrap();
    service("su", BARE).unwrap();
    wrong_su();
    wait_unrecorded(1, "su", KON);
    // The third.
    wait_for("the lock", 10, || Ok(!portcullis(&["explain", "jon"])?["row"]["lock"].is_null())).unwrap();
    service("sudo", BARE).unwrap();
    let mut sudo = Command::new("sudo");
    sudo.args(["-S", "-p", "Password:", "true"]).uid(KON).gid(KON).current_dir("/");
    let mut sudo = Su::spawn(sudo).unwrap();
    sudo.wait_prompt().unwrap();
    sudo.submit("wrong").unwrap();
    assert!(!sudo.verdict().unwrap().let_in);
    wait_unrecorded(2, "sudo", KON);
    wait_for("his own failure", 10, || Ok(number("kon", "failures")? == 1)).unwrap();
    let (_, page) = run("portcullis", &["metrics"]).unwrap();
    assert!(page.contains("portcullis_unrecorded_attempts_total 3"), "{page}");
    assert_eq!(counted("no_process").unwrap(), 0);
}

/// Asks and answers without libpam, as a backdoor in the place of su would.
const BYPASS: &str = r#"
#include <stdio.h>
#include <unistd.h>
int main(void) {
    char word[64];
    fputs("Password: ", stderr);
    if (!fgets(word, sizeof word, stdin)) return 2;
    sleep(1);
    fputs("su: Authentication failure\n", stderr);
    return 1;
}
"#;

#[test]
fn a_program_in_the_place_of_su_that_goes_around_pam_is_told() {
    if !enter("a_program_in_the_place_of_su_that_goes_around_pam_is_told", &Setup::short()) {
        return;
    }
    wait_loaded().unwrap();
    write(Path::new("/root/su.c"), BYPASS).unwrap();
    must("cc", &["-static", "-o", "/root/su.new", "/root/su.c"]).unwrap();
    must("chmod", &["4755", "/root/su.new"]).unwrap();
    // As a package upgrade does it, or whoever wants to look like one.
    must("mv", &["/root/su.new", "/bin/su"]).unwrap();
    wrong_su();
    let event = wait_unrecorded(0, "su", KON);
    assert!(event["detail"].as_str().unwrap().contains("never heard"), "{event}");
    assert_eq!(number("jon", "failures").unwrap(), 0, "it counts only where the configuration says so");
}

/// Runs to its end, whatever it is.
fn as_kon(program: &str, arguments: &[&str]) -> Option<i32> {
    let mut command = Command::new(program);
    command.args(arguments).uid(KON).gid(KON).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().unwrap().code()
}

#[test]
fn nothing_that_is_right_or_no_logon_is_held_against_anybody() {
    if !enter("nothing_that_is_right_or_no_logon_is_held_against_anybody", &Setup::short()) {
        return;
    }
    wait_loaded().unwrap();
    // Right, wrong and refused logons by the line.
    assert!(su::attempt(KON, "jon", &password("jon")).unwrap().let_in);
    wrong_su();
    let sshd = Sshd::start(2222, "PasswordAuthentication yes").unwrap();
    assert!(sshd.logon("jon", "password", &password("jon")).unwrap());
    assert!(!sshd.logon("jon", "password", "wrong").unwrap());
    must("portcullis", &["lock", "jon"]).unwrap();
    assert!(!su::attempt(KON, "jon", &password("jon")).unwrap().let_in);
    must("portcullis", &["unlock", "jon"]).unwrap();
    // Left at the prompt, each way.
    for key in [Key::CtrlC, Key::CtrlD] {
        let mut su = Terminal::start("setpriv --reuid=2001 --regid=2001 --clear-groups su jon").unwrap();
        su.press(key).unwrap();
        su.rest().unwrap();
    }
    // Nobody is asked.
    assert_eq!(as_kon("sudo", &["-n", "true"]), Some(1));
    assert_eq!(as_kon("su", &["--no-such-option"]), Some(1));
    assert_eq!(as_kon("su", &["no-such-user"]), Some(1));
    // The command's own result.
    let mut su = Command::new("su");
    su.args(["jon", "-c", "sleep 0.5; exit 1"]).uid(KON).gid(KON).current_dir("/");
    let mut su = Su::spawn(su).unwrap();
    su.wait_prompt().unwrap();
    su.submit(&password("jon")).unwrap();
    assert_eq!(su.verdict().unwrap().signal, None);
    assert!(run("su", &["jon", "-c", "sleep 0.5"]).unwrap().0);
    assert!(!run("su", &["jon", "-c", "sleep 0.5; exit 1"]).unwrap().0);
    let (_, out) = run("runuser", &["-u", "admin", "--", "sudo", "-S", "-k", "true"]).unwrap();
    assert!(out.contains("password"), "{out}");
    assert_eq!(held_against_anybody().unwrap(), [0; 3], "{:?}", events("unrecorded_attempt").unwrap());
    // And one that has nothing behind it.
    service("su", BARE).unwrap();
    wrong_su();
    assert_eq!(held_against_anybody().unwrap(), [1, 0, 0]);
}

#[test]
fn a_prompt_that_outlived_the_agent_is_held_against_nobody() {
    if !enter("a_prompt_that_outlived_the_agent_is_held_against_nobody", &Setup::short()) {
        return;
    }
    wait_loaded().unwrap();
    let mut old = Su::start(KON, "jon").unwrap();
    old.wait_prompt().unwrap();
    agent::kill_9().unwrap();
    let mut second = agent::start().unwrap();
    wait_loaded().unwrap();
    old.submit("wrong").unwrap();
    assert!(!old.verdict().unwrap().let_in);
    wait_for("its failure", 10, || Ok(number("jon", "failures")? == 1)).unwrap();
    assert_eq!(held_against_anybody().unwrap(), [0; 3]);
    second.kill().unwrap();
    second.wait().unwrap();
}

#[test]
fn a_report_that_no_program_stands_behind_is_told() {
    if !enter("a_report_that_no_program_stands_behind_is_told", &Setup::short()) {
        return;
    }
    wait_loaded().unwrap();
    // Somebody calls the line by himself, under a service whose program does not run. As root, since it counts.
    let mut forger = Handle::start("sudo", "jon", "wrong").unwrap();
    assert_eq!(forger.authenticate(), AUTH_ERR);
    drop(forger);
    wait_for("the record", 20, || Ok(counted("no_process")? == 1)).unwrap();
    let event = events("record_without_process").unwrap().pop().unwrap();
    let own = format!("process {}", std::process::id());
    assert!(event["detail"].as_str().unwrap().contains(&own), "{event}");
    assert_eq!(number("jon", "failures").unwrap(), 1, "root's word counts, and is told");
    // Who is not root claims of himself alone, and cannot even be heard of jon.
    assert!(!pamtester::as_user("kon", "sudo", "jon", "wrong").unwrap().0);
    assert_eq!(number("jon", "failures").unwrap(), 1, "kon has no say about jon");
}

/// unix_chkpwd, by hand.
fn chkpwd(uid: u32, word: &str) -> Option<i32> {
    let name = if uid == KON { "kon" } else { "jon" };
    let mut program = Command::new("/usr/sbin/unix_chkpwd");
    program.args([name, "nonull"]).uid(uid).gid(uid).stdin(Stdio::piped());
    let mut child = program.spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{word}\0").as_bytes()).unwrap();
    child.wait().unwrap().code()
}

#[test]
fn guesses_by_unix_chkpwd_lock_their_user_and_those_of_pam_unix_count_once() {
    if !enter("guesses_by_unix_chkpwd_lock_their_user_and_those_of_pam_unix_count_once", &Setup::short()) {
        return;
    }
    without_delays().unwrap();
    wait_loaded().unwrap();
    // By pam_unix, for a program that is not root's, with our line before it: a screen locker's failure.
    service(
        "locker",
        "auth requisite pam_portcullis.so\nauth sufficient pam_unix.so\nauth requisite pam_deny.so\n",
    )
    .unwrap();
    assert!(!pamtester::as_user("jon", "locker", "jon", "wrong").unwrap().0);
    wait_for("the locker's failure", 10, || Ok(number("jon", "failures")? == 1)).unwrap();
    wait_program("pam_unix's own", |seen| seen["program"] == "unix_chkpwd" && seen["uid"] == JON).unwrap();
    // By hand: each but the last, which may be a look, at once; the third locks.
    for _ in 0..4 {
        assert_eq!(chkpwd(KON, "wrong"), Some(7));
    }
    wait_for("kon's lock", 20, || Ok(!portcullis(&["explain", "kon"])?["row"]["lock"].is_null())).unwrap();
    let event = events("own_guess").unwrap().pop().unwrap();
    assert_eq!((&event["actor"]["uid"], &event["service"]), (&KON.into(), &"unix_chkpwd".into()), "{event}");
    assert!(!su::attempt(JON, "kon", &password("kon")).unwrap().let_in, "it is a lock like any other");
    assert_eq!(number("jon", "failures").unwrap(), 1, "once");
}
