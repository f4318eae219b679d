//! chsh, vlock, pamtester, cron, runuser: what is recorded, and what a lock does not stop. See docs/ways-in.md.

#![allow(clippy::unwrap_used, reason = "this is how a test fails, in its helpers too")]

use std::path::Path;
use std::process::Command;

use portcullis_tests::books::Books;
use portcullis_tests::inside::{DENY_3, enter};
use portcullis_tests::stack::{must, without_delays};
use portcullis_tests::system::{password, read, run, wait_for, write};
use portcullis_tests::terminal::{Key, Terminal};

#[test]
fn chsh_counts_and_never_clears() {
    if !enter("chsh_counts_and_never_clears", &DENY_3) {
        return;
    }
    without_delays().unwrap();
    let chsh = |password: &str, shell: &str| {
        let mut chsh = Terminal::start(&format!("runuser -u kon -- chsh -s {shell}")).unwrap();
        chsh.answer(password).unwrap();
        chsh.rest().unwrap();
        read(Path::new("/etc/passwd")).unwrap().contains(&format!("/home/kon:{shell}\n"))
    };
    let right = password("kon");
    let mut books = Books::open("kon").unwrap();
    assert!(!chsh("wrong", "/bin/sh"));
    assert!(chsh(&right, "/bin/sh"));
    assert_eq!(books.take().unwrap(), "fail chsh kon, pass chsh kon → 1", "chsh knows no setcred");
    for _ in 0..3 {
        assert!(!chsh("wrong", "/bin/bash"));
    }
    assert!(!chsh(&right, "/bin/bash"), "locked");
    assert_eq!(
        books.take().unwrap(),
        "fail chsh kon, fail chsh kon, fail chsh kon, refused chsh kon → locked",
        "three wrong, one right"
    );
    for key in [Key::CtrlC, Key::CtrlD] {
        let mut chsh = Terminal::start("runuser -u kon -- chsh -s /bin/bash").unwrap();
        chsh.press(key).unwrap();
        chsh.rest().unwrap();
        assert_eq!(books.take().unwrap(), "→ 0", "{key:?}");
    }
}

#[test]
fn vlock_counts_for_the_password_it_asked() {
    if !enter("vlock_counts_for_the_password_it_asked", &DENY_3) {
        return;
    }
    without_delays().unwrap();
    let mut books = Books::open("kon").unwrap();
    let mut vlock = Terminal::start("runuser -u kon -- vlock-main").unwrap();
    vlock.line("").unwrap();
    vlock.answer_to("kon's Password:", "wrong").unwrap();
    // After each wrong password vlock takes root's too: root is exempt, not locked and not counted.
    vlock.answer_to("root's Password:", "wrong").unwrap();
    vlock.wait("failure").unwrap();
    vlock.kill().unwrap();
    assert_eq!(books.take().unwrap(), "fail vlock kon, fail vlock kon for root → 1", "wrong");

    let mut vlock = Terminal::start("runuser -u kon -- vlock-main").unwrap();
    vlock.line("").unwrap();
    vlock.answer_to("kon's Password:", &password("kon")).unwrap();
    vlock.rest().unwrap();
    assert_eq!(books.take().unwrap(), "pass vlock kon → 0", "right: vlock knows no setcred");

    let mut vlock = Terminal::start("runuser -u kon -- vlock-main").unwrap();
    vlock.line("").unwrap();
    vlock.wait("kon's Password:").unwrap();
    vlock.kill().unwrap();
    assert_eq!(books.take().unwrap(), "→ 0", "killed at the prompt");
}

