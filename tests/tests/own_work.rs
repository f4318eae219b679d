//! A lock refuses logons, not the machine's own work.

#![allow(clippy::unwrap_used, reason = "this is how a test fails, in its helpers too")]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use portcullis_tests::inside::{Setup, enter};
use portcullis_tests::ledger;
use portcullis_tests::su::{self, JON, KON};
use portcullis_tests::system::{password, read, run, shadow_locked, wait_for, write};

const CRON_STACK: &str = "/etc/pam.d/cron";

/// Starts the real cron, which runs every @reboot job at once.
fn cron() -> Child {
    // So that it takes its start for the machine's.
    let _ = fs::remove_file("/run/crond.reboot");
    Command::new("cron").arg("-f").stdin(Stdio::null()).spawn().unwrap()
}

fn end(mut cron: Child) {
    cron.kill().unwrap();
    cron.wait().unwrap();
}

#[test]
fn cron_and_roots_su_go_on_for_a_locked_account() {
    if !enter("cron_and_roots_su_go_on_for_a_locked_account", &Setup::default()) {
        return;
    }
    // The stack as installed, with our account line, is what cron uses.
    assert!(read(Path::new("/etc/pam.d/common-account")).unwrap().contains("pam_portcullis.so"));
    let stack = read(Path::new(CRON_STACK)).unwrap();
    assert!(stack.contains("@include common-account"));
    for _ in 0..3 {
        assert!(!su::attempt(KON, "jon", "wrong").unwrap().let_in);
    }
    wait_for("the shadow lock", 10, || shadow_locked("jon")).unwrap();
    assert!(ledger::locked(JON).unwrap());
    // Complete when it appears.
    let job = Path::new("/home/jon/job");
    fs::write(job, "echo $(id -un) $(cat /proc/$PPID/comm) > ~/part && mv ~/part ~/done\n").unwrap();
    fs::set_permissions(job, fs::Permissions::from_mode(0o755)).unwrap();
    chown(job, Some(JON), Some(JON)).unwrap();
    fs::write("/run/table", "@reboot exec sh ~/job\n").unwrap();
    let (ok, text) = run("crontab", &["-u", "jon", "/run/table"]).unwrap();
    assert!(ok, "{text}");
    let done = Path::new("/home/jon/done");
    // Where the account phase does refuse cron, the job is not run: it runs by cron, and cron asks the stack.
    write(Path::new(CRON_STACK), &format!("account requisite pam_deny.so\n{stack}")).unwrap();
    let refusing = cron();
    wait_for("cron to be refused", 20, || {
        let log = read(Path::new("/var/log/auth.log"))?;
        Ok(log.lines().any(|line| line.contains("CRON[") && line.ends_with("Authentication failure")))
    })
    .unwrap();
    end(refusing);
    assert!(!done.exists());
    write(Path::new(CRON_STACK), &stack).unwrap();
    let running = cron();
    wait_for("jon's job", 20, || Ok(done.exists())).unwrap();
    end(running);
    assert_eq!(read(done).unwrap(), "jon cron\n");
    // Root's su, and runuser.
    for program in ["su", "runuser"] {
        let (ok, text) = run(program, &["jon", "-c", "id -un"]).unwrap();
        assert!(ok && text.trim() == "jon", "{program}: {text}");
    }
    // All the while it is locked, and for kon, with the right password, it stays so.
    assert!(!su::attempt(KON, "jon", &password("jon")).unwrap().let_in);
    assert!(ledger::locked(JON).unwrap() && shadow_locked("jon").unwrap());
}