#[test]
fn an_unprivileged_locker_counts_for_its_own_user() {
    if !enter("an_unprivileged_locker_counts_for_its_own_user", &DENY_3) {
        return;
    }
    without_delays().unwrap();
    // The real vlock without its setuid bit: it cannot open the gate, the agent asks it for kon's own account only.
    must("install", &["-m", "755", "/usr/sbin/vlock-main", "/usr/local/bin/locker"]).unwrap();
    let mut books = Books::open("kon").unwrap();
    let mut locker = Terminal::start("runuser -u kon -- locker").unwrap();
    locker.line("").unwrap();
    locker.answer_to("kon's Password:", "wrong").unwrap();
    locker.answer_to("root's Password:", "wrong").unwrap();
    locker.wait("failure").unwrap();
    locker.kill().unwrap();
    let mut locker = Terminal::start("runuser -u kon -- locker").unwrap();
    locker.line("").unwrap();
    locker.answer_to("kon's Password:", &password("kon")).unwrap();
    locker.rest().unwrap();
    // Root's account is not kon's to try: nothing is told of it.
    assert_eq!(books.take().unwrap(), "fail vlock kon, pass vlock kon → 1", "wrong, then right");
}

#[test]
fn pamtester_confirms_with_setcred_only() {
    if !enter("pamtester_confirms_with_setcred_only", &DENY_3) {
        return;
    }
    without_delays().unwrap();
    let mut books = Books::open("jon").unwrap();
    // It says that it is login, which does not run.
    books.expect_alarms([0, 6, 0]);
    let pamtester = |password: &str, operations: &str| {
        let line = format!("echo '{password}' | pamtester login jon {operations}");
        run("sh", &["-c", &line]).unwrap().0
    };
    let right = password("jon");
    assert!(!pamtester("wrong", "authenticate"));
    assert!(pamtester(&right, "authenticate acct_mgmt"));
    assert_eq!(books.take().unwrap(), "fail login root, pass login root → 1", "without setcred");
    assert!(!pamtester("wrong", "authenticate"));
    assert!(pamtester(&right, "authenticate acct_mgmt setcred"));
    assert_eq!(
        books.take().unwrap(),
        "fail login root, pass login root, cleared login root → 0",
        "with setcred"
    );
    assert!(!pamtester("wrong", "authenticate"));
    pamtester(&right, "authenticate 'setcred(PAM_DELETE_CRED)'");
    assert_eq!(
        books.take().unwrap(),
        "fail login root, pass login root → 1",
        "deleting credentials confirms nothing"
    );
}

#[test]
fn a_lock_does_not_stop_the_machines_own_work() {
    if !enter("a_lock_does_not_stop_the_machines_own_work", &DENY_3) {
        return;
    }
    let mut books = Books::open("jon").unwrap();
    must("portcullis", &["lock", "jon"]).unwrap();
    for command in [
        &["su", "jon", "-c", "id -un"][..],
        &["su", "-", "jon", "-c", "id -un"],
        &["runuser", "-u", "jon", "--", "id", "-un"],
        &["runuser", "-l", "jon", "-c", "id -un"],
    ] {
        let (program, arguments) = command.split_first().unwrap();
        let (ran, text) = run(program, arguments).unwrap();
        assert!(ran && text.contains("jon"), "{command:?}, locked: {text}");
    }
    let by_another = must("runuser", &["-u", "kon", "--", "sh", "-c", "echo x | su jon -c id"]);
    assert!(by_another.is_err(), "su by kon, locked");

    // A job that is due at once. cron looks at the clock every minute; @reboot jobs run when it starts.
    write(Path::new("/var/spool/cron/crontabs/jon"), "@reboot id -un > /tmp/by-cron\n").unwrap();
    must(
        "sh",
        &["-c", "chown jon:crontab /var/spool/cron/crontabs/jon; chmod 600 /var/spool/cron/crontabs/jon"],
    )
    .unwrap();
    let mut cron = Command::new("cron").arg("-f").spawn().unwrap();
    let ran = wait_for("the job of the locked jon", 20, || {
        Ok(std::fs::read_to_string("/tmp/by-cron").is_ok_and(|text| text == "jon\n"))
    });
    cron.kill().unwrap();
    cron.wait().unwrap();
    ran.unwrap();
    assert_eq!(books.take().unwrap(), "refused su kon → locked", "none of the rest asks a password");
}
